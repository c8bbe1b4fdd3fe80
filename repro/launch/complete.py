"""All that can be known to be wrong before anything starts, and the fingerprints that complete a spec."""

import functools
import logging
import os
import shutil
from collections import Counter
from pathlib import Path

from repro.config.errors import InputError
from repro.config.files import CorruptRun, read_json
from repro.config.spec import FORMAT, RunSpec
from repro.data.languages import check_languages, shares_of_languages
from repro.data.shards import Progress, count_unusable, is_remote, list_shards, open_shards
from repro.models import pretrained
from repro.runs.directory import run_directories
from repro.world import source

logger = logging.getLogger(__name__)

MOST_NAMED = 10
"""Shards with unusable samples that are named."""


def complete(specs: list[RunSpec]) -> list[RunSpec]:
    """Make paths absolute, and fill in the fingerprints of data, model and pretrained weights.

    Raises InputError for data, a model or weights that are not there, and for what it lacks.
    """
    from repro.data.eval_sets import absolute
    from repro.models.model_config import check_bottleneck, check_initial_weights, fingerprint

    for spec in specs:
        if not spec.data and spec.trains:
            raise InputError(
                f"setup {spec.setup} at scale {spec.scale} comes without data; "
                "name shards of your own with --data PATTERN"
            )
        if not spec.trains:
            _check_released(spec)
        if spec.languages and source.is_shapes(spec.data):
            check_languages(spec.data, spec.languages, dict.fromkeys(source.languages_of_world(spec.data), 1.0))
        if spec.token_bottleneck is not None:
            check_bottleneck(spec.model, spec.token_bottleneck)
        if spec.init == "authors":
            check_initial_weights(spec.model)
    data_fingerprint = functools.lru_cache(source.fingerprint)
    model_fingerprint = functools.lru_cache(fingerprint)
    pretrained_fingerprint = functools.lru_cache(pretrained.fingerprint)
    return [
        spec.model_copy(
            update={
                "data": absolute_pattern(spec.data) if spec.data else "",
                "evals": tuple(map(absolute, spec.evals)),
                "data_fingerprint": data_fingerprint(spec.data) if spec.data else "",
                "model_fingerprint": model_fingerprint(spec.model),
                "pretrained": os.path.abspath(os.path.expanduser(spec.pretrained))
                if pretrained.is_path(spec.pretrained)
                else spec.pretrained,
                "pretrained_fingerprint": pretrained_fingerprint(spec.pretrained, spec.model)
                if spec.pretrained
                else "",
                "embeddings": os.path.abspath(os.path.expanduser(spec.embeddings)) if spec.embeddings else "",
            }
        )
        for spec in specs
    ]


def _check_released(spec: RunSpec) -> None:
    """Raises InputError for weights that are not a whole model's."""
    place = pretrained.resolve(spec.pretrained, spec.model)
    if place == pretrained.TIMM:
        raise InputError(f"pretrained {place}: an image tower alone, and zero-shot evaluation needs both; name a tag")
    name, _, tag = place.rpartition("/")
    if not place.startswith("/") and name not in ("", spec.model):
        raise InputError(f"pretrained {spec.pretrained}: the weights of another model; expected model {name}, {tag}")


def check_evals(specs: list[RunSpec]) -> None:
    """Raises InputError for an evaluation that is neither a clip-benchmark folder nor one of its names."""
    from repro.data.eval_sets import WORLDS, check_eval, parts, result_name, split_shots

    names = sorted(
        name for name in {name for spec in specs for name in spec.evals} if split_shots(name)[0] not in WORLDS
    )
    by_name: dict[str, str] = {}
    for name in dict.fromkeys(part for given in names for part in parts(given)):
        check_eval(name)
        other = by_name.setdefault(result_name(name), name)
        if other != name:
            raise InputError(f"--eval {other} and {name} have the same name, and so would their metrics; rename one")


def absolute_pattern(data: str) -> str:
    """Local parts of a data pattern as seen from anywhere; the embedded world and URLs as they are."""
    if source.is_shapes(data):
        return data
    return "::".join(p if is_remote(p) else os.path.abspath(os.path.expanduser(p)) for p in data.split("::"))


def check_hub(specs: list[RunSpec]) -> None:
    """Raises InputError for a tokenizer, text tower or weights that are neither on this machine nor to be reached."""
    from repro.models.model_config import check_tokenizer

    for model in {spec.model for spec in specs}:
        check_tokenizer(model)
    for place, model in {(spec.pretrained, spec.model) for spec in specs if spec.pretrained}:
        pretrained.check_obtainable(place, model)


def evaluations_notes(specs: list[RunSpec]) -> list[str]:
    """Sentences on evaluation sets that have to be downloaded, and on what a collection leaves out."""
    from repro.data.eval_sets import named_parts
    from repro.data.named_sets import NOT_READ, collections, is_on_disk, named_datasets_folder

    absent = [name for name in named_parts(specs) if not is_on_disk(name)]
    notes = []
    if absent:
        notes.append(
            f"evaluation sets that are not on disk, and downloaded before the first run: {', '.join(absent)} "
            f"(to {named_datasets_folder()})"
        )
    if any("datacomp" in spec.evals for spec in specs):
        notes.append(
            f"datacomp: {len(collections()['datacomp'])} of its 38 sets; clip-benchmark does not read {NOT_READ}"
        )
    return notes


def check_runs_folder(runs: Path, sweep: str, dry: bool = False) -> None:
    """Raises InputError for a folder that cannot be written, or holds runs of another format. dry: does not make it."""
    folder = runs / sweep
    try:
        if dry:
            folder = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
            os.listdir(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--runs {runs}: cannot be made or written ({error.strerror}): {error.filename}") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"--runs {runs}: {folder} cannot be written; name another folder with --runs")
    for directory in run_directories(runs, sweep):
        try:
            values = read_json(directory.spec_file)
            found = values.get("format") if isinstance(values, dict) else FORMAT
        except CorruptRun:
            continue  # reported as a corrupt row of the table
        if found != FORMAT:
            raise InputError(
                f"--runs {runs}: {directory.path.name} has format {found}, and this version of repro writes "
                f"format {FORMAT}; name another folder with --runs"
            )


def prepare_data(specs: list[RunSpec], processes: int, progress: Progress | None = None) -> list[str]:
    """Draw the embedded world, or fetch and scan the shards, train the laptop's tower, embed images for runs that read
    embeddings: so that runs find all in the cache.

    Returns sentences on what the scan found unusable or lacking. Raises InputError where there is no image-caption
    pair, or none in one of the languages.
    """
    unusable: Counter = Counter()
    lacking: list[str] = []
    for data in {spec.data for spec in specs} - {""}:
        if source.is_shapes(data):
            source.make_world(data, processes, progress)
        else:
            files, indexes = open_shards(list_shards(data), progress)
            unusable += count_unusable([file.name for file in files], indexes)
            if languages := sorted({language for spec in specs if spec.data == data for language in spec.languages}):
                lacking += check_languages(data, languages, shares_of_languages(files, indexes))
    for world in {source.world_of_eval(name, spec.data) for spec in specs for name in spec.evals} - {None}:
        source.make_world(world, processes, progress)
    _download_evals(specs)
    for place in {spec.pretrained for spec in specs} - {""}:
        pretrained.prepare(place, processes, progress)
    _prepare_embeddings([spec for spec in specs if spec.reads_embeddings], progress)
    found = [f"{shard}: {reason} ({count:,} samples)" for (shard, reason), count in unusable.most_common()]
    more = [f"and {len(found) - MOST_NAMED:,} more such lines"] if len(found) > MOST_NAMED else []
    return found[:MOST_NAMED] + more + lacking


def _download_evals(specs: list[RunSpec]) -> None:
    """Raises InputError for a data set of clip-benchmark that cannot be downloaded; what it left is removed."""
    from repro.data.eval_sets import named_parts
    from repro.data.named_sets import is_on_disk, root_of

    for name in named_parts(specs):
        if is_on_disk(name):
            continue
        from repro.evaluate.classification import EvaluationData

        root = root_of(name)
        root.parent.mkdir(parents=True, exist_ok=True)
        logger.warning("--eval %s: downloaded to %s", name, root)
        try:
            EvaluationData.of(name).build(None)
        except (Exception, SystemExit) as error:  # whatever torchvision, tfds or a shell command says
            if root.is_dir() and not any(file.stat().st_size for file in root.rglob("*") if file.is_file()):
                shutil.rmtree(root)
            raise InputError(
                f"--eval {name}: not on disk ({root}), and could not be downloaded: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error


def _prepare_embeddings(specs: list[RunSpec], progress: Progress | None) -> None:
    """Once for each folder and text tower. Raises InputError for a folder of other data or another tower."""
    if not specs:
        return
    from repro.models.embed import embeddings_of

    kinds = {(s.data, s.model, s.pretrained, s.precision, s.embeddings): s for s in specs}
    for spec in kinds.values():
        embeddings_of(spec, progress)
