"""What a program does when a rank fails."""

import os

import pytest

from emulator.testing import WorldError
from fmi_shim.errors import PeerLostError


def test_the_rank_where_a_failure_began_is_named(fmi_world):
    """An exception in one rank fails the test, unless the test expects it."""

    def rank(comm):
        comm.barrier()
        return 1 // (comm.rank - 1)

    with pytest.raises(WorldError, match="ZeroDivisionError") as raised:
        fmi_world(3)(rank)
    assert raised.value.origin == 1


def test_survivors_of_a_lost_rank(fmi_world):
    """A rank may also end without an exception; the others can handle that."""

    def rank(comm):
        comm.barrier()
        if comm.rank == 2:
            os._exit(1)
        try:
            comm.barrier()
        except PeerLostError as lost:
            return lost.origin
        return None

    with pytest.raises(WorldError) as raised:
        fmi_world(3)(rank)
    assert [failure.rank for failure in raised.value.failures] == [2]
