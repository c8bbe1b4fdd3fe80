"""On a cluster of another shape: three nodes with GPUs, arrays of seven jobs, limits on submitting and on memory."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.runs import ownership
from repro.runs.directory import RunDirectory
from tests.slurm.cluster import Cluster
from tests.slurm.config import SMALL
from tests.slurm.conftest import started
from tests.slurm.person import ON_THE_CLUSTER, Person

GRID = ("batch-size", "--loss", "sigmoid", "--batch-size", "64", "--examples", "512", "--set", "data=shapes:2048")
GRID = (*GRID, "evals=[]")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with started(tmp_path_factory.mktemp("small"), SMALL) as running:
        yield running


@pytest.fixture
def person(small: Cluster, tmp_path: Path, world) -> Iterator[Person]:
    yield Person(small, tmp_path)
    small.command("scancel", "--user=root")


def ended(person: Person, job: str) -> None:
    squeue = ("squeue", "--noheader", f"--jobs={job}")
    person.waits(lambda: not person.cluster.command(*squeue).strip(), f"the end of job {job}")


INSIDE = """\
#!/bin/sh
export SBATCH_ACCOUNT=nobody SBATCH_PARTITION=nowhere SBATCH_TIMELIMIT=1 SQUEUE_PARTITION=high SCANCEL_STATE=PENDING
{command}
{command}
"""


def test_typed_within_a_task_of_an_array_a_sweep_is_submitted_once_and_runs(person):
    # With export=NONE, too, ranks find each other and the run knows its job: both by variables that the job gives them.
    given = ("SLURM_CONF", "GLOO_SOCKET_IFNAME", "PYTHONPATH", "REPRO_CACHE", "PATH")
    variables = ", ".join(f"{name}: '{person.environment[name]}'" for name in given)
    job = ("--job", "options={export: NONE}", f"environment={{{variables}}}")
    words = " ".join(f'"{word}"' for word in (person.python, "-m", "repro", "sweep", *GRID, *ON_THE_CLUSTER, *job))
    script, output = person.folder / "inside.sh", person.folder / "output"
    script.write_text(INSIDE.format(command=words))
    where = (f"--chdir={person.folder}", f"--output={output}")
    sbatch = ("sbatch", "--parsable", "--wait", "--array=3", "--mem-per-cpu=700", *where, str(script))
    outer = person.cluster.command(*sbatch, env=person.environment, timeout=300)
    said = output.read_text()
    (inner,) = re.findall(r"Submitted job (\d+)", said)
    assert inner != outer.strip()
    assert "not used: SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_TIMELIMIT;" in said
    assert "1 of 1 runs are done or under way and not run again" in said
    (run,) = person.runs()
    person.waits(lambda: run.status() == "finished", "the run's end")
    assert [(attempt.job_id, attempt.ranks) for attempt in ownership.all_attempts(run.attempts)] == [(inner, 2)]


def test_a_job_that_ends_before_it_starts_its_run_says_why_and_where(person):
    first = person.submits(*GRID, "--job", "python=/nowhere/python")
    ended(person, first)
    (log,) = person.folder.glob(f"runs/batch-size/.launches/*/{first}_0_log.err")
    last_line = log.read_text().splitlines()[-1]
    assert "/nowhere/python" in last_line
    why = f"its job {first} ended before it started the run (FAILED, exit code 127)"
    assert f"interrupted: {why}; see {log.relative_to(person.folder)}: {last_line}" in person.types("status")
    second = person.submits(*GRID, "--job", "setup=[exit 3]")
    ended(person, second)
    said = person.types("status")
    assert f"its job {second} ended before it started the run (FAILED, exit code 3)" in said
    assert f"its job {first} " not in said, "the newest job alone speaks"
    person.types("sweep", *GRID, *ON_THE_CLUSTER, "--job", "account=nobody", exit_code=2)
    assert person.types("status") == said, "a refused launch changes nothing"


def test_where_srun_cannot_start_the_ranks_the_log_that_is_named_is_there(person):
    job = person.submits(*GRID, "--job", "gpus_per_node=1", "environment={SLURM_GPUS_PER_NODE: '9'}")
    ended(person, job)
    (run,) = person.runs()
    assert run.status() == "failed"
    reason, log = re.fullmatch(r"(.+); see ([^;]+)(?:; .+)?", run.read_result()["reason"]).groups()
    assert reason == "srun ended with exit code 1"
    assert "Unable to create step" in Path(log).read_text()


def test_a_submit_limit_amid_a_launch_is_told_and_changes_no_run_that_was_not_submitted(person):
    for what in ("add qos few MaxSubmitJobsPerUser=8", "modify user root set qos+=few"):
        person.cluster.command("sacctmgr", "--immediate", *what.split())
    grid = ("sweep", *GRID, "--seed", *map(str, range(9)), *ON_THE_CLUSTER, "--retry")
    planned = person.types(*grid, "--dry-run")
    assert "9 jobs in 2 arrays" in planned, "the cluster takes arrays of seven"
    refused = person.types(*grid, "--job", "account=nobody", exit_code=2)
    assert "nothing was submitted; 9 runs are missing" in refused
    cancelled, failed = sorted(person.runs(), key=lambda run: run.read_spec().seed)[-2:]
    cancelled.cancelled_file.write_text('{"by": "me"}')
    failed.write_result({"status": "diverged", "reason": "the loss is nan"})
    before = contents(cancelled) | contents(failed)

    held = ("--job", "qos=few", "options={hold: true}")
    refused = person.types(*grid, *held, exit_code=2)
    assert re.search(r"1 of 2 arrays were submitted \(7 runs; jobs \d+\); 2 runs are missing: typed again", refused)
    assert "MaxSubmitJobs" in refused.replace(" ", "") or "job submit limit" in refused
    assert contents(cancelled) | contents(failed) == before
    assert "7 queued, 1 cancelled, 1 diverged" in person.types("status")

    person.cluster.command("sacctmgr", "--immediate", "modify", "qos", "few", "set", "MaxSubmitJobsPerUser=9")
    assert ": 2 runs" in person.types(*grid, *held)
    assert "9 queued" in person.types("status")


def contents(run: RunDirectory) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_a_run_that_the_accounting_plugin_kills_for_its_memory_is_out_of_memory(person):
    ended(person, person.submits(*GRID, "--job", "memory=250MB"))
    (run,) = person.runs()
    result = run.read_result()
    assert result["status"] == "oom", result
    assert re.match(r"the ranks on s\d were over the job's memory limit: [\d.]+ \w+ of 238 MiB", result["reason"])


LOOK = """\
options=$("{python}" -c 'from repro.launch.slurm import srun_options; print(*srun_options(2))')
srun $options sh -c 'echo $SLURM_PROCID:$CUDA_VISIBLE_DEVICES:$REPRO_GPU' > "{seen}"
"""


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ("{}", ["0:0,1", "1:0,1"]),
        ("{gpu-bind: 'single:1'}", ["0:0", "1:1"]),
        ("{gpus-per-task: 1}", ["0:0", "1:1"]),
    ],
)
def test_ranks_see_the_gpus_of_their_job_and_must_use_one(person, options, seen):
    script, output = person.folder / "look.sh", person.folder / "seen"
    script.write_text(LOOK.format(python=person.python, seen=output))
    job = ("gpus_per_node=2", "ranks_per_node=2", f"options={options}", f"python=sh {script}")
    ended(person, person.submits(*GRID, "--job", *job))
    assert sorted(output.read_text().split()) == [f"{line}:required" for line in seen]
