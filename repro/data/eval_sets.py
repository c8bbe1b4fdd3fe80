"""Evaluation data sets as the person names them: clip-benchmark webdataset folders or URLs, or its own names.

A data set in several languages is as many data sets over the same images: `crossmodal3600` stands for
`crossmodal3600:ar`, `crossmodal3600:bn` …, a folder of each language for itself (wds_emoji_de, wds_emoji_en).

`NAME:10-shot` is the linear probe on ten training images a class of a classification set (evaluate/classification.py).
"""

import ast
import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from repro.config.errors import InputError, nearest
from repro.config.files import read_object
from repro.config.spec import RunSpec
from repro.data.named_sets import BY_OTHER_NAME, check_obtainable, collections, known_datasets, sets_of
from repro.data.network import retried
from repro.runs.directory import RunDirectory

SHAPES = ("wds_shapes_objects", "wds_shapes_retrieval")
"""The embedded world's sets, for which 'shapes' stands: classification, retrieval."""
WORLD_LANGUAGES = ("en", "zh", "ar")
MULTILINGUAL_SHAPES = (SHAPES[0], *(f"{SHAPES[1]}_{language}" for language in WORLD_LANGUAGES))
WORLDS = {"shapes": SHAPES, "shapes-multilingual": MULTILINGUAL_SHAPES}
"""Names of the embedded world, as data and as an evaluation, and their sets."""

MULTILINGUAL = {
    "crossmodal3600": "crossmodal3600",
    "multilingual_mscoco_captions": "multilingual_mscoco",
    "xtd10": "xtd10",
    "xtd200": "xtd200",
    "flickr30k-200": "flickr30k_200",
}
"""clip-benchmark's retrieval sets in many languages, and its modules that know which."""
RETRIEVALS = ("flickr30k", "flickr8k", "mscoco_captions")
PREFIXES = ("vtab/", "sugar_crepe/", "datacomp/")
"""Of names that are no folders, known or not."""
ALSO_IN = {"flickr30k": ("en", "zh"), "flickr8k": ("en", "zh")}
"""Sets whose name stands for English alone."""
_FEW_SHOT = re.compile(r"(.+):(\d+)-shot")
_IN_LANGUAGE = re.compile(r"(.+)_([a-z]{2,3}(?:_[A-Z][a-z]{3})?)/((?:image|text)_retrieval_recall@\d+)")


def evaluated(directory: RunDirectory, spec: RunSpec) -> bool:
    """Whether a run has the results of all evaluations that its spec names. Looks at no data set's content."""
    names = [part for name in spec.evals for part in (world_sets(name, spec.data) or parts(name))]
    return all((directory.evals / f"{result_name(name)}.json").exists() for name in names)


def world_sets(name: str, data: str) -> tuple[str, ...]:
    """The sets of the embedded world that an evaluation's name stands for, () for other names.

    'shapes' stands for the sets of the world that a run trains on: in all its languages, where it has several.
    """
    trained_on = data.partition(":")[0]
    name, shots = split_shots(name)
    sets = WORLDS.get(trained_on if name == "shapes" and trained_on in WORLDS else name, ())
    return (f"{sets[0]}:{shots}-shot",) if sets and shots else sets


def split_shots(name: str) -> tuple[str, int]:
    """'imagenet1k:10-shot' → the data set's name and 10; 0 where it is no few-shot probe."""
    found = _FEW_SHOT.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)


def parts(name: str) -> list[str]:
    """The data sets that one name stands for: those of a collection, one for each language, or the name itself."""
    languages = ((each, languages_of(each) if each in MULTILINGUAL else ()) for each in members(name))
    return [part for each, named in languages for part in ([f"{each}:{language}" for language in named] or [each])]


def members(name: str) -> list[str]:
    """The data sets of a collection, each with the name's shots; what else a data set is called; or the name itself."""
    base, shots = split_shots(name)
    if Path(base).is_dir():
        return [name]
    return [f"{each}:{shots}-shot" if shots else each for each in sets_of(base)]


def named_parts(specs: Iterable[RunSpec]) -> list[str]:
    """The data sets of clip-benchmark that these runs are evaluated on by name, without language or shots."""
    given = dict.fromkeys(name for spec in specs for name in spec.evals if split_shots(name)[0] not in WORLDS)
    bases = dict.fromkeys(split_shots(part)[0] for name in given for part in parts(name))
    known = known_datasets()
    return list(dict.fromkeys(base for name in bases if (base := split_language(name)[0]) in known))


def split_language(name: str) -> tuple[str, str]:
    """'crossmodal3600:de' → clip-benchmark's name and language; English where none is named."""
    base, _, language = name.partition(":")
    return base, language or "en"


@functools.cache
def languages_of(name: str) -> tuple[str, ...]:
    """Languages of one of clip-benchmark's sets, as its module lists them, read without importing torchvision."""
    if name in ALSO_IN or name not in MULTILINGUAL:
        return ALSO_IN.get(name, ())
    folder = Path(importlib.util.find_spec("clip_benchmark").origin).parent / "datasets"
    lists = {}
    for module in (MULTILINGUAL[name], "flores_langs"):
        for line in ast.parse((folder / f"{module}.py").read_text()).body:
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.List):
                lists[line.targets[0].id] = ast.literal_eval(line.value)
    return tuple(lists.get("SUPPORTED_LANGUAGES", lists.get("flores_languages", ())))


def language_means(metrics: Mapping[str, float]) -> dict[str, float]:
    """wds_emoji_mean/image_retrieval_recall@1 and so on: over the languages of each set that has several.

    Which are languages of one set is told by their names: wds_emoji_de, wds_emoji_en.
    """
    groups: dict[str, list[float]] = {}
    for name, value in metrics.items():
        if found := _IN_LANGUAGE.fullmatch(name):
            groups.setdefault(f"{found[1]}_mean/{found[3]}", []).append(value)
    return {name: sum(values) / len(values) for name, values in groups.items() if len(values) > 1}


def but_languages(metrics: Iterable[str]) -> list[str]:
    """Metrics without those of single languages whose mean is among them."""
    metrics = list(metrics)
    means = {m.rpartition("_mean/")[0] for m in metrics if "_mean/" in m}
    return [m for m in metrics if "_mean/" in m or not any(m.startswith(f"{mean}_") for mean in means)]


def absolute(name: str) -> str:
    """A folder as seen from anywhere; other names as they are."""
    base, shots = split_shots(name)
    base = str(Path(base).resolve()) if Path(base).is_dir() else base
    return f"{base}:{shots}-shot" if shots else base


def result_name(name: str) -> str:
    """Name of the file of an evaluation's result."""
    base, shots = split_shots(name)
    return dataset_name(base) + (f"_{shots}shot" if shots else "")


def metrics_in(folder: Path) -> dict[str, float]:
    """Metrics of all results in a folder, named <dataset>/<metric>, with means over languages. Raises CorruptRun."""
    found: dict[str, float] = {}
    for file in sorted(folder.glob("*.json")):
        dataset = re.sub(r"_\d+shot$", "", file.stem)
        found |= {f"{dataset}/{key}": value for key, value in read_object(file).get("metrics", {}).items()}
    return found | language_means(found)


def dataset_name(name: str) -> str:
    """A folder's or URL's last part, or the data set's name, as metrics are named after it."""
    name, _ = split_shots(name)
    if "://" in name:
        return name.split("/tree/")[0].rstrip("/").rsplit("/", 1)[-1]
    return Path(name).resolve().name if Path(name).is_dir() else re.sub("[/:]", "_", name)


def check_eval(name: str) -> None:
    """Raises InputError for a folder that is no clip-benchmark webdataset, or a name that clip-benchmark lacks."""
    name, shots = split_shots(name)
    folder = Path(name)
    if folder.is_dir():
        if missing := missing_eval_part(folder) or (shots and _missing_few_shot_part(folder)):
            raise InputError(f"--eval {name}: not a clip-benchmark webdataset folder: {missing}")
        for split in ("test", "train") if shots else ("test",):
            _check_tars(name, folder / split)
        return
    if "://" in name:
        if not _remote_text(f"{_raw(name)}/test/nshards.txt").strip().isdigit():
            raise InputError(f"--eval {name}: has no test/nshards.txt with the number of its tar files")
        return
    known = known_datasets()
    if ("/" in name and name not in known and not name.startswith(PREFIXES)) or folder.suffix:
        parent = next(p for p in folder.resolve().parents if p.is_dir())
        beside = [p.name for p in parent.iterdir() if p.is_dir() and missing_eval_part(p) is None]
        raise InputError(f"--eval {name}: no such folder{nearest(folder.name, beside)} (in {parent})")
    base, _, language = name.partition(":")
    if base in WORLDS:
        raise InputError(f"--eval {name}: expected {base}, or {base}:10-shot for the linear probe")
    if base not in known:
        names = [*known, *BY_OTHER_NAME, *collections()]
        raise InputError(f"--eval {name}: neither a folder nor a data set of clip-benchmark{nearest(base, names)}")
    if language and language not in languages_of(base):
        has = f"has no language '{language}'{nearest(language, languages_of(base))}"
        raise InputError(f"--eval {name}: {base} {has if languages_of(base) else f'is in one language; name {base}'}")
    if shots and (base in MULTILINGUAL or base in RETRIEVALS):
        raise InputError(f"--eval {name}:{shots}-shot: {name} is for retrieval; a probe needs classes")
    check_obtainable(base)


def _missing_few_shot_part(folder: Path) -> str | None:
    if webdataset_task(str(folder)) == "zeroshot_retrieval":
        return "a linear probe needs classes, and dataset_type.txt says 'retrieval'"
    return None if (folder / "train" / "nshards.txt").is_file() else "train/nshards.txt is missing"


def _check_tars(name: str, folder: Path) -> None:
    """clip-benchmark takes damage in a tar for its end, and would give the accuracy on what came before."""
    from repro.data.shards import open_index

    text = (folder / "nshards.txt").read_text(errors="replace").strip()
    if not text.isdigit() or int(text) < 1:
        raise InputError(
            f"--eval {name}: {folder.name}/nshards.txt says {text[:40]!r}; expected the number of tar files"
        )
    for number in range(int(text)):
        file = folder / f"{number}.tar"
        if not file.is_file():
            raise InputError(f"--eval {name}: {folder.name}/{file.name} is missing; nshards.txt says {text}")
        if broken := open_index(file).broken:
            raise InputError(f"--eval {name}: {folder.name}/{file.name} is no whole tar file: {broken}")


def missing_eval_part(folder: Path) -> str | None:
    """Why a folder is not a clip-benchmark webdataset, or None."""
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
        kind = _remote_text(f"{_raw(name)}/dataset_type.txt")
    else:
        file = Path(name) / "dataset_type.txt"
        kind = file.read_text() if file.is_file() else ""
    return "zeroshot_retrieval" if kind.strip().lower() == "retrieval" else "zeroshot_classification"


def _raw(name: str) -> str:
    """The address of a data set's small files, on the hub or on any server."""
    return name.replace("/tree/", "/raw/").rstrip("/")


def _remote_text(url: str) -> str:
    """A small file, or '' where the server has none. Raises InputError where it cannot be downloaded."""
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
