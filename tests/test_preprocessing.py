"""What happens to images and texts before a tower sees them, where the authors' code differs from open_clip's."""

import json
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from repro.config.errors import InputError
from repro.evaluate.classification import canonical
from repro.models import build
from repro.models.build import AliasedResize
from repro.models.model_config import read_config, tokenizer_fingerprint


def bilinear_by_hand(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W, 3] uint8 → [height, width, 3]: four neighbours of each half-pixel centre, whatever lies between them."""
    H, W, _ = image.shape
    out = np.zeros((height, width, 3))
    for i in range(height):
        for j in range(width):
            y, x = ((i + 0.5) * H / height - 0.5, (j + 0.5) * W / width - 0.5)
            y, x = max(y, 0.0), max(x, 0.0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, H - 1), min(left + 1, W - 1)
            dy, dx = y - top, x - left
            upper = image[top, left] * (1 - dx) + image[top, right] * dx
            lower = image[bottom, left] * (1 - dx) + image[bottom, right] * dx
            out[i, j] = upper * (1 - dy) + lower * dy
    return out


@pytest.mark.parametrize("shape", [(37, 53), (8, 100), (5, 6)])
def test_the_aliased_resize_is_tensorflows_bilinear_without_antialiasing(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    found = np.asarray(AliasedResize((16, 12))(Image.fromarray(image)))
    wanted = bilinear_by_hand(image.astype(float), 16, 12)
    assert found.shape == (16, 12, 3)
    cut = wanted - found  # cut to whole numbers, not rounded
    assert cut.min() > -1e-3 and 0.4 < cut.mean() < 0.6 and cut.max() < 1 + 1e-3


def test_a_run_resizes_as_its_spec_says_and_its_checkpoint_goes_on_doing_so(tmp_path):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8))
    pictures = {}
    for interpolation in (None, "bicubic", "bilinear", "bilinear-aliased"):
        folder = tmp_path / str(interpolation)
        build.export("laptop", folder, interpolation=interpolation)
        towers = build.load(folder)
        pictures[interpolation] = np.asarray(towers.resize(image))
        assert towers.transform(image).shape == (3, 32, 32)
    assert (pictures[None] == pictures["bicubic"]).all()
    assert (pictures["bilinear-aliased"] == np.asarray(AliasedResize((32, 32))(image))).all()
    assert (pictures["bilinear"] != pictures["bilinear-aliased"]).mean() > 0.5
    config = json.loads((tmp_path / "bilinear-aliased" / "open_clip_config.json").read_text())
    assert config["preprocess_cfg"]["interpolation"] == "bilinear"  # what stock tools can do of it


def test_an_aliased_resize_of_a_model_that_crops_is_refused(tmp_path):
    build.export("siglit-b16-s", tmp_path, interpolation="bilinear-aliased")
    with pytest.raises(InputError, match=r"bilinear-aliased.*resize_mode squash"):
        build.load(tmp_path)


def test_siglit_prepares_images_as_its_frozen_tower_says(make_spec):
    with pytest.raises(InputError, match="interpolation bilinear"):
        make_spec(setup="siglit", interpolation="bilinear")


def lower_cased_model(tmp_path) -> str:
    """The laptop's config as those of paper scale: captions lower-cased, canonicalised for stock tools."""
    config, folder = read_config("laptop")
    kwargs = config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]
    kwargs |= {"bpe_path": str(folder / kwargs["bpe_path"]), "clean": "canonicalize"}
    file = tmp_path / "lower.json"
    file.write_text(json.dumps(config | {"captions": "lower-cased"}))
    return str(file)


def test_captions_are_lower_cased_and_keep_their_punctuation_but_for_stock_tools(tmp_path):
    model, folder = lower_cased_model(tmp_path), tmp_path / "folder"
    build.export(model, folder)
    towers = build.load(folder)
    text, lowered, canonicalised = (
        "A red square, ON the left.",
        "a red square, on the left.",
        "a red square on the left",
    )
    assert torch.equal(towers.tokenize([text]), towers.tokenize([lowered]))
    assert not torch.equal(towers.tokenize([text]), towers.tokenize([canonicalised]))
    stock = open_clip.get_tokenizer(f"local-dir:{folder}")
    assert torch.equal(stock([text]), towers.tokenize([canonicalised]))
    assert towers.canonical_prompts
    assert tokenizer_fingerprint(model) != tokenizer_fingerprint("laptop")


def test_class_prompts_lose_punctuation_but_commas_in_names_as_in_big_vision():
    assert canonical(["Mountain_Tent", "mink, American"], ",") == ["mountain tent", "mink, american"]
    assert canonical(["a photo of a {c}.", "{c}!"], "{c}") == ["a photo of a {c}", "{c}"]


def test_every_model_of_ours_with_the_papers_vocabulary_says_so():
    names = ("siglip-b16", "siglip-b16-augreg", "siglip-m16", "msiglip-b16", "siglit-g14-b")
    for name in names:
        config = read_config(name)[0]
        assert config["captions"] == "lower-cased"
        assert config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]["clean"] == "canonicalize"


def t5_like_tokenizer(folder, words: list[str]):
    """A tokenizer's folder, built as T5's of the released weights is: its end token, id 1, ends a text and pads it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<unk>", "</s>", *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)
    return folder


def test_a_cut_caption_still_ends_with_the_end_token_and_padding_is_that_token(tmp_path):
    from open_clip.tokenizer import HFTokenizer

    folder = t5_like_tokenizer(tmp_path, ["a", "red", "square", ","])
    tokenize = HFTokenizer(str(folder), context_length=4, clean="lower")
    assert tokenize(["A red", "a RED, square a red"]).tolist() == [[2, 3, 1, 1], [2, 3, 5, 1]]


def test_zero_shot_prompts_are_canonical_where_the_model_says_so(tmp_path):
    from repro.evaluate.classification import Classifications, Embedded

    asked: list[str] = []

    def tokenize(texts):
        asked.extend(texts)
        return torch.zeros(len(texts), 4, dtype=torch.long)

    model = SimpleNamespace(encode_text=lambda tokens: torch.ones(len(tokens), 3), encode_image=None)
    for canonical_prompts, wanted in ((True, "a photo of a mink, american"), (False, "a photo of a Mink, American.")):
        asked.clear()
        towers = SimpleNamespace(model=model, tokenize=tokenize, canonical_prompts=canonical_prompts)
        classes = Classifications(towers, torch.device("cpu"), tmp_path)
        names = SimpleNamespace(classes=["Mink, American"], templates=["a photo of a {c}."])
        classes._test_split = lambda data, names=names: Embedded(
            data, [(torch.ones(1, 3), torch.zeros(1).long())], names
        )
        classes.zero_shot(SimpleNamespace())
        assert asked == [wanted]
