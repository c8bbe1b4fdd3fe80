"""A YAML file describes a cluster, submitit makes of it what sbatch reads; mistakes name file, key and the nearest."""

from pathlib import Path

import pytest
import yaml
from submitit.slurm.slurm import _get_default_parameters, _make_sbatch_string

from repro.config.cluster import ALL_MEMORY, ClusterProfile, load_profile, sbatch_parameters
from repro.config.errors import InputError
from repro.config.files import resource

SMALL = {"ranks_per_node": 2, "time": "1h"}


@pytest.fixture
def profile(tmp_path: Path):
    """A person's own profile, with any key changed: profile(time='2h')."""

    def load(*settings: str, **keys) -> ClusterProfile:
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(SMALL | keys))
        return load_profile(str(file), settings)

    return load


def sbatch_text(profile: ClusterProfile, nodes: int, ranks_per_node: int, runs: int = 3) -> list[str]:
    """The lines that submitit hands to sbatch for an array of runs."""
    parameters = sbatch_parameters(profile, nodes, ranks_per_node)
    assert set(parameters) <= set(_get_default_parameters())  # what update_parameters takes
    return _make_sbatch_string("python -m submitit", "/shared/jobs", map_count=runs, **parameters).splitlines()


def test_on_gpu_nodes_each_rank_has_a_gpu():
    lines = sbatch_text(load_profile("gpu8"), 2, 8)
    for option in ("nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=8", "mem=0", "time=1440"):
        assert f"#SBATCH --{option}" in lines
    assert "#SBATCH --array=0-2%3" in lines
    assert "#SBATCH --signal=USR2@120" in lines
    assert "#SBATCH --requeue" in lines
    assert "export REPRO_GPU=required" in lines
    assert not [line for line in lines if line.startswith("srun")]


def test_a_batch_on_fewer_ranks_leaves_the_other_gpus_free():
    lines = sbatch_text(load_profile("gpu8"), 1, 2)
    assert "#SBATCH --gpus-per-node=2" in lines and "#SBATCH --ntasks-per-node=2" in lines


def test_on_cpu_nodes_no_gpu_is_asked_for():
    lines = sbatch_text(load_profile("cpu"), 4, 4, runs=100)
    for option in ("nodes=4", "ntasks-per-node=4", "cpus-per-task=4", "mem=15258M", "time=240", "array=0-99%64"):
        assert f"#SBATCH --{option}" in lines
    assert "gpu" not in "\n".join(lines).lower()


def test_setup_comes_before_the_variables_of_the_ranks_and_both_before_the_run(profile):
    lines = sbatch_text(profile(setup=["module load x"], environment={"GLOO_SOCKET_IFNAME": "$lo"}), 1, 1)
    last = [line for line in lines if line][-4:]
    assert last[0] == "export GLOO_SOCKET_IFNAME='$lo'" and last[-1] == "python -m submitit"
    assert lines.index("module load x") == lines.index(last[0]) - 1


def test_where_a_job_goes_and_any_other_option_reach_sbatch(profile):
    chosen = {"partition": "debug", "account": "us", "qos": "low", "constraint": "a100"}
    options = {"mail_user": "me@example.org", "exclusive": "true", "contiguous": "false", "exclude": "n[1-3]"}
    lines = sbatch_text(profile(**chosen, options=options, requeue=0, memory=None), 1, 2)
    for key, value in chosen.items():
        assert f"#SBATCH --{key}={value}" in lines
    for option in ("mail-user=me@example.org", "exclusive", "exclude='n[1-3]'", "requeue"):
        assert f"#SBATCH --{option}" in lines
    assert not [line for line in lines if "contiguous" in line or "--mem" in line]


@pytest.mark.parametrize("name", ["cpu", "gpu8"])
def test_every_line_of_a_profile_that_comes_along_says_what_it_means(name):
    lines = (resource("sweeps") / "clusters" / f"{name}.yaml").read_text().splitlines()
    assert all("#" in line for line in lines)


def test_a_profile_that_comes_along_shows_every_key():
    shown = yaml.safe_load((resource("sweeps") / "clusters" / "gpu8.yaml").read_text())
    assert set(shown) == {field.alias or key for key, field in ClusterProfile.model_fields.items()}


def test_the_projects_own_profile_comes_before_the_persons_before_those_that_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load_profile("cpu").ranks_per_node == 4
    for folder, ranks in (("config/siglip-repro/clusters", 2), ("sweeps/clusters", 3)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cpu.yaml").write_text(f"ranks_per_node: {ranks}\ntime: 1h")
        assert load_profile("cpu").ranks_per_node == ranks


def test_job_settings_change_any_key(profile):
    chosen = profile("time=2:00:00", "partition=debug", "setup=[module load x]", "memory=all", "environment={A: off}")
    assert (chosen.time_seconds, chosen.partition, chosen.setup) == (7200, "debug", ("module load x",))
    assert (chosen.memory_bytes, chosen.environment) == (ALL_MEMORY, {"A": "off"})
    assert profile("partition=null", partition="debug").partition is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("90m", 5400), ("1h30m", 5400), ("1-12:00:00", 129_600), ("2:00:00", 7200), ("1-0", 86_400)],
)
def test_times_are_read_as_people_and_slurm_write_them(tmp_path, text, seconds):
    (tmp_path / "mine.yaml").write_text(f"ranks_per_node: 1\ntime: {text}")
    assert load_profile(str(tmp_path / "mine.yaml")).time_seconds == seconds


def test_a_time_limit_is_rounded_up_to_minutes(profile):
    assert sbatch_parameters(profile(time="61s", grace="30s"), 1, 1)["time"] == 2


def test_a_time_limit_that_leaves_next_to_no_time_to_train_is_warned_of(profile):
    assert profile(time="10m", grace="5m").too_short() == ""
    warning = profile(time="6m", grace="2m").too_short()
    assert warning.startswith("time 6 min less grace 2 min leaves a start 4 min") and "expected 5 min" in warning


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"partion": "debug"}, "unknown key 'partion'; the nearest is 'partition'"),
        ({"time": "soon"}, "time 'soon': 'soon' is not a length of time; the nearest are 90m, 24h, 2:00:00"),
        ({"time": "90"}, "the nearest are 90m or 90h"),
        ({"time": "2:30"}, "the nearest are 2h30m or 2m30s"),
        ({"time": "0m"}, "time '0m': expected greater than 0"),
        ({"time": None}, "'time' is missing"),
        ({"time": "1m"}, "time 1 min is not longer than grace 2 min"),
        ({"grace": "2d"}, "expected less than or equal to 65535"),
        ({"memory": "lots"}, "memory 'lots': 'lots' is not an amount of memory, such as 500MB"),
        ({"gpu_memory": "0GB"}, "gpu_memory '0GB': expected greater than 0"),
        ({"ranks_per_node": 0}, "ranks_per_node '0': expected greater than or equal to 1"),
        ({"ranks_per_node": "two"}, "ranks_per_node 'two': expected a valid integer"),
        ({"array_parallelism": 0}, "array_parallelism '0': expected greater than or equal to 1"),
        ({"max_nodes": 0}, "max_nodes '0'"),
        ({"requeue": -1}, "requeue '-1'"),
        ({"tflops_per_rank": ".nan"}, "tflops_per_rank '.nan'"),
        ({"auto_micro_batch": "perhaps"}, "auto_micro_batch 'perhaps'"),
        ({"gpus_per_node": 3}, "ranks_per_node 2 on 3 GPUs a node: .* expected ranks_per_node 3, or gpus_per_node 0"),
        ({"setup": "module load x"}, r"expected a list of shell lines; write \['module load x'\]"),
        ({"environment": {"A B": "1"}}, "'A B' is no name of an environment variable"),
        ({"environment": ["A"]}, "environment: expected keys and values"),
        ({"options": {"time": "1h"}}, "options: 'time' is set by the key time"),
        ({"options": {"--gpus-per-node": "1"}}, "'gpus-per-node' is set by the key gpus_per_node"),
        ({"options": {"array": "0-3"}}, "'array' follows from the runs, and cannot be set"),
    ],
)
def test_a_mistake_in_a_profile_names_the_file_the_key_and_what_works(profile, tmp_path, keys, message):
    with pytest.raises(InputError, match=message) as error:
        profile(**keys)
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}: ")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("time", "--job 'time': expected key=value, such as --job time=2h"),
        ("tim=2h", "--job: unknown key 'tim'; the nearest is 'time'"),
        ("time=soon", "--job: time 'soon'"),
        ("setup=[", r"--job setup: '\[' cannot be read as a YAML value"),
    ],
)
def test_a_mistake_in_a_job_setting_names_the_option(profile, setting, message):
    with pytest.raises(InputError, match=message):
        profile(setting)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a", "expected keys and values, found list"),
        (b"time: [", "cannot be read as YAML"),
        (b"time: \xff", "cannot be read as YAML"),
        (b"", "expected keys and values, found NoneType"),
    ],
)
def test_a_file_that_is_no_profile_is_named(tmp_path, content, message):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_profile(str(file))
    assert str(file) in str(error.value)


def test_an_unknown_cluster_gets_the_nearest_name():
    with pytest.raises(InputError, match="unknown cluster 'gpu'; the nearest is 'gpu8'; or give the path"):
        load_profile("gpu")
    with pytest.raises(InputError, match=r"no/such\.yaml: no such file"):
        load_profile("no/such.yaml")
