"""Evaluation data sets as the person names them: clip-benchmark webdataset folders or URLs, or its own names."""

import os
from collections.abc import Iterable
from pathlib import Path

from repro.errors import InputError, nearest
from repro.resources import cache_folder
from repro.retry import retried
from repro.rundir import RunDirectory

SHAPES = ("wds_shapes_objects", "wds_shapes_retrieval")
"""The embedded world's sets, for which 'shapes' stands: classification, retrieval."""


def evaluated(directory: RunDirectory, evals: Iterable[str]) -> bool:
    """Whether a run has the results of all evaluations that its spec names. Looks at no data set's content."""
    names = [part for name in evals for part in (SHAPES if name == "shapes" else (dataset_name(name),))]
    return all((directory.evals / f"{name}.json").exists() for name in names)


def dataset_name(name: str) -> str:
    """A folder's or URL's last part, or the data set's name, as metrics are named after it."""
    if "://" in name:
        return name.split("/tree/")[0].rstrip("/").rsplit("/", 1)[-1]
    return Path(name).resolve().name if Path(name).is_dir() else name.replace("/", "_")


def check_eval(name: str) -> None:
    """Raises InputError for a folder that is no clip-benchmark webdataset, or a name that clip-benchmark lacks."""
    folder = Path(name)
    if folder.is_dir():
        if missing := missing_eval_part(folder):
            raise InputError(f"--eval {name}: not a clip-benchmark webdataset folder: {missing}")
        _check_tars(name, folder / "test")
        return
    if "://" in name:
        return
    if "/" in name or folder.suffix:
        parent = next(p for p in folder.resolve().parents if p.is_dir())
        beside = [p.name for p in parent.iterdir() if p.is_dir() and missing_eval_part(p) is None]
        raise InputError(f"--eval {name}: no such folder{nearest(folder.name, beside)} (in {parent})")
    known = known_datasets()
    if name not in known:
        raise InputError(f"--eval {name}: neither a folder nor a data set of clip-benchmark{nearest(name, known)}")


def _check_tars(name: str, folder: Path) -> None:
    """clip-benchmark takes damage in a tar for its end, and would give the accuracy on what came before."""
    from repro.data.shards import open_index

    text = (folder / "nshards.txt").read_text(errors="replace").strip()
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"--eval {name}: test/nshards.txt says {text[:40]!r}; expected the number of tar files")
    for number in range(int(text)):
        file = folder / f"{number}.tar"
        if not file.is_file():
            raise InputError(f"--eval {name}: test/{file.name} is missing; nshards.txt says {text}")
        if broken := open_index(file).broken:
            raise InputError(f"--eval {name}: test/{file.name} is no whole tar file: {broken}")


def known_datasets() -> list[str]:
    """The data sets that clip-benchmark knows by name."""
    from clip_benchmark.datasets.builder import dataset_collection

    return sorted({name for names in dataset_collection.values() for name in names})


def missing_eval_part(folder: Path) -> str | None:
    """What keeps a folder from being a clip-benchmark webdataset, or None."""
    if not (folder / "test" / "nshards.txt").is_file():
        return "test/nshards.txt is missing"
    kind = folder / "dataset_type.txt"
    if kind.is_file() and kind.read_text().strip() == "retrieval":
        return None
    for name in ("classnames.txt", "zeroshot_classification_templates.txt"):
        if not (folder / name).is_file():
            return f"{name} is missing (or dataset_type.txt with 'retrieval')"
    return None


def webdataset_task(name: str) -> str:
    """clip-benchmark's rule: what dataset_type.txt says, classification where it says nothing."""
    if "://" in name:
        kind = _remote_text(name.replace("/tree/", "/raw/").rstrip("/") + "/dataset_type.txt")
    else:
        file = Path(name) / "dataset_type.txt"
        kind = file.read_text() if file.is_file() else ""
    return "zeroshot_retrieval" if kind.strip().lower() == "retrieval" else "zeroshot_classification"


def _remote_text(url: str) -> str:
    """A small file, or '' where the server has none. Raises InputError where it cannot be had."""
    import requests

    def ask() -> str:
        answer = requests.get(url, timeout=60)
        if answer.status_code == requests.codes.not_found:
            return ""
        answer.raise_for_status()
        return answer.text

    try:
        return retried(f"--eval {url}", ask)
    except requests.RequestException as error:
        raise InputError(f"--eval {url}: {error}") from None


def named_datasets_folder() -> Path:
    """Where clip-benchmark keeps the data sets it knows by name: $REPRO_DATASETS, or in the cache."""
    return Path(os.environ.get("REPRO_DATASETS") or cache_folder() / "datasets")
