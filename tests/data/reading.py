"""Readers of the embedded world's captions, one a language, that know nothing of how captions are written.

A caption becomes the tokens that the English reader (test_shapes_captions) checks against the scene: "two red circle
left-of a star #white".
"""

import re
from collections import Counter

from repro.world.scenes import SHAPES
from tests.data.test_shapes_captions import JOINS, MEANINGS, SAME

WORDS = {
    "zh": """一=a 两=two 三=three 圆形=circle 圆=circle 正方形=square 方块=square 三角形=triangle 菱形=diamond
        星星=star 五角星=star 十字形=cross 十字=cross 圆环=ring 心形=heart 爱心=heart 月牙=crescent 新月形=crescent
        六边形=hexagon 箭头=arrow 椭圆形=oval 椭圆=oval 图形=shapes 物体=shapes 红色=red 粉红色=pink 橙色=orange
        橘色=orange 黄色=yellow 绿色=green 青色=cyan 蓝色=blue 紫色=purple 粉色=pink 棕色=brown 褐色=brown 黑色=black
        白色=white 灰色=gray 纯色=solid 条纹=striped 圆点=dotted 波点=dotted 格子=checked 轮廓线=outlined 描边=outlined
        小=small 大=large 和=and 与=and 、=and 的= 带= 有= 是= 个= 颗= 这=""",
    "ar": """دائرة=circle دائرت=circle دوائر=circle مربع=square مربعات=square مثلث=triangle مثلثات=triangle معين=diamond
        معينات=diamond نجمة=star نجمت=star نجوم=star صليب=cross صلبان=cross حلقة=ring حلقت=ring حلقات=ring قلب=heart
        قلوب=heart هلال=crescent أهلة=crescent سهم=arrow أسهم=arrow شكل=shapes أشكال=shapes جسم=shapes أجسام=shapes
        سداسي=hexagon بيضوي=oval ثلاث=three ثلاثة=three أحمر=red حمراء=red حمراو=red برتقالي=orange أصفر=yellow
        صفراء=yellow صفراو=yellow أخضر=green خضراء=green خضراو=green سماوي=cyan فيروزي=cyan أزرق=blue زرقاء=blue
        زرقاو=blue بنفسجي=purple وردي=pink زهري=pink بني=brown أسود=black سوداء=black سوداو=black أبيض=white
        بيضاء=white بيضاو=white رمادي=gray سادة=solid مخطط=striped منقط=dotted شطرنجي=checked محدد=outlined صغير=small
        كبير=large بخطوط=striped بنقاط=dotted بنقش= بإطار=outlined بجانب=and مع=and""",
}
# Sentences → tokens: @ a place, # what is said of the background, a dash for a relation.
PATTERNS = {
    "zh": {
        r"^(照片里|图片里|图中|画中)?有": "",
        r"^(\w+)背景上有(.+)$": r"\2，\1背景",
        r"，纯色背景$": "#纯色",
        r"，纯(\w+)背景$": r"#\1纯色",
        r"，(\w+)背景$": r"#\1",
        r"^这(?=[个颗])": "一",
        r"(.+)在(.+)的左[边侧]": r"\1 left-of \2",
        r"(.+)在(.+)的右[边侧]": r"\1 right-of \2",
        r"(.+)在(.+)的[上][方面]": r"\1 above \2",
        r"(.+)在(.+)的[下][方面]": r"\1 below \2",
        r"(.+)在(.+)旁边": r"\1和\2",
        r"在左上角": " @left @top ",
        r"在右上角": " @right @top ",
        r"在左下角": " @left @bottom ",
        r"在右下角": " @right @bottom ",
        r"在左[边侧]": " @left ",
        r"在右[边侧]": " @right ",
        r"在(上方|顶部)": " @top ",
        r"在(下方|底部)": " @bottom ",
        r"在(中间|正中央)": " @center ",
    },
    "ar": {
        r"^صورة فوتوغرافية ل|^صورة ل|^رسم ل|^هناك ": "",
        r" على خلفية (.+)$": r" #\1",
        r"\bبنقش شطرنجي": "شطرنجي",
        r"(على|إلى) يسار ": "left-of ",
        r"(على|إلى) يمين ": "right-of ",
        r"فوق ": "above ",
        r"تحت |أسفل ": "below ",
        r"في الزاوية العلوية اليسرى": "@left @top",
        r"في الزاوية العلوية اليمنى": "@right @top",
        r"في الزاوية السفلية اليسرى": "@left @bottom",
        r"في الزاوية السفلية اليمنى": "@right @bottom",
        r"على اليسار|في الجهة اليسرى": "@left",
        r"على اليمين|في الجهة اليمنى": "@right",
        r"في الأعلى": "@top",
        r"في الأسفل": "@bottom",
        r"في الوسط|في المنتصف": "@center",
    },
}
ENDINGS = {
    "zh": (),
    "ar": ("تان", "تين", "ان", "ين", "ة"),
}


def read(text: str, language: str) -> str:
    """The caption's tokens. An unknown word fails the test."""
    text = text.lower()
    for wording, meaning in PATTERNS[language].items():
        text = re.sub(wording, meaning, text)
    text, _, background = text.partition("#")
    tokens = _tokens(text, language)
    behind = [f"#{'plain' if word == 'solid' else word}" for word in _tokens(background, language)]
    phrases: list[list[str]] = [[]]
    for token in tokens:
        phrases = [*phrases, [token], []] if token in JOINS else [*phrases[:-1], [*phrases[-1], token]]
    return " ".join([*(token for phrase in phrases for token in _counted(phrase)), *behind])


def meanings(text: str, language: str) -> Counter:
    """What a caption says, in no order."""
    if language == "en":
        for wording, meaning in MEANINGS.items():
            text = re.sub(wording, meaning, text)
        words = [word if word in ("cross", *SAME) else word.removesuffix("s") for word in text.split()]
        hashes = [("#" if word[0] == "#" else "") + SAME.get(word.lstrip("#"), word.lstrip("#")) for word in words]
        tokens = ["shapes" if word in ("shape", "object") else word for word in hashes]
    else:
        tokens = read(text, language).split()
    return Counter(token for token in tokens if token != "a")


def _counted(phrase: list[str]) -> list[str]:
    """The count comes first; Arabic says one by saying no more."""
    if not phrase or phrase[0] in JOINS:
        return phrase
    counts = [token for token in phrase if token in ("a", "two", "three")]
    assert len(counts) <= 1, phrase
    rest = [token for token in phrase if token not in counts]
    if {"hexagon", "oval"} & set(rest) and "shapes" in rest:  # "a hexagonal shape"
        rest.remove("shapes")
    return [*(counts or ["a"]), *rest]


def _tokens(text: str, language: str) -> list[str]:
    lexicon = dict(pair.split("=") for pair in WORDS[language].split())
    if language == "zh":
        known = re.compile("|".join(sorted(map(re.escape, lexicon), key=len, reverse=True)) + r"|[@#]?[a-z-]+| ")
        words = known.findall(text)
        assert "".join(words) == text, text
        return [lexicon.get(word, word) for word in words if lexicon.get(word, word).strip()]
    found: list[str] = []
    for word in text.replace(",", " , ").split():
        if word in JOINS or word[0] == "@":
            found.append(word)
            continue
        found += _arabic(word, lexicon) if language == "ar" else [_meaning(word, lexicon, language)]
    return [token for token in found if token]


def _arabic(word: str, lexicon: dict[str, str]) -> list[str]:
    """ "and" and the article are written as one with the word; a dual counts two, once for its noun."""
    bare = word.removeprefix("ال")
    if not (stems := _stems(bare, lexicon, "ar")):
        assert word[0] == "و", f"{word}: unknown in ar"
        return ["and", *_arabic(word[1:], lexicon)]
    meaning = lexicon[stems[0]]
    is_dual = bare not in lexicon and bare.endswith(("ان", "ين"))
    is_noun = meaning in (*SHAPES, "shapes") and meaning not in ("hexagon", "oval")
    return ["two", meaning] if is_dual and is_noun else [meaning]


def _meaning(word: str, lexicon: dict[str, str], language: str) -> str:
    stems = _stems(word, lexicon, language)
    assert stems, f"{word}: unknown in {language}"
    return lexicon[stems[0]]


def _stems(word: str, lexicon: dict[str, str], language: str) -> list[str]:
    """The word as it is, or without an ending."""
    stems = [word, *(word.removesuffix(ending) for ending in ENDINGS[language] if word.endswith(ending))]
    return [stem for stem in stems if stem in lexicon]
