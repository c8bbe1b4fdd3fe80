"""A sweep on a real cluster whose jobs are preempted, out of time, killed and cancelled: typed again, all is there."""

import io
import signal
import tarfile
import time
from pathlib import Path

import pytest
import yaml

from repro.runs import ownership
from tests.launch.conftest import has_signals, kill, processes_of
from tests.slurm.cluster import Cluster
from tests.slurm.person import Person, outcomes, trains

SEEDS = range(5)


@pytest.fixture
def person(cluster: Cluster, tmp_path: Path) -> Person:
    return Person(cluster, tmp_path)


def write_bad_shard(file: Path, samples: int) -> None:
    with tarfile.open(file, "w") as tar:
        for number in range(samples):
            for extension, content in (("png", b"no image"), ("txt", b"a caption")):
                member = tarfile.TarInfo(f"{number:04}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def write_sweep(person: Person, world, examples: int) -> None:
    """mine.yaml: seeds, on data of which one in fifty cannot be decoded."""
    write_bad_shard(person.folder / "bad.tar", 40)
    fixed = {"data": f"{world.train_pattern}::{person.folder / 'bad.tar'}", "evals": [world.evals[0]]}
    fixed |= {"batch_size": 64, "micro_batch": 64, "examples_seen": examples, "loss": "sigmoid", "max_bad_share": 0.05}
    sweep = {"title": "Mine", "scales": {"laptop": {"set": fixed, "axes": {"seed": list(SEEDS)}}}}
    (person.folder / "mine.yaml").write_text(yaml.safe_dump(sweep))


def test_of_a_sweep_that_is_disturbed_in_every_way_all_that_can_finish_finishes(person, world):
    write_sweep(person, world, examples=16_000)
    array = person.submits("mine.yaml")
    assert array and not person.submits("mine.yaml"), "typed again at once, everything is queued already"
    single = person.submits("mine.yaml", "--seed", "9", "--set", "max_bad_share=0.001")
    assert single
    runs = {int(run.read_spec().seed): run for run in person.runs()}
    job_of = {seed: f"{array}_{seed}" for seed in SEEDS}
    assert len(runs) == 6

    # Both nodes are full: an urgent job takes the place of one run.
    person.waits(lambda: sum(map(trains, runs.values())) >= 3, "runs that train")
    person.preempts("--cpus-per-task=1")
    person.waits(lambda: any("interrupted" in outcomes(run) for run in runs.values()), "a preempted run")
    preempted = next(seed for seed, run in runs.items() if "interrupted" in outcomes(run))

    undisturbed = [seed for seed in SEEDS if seed != preempted]
    person.waits(lambda: sum(trains(runs[seed]) for seed in undisturbed) >= 3, "three runs that train")
    training = [seed for seed in undisturbed if trains(runs[seed])]
    late, killed, cancelled = sorted(training, key=lambda seed: runs[seed].last_logged()["examples_seen"])[:3]
    person.cluster.command("scontrol", "update", f"JobId={job_of[late]}", "TimeLimit=1")
    # SLURM looks at limits twice a minute: until then the run stands still, lest it is done before.
    standing_still = processes_of(runs[late])[1]
    kill(standing_still, signal.SIGSTOP)
    kill(processes_of(runs[killed])[1])
    assert "1 of 1 runs cancelled" in person.types("cancel", runs[cancelled].path.name)

    at_the_latest = time.monotonic() + 25  # a rank that is still for longer counts as lost
    person.waits(lambda: has_signals(standing_still) or time.monotonic() > at_the_latest, "the signal")
    kill(standing_still, signal.SIGCONT)
    person.waits(lambda: "interrupted" in outcomes(runs[late]), "the run that is out of time")
    person.cluster.command("scontrol", "update", f"JobId={job_of[late]}", "TimeLimit=10")
    person.waits(lambda: len(outcomes(runs[killed])) > 1, "the killed run's second start")
    assert outcomes(runs[killed])[0].startswith("died: rank 1 of 2 on n2 was killed by SIGKILL")
    person.waits(lambda: runs[cancelled].status() == "cancelled", "the cancelled run's end")
    assert "1 cancelled" in person.types("status")

    again = person.submits("mine.yaml")
    assert again not in ("", array), "the cancelled run alone is missing"
    person.types("status", "--watch", "--every", "2")
    person.waits(lambda: all(outcomes(runs[seed])[-1:] == ["finished"] for seed in SEEDS), "the end")

    table = person.table().set_index("seed")
    assert table.loc[list(SEEDS), "status"].tolist() == ["finished"] * len(SEEDS)
    assert table.loc[list(SEEDS), "ranks"].tolist() == [2] * len(SEEDS)
    assert table.loc[list(SEEDS), f"{Path(world.evals[0]).name}/acc1"].notna().all()
    assert table.loc[9, "status"] == "bad-data"
    assert "bad.tar: image cannot be decoded" in table.loc[9, "reason"]
    for seed in (preempted, late):
        jobs = {attempt.job_id for attempt in ownership.all_attempts(runs[seed].attempts)}
        assert jobs == {job_of[seed]}, "requeued under the same id"
        assert outcomes(runs[seed])[-1] == "finished"
    for seed in SEEDS:
        steps = [line["step"] for line in runs[seed].read_log()]
        assert steps == sorted(set(steps)), "no line is lost or doubled"
    assert not person.submits("mine.yaml"), "typed once more, nothing is missing"


def test_preempted_twice_and_its_node_lost_a_run_ends_with_the_bits_of_an_undisturbed_one(person, world):
    import torch

    fixed = ["--set", "data=shapes:2048", "--loss", "sigmoid", "--batch-size", "64", "--examples", "40k"]
    fixed += ["--eval", world.evals[0]]
    person.types("sweep", "batch-size", *fixed, "--ranks", "2", "--runs", "undisturbed")
    (expected,) = Path(person.folder, "undisturbed").glob("*/*/checkpoints/final.pt")
    assert person.submits("batch-size", *fixed)
    (run,) = person.runs()
    for time_preempted in (1, 2):
        person.waits(lambda: trains(run), "training")
        person.preempts("--exclusive")
        person.waits(lambda n=time_preempted: outcomes(run).count("interrupted") == n, "a preemption")
    person.waits(lambda: trains(run), "training")
    lost_at = time.monotonic()
    person.cluster.lose_node("n2")
    person.waits(lambda: not any_rank_lives(run), "the other rank's end")
    assert time.monotonic() - lost_at < 60
    person.waits(lambda: person.cluster.node_states()["n2"] == "down*", "the node being missed")
    person.cluster.start_slurmd("n2")
    person.waits(lambda: outcomes(run)[-1] == "finished", "the end")
    jobs = {attempt.job_id for attempt in ownership.all_attempts(run.attempts)}
    assert len(jobs) == 1 and outcomes(run)[:2] == ["interrupted"] * 2
    # SLURM repeats what the lost node did not hear (SIGTERM, then SIGKILL) about a minute later, and meets the requeued
    # job there, which has the same id: so often a slow run is ended once more.
    repeated = outcomes(run)[3:-1]
    assert len(repeated) <= 2, outcomes(run)
    assert all(end == "interrupted" or end.startswith("died: rank 1 of 2 on n2 was killed") for end in repeated)
    weights, wanted = (torch.load(file, weights_only=True) for file in (run.final, expected))
    assert all(torch.equal(value, weights[name]) for name, value in wanted.items())
    undisturbed = type(run)(expected.parents[1]).read_log()
    assert [line["loss"] for line in run.read_log()] == [line["loss"] for line in undisturbed]


def any_rank_lives(run) -> bool:
    return bool(processes_of(run))
