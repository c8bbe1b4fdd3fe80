"""The laptop's pretrained image tower: trained here first, by our own training path, and kept in the cache.

It is trained on another world than the one that runs are trained and evaluated on, as public towers are. By the
softmax loss, as public contrastive towers are: a tower cannot then be what puts the sigmoid ahead on it.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

from repro.config.errors import InputError
from repro.config.files import cache_folder
from repro.config.spec import RunSpec
from repro.data.shards import Progress
from repro.models.model_config import fingerprint
from repro.runs.directory import RunDirectory
from repro.world import source

LAPTOP_TOWER = "laptop-tower"
VERSION = 1
"""Raised where the same spec gives a tower that is better or worse than before."""
DATA = "shapes:131072:seed=1"
EXAMPLES = 131_072
POLL_SECONDS = 0.2
OF_A_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that would make the tower's own training one rank of the run that it is made for."""


def laptop_tower_spec() -> RunSpec:
    """One epoch, at the batch size and learning rate that do best on the laptop (docs/findings.md)."""
    return RunSpec(
        setup="siglip",
        scale="laptop",
        data=DATA,
        data_fingerprint=source.fingerprint(DATA),
        model="laptop",
        model_fingerprint=fingerprint("laptop"),
        loss="softmax",
        batch_size=128,
        micro_batch=128,
        examples_seen=EXAMPLES,
        threads=2,
        learning_rate=3e-3,
        weight_decay=1e-4,
        warmup_examples=EXAMPLES // 10,
    )


def laptop_tower_name() -> str:
    """Identify the tower, in words; nothing is trained."""
    return f"{LAPTOP_TOWER}-v{VERSION}-{laptop_tower_spec().spec_hash}"


def laptop_tower_file() -> Path:
    """Where its weights lie once it is made."""
    return cache_folder() / "towers" / laptop_tower_name() / "final.pt"


def make_laptop_tower(processes: int = 1, progress: Progress | None = None) -> Path:
    """The tower's weights in the cache; trained where they are not there yet. progress: examples, of how many.

    The folder appears whole or not at all; of two processes that make it at once both get that of the first.
    """
    file = laptop_tower_file()
    if file.exists():
        return file
    source.make_world(DATA, processes)
    partial = file.parent.with_name(f".{file.parent.name}.{uuid4().hex[:8]}.partial")
    partial.mkdir(parents=True)
    try:
        run = _train(laptop_tower_spec(), partial / "training", progress)
        made = partial / "tower"
        made.mkdir()
        for kept in (run.final, run.final.with_suffix(".pt.sha256"), run.spec_file, run.log_file):
            shutil.copy(kept, made)
        try:
            made.rename(file.parent)
        except OSError:  # another process was first
            if not file.exists():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return file


def _train(spec: RunSpec, folder: Path, progress: Progress | None) -> RunDirectory:
    """The run of a spec, in a process of its own. Raises InputError where it does not finish."""
    folder.mkdir()
    spec_file = folder / "tower.json"
    spec_file.write_text(spec.model_dump_json())
    run = RunDirectory(folder / "runs" / "towers" / spec.run_id)
    command = [sys.executable, "-m", "repro", "run", spec_file, "--runs", folder / "runs", "--sweep", "towers"]
    environment = {name: value for name, value in os.environ.items() if name not in OF_A_GROUP}
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)  # noqa: S603
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                if progress is not None and (last := run.last_logged()):
                    progress(last["examples_seen"], spec.examples_seen)
        finally:
            process.terminate()
            process.wait()
    if not run.final.exists():
        said = (folder / "output.log").read_text().strip().splitlines() or [f"exit code {process.returncode}"]
        raise InputError(f"pretrained {LAPTOP_TOWER}: it could not be trained: {said[-1]}")
    return run
