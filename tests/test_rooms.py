"""A room imports only rooms below it (docs/architecture.md), and no modules import each other in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "repro"
ROOMS = ("cli", "publish", "bench", "report", "results", "launch", "runs", "train", "evaluate", "estimate", "models")
ROOMS += ("world", "data", "config", "loss")
"""From the top down."""
RUN_FILES = ("repro.runs.directory", "repro.runs.liveness")
"""The files of a run, which training and evaluation write and others read: the one exception."""


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in PACKAGE.rglob("*.py")}


def imports(file: Path, at_the_top: bool = False) -> set[str]:
    """Modules of ours that a file imports, also when a function runs, or only at its top."""
    tree = ast.parse(file.read_text())
    found = set()
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("repro"):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in whole}
    return found - {name_of(file)}


def room(module: str) -> int:
    return ROOMS.index(module.split(".")[1])


def test_a_room_imports_only_rooms_below_it():
    modules = [module for module in MODULES if module.count(".")]
    assert {module.split(".")[1] for module in modules} == {*ROOMS, "__main__"}
    upwards = {
        (module, other)
        for module in modules
        if not module.startswith("repro.__main__")
        for other in imports(MODULES[module])
        if other.count(".") and room(other) < room(module) and other not in RUN_FILES
    }
    assert not upwards


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: imports(file, at_the_top=True) for module, file in MODULES.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)
