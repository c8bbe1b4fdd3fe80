"""A folder of wheels for a machine that has PyTorch and no network: python benchmarks/offline.py wheels --has scipy

Our own wheel, and what it needs by the wheels' own metadata, for the target's Python and not for this one. Left out are
torch and torchvision with what only they need, what the target is said to have, and pycocoevalcap: 100 MB that
clip-benchmark names for scores of generated captions, which this project takes none of. docs/cluster.md says how to
install from the folder.
"""

import argparse
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).parents[1]
LEFT_OUT = ("torch", "torchvision", "triton", "pycocoevalcap")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64")
MOST_ROUNDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the wheels go; an empty or a new folder")
    parser.add_argument("--python", default="3.12", help="the target's version (default: 3.12)")
    parser.add_argument("--has", nargs="*", default=[], metavar="PACKAGE", help="left out with what only they need")
    parser.add_argument("--peers", action="store_true", help="also the losses that ours are measured beside")
    parser.add_argument("--most-mb", type=float, default=60.0, help="fail where it is larger (default: 60)")
    given = parser.parse_args()
    if not re.fullmatch(r"3\.\d+", given.python):
        parser.error(f"--python {given.python}: expected a version such as 3.12")
    if given.folder.is_file():
        parser.error(f"{given.folder}: is a file; expected a new folder")
    if given.folder.exists() and any(given.folder.iterdir()):
        parser.error(f"{given.folder}: not empty; expected a new folder, or remove what is in it")
    try:
        collect(given.folder, given.python, given.has, ["peers"] if given.peers else [])
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no message"]
        sys.exit(f"offline: {' '.join(map(str, error.cmd[2:5]))} … failed: {lines[-1]}")
    sys.exit(report(given.folder, given.most_mb))


def collect(folder: Path, python: str, has: Iterable[str], extras: Iterable[str]) -> None:
    """Fill the folder. Raises subprocess.CalledProcessError where pip finds no wheel for the target."""
    folder.mkdir(parents=True, exist_ok=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (own,) = folder.glob("*.whl")
    left_out = {canonicalize_name(name) for name in (*LEFT_OUT, *has)}
    wanted: dict[str, SpecifierSet] = defaultdict(SpecifierSet)
    wheels = {_name(own): own}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = [(own, frozenset(extras))]
    for _ in range(MOST_ROUNDS):
        named: dict[str, set[str]] = defaultdict(set)
        for wheel, with_extras in waiting:
            done.add((_name(wheel), with_extras))
            for requirement in needs(wheel, with_extras, python):
                name = canonicalize_name(requirement.name)
                if name not in left_out:
                    wanted[name] &= requirement.specifier
                    named[name] |= requirement.extras
        _fetch(folder, wheels, wanted, named, python)
        waiting = [(wheels[name], frozenset(names)) for name, names in named.items()]
        waiting = [each for each in waiting if (_name(each[0]), each[1]) not in done]
        if not waiting:
            return
    raise RuntimeError(f"the wheels' needs do not settle after {MOST_ROUNDS} rounds")


def _fetch(
    folder: Path, wheels: dict[str, Path], wanted: dict[str, SpecifierSet], named: Iterable[str], python: str
) -> None:
    """Wheels of these names that are not there, or whose version another one's needs have ruled out."""
    missing = [n for n in named if n not in wheels or not wanted[n].contains(_version(wheels[n]), prereleases=True)]
    if not missing:
        return
    for name in missing:
        if name in wheels:
            wheels.pop(name).unlink()
    target = ["--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
    target += [option for abi in (f"cp{python.replace('.', '')}", "abi3", "none") for option in ("--abi", abi)]
    target += [option for platform in PLATFORMS for option in ("--platform", platform)]
    _pip("download", "--no-deps", "--dest", str(folder), *target, *(f"{name}{wanted[name]}" for name in missing))
    wheels |= {_name(wheel): wheel for wheel in folder.glob("*.whl")}


def needs(wheel: Path, extras: frozenset[str], python: str) -> Iterator[Requirement]:
    """What the wheel's metadata say that it needs on the target."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(file).decode())
    target = {"python_version": python, "python_full_version": f"{python}.0", "implementation_name": "cpython"}
    target |= {"platform_python_implementation": "CPython", "sys_platform": "linux", "os_name": "posix"}
    target |= {"platform_system": "Linux", "platform_machine": "x86_64"}
    for line in metadata.get_all("Requires-Dist") or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate(target | {"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _name(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def _version(wheel: Path) -> str:
    return str(parse_wheel_filename(wheel.name)[1])


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)  # noqa: S603


def report(folder: Path, most_mb: float) -> str | None:
    """Print the wheels; a message where they are too large."""
    sizes = {wheel.name: wheel.stat().st_size / 1e6 for wheel in sorted(folder.glob("*.whl"))}
    for name, size in sizes.items():
        print(f"{size:8.2f} MB  {name}")
    total = sum(sizes.values())
    print(f"{total:8.2f} MB  {len(sizes)} wheels in {folder}")
    if total <= most_mb:
        return None
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    return (
        f"offline: {total:.0f} MB, expected at most {most_mb:g} (--most-mb); the largest are {', '.join(largest)}: "
        "name with --has what the target has, or allow more"
    )


if __name__ == "__main__":
    main()
