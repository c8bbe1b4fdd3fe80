"""Options as typed → a Launch: typed, frozen, made once, for dry runs, plans, submissions, local runs, retries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from repro.config.cluster import ClusterProfile, JobGroup, Layout, load_profile, plan_jobs
from repro.config.errors import InputError, nearest
from repro.config.files import CorruptRun, read_object
from repro.config.hardware import cores, visible_gpus
from repro.config.spec import RunSpec
from repro.config.sweep import Overrides, Sweep, expand, load_sweep, local_batches
from repro.estimate import Prediction, check_memory, sizes_of
from repro.estimate.costs import place_on, this_place
from repro.launch.cell import Cell, JobSettings, labelled
from repro.launch.complete import check_evals, check_hub, check_runs_folder, complete

OWN_OPTIONS = {
    "local": ("jobs", "ranks"),
    "inline": (),
    "slurm": ("cluster", "job", "array_parallelism", "local_batch"),
}
"""Executors, and the options that only they have: the others would ignore them in silence."""


CLUSTER = "gpu8"
"""The profile that stands in for a GPU and a cluster where none is named."""
ONE_GPU = ("ranks_per_node=1", "gpus_per_node=1", "max_nodes=1")


@dataclass(frozen=True)
class Options:
    """How runs are carried out; none of it changes a result. None: as the profile or the machine says.

    sweep: its name or file, for `repro retry`. job: KEY=VALUE of the profile. timeout: seconds.
    """

    sweep: str = ""
    executor: str = "local"
    cluster: str | None = None
    job: tuple[str, ...] = ()
    array_parallelism: int | None = None
    local_batch: str | None = None
    jobs: int | None = None
    ranks: int = 1
    workers: int = 0
    checkpoint_seconds: float = 300.0
    restarts: int | None = None
    timeout: float = 600.0
    auto_micro_batch: bool | None = None

    @classmethod
    def chosen(cls, given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> "Options":
        """The options given, completed by those of the launch before. Other keys are ignored. Raises InputError."""
        names = [each.name for each in fields(cls)]
        given = {name: given[name] for name in names if given.get(name) not in (None, ())}
        kept = {name: value for name, value in (before or {}).items() if name in names and value is not None}
        values = kept | given
        options = cls(**values | {"job": tuple(values.get("job", ()))})
        if options.executor not in OWN_OPTIONS:
            raise InputError(f"unknown executor '{options.executor}'{nearest(options.executor, OWN_OPTIONS)}")
        if options.executor == "slurm" and not options.cluster:
            raise InputError(
                "--executor slurm needs --cluster NAME: a profile that says what a job asks of the cluster"
            )
        for executor, own in OWN_OPTIONS.items():
            for name in own if executor != options.executor else ():
                if name in given:
                    raise InputError(
                        f"--{name.replace('_', '-')} is for --executor {executor}; the executor is {options.executor}"
                    )
        return options

    def profile(self) -> ClusterProfile | None:
        """The cluster's, changed by the options; None on this machine. Raises InputError."""
        if self.executor != "slurm":
            return None
        changed = {
            "array_parallelism": self.array_parallelism,
            "requeue": self.restarts,
            "auto_micro_batch": self.auto_micro_batch,
        }
        return load_profile(
            self.cluster, [*self.job, *(f"{key}={value}" for key, value in changed.items() if value is not None)]
        )


@dataclass(frozen=True)
class Launch:
    """Runs, and how they are carried out.

    profile: of the cluster; None on this machine. local_batches: on a cluster, the most examples of each run's batch
    that one rank holds.
    """

    cells: tuple[Cell, ...]
    options: Options
    profile: ClusterProfile | None = None
    local_batches: Mapping[str, int] = field(default_factory=dict)

    @property
    def sweep(self) -> str:
        return self.cells[0].sweep

    @property
    def specs(self) -> list[RunSpec]:
        return [cell.spec for cell in self.cells]

    @property
    def settings(self) -> JobSettings:
        """Settings of its jobs; on a cluster the ranks are each array's own."""
        profile, options = self.profile, self.options
        return JobSettings(
            workers=options.workers,
            checkpoint_seconds=options.checkpoint_seconds,
            ranks=options.ranks,
            restarts=profile.requeue if profile else options.restarts or 0,
            auto_micro_batch=profile.auto_micro_batch if profile else bool(options.auto_micro_batch),
            timeout_seconds=options.timeout,
        )

    def arrays(self, specs: Sequence[RunSpec], largest: int | None = None) -> list[JobGroup]:
        """The arrays of jobs that these of its runs make, none larger than `largest`. Raises InputError."""
        profile = self.profile
        if largest is not None:
            profile = profile.model_copy(update={"max_array_size": min(profile.max_array_size, largest)})
        return plan_jobs(specs, [self.local_batches[spec.run_id] for spec in specs], profile)

    def side_by_side(self, specs: Sequence[RunSpec]) -> int:
        """How many of these runs this machine takes at a time: as asked for, or as it has GPUs or cores for them."""
        threads = max((spec.threads for spec in specs), default=1)
        return self.options.jobs or default_jobs(threads, self.options.ranks)

    def predictions(self) -> list[Prediction]:
        """Predict what each run takes, on a cluster in the order of the arrays. Raises InputError."""
        sizes = sizes_of(self.specs)
        if self.profile is None:
            layout, jobs = Layout(1, self.options.ranks), self.options.jobs
            places = {t: this_place(t, layout.ranks, jobs) for t in {spec.threads for spec in self.specs}}
            return [Prediction(spec, layout, sizes[spec.model], places[spec.threads]) for spec in self.specs]
        return [
            Prediction(spec, array.layout, sizes[spec.model], place)
            for array in self.arrays(self.specs)
            for place in [place_on(self.profile, self.options.cluster, array.layout)]
            for spec in array.specs
        ]


def default_jobs(threads: int, ranks: int = 1) -> int:
    """Runs to start side by side: as there are GPUs for their ranks; or cores, where there is no GPU."""
    if gpus := visible_gpus():
        return max(1, len(gpus) // ranks)
    return max(1, cores() // (threads * ranks))


def usual_options(scale: str, **given: Any) -> Options:
    """Where runs of a scale usually go: this machine, one GPU, a cluster; with more options. Raises InputError."""
    if scale == "laptop" and not given.get("cluster"):
        return Options.chosen(given)
    one_gpu = ONE_GPU if scale == "gpu" and not given.get("cluster") else ()
    job = (*one_gpu, *given.get("job", ()))
    return Options.chosen(given | {"executor": "slurm", "cluster": given.get("cluster") or CLUSTER, "job": job})


def prepare(sweep: Sweep, scale: str, overrides: Overrides, runs: Path, options: Options, dry: bool = False) -> Launch:
    """The launch of a sweep's runs, checked: that data, evaluations, models, tokenizers and weights are there, that
    every run can be dealt to ranks, and fits them. dry: writes nothing. Raises InputError.
    """
    specs = complete(expand(sweep, scale, overrides))
    check_evals(specs)
    check_hub(specs)
    check_runs_folder(runs, sweep.name, dry)
    cells = labelled([Cell.of(spec, runs, sweep.name) for spec in specs])
    return _fitting(_laid_out(cells, options, sweep))


def outline(sweep: Sweep, scale: str, overrides: Overrides, runs: Path, options: Options) -> Launch:
    """Prepare a plan: nothing need be there or fit, nothing is written. Raises InputError."""
    cells = [Cell.of(spec, runs, sweep.name) for spec in expand(sweep, scale, overrides)]
    return _laid_out(cells, options, sweep)


def prepare_again(cells: Sequence[Cell], options: Options) -> Launch:
    """The launch of runs that were launched before. Raises InputError."""
    sweep = load_sweep(options.sweep or cells[0].sweep) if options.executor == "slurm" else None
    return _fitting(_laid_out(cells, options, sweep))


def _laid_out(cells: Sequence[Cell], options: Options, sweep: Sweep | None) -> Launch:
    specs, profile = [cell.spec for cell in cells], options.profile()
    if profile is None:
        for spec in specs:
            spec.check_ranks(options.ranks)
        return Launch(tuple(cells), options)
    batches = local_batches(sweep, specs, options.local_batch)
    of_runs = {spec.run_id: most for spec, most in zip(specs, batches, strict=True)}
    return Launch(tuple(cells), options, profile, of_runs)


def _fitting(launch: Launch) -> Launch:
    if launch.profile is not None:
        check_memory(launch.arrays(launch.specs), launch.profile)
    return launch


def prepare_run(spec_file: Path, runs: Path, sweep: str) -> Cell:
    """The one run that a file describes, checked as `prepare` does; in its own directory where the file is in one.

    spec_file: a run's spec.json, or one that a person wrote. Raises InputError.
    """
    if sweep in ("", ".", "..") or "/" in sweep:
        raise InputError(f"--sweep '{sweep}': expected the name of one folder below --runs")
    try:
        values = read_object(spec_file)
    except CorruptRun as error:
        raise InputError(str(error)) from None
    (spec,) = complete([RunSpec.parse(values, str(spec_file))])
    own = spec_file.resolve()
    if own.name == "spec.json" and own.parent.name == spec.run_id:
        runs, sweep = own.parents[2], own.parents[1].name
    check_evals([spec])
    check_runs_folder(runs, sweep)
    return Cell.of(spec, runs, sweep)
