"""Where a spec's data come from: the embedded world, made on demand, or the person's own shards.

shapes:65536 is the world with English captions, shapes-multilingual:65536 the one with captions in several languages;
shapes:65536:seed=1 is another world of the same kind.

Its classification set needs a `train` split for a linear probe. It lies beside the test split and comes from a random
stream of its own, so that a world without it gets it where it is wanted, and no byte of it changes.
"""

import json
import shutil
from collections.abc import Iterable
from uuid import uuid4

import numpy as np

from repro.config.errors import InputError
from repro.config.files import cache_folder
from repro.config.spec import RunSpec
from repro.config.units import parse_examples
from repro.data import shards
from repro.data.eval_sets import WORLD_LANGUAGES, WORLDS, parts, split_shots, world_sets
from repro.data.shards import Progress
from repro.world import write as shapes
from repro.world.scenes import CLASSES
from repro.world.write import OBJECTS, ShapesWorld, object_samples, write_tar

WORLD_SEED = 0


def is_shapes(data: str) -> bool:
    return data.partition(":")[0] in WORLDS


def is_multilingual_shapes(data: str) -> bool:
    return data.partition(":")[0] == "shapes-multilingual"


def languages_of_world(data: str) -> tuple[str, ...]:
    """Languages of the world's captions; the English world has no captions by language."""
    return WORLD_LANGUAGES if is_multilingual_shapes(data) else ()


def world_size(data: str) -> int:
    """'shapes:65536' → 65,536 examples. Raises InputError."""
    _, size, *_ = (*data.split(":"), "")
    examples = parse_examples(size or 65_536)
    if examples < 1:
        raise InputError(f"data {data}: expected at least one example")
    return examples


def world_seed(data: str) -> int:
    """'shapes:65536:seed=1' → 1; WORLD_SEED where none is named. Raises InputError."""
    options = data.split(":")[2:]
    if not options:
        return WORLD_SEED
    name, _, seed = options[0].partition("=")
    if len(options) > 1 or name != "seed" or not seed.isdecimal():
        raise InputError(f"data {data}: expected such as shapes:65536 or shapes:65536:seed=1")
    return int(seed)


def fingerprint(data: str) -> str:
    """Identify the data's content. Raises InputError where the pattern matches nothing."""
    if is_shapes(data):
        return shapes.fingerprint(world_size(data), world_seed(data), multilingual=is_multilingual_shapes(data))
    return shards.fingerprint(shards.list_shards(data))


def check_unchanged(spec: RunSpec) -> None:
    """Raises InputError where the shards are no longer those that the spec was made for."""
    if is_shapes(spec.data) or not spec.data_fingerprint:
        return
    found = fingerprint(spec.data)
    if found != spec.data_fingerprint:
        raise InputError(
            f"--data {spec.data}: a shard was changed, added or removed since the run was made (fingerprint {found}, "
            f"expected {spec.data_fingerprint}); type the sweep again, and other data make other runs"
        )


def make_world(data: str, processes: int = 1, progress: Progress | None = None) -> shapes.ShapesWorld:
    """The embedded world in the cache; drawn when it is not there yet."""
    examples, multilingual = world_size(data), is_multilingual_shapes(data)
    folder = cache_folder() / fingerprint(data)
    return shapes.make(folder, examples, world_seed(data), 32, processes, progress, multilingual)


def shard_pattern(spec: RunSpec) -> str:
    """The pattern of the spec's training shards."""
    return make_world(spec.data).train_pattern if is_shapes(spec.data) else spec.data


def world_of_eval(name: str, data: str) -> str | None:
    """The embedded world whose sets an evaluation's name stands for: the one trained on, if it has them."""
    name, _ = split_shots(name)
    if not (sets := world_sets(name, data)):
        return None
    return data if sets == WORLDS.get(data.partition(":")[0]) else name


def eval_folders(spec: RunSpec) -> list[str]:
    """The spec's evaluations, one for each data set."""
    return each_eval(spec.evals, spec.data)


def each_eval(evals: Iterable[str], data: str = "") -> list[str]:
    """'shapes' stands for the embedded world's sets (`data`: what was trained on), other names for their languages."""
    found: list[str] = []
    for name in evals:
        world = world_of_eval(name, data)
        _, shots = split_shots(name)
        if world and shots:
            found.append(f"{with_training_split(make_world(world))}:{shots}-shot")
        else:
            found += make_world(world).evals if world else parts(name)
    return list(dict.fromkeys(found))


SHOTS = 10
"""Images of each class: the paper's 10-shot."""
_STREAM = 3
"""Number of the random stream of a seed; write.py has 0 to 2."""


def with_training_split(world: ShapesWorld) -> str:
    """The folder of the world's classification set, with its training split, drawn where it is missing.

    The split appears whole or not at all; of two processes that draw it at once, the first to finish counts.
    Raises InputError where it cannot be written.
    """
    folder = world.folder / OBJECTS
    if (folder / "train").is_dir():
        return str(folder)
    values = json.loads((world.folder / "world.json").read_text())
    partial = folder / f".train.{uuid4().hex[:8]}.partial"
    try:
        partial.mkdir()
        (partial / "nshards.txt").write_text("1\n")
        rng = np.random.default_rng([values["seed"], _STREAM])
        write_tar(partial / "0.tar", object_samples(rng, SHOTS * len(CLASSES), values["image_size"]), 0)
        try:
            partial.rename(folder / "train")
        except OSError:
            if not (folder / "train").is_dir():
                raise
    except OSError as error:
        raise InputError(f"{folder}: its training split cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return str(folder)
