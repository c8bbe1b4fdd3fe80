"""Where a spec's data come from: the embedded world, made on demand, or the person's own shards."""

from repro.counts import parse_examples
from repro.data import shapes, shards
from repro.data.shards import Progress
from repro.errors import InputError
from repro.resources import cache_folder
from repro.spec import RunSpec

WORLD_SEED = 0


def is_shapes(data: str) -> bool:
    return data == "shapes" or data.startswith("shapes:")


def world_size(data: str) -> int:
    """'shapes:65536' → 65,536 examples. Raises InputError."""
    examples = parse_examples(data.partition(":")[2] or 65_536)
    if examples < 1:
        raise InputError(f"data {data}: expected at least one example")
    return examples


def fingerprint(data: str) -> str:
    """What identifies the data's content. Raises InputError where the pattern matches nothing."""
    if is_shapes(data):
        return shapes.fingerprint(world_size(data), WORLD_SEED)
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
    examples = world_size(data)
    folder = cache_folder() / shapes.fingerprint(examples, WORLD_SEED)
    return shapes.make(folder, examples, WORLD_SEED, processes=processes, progress=progress)


def shard_pattern(spec: RunSpec) -> str:
    """The pattern of the spec's training shards."""
    return make_world(spec.data).train_pattern if is_shapes(spec.data) else spec.data


def eval_folders(spec: RunSpec) -> list[str]:
    """The spec's evaluations: 'shapes' stands for the embedded world's two sets; other names as they are."""
    found: list[str] = []
    for name in spec.evals:
        if name == "shapes":
            world = make_world(spec.data if is_shapes(spec.data) else "shapes")
            found += world.evals
        else:
            found.append(name)
    return found
