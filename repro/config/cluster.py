"""A cluster profile: what one cluster is made of, and how jobs are asked for there (sweeps/clusters/*.yaml); then the
jobs of a list of runs: how many nodes and ranks each takes, and which go into one array.

Nothing of it changes a run's result. The person says how much of a batch one rank holds at most (`local_batch`), and
the ranks follow from the batch size: the fewest whole nodes that hold it. A profile's values are taken as written, not
as YAML 1.1 reads them: 2:00:00 would be the number 7200, and NCCL_IB_DISABLE: off the value false.
"""

import functools
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from repro.config.errors import InputError, nearest
from repro.config.files import resource
from repro.config.reading import FROZEN, read_setting, read_yaml, validated
from repro.config.spec import RunSpec
from repro.config.units import format_batch_size, format_seconds, parse_bytes, parse_seconds

ALL_MEMORY = 0
"""SLURM's word for all the memory of a node."""
OURS = {
    "account": "account",
    "constraint": "constraint",
    "cpus-per-task": "cpus_per_rank",
    "gpus-per-node": "gpus_per_node",
    "mem": "memory",
    "no-requeue": "requeue",
    "ntasks-per-node": "ranks_per_node",
    "partition": "partition",
    "qos": "qos",
    "requeue": "requeue",
    "signal": "grace",
    "time": "time",
}
"""Options of sbatch that a key of the profile sets."""
FOLLOWS = ("array", "error", "job-name", "nodes", "ntasks", "open-mode", "output")
"""Options of sbatch that follow from the runs."""
SHORT_SECONDS = 300
"""Less than this between a start and the request to stop goes to loading Python, the data and the checkpoint."""
Seconds = Annotated[int, BeforeValidator(parse_seconds), Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _parse_memory(text: Any) -> int:
    return ALL_MEMORY if str(text).strip().lower() == "all" else parse_bytes(text)


class ClusterProfile(BaseModel):
    """One cluster. Frozen; made by `load_profile`, which turns what is wrong into InputErrors."""

    model_config = FROZEN

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None

    ranks_per_node: Count
    gpus_per_node: int = Field(0, ge=0, description="0: ranks compute on CPUs")
    cpus_per_rank: Count = 1
    memory_bytes: Annotated[int, BeforeValidator(_parse_memory)] | None = Field(
        None, alias="memory", description="of a node; null for the cluster's default, ALL_MEMORY for all of it"
    )
    gpu_memory_bytes: Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)] | None = Field(
        None, alias="gpu_memory", description="of one GPU: runs that cannot fit are refused before they are submitted"
    )
    tflops_per_rank: float | None = Field(None, gt=0, description="sustained, 10¹² a second, for the estimate of hours")

    time_seconds: Seconds = Field(alias="time", description="the longest that one attempt of a run may take")
    grace_seconds: Seconds = Field(
        120, le=65_535, alias="grace", description="so long before the limit a run is told to stop"
    )
    requeue: int = Field(2, ge=0, description="so many times a job is requeued after a rank or a node died")
    auto_micro_batch: bool = Field(False, description="a run that does not fit goes on with a smaller micro-batch")

    max_nodes: Count | None = Field(None, description="of one job")
    array_parallelism: Count = Field(256, description="so many jobs of one array run at a time")
    max_array_size: Count = Field(1000, description="of jobs; never more than the cluster's MaxArraySize")

    setup: tuple[str, ...] = Field((), description="shell lines before the run starts")
    environment: dict[str, str] = Field({}, description="variables of the ranks, taken literally")
    python: str | None = Field(None, description="the command that starts Python; null for the one that submits")
    options: dict[str, str] = Field({}, description="any other option of sbatch, such as mail-user")

    @field_validator("setup", mode="before")
    @classmethod
    def _lines(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise InputError(f"expected a list of shell lines; write ['{value}']")
        return value

    @field_validator("environment")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise InputError(f"'{name}' is no name of an environment variable")
        return value

    @field_validator("options")
    @classmethod
    def _only_others(cls, value: dict[str, str]) -> dict[str, str]:
        options = {name.lstrip("-").replace("_", "-"): text for name, text in value.items()}
        for name in options:
            if name in OURS:
                raise InputError(f"'{name}' is set by the key {OURS[name]}")
            if name in FOLLOWS:
                raise InputError(f"'{name}' follows from the runs, and cannot be set")
        return options

    @model_validator(mode="after")
    def _combinations(self) -> "ClusterProfile":
        if self.gpus_per_node and self.ranks_per_node != self.gpus_per_node:
            raise InputError(
                f"ranks_per_node {self.ranks_per_node} on {self.gpus_per_node} GPUs a node: each rank computes on one "
                f"GPU of its own; expected ranks_per_node {self.gpus_per_node}, or gpus_per_node 0 for CPUs"
            )
        if self.time_seconds <= self.grace_seconds:
            raise InputError(
                f"time {format_seconds(self.time_seconds)} is not longer than grace "
                f"{format_seconds(self.grace_seconds)}: runs would be told to stop as they start; "
                f"expected more time or less grace"
            )
        return self

    def too_short(self) -> str:
        """A sentence for a time limit that leaves a start next to no training; '' for one that leaves enough."""
        left = self.time_seconds - self.grace_seconds
        if left >= SHORT_SECONDS:
            return ""
        return (
            f"time {format_seconds(self.time_seconds)} less grace {format_seconds(self.grace_seconds)} leaves a start "
            f"{format_seconds(left)}, which may all go to loading: expected {format_seconds(SHORT_SECONDS)} or more"
        )


def load_profile(name: str, settings: Sequence[str] = ()) -> ClusterProfile:
    """A profile by name or by the path of a YAML file, with the keys that `settings` ('key=value' of --job) change.

    Raises InputError that names the file or --job, the key, and the nearest that works.
    """
    file = _find(name)
    values = read_yaml(file, yaml.BaseLoader)
    changed = dict(read_setting(text, "--job", "time=2h", yaml.BaseLoader) for text in settings)
    given = {key: value for key, value in (values | changed).items() if not _is_null(value)}
    return validated(ClusterProfile, given, lambda key: "--job" if key in changed else str(file))


def sbatch_parameters(profile: ClusterProfile, nodes: int, ranks_per_node: int) -> dict[str, Any]:
    """Arguments of `submitit.SlurmExecutor.update_parameters` for jobs of this size, except their name.

    The batch script runs Python itself, on the first node, and that starts the ranks (use_srun False). The signal
    reaches all steps of a job. GPUs are asked for as there are ranks, so that a small batch leaves the others free.
    """
    exports = ["export REPRO_GPU=required"] if profile.gpus_per_node else []  # a rank that sees no GPU is an error
    exports += [f"export {name}={shlex.quote(value)}" for name, value in profile.environment.items()]
    others = {name: True if text == "true" else text for name, text in profile.options.items() if text != "false"}
    memory = profile.memory_bytes
    parameters = {
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "nodes": nodes,
        "ntasks_per_node": ranks_per_node,
        "cpus_per_task": profile.cpus_per_rank,
        "gpus_per_node": ranks_per_node if profile.gpus_per_node else None,
        "mem": None if memory is None else "0" if memory == ALL_MEMORY else f"{max(1, memory // 2**20)}M",
        "time": -(-profile.time_seconds // 60),
        "signal_delay_s": profile.grace_seconds,
        "array_parallelism": profile.array_parallelism,
        "setup": [*profile.setup, *exports] or None,
        "use_srun": False,
        "additional_parameters": {"requeue": True, **others},
    }
    return {name: value for name, value in parameters.items() if value is not None}


def folders() -> list[Path]:
    """Where profiles are looked for by name: the project's, the person's, those that come along."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    return [Path("sweeps/clusters"), config / "siglip-repro" / "clusters", resource("sweeps") / "clusters"]


def _find(name: str) -> Path:
    if Path(name).suffix in (".yaml", ".yml"):
        return Path(name)
    found = {file.stem: file for folder in reversed(folders()) for file in sorted(folder.glob("*.yaml"))}
    if name not in found:
        raise InputError(f"unknown cluster '{name}'{nearest(name, found)}; or give the path of a .yaml file")
    return found[name]


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.lower() in ("", "~", "null"))


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
