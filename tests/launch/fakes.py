"""Fakes of SLURM's commands, where what they were asked, and when they fail, is what a test is about.

Each is a small program put first on the path. sbatch keeps what it accepted as a file in `queue`, which squeue lists as
waiting jobs. All else about SLURM is tested on a real one (tests/slurm).
"""

import os
import sys
from pathlib import Path

SBATCH = """
script = open(sys.argv[-1]).read()
name = re.search(r"--job-name=(\\S+)", script)[1]
tasks = re.search(r"--array=0-(\\d+)", script)
slow = folder / "sbatch-takes"
time.sleep(float(slow.read_text()) if slow.exists() else 0)
number = 12 + len(list((folder / "queue").iterdir()))
(folder / "queue" / str(number)).write_text(f"{name} {int(tasks[1]) + 1 if tasks else 0}")
if (folder / "sbatch-kills").exists():
    os.kill(os.getppid(), 9)
print("Submitted batch job", number)
"""
SQUEUE = """
names = next(a for a in sys.argv if a.startswith("--name=")).removeprefix("--name=").split(",")
columns = next(a for a in sys.argv if a.startswith("--Format=")).removeprefix("--Format=").split(",")
widths = dict(column.split(":") for column in columns)
def line(job_id, name, task):
    said = {"JobArrayID": job_id, "Name": name, "ArrayTaskID": task, "State": "PENDING", "Reason": "Priority"}
    print("".join(said.get(column, "0").ljust(int(width)) for column, width in widths.items()))
for file in sorted((folder / "queue").iterdir(), key=lambda file: int(file.name)):
    name, tasks = file.read_text().split()
    if name in names and tasks == "0":
        line(file.name, name, "N/A")
    elif name in names:
        for task in range(int(tasks)):
            line(f"{file.name}_{task}", name, str(task))
"""
SCONTROL = """
print("MaxArraySize            =", (folder / "largest-array").read_text())
"""
PROGRAMS = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": SCONTROL, "scancel": "", "srun": ""}
FRAME = """#!{python} -IS
import os, re, sys, time
from pathlib import Path
folder = Path({folder!r})
with open(folder / "calls", "a") as calls:
    calls.write({name!r} + "\\n")
if (folder / "{name}-fails").exists():
    sys.exit((folder / "{name}-fails").read_text())
{body}
"""


class FakeSlurm:
    """The commands in a folder; `environment` makes them the ones that are found."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "queue").mkdir()
        (folder / "calls").touch()
        self.takes_arrays_of(1001)
        for name, body in PROGRAMS.items():
            program = folder / "bin" / name
            program.write_text(FRAME.format(python=sys.executable, folder=str(folder), name=name, body=body))
            program.chmod(0o755)
        self.environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}

    def calls(self, name: str) -> int:
        """How often a command was called."""
        return (self.folder / "calls").read_text().split().count(name)

    def queued(self) -> list[str]:
        """The names of the accepted arrays."""
        return [file.read_text().split()[0] for file in sorted((self.folder / "queue").iterdir())]

    def queued_tasks(self) -> int:
        return sum(max(1, int(file.read_text().split()[1])) for file in (self.folder / "queue").iterdir())

    def fail(self, name: str, message: str) -> None:
        """From here on a command ends with this complaint."""
        (self.folder / f"{name}-fails").write_text(message)

    def kill_whoever_calls_sbatch(self, yes: bool = True) -> None:
        """From here on sbatch accepts the jobs, and the process that called it is killed before it hears of it."""
        file = self.folder / "sbatch-kills"
        file.touch() if yes else file.unlink()

    def takes_arrays_of(self, jobs: int) -> None:
        """The cluster's MaxArraySize."""
        (self.folder / "largest-array").write_text(str(jobs))

    def slow_down_sbatch(self, seconds: float) -> None:
        (self.folder / "sbatch-takes").write_text(str(seconds))
