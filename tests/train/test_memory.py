"""A step that needs more memory than there is says so with its sizes; a smaller micro-batch fits, and is the same."""

import subprocess
import sys
import weakref

import pytest
import torch

from repro.config.errors import OutOfMemory
from repro.config.units import smaller_micro_batch
from repro.runs.directory import RunDirectory
from repro.train.failures import ONEDNN, out_of_memory_named
from repro.train.loop import Options
from tests.train.runs import trained, weights


@pytest.mark.parametrize(
    ("local_batch", "micro_batch", "smaller"),
    [(4096, 512, 256), (4096, 4096, 2048), (96, 96, 48), (90, 30, 15), (90, 15, 6), (7, 7, 1), (64, 999, 32)],
)
def test_a_smaller_micro_batch_is_the_largest_divisor_that_is_at_most_half(local_batch, micro_batch, smaller):
    assert smaller_micro_batch(local_batch, micro_batch) == smaller


def test_there_is_none_smaller_than_one():
    assert smaller_micro_batch(64, 1) is None


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes. Error"),
            ": tried to allocate 2.0 GiB",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"),
            ": tried to allocate 20 MiB",
        ),
        (MemoryError("Unable to allocate 1.50 GiB for an array"), ": tried to allocate 1.5 GiB"),
        (MemoryError(), ""),
        (RuntimeError("could not create a primitive"), ""),
    ],
)
def test_running_out_of_memory_is_said_with_the_sizes_that_led_to_it(error, says):
    with pytest.raises(OutOfMemory) as named, out_of_memory_named(0, 32768, 4096, 512):
        raise error
    assert str(named.value) == f"out of memory on rank 0 at batch size 32k, local batch 4,096, micro-batch 512{says}"
    assert named.value.status == "oom"


@pytest.mark.parametrize("says", ["shapes cannot be multiplied", "could not create a primitive descriptor for matmul"])
def test_other_errors_of_a_step_stay_what_they_are(says):
    with pytest.raises(RuntimeError, match=says), out_of_memory_named(0, 64, 64, 64):
        raise RuntimeError(says)


def test_the_tensors_of_the_step_that_failed_are_let_go():
    held = []

    def step():
        activations = torch.zeros(1000)
        held.append(weakref.ref(activations))
        raise MemoryError

    with pytest.raises(OutOfMemory) as named, out_of_memory_named(0, 64, 64, 64):
        step()
    assert isinstance(named.value.__cause__, MemoryError)  # with its traceback, whose frames held them
    assert held[0]() is None


def test_a_smaller_micro_batch_gives_the_same_run_to_rounding(make_spec, tmp_path):
    spec = make_spec(examples_seen=256, epsilon=1e-3)
    whole, columns = trained(spec, tmp_path / "a")
    parts, columns_of_parts = trained(spec, tmp_path / "b", Options(micro_batch=16))
    assert (columns["micro_batch_used"], columns_of_parts["micro_batch_used"]) == (64, 16)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=1e-5, atol=1e-5)


def test_a_larger_micro_batch_than_the_specs_is_not_taken(make_spec, tmp_path):
    _, columns = trained(make_spec(examples_seen=128, micro_batch=32), tmp_path / "a", Options(micro_batch=64))
    assert columns["micro_batch_used"] == 32


WITH_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from repro.config.errors import OutOfMemory
from repro.config.files import read_json
from repro.runs.directory import RunDirectory
from repro.config.spec import RunSpec
from repro.train.loop import Options, train

torch.set_num_threads(1)
spec = RunSpec.parse(read_json(Path(sys.argv[1])), "spec")
small = spec.model_copy(update={"batch_size": 64, "micro_batch": 64, "examples_seen": 128})
train(small, RunDirectory(sys.argv[2] + "-before"), torch.device("cpu"), Options())  # what any run needs once
size = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + (480 << 20), resource.RLIM_INFINITY))
try:
    result = train(spec, RunDirectory(sys.argv[2]), torch.device("cpu"), Options(micro_batch=int(sys.argv[3])))
    print("finished with", result["micro_batch_used"])
except OutOfMemory as error:
    print(error)
    print(error.__cause__)
"""


def test_a_run_that_does_not_fit_finishes_with_a_smaller_micro_batch(make_spec, tmp_path):
    spec = make_spec(batch_size=2048, micro_batch=2048, examples_seen=4096, warmup_examples=0)
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    directory = RunDirectory(tmp_path / "run")
    directory.write_spec(spec)

    def tried(micro_batch: int) -> str:
        # Each in a process of its own, as a job's are: what oneDNN once had no memory for it never makes again.
        arguments = [str(tmp_path / "spec.json"), str(directory.path), str(micro_batch)]
        done = subprocess.run([sys.executable, "-c", WITH_LITTLE_MEMORY, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = tried(2048)
    assert said.startswith("out of memory on rank 0 at batch size 2k, local batch 2,048, micro-batch 2,048")
    assert "micro-batch 2,048: tried to allocate" in said or said.endswith(f"\n{ONEDNN}\n"), said
    micro_batch = 2048
    while not said.startswith("finished with ") and micro_batch > 1:
        micro_batch = smaller_micro_batch(2048, micro_batch)
        said = tried(micro_batch)
    assert said == f"finished with {micro_batch}\n"
    assert micro_batch < 2048
