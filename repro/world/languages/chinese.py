"""Chinese: no endings and no spaces; a measure word after each number, and what describes stands before the noun.

"两个带条纹的红色小圆形在一颗蓝色星星的左边，白色背景"
"""

from repro.world.captions import Phrase, Random, Said, one_of

NOUNS = {  # with the measure word
    "circle": (("圆形", "个"), ("圆", "个")),
    "square": (("正方形", "个"), ("方块", "个")),
    "triangle": (("三角形", "个"),),
    "diamond": (("菱形", "个"),),
    "star": (("星星", "颗"), ("五角星", "个")),
    "cross": (("十字", "个"), ("十字形", "个")),
    "ring": (("圆环", "个"),),
    "heart": (("心形", "个"), ("爱心", "颗")),
    "crescent": (("月牙", "个"), ("新月形", "个")),
    "hexagon": (("六边形", "个"),),
    "arrow": (("箭头", "个"),),
    "oval": (("椭圆形", "个"), ("椭圆", "个")),
    "shape": (("图形", "个"),),
    "object": (("物体", "个"),),
}
COLOURS = {
    "red": ("红色",),
    "orange": ("橙色", "橘色"),
    "yellow": ("黄色",),
    "green": ("绿色",),
    "cyan": ("青色",),
    "blue": ("蓝色",),
    "purple": ("紫色",),
    "pink": ("粉色", "粉红色"),
    "brown": ("棕色", "褐色"),
    "black": ("黑色",),
    "white": ("白色",),
    "gray": ("灰色",),
}
TEXTURES = {
    "solid": ("纯色的",),
    "striped": ("带条纹的", "条纹"),
    "dotted": ("带圆点的", "波点"),
    "checked": ("带格子的", "格子"),
    "outlined": ("带轮廓线的", "描边的"),
}
IS_TEXTURED = {
    "solid": "是纯色的",
    "striped": "有条纹",
    "dotted": "有圆点",
    "checked": "有格子",
    "outlined": "有轮廓线",
}
SIZES = {"small": "小", "large": "大"}
PATTERNS = {"striped": "条纹", "dotted": "圆点", "checked": "格子"}
NUMBERS = {1: "一", 2: "两", 3: "三"}
LEAD_INS = {
    "a photo of": "照片里有",
    "a picture of": "图片里有",
    "an image of": "图中有",
    "a drawing of": "画中有",
    "there is": "有",
}
SIDES = {
    "left of": ("左边", "左侧"),
    "right of": ("右边", "右侧"),
    "above": ("上方", "上面"),
    "below": ("下方", "下面"),
}
PLACES = {
    "left": ("左边", "左侧"),
    "right": ("右边", "右侧"),
    "top": ("上方", "顶部"),
    "bottom": ("下方", "底部"),
    "center": ("中间", "正中央"),
}
IN_A_CORNER = {"left": "左", "right": "右", "top": "上", "bottom": "下"}


def tell(said: Said, rand: Random) -> str:
    if said.statement is not None:
        return _sentence(said, rand)
    phrases = [_phrase(phrase, rand) for phrase in said.phrases]
    if said.join in SIDES:
        text = f"{phrases[0]}在{phrases[1]}的{one_of(SIDES[said.join], rand)}"
    elif said.join and rand() < 0.3:
        text = f"{phrases[0]}在{phrases[1]}旁边"
    elif said.place:
        text = phrases[0] + _place(said.place, rand)
    else:
        text = "、".join(phrases[:-1]) + one_of(("和", "与"), rand) + phrases[-1] if len(phrases) > 1 else phrases[0]
    background = _background(said, rand)
    if said.lead_in:
        text = LEAD_INS[said.lead_in] + text
    elif background and rand() < 0.5:
        return f"{background}上有{text}"
    return f"{text}，{background}" if background else text


def _sentence(said: Said, rand: Random) -> str:
    """ "这个小圆形是红色的", "这两个小圆形有条纹" """
    phrase = said.phrases[0]
    predicate = IS_TEXTURED.get(said.statement) or f"是{one_of(COLOURS[said.statement], rand)}的"
    return "这" + _phrase(phrase, rand).removeprefix(NUMBERS[1]) + predicate


def _phrase(phrase: Phrase, rand: Random) -> str:
    """ "两个带条纹的红色小圆形", "一个红色条纹圆形", "一个红色的圆形" """
    noun, measure = one_of(NOUNS[phrase.noun], rand)
    texture = one_of(TEXTURES[phrase.texture], rand) if phrase.texture else ""
    colour = one_of(COLOURS[phrase.colour], rand) if phrase.colour else ""
    if texture and not texture.endswith("的"):
        described = colour + texture
    else:
        described = texture + colour + ("的" if colour and not texture and rand() < 0.3 else "")
    return NUMBERS[phrase.count] + measure + described + SIZES.get(phrase.size, "") + noun


def _place(sides: tuple[str, ...], rand: Random) -> str:
    """ "在左边", "在左上角" """
    if len(sides) == 2:
        return f"在{IN_A_CORNER[sides[0]]}{IN_A_CORNER[sides[1]]}角"
    return f"在{one_of(PLACES[sides[0]], rand)}"


def _background(said: Said, rand: Random) -> str:
    """ "白色背景", "蓝色条纹背景", "纯白色背景" """
    if not said.background and not said.pattern:
        return ""
    colour = one_of(COLOURS[said.background], rand) if said.background else ""
    if said.pattern == "plain":
        return f"纯{colour or '色'}背景"
    return colour + PATTERNS.get(said.pattern, "") + "背景"
