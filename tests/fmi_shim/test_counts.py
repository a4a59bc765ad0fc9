"""Arguments and mismatches of the operations of different numbers of rows; `matrix` has their values."""

from pathlib import Path

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.errors import MismatchError
from tests.fmi_shim import message_programs as programs
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.world import World

THREE = fmi.types(fmi.datatypes.int_list, 3)
SUM = fmi.func(fmi.op.sum)


@pytest.mark.parametrize("channel", ["direct", "shm", "redis"])
def test_rows_of_arrays_are_joined_and_cut_along_the_first_axis(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str
) -> None:
    assert world_on(channel, request, tmp_path).values(programs.rows_of_arrays, 3) == [[]] * 3


@pytest.mark.parametrize("channel", ["direct", "shm", "redis"])
@pytest.mark.parametrize("operation", ["gatherv", "allgatherv", "alltoallv"])
def test_counts_that_differ_between_ranks_are_told(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str, operation: str
) -> None:
    outcomes = world_on(channel, request, tmp_path).run(programs.other_counts, 2, operation)
    errors = [outcome.error for outcome in outcomes if isinstance(outcome.error, MismatchError)]
    assert errors
    assert any("counts must be the same" in str(error) or "rows of" in str(error) for error in errors)


def test_wrong_counts_raise_before_anything_is_sent(world: World) -> None:
    comm = fmi.Communicator(0, 2, world.config(), "counts")
    raw = fmi.Communicator(0, 2, world.config(framed=False), "counts")
    value = np.ones(3)
    wrong = [
        (lambda: comm.gatherv(value, 0, [2, 1]), ValueError, r"invalid counts \[2, 1\]: expected 3 rows for rank 0"),
        (
            lambda: comm.gatherv(value, 0, [3]),
            ValueError,
            r"invalid counts \[3\]: expected 2 numbers of rows from 0 on",
        ),
        (lambda: comm.gatherv(value, 0, [3, -1]), ValueError, "expected 2 numbers of rows from 0 on"),
        (lambda: comm.gatherv(value, 0, [3, 1.5]), TypeError, "expected 2 whole numbers, one for each rank"),
        (lambda: comm.gatherv(value, 0, 3), TypeError, "invalid counts 3: expected 2 whole numbers"),
        (lambda: comm.gatherv([1, 2, 3], 0, t=THREE), TypeError, "missing counts: expected the rows of each rank"),
        (lambda: raw.gatherv(value, 0), TypeError, "missing counts: expected the rows of each rank, since only arrays"),
        (lambda: comm.gatherv(np.ones(()), 0, [1, 1]), ValueError, "invalid value of a single element: expected an ar"),
        (
            lambda: comm.gatherv(1, 0, [1, 1], fmi.types(fmi.datatypes.int)),
            ValueError,
            "expected int_list or double_list, of which ranks can have different numbers",
        ),
        (
            lambda: comm.scatterv(value, 0, [1, 1]),
            ValueError,
            r"\[1, 1\]: expected the 3 rows of the value in all, got 2",
        ),
        (lambda: comm.scatterv(value, 0), TypeError, "invalid counts None: expected 2 whole numbers"),
        (
            lambda: comm.alltoallv(value, [1, 2], [2, 0]),
            ValueError,
            "invalid recvcounts .*: expected 1 rows for rank 0",
        ),
        (lambda: comm.reduce_scatter(value, SUM, counts=[1, 1]), ValueError, "expected the 3 rows of the value in all"),
        (
            lambda: comm.reduce_scatter(
                [1.0] * 4, fmi.func(fmi.op.maxloc), fmi.types(fmi.datatypes.double_list, 4), counts=[1, 3]
            ),
            ValueError,
            "expected pairs of a value and a location",
        ),
        (lambda: comm.allgatherv(value, [3, 1], out=np.ones(3)), ValueError, r"invalid out float64\[3\]: expected"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()
    comm.close()
    raw.close()
