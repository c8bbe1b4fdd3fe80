"""Jobs of a list of runs on a cluster: how many nodes and ranks each takes, and which go into one array.

The person says how much of a batch one rank holds at most (`local_batch`), and the ranks follow from the batch size:
the fewest whole nodes that hold it. Ranks change no result, so they are decided here and not in a spec.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repro.config.cluster import ClusterProfile
from repro.config.errors import InputError
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size


@dataclass(frozen=True, order=True)
class Layout:
    """The ranks of one run: as many on each node."""

    nodes: int
    ranks_per_node: int

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node


@dataclass(frozen=True)
class JobGroup:
    """One array of jobs, submitted by one call of sbatch: runs of the same layout."""

    layout: Layout
    specs: tuple[RunSpec, ...]


def plan_jobs(specs: Sequence[RunSpec], local_batches: Sequence[int], profile: ClusterProfile) -> list[JobGroup]:
    """Runs grouped by layout into arrays, small layouts first; within a group in the order given.

    local_batches: of each run, as `sweep.local_batches` finds them. The number of arrays, and so of calls of sbatch,
    is the sum over the distinct layouts of ⌈runs of it ÷ max_array_size⌉. Batch sizes that share a number of nodes
    share a layout: the paper's nine on nodes of 8 GPUs have three (1, 2 and 5 nodes), so 300 runs are 3 calls.
    Raises InputError as `layout` does.
    """
    sizes = {(spec.batch_size, spec.micro_batch, most): spec for spec, most in zip(specs, local_batches, strict=True)}
    layouts = {size: layout(spec, size[2], profile) for size, spec in sizes.items()}
    members: dict[Layout, list[RunSpec]] = {}
    for spec, most in zip(specs, local_batches, strict=True):
        members.setdefault(layouts[spec.batch_size, spec.micro_batch, most], []).append(spec)
    length = profile.max_array_size
    return [
        JobGroup(shared, tuple(members[shared][first : first + length]))
        for shared in sorted(members)
        for first in range(0, len(members[shared]), length)
    ]


def layout(spec: RunSpec, local_batch: int, profile: ClusterProfile) -> Layout:
    """The fewest whole nodes whose ranks hold at most `local_batch` examples each.

    One node: all its ranks, or the most that divide the batch. More: all ranks of each, which divide the batch. In
    both, a rank's share is at most a micro-batch or a multiple of it, as training demands (RunSpec.check_ranks).
    Raises InputError, with what would fit, where that is more than the profile's max_nodes or no number of nodes.
    """
    works = functools.partial(_layouts, spec.batch_size, spec.micro_batch, profile.ranks_per_node)
    found = next((each for each in works() if spec.batch_size <= local_batch * each.ranks), None)
    if found is not None and found.nodes <= (profile.max_nodes or found.nodes):
        return found
    allowed = [each for each in works() if each.nodes <= (profile.max_nodes or each.nodes)]
    smallest = spec.batch_size // max(each.ranks for each in allowed)
    would_do = f"local_batch {smallest:,} (--local-batch {smallest}) would do"
    asked = f"batch_size {spec.batch_size:,} at local_batch {local_batch:,}"
    ranks = f"nodes of {profile.ranks_per_node} ranks"
    if found is None:
        raise InputError(f"{asked}: no number of {ranks} divides the batch into shares that small; {would_do}")
    largest = format_batch_size(_largest_batch(spec, local_batch, profile))
    raise InputError(
        f"{asked} needs {found.nodes:,} {ranks}, and max_nodes is {profile.max_nodes:,}; "
        f"the largest batch size that fits is {largest}, or {would_do}"
    )


def _layouts(batch_size: int, micro_batch: int, ranks_per_node: int) -> Iterator[Layout]:
    """All that training can use, in the order in which they are preferred."""

    def usable(ranks: int) -> bool:
        local = batch_size // ranks
        return batch_size % ranks == 0 and (local <= micro_batch or local % micro_batch == 0)

    yield from (Layout(1, ranks) for ranks in range(ranks_per_node, 0, -1) if usable(ranks))
    if batch_size % ranks_per_node == 0:
        most = batch_size // ranks_per_node
        yield from (Layout(nodes, ranks_per_node) for nodes in range(2, most + 1) if usable(nodes * ranks_per_node))


def _largest_batch(spec: RunSpec, local_batch: int, profile: ClusterProfile) -> int:
    """On max_nodes, of this micro-batch."""
    micro_batch, ranks = spec.micro_batch, (profile.max_nodes or 1) * profile.ranks_per_node
    for local in range(local_batch, 0, -1):
        dealt = local <= micro_batch or local % micro_batch == 0
        if dealt and (local * ranks <= micro_batch or local * ranks % micro_batch == 0):
            return local * ranks
    return min(micro_batch, local_batch)
