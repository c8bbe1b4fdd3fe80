"""Sweep and recipe files → list[RunSpec].

A recipe (sweeps/recipes/<setup>-<scale>.yaml) is one complete RunSpec; a sweep (sweeps/<name>.yaml) says which
fields vary at each scale, and what of the paper that reproduces. What is given later wins:
recipe < the sweep's `set` < the sweep's `axes` and `cases` < options of the command line.

A scale can have a measurement in the place of runs: `bench` names a command of `repro bench`, with its options.

Runs are the product of the axes with the cases, which are fields that vary together; a list in a case stands for
several cases. Where setups differ in what varies, `setups` has for each its own `axes`, `set` and `cases`.

Three keys of recipes are no fields of a run: `stands_in`, what takes the place of what the paper has and is private,
and `differs`, where the recipe leaves the authors' code, both told in reports; and `local_batch` (also of `set`), how
many examples of a batch one rank holds at most.
On a cluster the ranks follow from it (cluster.py), and ranks change no result.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from repro.config.errors import InputError, nearest
from repro.config.files import resource
from repro.config.reading import FROZEN, known_keys, known_name, read_setting, read_yaml, validated
from repro.config.setups import SETUPS
from repro.config.spec import CORRUPTIONS, LOG_COLUMNS, SCALES, RunSpec
from repro.config.units import parse_batch_size, parse_examples, parse_positive
from repro.loss.registry import LOSSES

NO_FIELDS = ("local_batch", "stands_in", "differs")
"""Keys of recipes that change no result."""


def _check_key(key: str, where: str) -> None:
    if key == "local_batch":
        raise InputError(f"{where}: local_batch changes no result, so no run has it; give it with --local-batch")
    if key not in RunSpec.model_fields:
        raise InputError(f"{where}: unknown key '{key}'{nearest(key, RunSpec.model_fields)}")


def _of_a_run(values: dict[str, Any]) -> dict[str, Any]:
    for key, value in values.items():
        _check_key(key, "in a list of runs")
        if value == []:
            raise InputError(f"{key}: expected a value, or a list of some")
    return values


def _one_command(bench: dict[str, Any] | None) -> dict[str, Any] | None:
    if bench is not None and len(bench) != 1:
        raise InputError("expected one command of repro bench with its options, such as capacity: {}")
    return bench


Text = Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]
Name = Annotated[str, AfterValidator(partial(known_name, SETUPS))]
RunFields = Annotated[dict[str, Any], AfterValidator(_of_a_run)]


class Block(BaseModel):
    """The product of `axes` with `cases`, which are fields that vary together. set: fields that do not vary."""

    model_config = FROZEN

    axes: Annotated[dict[str, list[Any]], AfterValidator(_of_a_run)] = {}
    set: dict[str, Any] = {}
    cases: list[RunFields] = []

    _keys = model_validator(mode="before")(classmethod(known_keys))


class Scale(Block):
    """A sweep at one scale. setup: of its runs, where no option says another. setups: each one's own block."""

    setup: str | list[str] = "siglip"
    setups: dict[Name, Block] = {}
    bench: Annotated[dict[str, dict[str, Any]] | None, AfterValidator(_one_command)] = None

    @model_validator(mode="after")
    def _runs_or_a_measurement(self) -> "Scale":
        if self.bench and self.model_fields_set != {"bench"}:
            raise InputError("a scale is a measurement or runs; expected no other key beside bench")
        return self

    def block(self, setup: str, where: str) -> Block:
        """The block of one setup: its own keys before the scale's. Raises InputError."""
        own = self.setups.get(setup, Block())
        cases = own.cases if "cases" in own.model_fields_set else self.cases
        axes = self.axes | own.axes
        for key in (key for case in cases for key in case if key in axes):
            raise InputError(f"{where}: {key} is in axes and in cases; expected it in one of them")
        return Block(axes=axes, set=self.set | own.set, cases=cases)


class Sweep(BaseModel):
    """A sweep file. claim: what the paper says. curves: columns of the runs' logs that belong to the result."""

    model_config = FROZEN

    file: Path
    title: Text = ""
    reproduces: Text = ""
    claim: Text = ""
    curves: tuple[Annotated[str, AfterValidator(partial(known_name, LOG_COLUMNS))], ...] = ()
    scales: Annotated[dict[Literal["laptop", "gpu", "paper"], Scale], Field(min_length=1)]

    @property
    def name(self) -> str:
        return self.file.stem

    def bench(self, scale: str) -> tuple[str, dict[str, Any]] | None:
        """The command of `repro bench` that this sweep is at a scale, with its options; None where it is runs.

        Raises InputError for a scale that the sweep does not have.
        """
        if scale not in self.scales:
            raise InputError(
                f"sweep '{self.name}' has no scale '{scale}'{nearest(scale, SCALES)} (it has {', '.join(self.scales)})"
            )
        found = self.scales[scale].bench
        return next(iter(found.items())) if found else None


@dataclass(frozen=True)
class Overrides:
    """Changes of the command line: values of axes (lists), and single values of any field."""

    axes: dict[str, list[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def list_sweeps() -> list[Sweep]:
    """Every sweep that `load_sweep` finds by name. Raises InputError for one whose file is wrong."""
    return [load_sweep(name) for name in sweep_names()]


def sweep_names() -> list[str]:
    """The person's own in ./sweeps, and those that come along."""
    return sorted({file.stem for folder in folders() for file in folder.glob("*.yaml")})


def load_sweep(name: str) -> Sweep:
    """By name, or by the path of a YAML file. Raises InputError that names the file and the key."""
    file = Path(name)
    if file.suffix not in (".yaml", ".yml"):
        candidates = [folder / f"{name}.yaml" for folder in folders()]
        found = [candidate for candidate in candidates if candidate.is_file()]
        if not found:
            known = {f.stem for folder in folders() for f in folder.glob("*.yaml")}
            raise InputError(f"unknown sweep '{name}'{nearest(name, known)}")
        file = found[0]
    values = read_yaml(file)
    return validated(Sweep, {"title": file.stem} | values | {"file": file}, str(file))


def load_recipe(setup: str, scale: str) -> tuple[dict[str, Any], Path]:
    """The recipe's values, and its file. Raises InputError."""
    if setup not in SETUPS:
        raise InputError(f"unknown setup '{setup}'{nearest(setup, SETUPS)}")
    if scale not in SCALES:
        raise InputError(f"unknown scale '{scale}'{nearest(scale, SCALES)}")
    recipes = [folder / "recipes" for folder in folders()]
    for folder in recipes:
        if (file := folder / f"{setup}-{scale}.yaml").is_file():
            return {**read_yaml(file), "setup": setup, "scale": scale}, file
    known = sorted({file.stem for folder in recipes for file in folder.glob("*.yaml")})
    raise InputError(f"there is no recipe for setup '{setup}' at scale '{scale}'; known: {', '.join(known)}")


def stands_in(setup: str, scale: str) -> str:
    """The recipe's stand-in for what the paper has and is private, and where it differs from the authors' code.

    '' where there is neither, or no recipe.
    """
    try:
        recipe, _ = load_recipe(setup, scale)
    except InputError:
        return ""
    differs = "; ".join(recipe.get("differs", ()))
    return " ".join(filter(None, (recipe.get("stands_in"), differs and f"Unlike the authors' code: {differs}.")))


def expand(sweep: Sweep, scale: str, overrides: Overrides) -> list[RunSpec]:
    """The sweep's runs at one scale, in the order of its axes. Raises InputError."""
    if sweep.bench(scale):
        raise InputError(f"sweep '{sweep.name}' at scale {scale} is a measurement; it has no runs")
    for key in (*overrides.axes, *overrides.values):
        _check_key(key, "--set")
    setups = overrides.axes.get("setup") or _listed(overrides.values.get("setup", sweep.scales[scale].setup))
    return list({spec.run_id: spec for setup in setups for spec in _expand(sweep, scale, setup, overrides)}.values())


def _expand(sweep: Sweep, scale: str, setup: str, overrides: Overrides) -> Iterator[RunSpec]:
    """The cells of one setup."""
    recipe, file = load_recipe(setup, scale)
    block = sweep.scales[scale].block(setup, f"{sweep.file}: scales.{scale}")
    given = {name: values for name, values in overrides.axes.items() if name != "setup"}
    fixed = {name: value for name, value in overrides.values.items() if name != "setup"}
    axes = {name: values for name, values in block.axes.items() if name not in fixed} | given
    cases = [case for each in block.cases or [{}] for case in _product(each)]
    for cell, case in itertools.product(_product(axes), cases):
        chosen = {name: value for name, value in case.items() if name not in given} | cell | fixed
        values = recipe | block.set | chosen
        for key in NO_FIELDS:
            values.pop(key, None)
        yield _resolve(values, chosen, f"{sweep.file.name}, {file.name}")


def _product(values: dict[str, Any]) -> list[dict[str, Any]]:
    """{"a": [1, 2], "b": 3} → [{"a": 1, "b": 3}, {"a": 2, "b": 3}]."""
    return [dict(zip(values, cell, strict=True)) for cell in itertools.product(*map(_listed, values.values()))]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def local_batches(sweep: Sweep, specs: Sequence[RunSpec], chosen: str | int | None = None) -> list[int]:
    """Return, for each run of this sweep, the most examples of its batch that one rank holds.

    `chosen` (--local-batch) before the sweep's `set` before the recipe. Raises InputError where none of them says it,
    or not as a batch size.
    """

    @functools.cache
    def of(setup: str, scale: str) -> int:
        recipe, file = load_recipe(setup, scale)
        places = (
            ({"local_batch": chosen}, "--local-batch"),
            (sweep.scales[scale].block(setup, "").set, f"{sweep.file}: scales.{scale}: set: local_batch"),
            (recipe, f"{file}: local_batch"),
        )
        for values, where in places:
            if (value := values.get("local_batch")) is not None:
                return parse_positive(value, where)
        raise InputError(f"{file}: 'local_batch' is missing (the most a rank holds); give it with --local-batch")

    return [of(spec.setup, spec.scale) for spec in specs]


def _resolve(values: dict[str, Any], chosen: dict[str, Any], where: str) -> RunSpec:
    """One cell's values → RunSpec: shares become counts, the prior a number, softmax loses the bias that nobody asked
    for, and what is corrupted with probability 0 is not corrupted: one run, whatever the kind.
    """
    kind = LOSSES.get(str(values.get("loss")))
    if kind is not None and not kind.has_bias and "init_logit_bias" not in chosen:
        values["init_logit_bias"] = None
    if values.get("corruption", "none") in CORRUPTIONS and values.get("corruption_probability") == 0:
        values["corruption"] = "none"
    if values.get("init_logit_bias") == "prior":
        values["init_logit_bias"] = prior_bias(parse_batch_size(values["batch_size"]))
    warmup = values.get("warmup_examples", 0)
    if isinstance(warmup, str) and warmup.endswith("%"):
        try:
            share = float(warmup[:-1]) / 100
        except ValueError:
            raise InputError(f"{where}: warmup_examples '{warmup}' is not a share such as 10%") from None
        values["warmup_examples"] = int(share * parse_examples(values["examples_seen"]))
    return RunSpec.parse(values, where)


def prior_bias(batch_size: int) -> float:
    """b = −log(B − 1): at t·x·y = 0 a pair is then a positive with probability 1/B, its share. Raises InputError."""
    if batch_size < 2:
        raise InputError("init_logit_bias 'prior' is −log(batch_size − 1): expected a batch_size of 2 or more")
    return -math.log(batch_size - 1)


def parse_setting(text: str) -> tuple[str, Any]:
    """'key=value' of --set, the value read as YAML, counts and names as they are written. Raises InputError."""
    key, value = read_setting(text, "--set", "learning_rate=3e-4")
    _check_key(key, "--set")
    written = text.partition("=")[2]
    if key in ("batch_size", "micro_batch", "examples_seen", "warmup_examples", "data", "model"):
        return key, written
    try:  # YAML 1.1 reads 3e-4 as a string; people mean the number
        return key, float(written) if isinstance(value, str) else value
    except ValueError:
        return key, value


def folders() -> list[Path]:
    return [folder for folder in (Path("sweeps"), resource("sweeps")) if folder.is_dir()]
