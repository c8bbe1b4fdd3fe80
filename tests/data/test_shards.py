"""From a pattern to byte ranges: what names shards, what a scan finds in them, and what it makes of damage."""

import functools
import gzip
import http.server
import os
import tarfile
import threading
from pathlib import Path

import pytest

from repro.config.errors import InputError
from repro.data.shards import JSON, TEXT, count_unusable, fingerprint, list_shards, open_shards, scan

pytestmark = pytest.mark.usefixtures("own_cache")

BLOCK = tarfile.BLOCKSIZE
SAMPLE = 4 * BLOCK
"""What a sample of these shards takes: header and image, header and caption."""


def contents(file: Path, index) -> list[tuple[bytes, bytes]]:
    """What the index's byte ranges hold: (image, caption) of each pair."""
    data = file.read_bytes()
    ranges = zip(index.image.tolist(), index.caption.tolist(), strict=True)
    return [(data[i : i + n], data[c : c + m]) for (i, n), (c, m) in ranges]


def pair_of(sample: dict[str, bytes]) -> tuple[bytes, bytes]:
    return sample["png"], sample["txt"]


@pytest.fixture
def four_shards(tmp_path, write_shard, numbered) -> Path:
    for number in range(4):
        write_shard(f"cc/{number:05d}.tar", numbered([number]))
    return tmp_path / "cc"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{00000..00002}.tar", [0, 1, 2]),
        ("{00003,00001}.tar", [3, 1]),
        ("*.tar", [0, 1, 2, 3]),
        ("0000[13].tar", [1, 3]),
        ("{00000..00001}.tar::{folder}/00003.tar", [0, 1, 3]),
    ],
)
def test_braces_globs_and_joined_patterns_name_shards_in_order(four_shards, pattern, expected):
    found = list_shards(f"{four_shards}/" + pattern.replace("{folder}", str(four_shards)))
    assert found == [f"{four_shards}/{number:05d}.tar" for number in expected]


def test_urls_and_commands_are_expanded_and_not_looked_for():
    pattern = "https://a.org/{1..2}.tar::pipe:cat {3..4}.tar"
    assert list_shards(pattern) == ["https://a.org/1.tar", "https://a.org/2.tar", "pipe:cat 3.tar", "pipe:cat 4.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("cc", "is a folder; name the shards in it: '{tmp}/cc/*.tar'"),
        ("cc/train.tar", "no such file; {tmp}/cc holds 4 tar files, 00000.tar to 00003.tar"),
        ("cc/{00004..00006}.tar", "no such file; {tmp}/cc holds 4 tar files"),
        ("cc/*.tgz", "no such file; {tmp}/cc holds 4 tar files"),
        ("cc/{00002..00005}.tar", "2 of 4 shards are missing, first {tmp}/cc/00004.tar"),
        ("nowhere/deep/{0..3}.tar", "no such file; the nearest folder that exists is {tmp}"),
        ("cc/{00000..00003.tar", "a brace has no partner"),
        ("cc/00000.tar::", "names no shards"),
    ],
)
def test_a_pattern_that_names_nothing_says_what_is_near(four_shards, tmp_path, pattern, message):
    with pytest.raises(InputError) as error:
        list_shards(f"{tmp_path}/{pattern}")
    assert message.replace("{tmp}", str(tmp_path)) in str(error.value)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"jpg": "JPEG", "json": b'{"caption": "a cat", "url": "https://a.org"}', "txt": b"a cat"}, TEXT),
        ({"png": "PNG", "txt": b"a cat"}, TEXT),
        ({"webp": "WEBP", "txt": b"a cat"}, TEXT),
        ({"JPG": "JPEG", "txt": b"a cat"}, TEXT),
        ({"jpg": "JPEG", "json": b'{"caption": "a cat"}'}, JSON),
    ],
)
def test_samples_are_found_as_img2dataset_writes_them(write_shard, picture, files, kind):
    files = {name: picture(1, content) if isinstance(content, str) else content for name, content in files.items()}
    (file,), (index,) = open_shards([str(write_shard("00000.tar", [files] * 3))])
    image = next(content for name, content in files.items() if name not in ("txt", "json"))
    caption = files["json"] if kind == JSON else files["txt"]
    assert contents(file, index) == [(image, caption)] * 3
    assert index.kind.tolist() == [kind] * 3
    assert (index.unpaired, index.broken) == (0, "")


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(
    "key", ["{:09d}", "part/{:05d}", "long" * 20 + "/" + "name" * 15 + "{:05d}", "Bücher-猫/{:05d}"]
)
def test_every_kind_of_tar_is_read(write_shard, numbered, format, key):
    samples = numbered(range(5))
    file = write_shard("00000.tar", samples, format, key)
    index = scan(file)
    assert contents(file, index) == [pair_of(sample) for sample in samples]
    assert index.broken == ""


def test_folders_hidden_files_and_other_files_are_passed_over(tmp_path, write_shard, numbered):
    folder = tmp_path / "files"
    (folder / "sub").mkdir(parents=True)
    for name, content in {"sub/1.png": b"image", "sub/1.txt": b"text", "sub/._1.png": b"", "sub/1.cls": b"3"}.items():
        (folder / name).write_bytes(content)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(folder / "sub", "sub", recursive=False)
        for name in ("._1.png", "1.cls", "1.png", "1.txt"):
            tar.add(folder / "sub" / name, f"sub/{name}")
    index = scan(tmp_path / "0.tar")
    assert contents(tmp_path / "0.tar", index) == [(b"image", b"text")]
    assert index.unpaired == 0


def test_samples_without_a_caption_or_an_image_are_counted(write_shard, numbered):
    samples = numbered(range(5))
    del samples[1]["txt"], samples[3]["png"]
    file = write_shard("00000.tar", samples)
    index = scan(file)
    assert contents(file, index) == [pair_of(samples[n]) for n in (0, 2, 4)]
    assert index.unpaired == 2
    assert count_unusable(["00000.tar"], [index]) == {("00000.tar", "image or caption missing"): 2}


def test_a_shard_cut_within_a_file_keeps_what_came_before(write_shard, numbered):
    samples = numbered(range(6))
    file = write_shard("00000.tar", samples)
    os.truncate(file, 3 * SAMPLE + BLOCK + 20)
    index = scan(file)
    assert contents(file, index) == [pair_of(sample) for sample in samples[:3]]
    assert "unexpected end of data" in index.broken
    assert index.unpaired == 1


def test_a_shard_cut_within_a_header_keeps_what_came_before(write_shard, numbered):
    file = write_shard("00000.tar", numbered(range(6)))
    os.truncate(file, 3 * SAMPLE + 100)
    index = scan(file)
    assert len(index) == 3
    assert index.broken == f"not a tar header at byte {3 * SAMPLE}"


def test_a_shard_cut_between_two_files_is_noticed_by_its_missing_end(write_shard, numbered):
    file = write_shard("00000.tar", numbered(range(6)))
    os.truncate(file, 3 * SAMPLE)
    index = scan(file)
    assert len(index) == 3
    assert index.broken == f"breaks off at byte {3 * SAMPLE}"


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        (b"\x93garbage" * 64, "not a tar header"),
        (bytes(SAMPLE), "ends at byte 6144 of 20480, with data after the end"),
    ],
)
def test_damage_in_the_middle_is_noticed(write_shard, numbered, damage, broken):
    file = write_shard("00000.tar", numbered(range(6)))
    with file.open("r+b") as stream:
        stream.seek(3 * SAMPLE)
        stream.write(damage)
    index = scan(file)
    assert len(index) == 3
    assert index.broken.startswith(broken)


def test_what_a_broken_shard_lost_is_taken_from_the_usual_shard(write_shard, numbered):
    files = [write_shard(f"{n}.tar", numbered(range(6))) for n in range(3)]
    os.truncate(files[1], 2 * SAMPLE)
    lost = count_unusable(["0", "1", "2"], [scan(file) for file in files])
    assert lost == {("1", f"broken tar (breaks off at byte {2 * SAMPLE})"): 4}


def not_shards(folder: Path, good: Path) -> dict[str, Path]:
    (folder / "empty.tar").write_bytes(b"")
    (folder / "page.tar").write_text("<html>not found</html>" * 100)
    (folder / "packed.tar").write_bytes(gzip.compress(good.read_bytes()))
    return {name: folder / f"{name}.tar" for name in ("empty", "page", "packed")}


@pytest.mark.parametrize(
    ("name", "why"),
    [("empty", "an empty file"), ("page", "not a tar file"), ("packed", "compressed (gzip); unpack it")],
)
def test_what_is_no_tar_is_named_and_the_other_shards_are_used(tmp_path, write_shard, numbered, name, why):
    good = write_shard("good.tar", numbered(range(2)))
    other = not_shards(tmp_path, good)[name]
    _, indexes = open_shards([str(good), str(other)])
    assert [len(index) for index in indexes] == [2, 0]
    assert indexes[1].broken.startswith(why)


def test_shards_without_a_single_pair_are_a_mistake_of_the_person(tmp_path, write_shard, picture):
    images = write_shard("images.tar", [{"png": picture(1)}, {"png": picture(2)}])
    page = not_shards(tmp_path, images)["page"]
    with pytest.raises(
        InputError, match=r"no image-caption pair in 2 shard\(s\), first .*images\.tar; expected"
    ) as error:
        open_shards([str(images), str(page)])
    assert f"{page}: not a tar file" in str(error.value)


def test_the_index_of_an_unchanged_file_comes_from_the_cache(write_shard, numbered):
    file = write_shard("00000.tar", numbered(range(4)))
    _, (first,) = open_shards([str(file)])
    stat = file.stat()
    file.write_bytes(bytes(stat.st_size))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    _, (again,) = open_shards([str(file)])
    assert again.image.tolist() == first.image.tolist()
    assert (again.unpaired, again.broken) == (first.unpaired, first.broken)


def test_a_changed_file_is_scanned_anew(write_shard, numbered):
    file = write_shard("00000.tar", numbered(range(4)))
    open_shards([str(file)])
    write_shard("00000.tar", numbered(range(3)))
    assert [len(index) for index in open_shards([str(file)])[1]] == [3]


@pytest.mark.parametrize("content", [b"", b"not an index", b"PK\x03\x04 cut off"])
def test_an_unreadable_index_is_made_anew(own_cache, write_shard, numbered, content):
    file = write_shard("00000.tar", numbered(range(4)))
    open_shards([str(file)])
    (kept,) = (own_cache / "index").iterdir()
    kept.write_bytes(content)
    assert [len(index) for index in open_shards([str(file)])[1]] == [4]


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; of cut.tar it sends half of what it announced."""

    def do_GET(self):
        if not self.path.endswith("cut.tar"):
            return super().do_GET()
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def url(tmp_path):
    """Where the test's folder is served."""
    handler = functools.partial(Server, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_shards_behind_urls_and_commands_are_read_like_files(write_shard, numbered, url):
    samples = numbered(range(4))
    file = write_shard("00000.tar", samples)
    files, indexes = open_shards(list_shards(f"{url}/{{00000..00000}}.tar::pipe:cat {file}"))
    for copy, index in zip(files, indexes, strict=True):
        assert contents(copy, index) == [pair_of(sample) for sample in samples]
    assert all("00000" in copy.name for copy in files)  # so that messages name the shard


def test_a_remote_shard_is_fetched_once(write_shard, numbered, url):
    file = write_shard("00000.tar", numbered(range(4)))
    open_shards([f"{url}/00000.tar"])
    file.unlink()
    assert [len(index) for index in open_shards([f"{url}/00000.tar"])[1]] == [4]


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("{url}/nothing.tar", "404"),
        ("{url}/cut.tar", "bytes"),
        ("{url}/page.tar", "expected a tar file; what came begins with b'<html>"),
        ("http://127.0.0.1:1/00000.tar", "refused"),
        ("pipe:cat {tmp}/nothing.tar", "the command failed with exit code 1 (tried 5 times)"),
        ("pipe:no-such-command", "there is no such command (exit code 127)"),
        ("pipe:head -c 700 {tmp}/page.tar", "expected a tar file"),
        ("pipe:true", "expected a tar file; what came begins with b''"),
    ],
)
def test_what_cannot_be_fetched_is_named_and_not_kept(
    own_cache, tmp_path, write_shard, numbered, url, shard, message, monkeypatch
):
    monkeypatch.setattr("repro.data.network.FIRST_PAUSE_SECONDS", 0.001)
    write_shard("cut.tar", numbered(range(4)))
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 100)
    shard = shard.format(url=url, tmp=tmp_path)
    with pytest.raises(InputError, match="--data") as error:
        open_shards([shard])
    assert shard in str(error.value) and message in str(error.value)
    assert not list((own_cache / "shards").iterdir())


def test_a_command_that_fails_at_first_gets_another_try_from_the_beginning(
    tmp_path, write_shard, numbered, monkeypatch
):
    monkeypatch.setattr("repro.data.network.FIRST_PAUSE_SECONDS", 0.001)
    samples = numbered(range(4))
    file, tried = write_shard("00000.tar", samples), tmp_path / "tried"
    command = f"pipe:test -e {tried} && cat {file} || (touch {tried}; head -c 700 {file}; exit 1)"
    (copy,), (index,) = open_shards([command])
    assert contents(copy, index) == [pair_of(sample) for sample in samples]


def test_the_fingerprint_is_of_the_content_and_not_of_the_folder(write_shard, numbered):
    here = write_shard("here/00000.tar", numbered(range(4)))
    there = write_shard("there/00000.tar", numbered(range(4)))
    assert fingerprint([str(here)]) == fingerprint([str(there)])


@pytest.mark.parametrize("numbers", [range(1, 5), range(5)])
def test_the_fingerprint_changes_with_the_content(write_shard, numbered, numbers):
    before = fingerprint([str(write_shard("00000.tar", numbered(range(4))))])
    assert fingerprint([str(write_shard("00000.tar", numbered(numbers)))]) != before


def test_the_fingerprint_changes_with_the_set_of_shards(write_shard, numbered):
    shards = [str(write_shard(f"{n}.tar", numbered([n]))) for n in range(3)]
    assert len({fingerprint(shards), fingerprint(shards[:2]), fingerprint([shards[0], shards[2]])}) == 3
