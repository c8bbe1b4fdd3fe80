"""What tests of training share: a run in a directory of its own, stopped on the way or not, and its weights."""

import torch

from repro.runs.directory import RunDirectory
from repro.train.loop import Options, train

CPU = torch.device("cpu")


def trained(spec, path, options=None, stop=lambda: False):
    """A run directory after training, and its columns; spec fields and path as given."""
    torch.set_num_threads(1)
    directory = RunDirectory(path)
    directory.write_spec(spec)
    result = train(spec, directory, CPU, options or Options(), stop)
    return directory, result


class StopAfter:
    """Says stop when asked for the n-th time: the n-th step."""

    def __init__(self, steps: int):
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


def weights(directory: RunDirectory):
    return torch.load(directory.final, weights_only=True)


def assert_same_bits(one: RunDirectory, other: RunDirectory) -> None:
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name
