"""Drawing functions for notebooks and reports: a DataFrame in, matplotlib Axes out (`ax=None` makes new ones).

from repro.results import sources
from repro.report import draw

ax = draw.accuracy_by_batch_size(sources.load("batch-size"), "wds_shapes_objects/acc1")
ax.figure.savefig("accuracy.png", dpi=200)
"""

from repro.report.draw.benchmark import capacity as capacity
from repro.report.draw.benchmark import loss_cost as loss_cost
from repro.report.draw.panels import accuracy_along_training as accuracy_along_training
from repro.report.draw.panels import accuracy_by_batch_size as accuracy_by_batch_size
from repro.report.draw.panels import by_batch_size as by_batch_size
from repro.report.draw.panels import by_language as by_language
from repro.report.draw.panels import by_noise as by_noise
from repro.report.draw.panels import by_ratio as by_ratio
from repro.report.draw.panels import pareto as pareto
from repro.report.draw.panels import pareto_front as pareto_front
from repro.report.draw.panels import step_time as step_time
from repro.report.draw.panels import training_curves as training_curves
from repro.report.draw.panels import with_ratios as with_ratios
