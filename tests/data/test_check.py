"""repro data: the embedded world on demand, and what is said of a person's own shards."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from repro.cli import main
from repro.data.shards import evenly
from repro.data.validate import Sample, contact_sheet

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def repro(tmp_path, monkeypatch):
    """repro("data", "check", …) → the command's result, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def cells(output: str, label: str) -> list[str]:
    """The columns after a label in the printed tables."""
    (line,) = [line for line in output.splitlines() if line.startswith(f"{label}  ")]
    return re.split(r"\s{2,}", line.removeprefix(label).strip())


def test_check_counts_measures_and_draws(repro, write_shard, picture):
    captions = ["a cat", "a cat", "a white dog on a sofa", "cat " * 30]
    samples = [{"jpg": picture(n, "JPEG", (40 + n, 30)), "txt": c.encode()} for n, c in enumerate(captions)]
    samples += [{"jpg": picture(9, "JPEG", (90, 30))}]
    first = write_shard("cc/0.tar", samples)
    write_shard("cc/1.tar", [{"webp": picture(5, "WEBP"), "json": b'{"caption": "a bird"}'}])
    result = repro("data", "check", f"{first.parent}/*.tar")
    assert result.exit_code == 1  # one sample of six without its caption is more than a run allows
    assert cells(result.stdout, "shards")[0] == "2"
    assert cells(result.stdout, "pairs") == ["5", "captions: 4 from txt, 1 from json"]
    assert cells(result.stdout, "unpaired samples")[0] == "1"
    assert cells(result.stdout, "bad samples")[0] == "0"
    assert cells(result.stdout, "image formats") == ["JPEG 80.0%, WEBP 20.0%"]
    assert cells(result.stdout, "image width") == ["4", "41", "43"]
    assert cells(result.stdout, "caption words") == ["2", "2", "30"]
    assert cells(result.stdout, "caption tokens") == ["4", "4", "32"]
    assert cells(result.stdout, "captions over 16 tokens") == ["20.0%"]
    assert cells(result.stdout, "captions over 64 tokens") == ["0.0%"]
    assert cells(result.stdout, "repeated captions")[0] == "20.0%"
    assert "contact sheet: data-check.png" in result.stdout
    assert Image.open("data-check.png").format == "PNG"
    assert "1 of 6 samples lack an image or a caption" in result.stderr


def test_good_shards_end_with_code_0_and_the_next_command(repro, write_shard, numbered, tmp_path):
    shard = write_shard("0.tar", numbered(range(30)))
    result = repro("data", "check", shard, "--out", tmp_path / "sheet.png")
    assert result.exit_code == 0
    assert f"Next: repro sweep batch-size --data {shard} --eval DIR" in result.stdout
    assert (tmp_path / "sheet.png").is_file()


def test_bad_samples_are_listed_by_reason_and_shard_and_make_code_1(repro, write_shard, numbered):
    samples = numbered(range(40))
    for number in (3, 7):
        samples[number]["png"] = samples[number]["png"][:50]
    samples[30]["txt"] = b""
    pattern = "::".join(str(write_shard(f"{n}.tar", samples[20 * n : 20 * n + 20])) for n in range(2))
    result = repro("data", "check", pattern)
    assert result.exit_code == 1
    assert cells(result.stdout, "image cannot be decoded (OSError)") == ["2", "0.tar"]
    assert cells(result.stdout, "empty caption") == ["1", "1.tar"]
    assert "3 of the 40 samples looked at are bad (7.5%); max_bad_share allows 1.0%" in result.stderr


def test_data_of_bad_samples_only_are_told_too(repro, write_shard, picture):
    result = repro("data", "check", write_shard("0.tar", [{"png": picture(1), "txt": b""}] * 3))
    assert result.exit_code == 1
    assert cells(result.stdout, "empty caption") == ["3", "0.tar"]


def test_broken_shards_are_named_with_the_reason(repro, write_shard, numbered):
    shards = [write_shard(f"{n}.tar", numbered(range(10))) for n in range(2)]
    os.truncate(shards[1], 5 * 2048)
    result = repro("data", "check", f"{shards[0].parent}/*.tar")
    assert result.exit_code == 1
    assert cells(result.stdout, "1.tar") == ["breaks off at byte 10240"]
    assert "5 of 20 samples lack an image or a caption, or were lost in broken shards (25.0%)" in result.stderr


def test_only_so_many_samples_are_decoded_as_asked_for(repro, write_shard, numbered):
    shard = write_shard("0.tar", numbered(range(50)))
    assert cells(repro("data", "check", shard, "--samples", "7").stdout, "looked at")[0] == "7"
    assert cells(repro("data", "check", shard, "--samples", "7", "--all").stdout, "looked at") == ["50", "every pair"]


def test_samples_are_spread_evenly_over_the_shards():
    assert evenly([3, 0, 2], None) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    assert evenly([3, 0, 2], 3) == [(0, 0), (0, 2), (2, 1)]
    assert evenly([10**6] * 1000, 5) == [(0, 0), (250, 0), (500, 0), (749, 999_999), (999, 999_999)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/nothing.tar",), "no such file; {tmp} holds 1 tar files, images.tar to images.tar"),
        (("{tmp}/images.tar",), "no image-caption pair in 1 shard(s), first {tmp}/images.tar"),
        (("{tmp}/images.tar", "--samples", "0"), "--samples 0: expected at least one"),
        (("{tmp}/images.tar", "--samples", "ten"), "'ten' is not a number of examples"),
        (("{tmp}/images.tar", "--out", "no/such/sheet.png"), "--out no/such/sheet.png: there is no folder no/such"),
    ],
)
def test_a_mistake_is_a_message_and_code_2(repro, write_shard, picture, tmp_path, arguments, message):
    write_shard("images.tar", [{"png": picture(1)}])
    result = repro("data", "check", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert result.exit_code == 2
    assert message.replace("{tmp}", str(tmp_path)) in result.stderr


def sample(caption: str = "", reason: str = "", height: int = 60, width: int = 60) -> Sample:
    pixels = None if reason else np.full((height, width, 3), 255, np.uint8)
    return Sample("00000.tar", 12, reason, caption, pixels, (width, height), "PNG")


@pytest.mark.parametrize(
    "caption",
    [
        "a cat",
        "кот на диване",
        "قطة على الأريكة",
        "ソファーの上の猫",
        "sofa 🛋️ \x00\x07",
        "w" * 5000,
        "a b " * 2000,
        "\n\n",
    ],
)
def test_captions_of_any_script_and_length_are_written_below_their_image(caption):
    plain, written = contact_sheet([sample()], ""), contact_sheet([sample(caption)], "")
    assert plain.size == written.size
    changed = np.argwhere((np.asarray(plain) != np.asarray(written)).any(axis=-1))
    if caption.strip():
        assert changed[:, 0].min() > np.argwhere((np.asarray(plain) == 0xEC).all(axis=-1))[:, 0].max()


def test_the_sheet_has_a_place_for_each_sample_and_says_why_one_is_unusable():
    few, many = (contact_sheet([sample("a cat")] * n, "") for n in (7, 24))
    assert few.width == many.width and few.height < many.height
    reds = np.asarray(contact_sheet([sample(reason="empty caption")], ""))[..., 0].astype(int)
    blues = np.asarray(contact_sheet([sample(reason="empty caption")], ""))[..., 2].astype(int)
    assert (reds - blues).max() > 100


def test_shapes_makes_the_embedded_world_and_the_command_that_trains_on_it(repro, tmp_path):
    make = ("data", "shapes", "--examples", "100", "--processes", "1", "--out", tmp_path / "world")
    first = repro(*make)
    assert first.exit_code == 0
    command = shlex.split(first.stdout.splitlines()[-1].removeprefix("Next: "))
    assert command[:4] == ["repro", "sweep", "batch-size", "--data"]
    assert command[5] == "--eval" and all((Path(name) / "test" / "nshards.txt").is_file() for name in command[6:])
    assert repro(*make).stdout == first.stdout
    check = repro("data", "check", command[4])
    assert (check.exit_code, cells(check.stdout, "pairs")[0]) == (0, "100")
    other = repro(*make[:3], "200", *make[4:])
    assert other.exit_code == 2 and "holds the world shapes" in other.stderr


def test_shapes_go_to_the_cache_unless_told_otherwise(repro, own_cache):
    assert repro("data", "shapes", "--examples", "0.1k", "--processes", "1").exit_code == 0
    assert [folder.name for folder in own_cache.glob("shapes-*")] == ["shapes-v1-100-s0-32px"]
    assert repro("data", "check", "shapes:100").exit_code == 0
