"""Drawing functions for notebooks and reports: a DataFrame in, matplotlib Axes out (`ax=None` makes new ones).

from repro import sources
from repro.report import draw

ax = draw.accuracy_by_batch_size(sources.load("batch-size"), "wds_shapes_objects/acc1")
ax.figure.savefig("accuracy.png", dpi=200)
"""

from repro.report.draw.batch_size import accuracy_by_batch_size, by_batch_size, by_language
from repro.report.draw.benchmark import capacity, loss_cost
from repro.report.draw.compute import pareto, pareto_front
from repro.report.draw.costs import step_time
from repro.report.draw.robustness import by_noise, by_ratio, with_ratios
from repro.report.draw.training import accuracy_along_training, training_curves

__all__ = [
    "accuracy_along_training",
    "accuracy_by_batch_size",
    "by_batch_size",
    "by_language",
    "by_noise",
    "by_ratio",
    "capacity",
    "loss_cost",
    "pareto",
    "pareto_front",
    "step_time",
    "training_curves",
    "with_ratios",
]
