"""benchmarks/offline.py: the wheels that a machine without a network lacks, installed where PyTorch is."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
HAS = ("numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "transformers", "pillow", "pyyaml", "jinja2", "rich")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def offline():
    found = importlib.util.spec_from_file_location("offline", ROOT / "benchmarks" / "offline.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def link_with_needs(names, folder):
    """The installed packages of these names, and what they need, as links in a folder: what the machine has."""
    waiting, done = list(names), set()
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in done:
            continue
        done.add(name)
        try:
            installed = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for another platform
            continue
        for top in {file.parts[0] for file in installed.files} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(installed.locate_file(top))
        needs = (Requirement(line) for line in installed.requires or ())
        waiting += [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]


def run(*command, cwd):
    """Without this checkout on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, env=environment)


def test_from_the_folder_alone_repro_installs_where_pytorch_is_and_works(tmp_path):
    wheels, machine, venv = (tmp_path / name for name in ("wheels", "machine", "venv"))
    made = run(sys.executable, ROOT / "benchmarks/offline.py", wheels, "--python", PYTHON, "--has", *HAS, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "wheels in" in made.stdout and not list(wheels.glob("torch*"))
    machine.mkdir()
    link_with_needs(["torch", "torchvision", *HAS], machine)
    assert not {"open_clip", "clip_benchmark", "timm", "webdataset", "submitit"} & {f.name for f in machine.iterdir()}
    run(sys.executable, "-m", "venv", venv, cwd=tmp_path).check_returncode()
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "machine.pth").write_text(f"{machine}\n")  # as --system-site-packages shows what the system has
    wheel_files = sorted(wheels.glob("*.whl"))
    installed = run(venv / "bin/pip", "install", "--no-index", "--no-deps", *wheel_files, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    for arguments, said in [
        (["--help"], "From a sweep to its report"),
        (["sweep", "batch-size", "--dry-run"], "nothing was started"),
        (["saturation", "paper:table-5"], "saturates at"),
        (["bench", "gpu", "--device", "cpu", "--only", "correct", "--minutes", "5"], "Recorded in"),
    ]:
        done = run(venv / "bin/repro", *arguments, cwd=tmp_path)
        assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
    assert "no tests beside the package" in (tmp_path / "build/bench-gpu/correct.csv").read_text()


def wheel(folder, name, version, *needs):
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        lines = [f"Requires-Dist: {need}" for need in needs]
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join([f"Name: {name}", *lines]))
    return file


def test_needs_are_those_of_the_target_and_of_the_wanted_extras(offline, tmp_path):
    markers = [
        "a; python_version < '3.12'",
        "b; sys_platform == 'win32'",
        "c; extra == 'peers'",
        "d>=2; os_name == 'posix'",
    ]
    file = wheel(tmp_path, "x", "1.0", *markers)
    assert [str(need.name) for need in offline.needs(file, frozenset(), "3.12")] == ["d"]
    assert [str(need.name) for need in offline.needs(file, frozenset({"peers"}), "3.11")] == ["a", "c", "d"]


def test_a_folder_that_is_too_large_is_named_with_its_largest_wheels(offline, tmp_path):
    wheel(tmp_path, "small", "1.0")
    wheel(tmp_path, "large", "1.0", *["x" * 100] * 10_000)
    assert offline.report(tmp_path, most_mb=60) is None
    message = offline.report(tmp_path, most_mb=0.5)
    assert "expected at most 0.5" in message and "the largest are large-1.0" in message and "--has" in message


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(sys.executable, ROOT / "benchmarks/offline.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 2 and "not empty" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "--python", "3.12.4"], "--python 3.12.4: expected a version such as 3.12"),
        (["file"], "file: is a file; expected a new folder"),
        (["."], "not empty; expected a new folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_fetched(offline, tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["offline.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        offline.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
