"""One rank of a run, as a process: python -m repro.launch.rank RUN_DIRECTORY SETTINGS (JSON), which srun starts.

What becomes of it stands in the run directory; the exit code says only whether that is so.
"""

import contextlib
import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from repro.config.errors import InputError, Interrupted
from repro.config.files import FULL, CorruptRun
from repro.launch.cell import JobSettings
from repro.runs.directory import RunDirectory
from repro.runs.liveness import BUSY, DISK_FULL, FAILED, RECORDED, leave
from repro.runs.signals import StopRequest, whole_program

JOB_ID = "REPRO_JOB_ID"
"""Variable that carries the scheduler's job id to the ranks, where a job started them."""


def run_rank(directory: RunDirectory, settings: JobSettings) -> int:
    """This process's rank (RANK, WORLD_SIZE …) from start to end; returns the exit code.

    Output goes to job/output.log.
    """
    with StopRequest() as stop:
        output = os.open(directory.output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ |= {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}  # both are read at import
        try:
            from repro.runs.execute import run
            from repro.runs.ownership import Busy, Superseded
            from repro.train.loop import Options

            options = Options(
                workers=settings.workers,
                checkpoint_seconds=settings.checkpoint_seconds,
                micro_batch=directory.read_micro_batch(),
                timeout_seconds=settings.timeout_seconds,
            )
            run(directory.read_spec(), directory, options, os.environ.get(JOB_ID, ""), stop)
            return RECORDED
        except Interrupted as stopped:
            print(f"{stopped}; started again, the run goes on", flush=True)
            return RECORDED
        except (Busy, Superseded) as error:
            print(error, file=sys.stderr, flush=True)
            return BUSY
        except (InputError, CorruptRun) as error:
            print(error, file=sys.stderr, flush=True)
            if int(os.environ.get("RANK", 0)) == 0 and not directory.result_file.exists():
                directory.write_result({"status": "failed", "reason": str(error)})
            return FAILED
        except Exception as error:
            with contextlib.suppress(OSError):  # the log may lie on a full disk
                traceback.print_exc()
            return DISK_FULL if isinstance(error, OSError) and error.errno in FULL else FAILED


def main(directory: str, settings: str) -> NoReturn:
    """A task of srun: SLURM's variables become torch's. MASTER_ADDR and MASTER_PORT come from the job."""
    for theirs, ours in (("SLURM_PROCID", "RANK"), ("SLURM_NTASKS", "WORLD_SIZE"), ("SLURM_LOCALID", "LOCAL_RANK")):
        os.environ[ours] = os.environ[theirs]
    with whole_program():
        leave(run_rank(RunDirectory(Path(directory)), JobSettings(**json.loads(settings))))


def as_arguments(directory: RunDirectory, settings: JobSettings) -> list[str]:
    """The command of one rank, as srun takes it."""
    return [sys.executable, "-m", "repro.launch.rank", str(directory.path), json.dumps(dataclasses.asdict(settings))]


if __name__ == "__main__":
    main(*sys.argv[1:])
