"""Claims of the paper's other experiments: training, negatives, settings, public weights, memory and communication."""

import functools
import math
from collections.abc import Iterator

import pandas as pd

from repro.config.errors import InputError
from repro.config.units import format_batch_size, format_bytes
from repro.models.model_config import is_at_hand, read_config
from repro.report.claims.evidence import (
    NEVER_COMPARED,
    SMALL_COST,
    Group,
    Part,
    Verdict,
    difference,
    fixed,
    groups,
    judge,
    part,
    weakest,
    where,
)
from repro.report.draw.benchmark import largest_size
from repro.report.exhibits.settings import identity
from repro.report.inputs import Inputs
from repro.results import tables

EIGHTH = 8
"""The paper's bottleneck has 96 of 768 columns."""
SETTING = ["local_batch", "dim", "dtype", "device", "threads"]
SAME_MEMORY = 1.25
"""Growth of memory over the ranks up to which it counts as none."""
Parts = Iterator[Part | None]


def finetune_ramp(inputs: Inputs) -> Parts:
    runs = _of_figure(inputs.evaluations, inputs, "figure 4")
    metrics = [column for column in runs.columns if column.endswith("/acc1") and runs[column].notna().any()]
    if not metrics:
        return
    early = runs[tables.numbers(runs["examples_seen_at"]) <= tables.numbers(runs["examples_seen"]) / 4]
    own = ["run_id", "seed", "setup", *(c for c in ("image_weight_decay", *NEVER_COMPARED) if c in early)]
    # A run's points are no seeds of each other: each run is one number.
    means = early.groupby(own, dropna=False)[metrics[0]].mean().reset_index()
    means = means.assign(loss="sigmoid", batch_size=1, status="finished")
    by = [column for column in NEVER_COMPARED if column in means and means[column].nunique(dropna=False) > 1]
    for key, group in tables.split(means, by):
        pair = (where(group, setup="finetune", image_weight_decay=0.0), where(group, setup="siglip"))
        ahead = difference(*pair, metrics[0], group.drop(columns=by)) if all(map(len, pair)) else None
        yield part(tables.series_label(key), ahead, "higher")


def beta2(inputs: Inputs) -> Parts:
    """Ratio of the runs' spikes: a difference of logarithms."""
    curves = _of_figure(inputs.curves, inputs, "figure 5")
    if curves.empty or not {"gradient_norm", "beta2"} <= set(curves.columns):
        return
    settings = [c for c in ("scale", "model", "batch_size", "learning_rate") if c in curves]
    norms = curves.assign(norm=tables.numbers(curves["gradient_norm"])).dropna(subset=["norm"])
    spikes = norms.groupby(["run_id", "beta2", "seed", *settings], dropna=False)["norm"]
    runs = spikes.agg(lambda each: math.log(each.max() / each.median())).reset_index(name="spike")
    runs = runs.assign(loss="sigmoid", status="finished")
    runs = runs if "batch_size" in runs else runs.assign(batch_size=1)
    pair = (where(runs, beta2=0.999), where(runs, beta2=0.95))
    if (spike := difference(*pair, "spike", runs, on=settings, scale=1)) is None:
        return
    text = f"0.999 over 0.95: {math.exp(spike.points):.2f}"
    if not spike.freedom:
        yield fixed(f"{text} (one seed)", Verdict.TOO_FEW, spike.runs)
        return
    low, high = spike.interval()
    text += f" ({math.exp(low):.2f} to {math.exp(high):.2f}) times"
    yield fixed(text, judge((low, high), "higher"), spike.runs)


def _of_figure(table: pd.DataFrame, inputs: Inputs, figure: str) -> pd.DataFrame:
    return table[table["sweep"].isin(inputs.sweeps_of(figure))] if "sweep" in table else table[:0]


def noise(inputs: Inputs) -> Parts:
    """Points that the softmax loses minus those that the sigmoid loses: what the sigmoid gains on it by the noise."""
    for group in groups(inputs, "figure 7"):
        corrupted = group.runs[tables.numbers(group.runs["corruption_probability"]) > 0]
        plain = group.difference(*(group.of(loss=loss, corruption="none") for loss in tables.LOSSES))
        on = ("corruption", "corruption_probability")
        kept = group.difference(*(where(corrupted, loss=loss) for loss in tables.LOSSES), on=on)
        yield part(group.label, kept.minus(plain), "higher") if plain and kept else None


def finetune(inputs: Inputs) -> Parts:
    for group in groups(inputs, "figure 4"):
        pair = [group.of(setup="finetune", image_weight_decay=decay) for decay in (0.0, None)]
        yield group.part("0-shot", pair, "higher")
        for metric in (column for column in group.runs.columns if column.endswith("/10shot_acc1")):
            yield group.part("10-shot probe", pair, "higher", metric)


def _fewer_negatives(inputs: Inputs, kind: str, expected: str, shares: tuple[float, ...] = ()) -> Parts:
    """A kind of negatives minus all of them, at each share, in training of the same length; retrieval is shown, too."""
    for group in groups(inputs, "figure 6"):
        everything = group.of(negatives="all")
        own = group.of(negatives=kind)
        own = own[own["examples_seen"] == everything["examples_seen"].min()]
        for metric, name, expects in _both_metrics(group, expected):
            for share in sorted(own["negatives_share"].unique(), reverse=True):
                if not shares or any(math.isclose(share, wanted) for wanted in shares):
                    kept = where(own, negatives_share=float(share))
                    label = f"{name}{100 * share:g}% {kind} minus all"
                    yield group.part(label, (kept, everything), expects, metric, margin=SMALL_COST)


random_negatives = functools.partial(_fewer_negatives, kind="random", expected="lower")
easy_negatives = functools.partial(_fewer_negatives, kind="easy", expected="lower")
hard_negatives = functools.partial(_fewer_negatives, kind="hard", expected="not lower", shares=(0.1,))


def matched_negatives(inputs: Inputs) -> Parts:
    for group in groups(inputs, "figure 6"):
        everything, longer = group.of(negatives="all"), group.of(negatives="hard")
        longer = longer[longer["examples_seen"] > everything["examples_seen"].min()]
        for metric, name, expected in _both_metrics(group, "higher"):
            yield group.part(f"{name}matched minus all", (longer, everything), expected, metric)


def _both_metrics(group: Group, expected: str) -> list[tuple[str, str, str]]:
    """(metric, its name in a text, expected) of accuracy, which is judged, and of retrieval, which is shown."""
    both = (group.accuracy, "", expected), (group.retrieval, "retrieval, ", "")
    return [each for each in both if each[0]]


def vocabulary(inputs: Inputs) -> Parts:
    """Several languages are judged by retrieval, where there is one."""
    for group in groups(inputs, "section 4.3"):
        full = group.of(token_bottleneck=None)
        small = full["model"].astype(str).str.contains("small|49k")  # the models of sweeps/vocabulary.yaml
        metrics = {"retrieval": group.retrieval, "accuracy": group.accuracy}
        for name, metric in ((name, metric) for name, metric in metrics.items() if metric):
            expected = "higher" if name == "retrieval" or not group.retrieval else ""
            yield group.part(f"{name}, large minus small", (full[~small], full[small]), expected, metric)


def bottleneck(inputs: Inputs) -> Parts:
    for group in groups(inputs, "section 4.3"):
        for columns in sorted(tables.numbers(group.runs["token_bottleneck"]).dropna().unique(), reverse=True):
            narrow = group.of(token_bottleneck=float(columns))
            model = str(narrow["model"].iloc[0])
            width = _text_width(model)
            whole = group.of(token_bottleneck=None, model=model)
            expected = "not lower" if columns * EIGHTH == width else ""
            text = f"K = {columns:g}{f' of {width}' if width else ''} minus the full table"
            yield group.part(text, (narrow, whole), expected, group.retrieval, margin=SMALL_COST)


def _text_width(model: str) -> int | None:
    """Width of the text tower; None for a model whose config is not at hand."""
    try:
        return int(read_config(model)[0]["model_cfg"]["text_cfg"]["width"]) if is_at_hand(model) else None
    except (InputError, KeyError, TypeError, ValueError):
        return None


def hyperparameters(inputs: Inputs) -> Parts:
    """At each batch size the middle of the grid against each of its other cells."""
    rates = ["learning_rate", "weight_decay"]
    for group in groups(inputs, "table 6"):
        middle = {name: float(group.runs[name].median()) for name in rates}
        for size, grid in group.runs.groupby("batch_size"):
            own = where(grid, **middle)
            others = [cell for key, cell in tables.split(grid, rates) if key != middle]
            rivals = [rival for cell in others if (rival := group.difference(own, cell)) is not None]
            if not rivals:
                continue
            worst = min(rivals, key=lambda rival: rival.points)
            text = group.named(f"{tables.signed(min(0.0, worst.points))} from the best at {int(size)}")
            verdict = weakest({judge(rival.interval(len(rivals)), "not lower", SMALL_COST) for rival in rivals})
            if not worst.freedom:
                text, verdict = f"{text} (one seed)", Verdict.TOO_FEW
            yield fixed(text, verdict, frozenset().union(*(rival.runs for rival in rivals)))


def released(inputs: Inputs) -> Parts:
    """Weights are what they are: no seeds, and the evaluation is exact."""
    for group in groups(inputs, "table 3"):
        done = tables.finished(group.runs)
        done = done.assign(value=tables.numbers(done[group.accuracy])) if group.accuracy else done
        done = done.dropna(subset=["value"]) if group.accuracy else done
        rows: dict[tuple[str, int], dict[bool, float]] = {}
        for row in done.to_dict("records"):
            if named := identity(str(row.get("model")), str(row.get("pretrained"))):
                family, tower, patches = named
                best = rows.setdefault((tower, patches), {})
                best[family == "SigLIP"] = max(row["value"], best.get(family == "SigLIP", 0.0))
        pairs = {size: best for size, best in rows.items() if len(best) == 2}
        for (tower, patches), best in pairs.items():
            ahead = best[True] - best[False]
            text = group.named(f"{tower}, {patches} patches: {tables.signed(100 * ahead)}")
            yield fixed(text, Verdict.AGREES if ahead > 0 else Verdict.CONTRADICTS, done["run_id"])
        if len(done) and not pairs:
            text = group.named(f"{len(done)} evaluated, no two of one size of which one is SigLIP's")
            yield fixed(text, Verdict.TOO_FEW, done["run_id"])


def ring(inputs: Inputs) -> Parts:
    """Measured by repeats: one exchange is clearly faster where its slowest repeat beats the other's fastest."""
    seconds = ("loss_seconds", "loss_seconds_least", "loss_seconds_most")
    table = _benchmark(inputs, "exchange", "ranks", "exchange", "status", *SETTING, *seconds)
    table = where(table, status="ok").set_index(["ranks", *SETTING])
    both = where(table, exchange="ring").join(where(table, exchange="gather"), rsuffix="_gather", how="inner")
    if both.empty:
        return
    ratio = both["loss_seconds"] / both["loss_seconds_gather"]
    faster = int((both["loss_seconds_most"] < both["loss_seconds_least_gather"]).sum())
    slower = int((both["loss_seconds_least"] > both["loss_seconds_most_gather"]).sum())
    words = (
        f"with the ring the loss takes {ratio.min():.2f} to {ratio.max():.2f} times as long as with two gathers; "
        f"clearly faster in {faster} of {len(both)} settings, clearly slower in {slower} "
        f"({', '.join(sorted(set(both.index.get_level_values('device').astype(str))))})"
    )
    verdict = Verdict.AGREES if 2 * faster > len(both) else Verdict.NOT_SHOWN
    yield fixed(words, Verdict.CONTRADICTS if 2 * slower > len(both) else verdict, range(len(both)))


def memory(inputs: Inputs) -> Parts:
    """Memory of one rank as ranks are added: what needs b² stays, what needs b·B grows as they do."""
    table = _benchmark(inputs, "loss", "ranks", "implementation", "loss", "peak_memory_bytes", *SETTING)
    table = where(table, loss="sigmoid", implementation="repro-ring").dropna(subset=["peak_memory_bytes"])
    for key, rows in table.groupby(SETTING):
        few, many = int(rows["ranks"].min()), int(rows["ranks"].max())
        if few == many:
            continue
        small, large = (rows.loc[rows["ranks"] == ranks, "peak_memory_bytes"].median() for ranks in (few, many))
        growth = large / small
        verdict = Verdict.AGREES if growth <= SAME_MEMORY else Verdict.NOT_SHOWN
        text = (
            f"{format_batch_size(int(key[0]))} a rank: {format_bytes(int(small))} on {few} ranks, "
            f"{format_bytes(int(large))} on {many} ({growth:.2f} times)"
        )
        measured = [f"{key} {ranks}" for ranks in (few, many)]
        yield fixed(text, Verdict.CONTRADICTS if growth >= many / few else verdict, measured)


def capacity(inputs: Inputs) -> Parts:
    """A size that was not the largest (status 'at least') says nothing of what would have fitted."""
    setting = ["memory_limit_bytes", "ranks", "device", "dtype", "model"]
    table = _benchmark(inputs, "capacity", "loss", "implementation", "batch_size", "status", *setting)
    table = table[table["batch_size"] > 0] if len(table) else table
    steps = table[table["model"] != "loss alone"]
    for key, rows in (steps if len(steps) else table).groupby(setting):
        for implementation in ("plain", "repro-ring"):
            own = where(rows, implementation=implementation).drop_duplicates("loss", keep="first").set_index("loss")
            if not set(tables.LOSSES) <= set(own.index):
                continue
            sigmoid, softmax = (own.loc[loss] for loss in tables.LOSSES)
            sizes = [f"{loss} {largest_size(*own.loc[loss, ['batch_size', 'status']])}" for loss in tables.LOSSES]
            doubled = sigmoid["batch_size"] >= 2 * softmax["batch_size"]
            verdict = Verdict.AGREES if doubled else Verdict.CONTRADICTS
            if softmax["status"] != "ok" or (sigmoid["status"] != "ok" and not doubled):
                verdict = Verdict.NOT_SHOWN
            text = f"{implementation}, {key[-1]} in {format_bytes(int(key[0]))}: {', '.join(sizes)}"
            yield fixed(text, verdict, [f"{key} {implementation} {size}" for size in sizes])


def _benchmark(inputs: Inputs, name: str, *columns: str) -> pd.DataFrame:
    """A table of repro bench; empty where there is none, or one of another version without these columns."""
    table = inputs.bench.get(name, pd.DataFrame())
    return table if set(columns) <= set(table.columns) else pd.DataFrame(columns=list(columns))
