"""The cluster that other tests stand on: jobs run on both nodes, accounts are kept, a lost node comes back."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import submitit

from tests.slurm.cluster import Cluster, missing
from tests.slurm.keeper import descendants

ROOT = Path(__file__).parents[2]


def sum_of_ranks(value: int) -> tuple[int, str]:
    """value summed over the job's ranks, and the name of this rank's node."""
    import torch
    import torch.distributed as dist

    environment = submitit.helpers.TorchDistributedEnvironment().export()
    dist.init_process_group("gloo")
    total = torch.tensor(value * (environment.rank + 1))
    dist.all_reduce(total)
    dist.destroy_process_group()
    return int(total), os.environ["SLURMD_NODENAME"]


def test_a_job_of_two_nodes_runs_on_both_and_is_in_the_accounts(cluster: Cluster, tmp_path: Path):
    output = tmp_path / "output"
    command = "srun sh -c 'echo $SLURMD_NODENAME'"
    job = cluster.command("sbatch", "--parsable", "--wait", "-N2", f"--output={output}", f"--wrap={command}").strip()
    assert sorted(output.read_text().split()) == ["n1", "n2"]
    accounts = cluster.command("sacct", "-X", "-j", job, "--noheader", "--parsable2", "--format=State,ExitCode")
    assert accounts.split() == ["COMPLETED|0:0"]


def test_an_array_of_two_jobs_with_two_nodes_each_runs_at_once_and_its_ranks_sum(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (cluster.environment | {"PYTHONPATH": str(ROOT)}).items():
        monkeypatch.setenv(name, value)
    executor = submitit.SlurmExecutor(tmp_path)
    executor.update_parameters(nodes=2, ntasks_per_node=1, time=5, stderr_to_stdout=True)
    jobs = executor.map_array(sum_of_ranks, [1, 10])
    for job, total in zip(jobs, (3, 30), strict=True):
        assert sorted(job.results()) == [(total, "n1"), (total, "n2")]


def test_a_lost_node_goes_down_and_comes_back_when_its_slurmd_is_started(cluster: Cluster):
    cluster.lose_node("n2")
    cluster.wait_for(lambda: cluster.node_states()["n2"] == "down*", "n2 being down", seconds=60)
    cluster.start_slurmd("n2")
    cluster.wait_for(lambda: cluster.node_states()["n2"] == "idle", "n2 being back")


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_nothing_is_left_of_a_cluster_whose_test_was_killed(tmp_path: Path):
    starter = subprocess.Popen(
        [sys.executable, "-m", "tests.slurm.cluster", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    export = starter.stdout.readline()
    processes = descendants(starter.pid)
    assert export == f"export SLURM_CONF={tmp_path}/slurm.conf\n"
    assert len(processes) >= 7  # the keeper and six daemons
    starter.kill()
    starter.communicate()
    deadline = time.monotonic() + 20
    while (left := {pid for pid in processes if Path(f"/proc/{pid}").exists()}) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left
