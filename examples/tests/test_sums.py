"""Functions of ranks, tested on worlds of several sizes and channels: run with pytest, which loads the plugin."""

import numpy as np
import pytest

import fmi_shim as fmi

SUM = fmi.func(fmi.op.sum)


def standardised(comm: fmi.Communicator, part: np.ndarray) -> np.ndarray:
    """Return this rank's part of a sample, less the mean of all parts and divided by their standard deviation."""
    count, total, squares = comm.allreduce(np.array([part.size, part.sum(), (part**2).sum()]), SUM)
    mean = total / count
    return (part - mean) / np.sqrt(squares / count - mean**2)


def test_sum(fmi_world):
    """The smallest test: a local function on four ranks."""
    offset = 10

    def rank(comm):
        return comm.allreduce(comm.rank + offset, SUM, fmi.types(fmi.datatypes.int))

    assert fmi_world(4)(rank) == [46, 46, 46, 46]


@pytest.mark.fmi(world_size=[1, 2, 5], channel=["direct", "shm"])
def test_standardised(fmi_world):
    """Sizes and channels are parameters; each rank takes its part of an array of the test."""
    sample = np.random.default_rng(1).normal(3.0, 2.0, 1000)

    def rank(comm):
        return standardised(comm, np.array_split(sample, comm.size)[comm.rank])

    whole = np.concatenate(fmi_world()(rank))
    np.testing.assert_allclose(whole, (sample - sample.mean()) / sample.std(), atol=1e-12)
