"""Whether the ranks may read each other's memory, which they find out together, and how one does."""

from __future__ import annotations

import os
import secrets

import numpy as np

from fmi_shim.operators import Array
from fmi_shim.transports.shm import process_memory
from fmi_shim.transports.shm.rounds import Mark, Rounds

_TOKEN_BYTES = 16


class Neighbours:
    """The other ranks' processes.

    Parameters
    ----------
    rank
        This rank.
    rounds
        How it waits for the others.
    notes
        A few int64 for each rank to leave the others, shape (turns, ranks, at least 4).
    """

    def __init__(self, rank: int, rounds: Rounds, notes: Array) -> None:
        self._rank = rank
        self._rounds = rounds
        self._notes = notes
        self._processes: list[int] | None = None
        self._readable: bool | None = None

    def readable(self, mark: Mark) -> bool:
        """Whether every rank may read every other's memory: the first time they all try, in two rounds of this call.

        Each leaves a number made by chance in its memory, and its process's number and the address with the others, who
        look whether it is there: process numbers mean nothing across containers, and who may read whom is the system's
        choice.
        """
        if self._readable is None:
            token = np.frombuffer(secrets.token_bytes(_TOKEN_BYTES), np.int64)
            found = self._exchanged(mark, [os.getpid(), token.ctypes.data, *token])
            seen = process_memory.AVAILABLE and all(_has_token(row[0], row[1], row[2:]) for row in found)
            self._readable = bool(self._exchanged(mark, [seen])[:, 0].all())
            self._processes = found[:, 0].tolist()
        return self._readable

    def _exchanged(self, mark: Mark, note: list[int]) -> Array:
        """Return all ranks' notes."""
        notes = self._notes[self._rounds.begin(mark)]
        notes[self._rank, : len(note)] = note
        self._rounds.meet()
        copied: Array = notes.copy()
        return copied

    def addresses(self, mark: Mark, own: int) -> Array:
        """Begin a round, and leave the others the address `own`; return where theirs are, once they have come."""
        notes = self._notes[self._rounds.begin(mark)]
        notes[self._rank, 0] = own
        self._rounds.publish()
        places: Array = notes[:, 0]
        return places

    def copy(self, mark: Mark, rank: int, address: int, target: Array) -> None:
        """Fill `target` with what `rank`, which waits until it is told that this is done, has at `address`.

        Raises
        ------
        FmiError
            If it has ended or failed.
        OSError
            If its memory cannot be read any more for another reason.
        """
        assert self._processes is not None  # noqa: S101 - they were found readable
        try:
            process_memory.copy(self._processes[rank], address, target)
        except OSError:
            for _ in range(2):  # to the first one it may have come before it ended
                self._rounds.begin(mark)
                self._rounds.publish()
                self._rounds.await_rank(rank)
            raise


def _has_token(process: int, address: int, token: Array) -> bool:
    """Whether `token` is what the process has at `address`."""
    found = np.empty_like(token)
    try:
        process_memory.copy(int(process), int(address), found)
    except OSError:
        return False
    return found.tobytes() == token.tobytes()
