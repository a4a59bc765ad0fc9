"""Who of the ranks that meet in a store is still there, and whether one has failed.

A rank that fails leaves its reason under ``comm_name + "_failed"``, of which the first counts; a rank that waits
looks for it. Whether a process lives is known where the store knows who is connected (Redis); S3 does not.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable

from fmi_shim.channels.aborts import abort_of, error_of
from fmi_shim.channels.store import Store
from fmi_shim.errors import FmiError, MismatchError, PeerLostError
from fmi_shim.farewells import abort_payload, decode_abort
from fmi_shim.frames import FrameError

LOOK_SECONDS = 0.25
"""How often a waiting rank looks whether the others are well."""

_TELLER = struct.Struct("<i")


class Presence:
    """The others, as one rank sees them.

    Parameters
    ----------
    rank
        This rank.
    comm_name
        Name of the communicator.
    store
        Where they meet.
    framed
        Whether all ranks are ours, and so can be seen.
    """

    def __init__(self, rank: int, comm_name: str, store: Store, framed: bool) -> None:
        self._rank = rank
        self._comm_name = comm_name
        self._store = store
        self._framed = framed
        self._shown = False
        self._seen: set[int] = set()
        self._next = 0.0

    def show(self) -> None:
        """Let the others see that this rank is there."""
        if not self._shown:
            self._shown = True
            self._store.attend(self._name(self._rank))

    def heard_of(self, rank: int) -> None:
        """Take note that a rank has written something."""
        if self._framed:
            self._seen.add(rank)

    def wait_begins(self) -> None:
        """Look for the first time after a while."""
        self._next = time.monotonic() + LOOK_SECONDS

    def look(self, awaited: Iterable[int], there: Callable[[], bool], purpose: Callable[[], str]) -> None:
        """Raise if a rank has failed, or one of those awaited is gone; does nothing more often than it should.

        Parameters
        ----------
        awaited
            Ranks that must write something before this one goes on.
        there
            Looks whether something has come meanwhile.
        purpose
            Tells what this rank is doing.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        (word,) = self._store.get([self._failed])
        if word is not None:
            raise self._failure(word, purpose)
        names = {self._name(rank): rank for rank in awaited}
        absent = {names[name] for name in self._store.absent(names.keys())}
        lost = sorted(self._seen & absent)
        if self._store.knows_who_is_there:
            self._seen |= set(names.values()) - absent
        if lost and not there():
            left = self._store.present({f"{self._comm_name}{lost[0]}_left"}, self._comm_name)
            how = "has left: its program ended, or closed the communicator, too early" if left else "its process ended"
            raise PeerLostError(
                f"{purpose()}: {'rank' if left else 'lost rank'} {lost[0]}{' ' if left else ', '}{how}", origin=lost[0]
            )

    def over(self, readers: Iterable[int]) -> bool:
        """Whether no reader will come any more: a rank has failed, or they are gone; looks as seldom as `look`."""
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LOOK_SECONDS
        names = {self._name(rank) for rank in readers}
        gone = self._framed and self._store.knows_who_is_there and bool(names) and self._store.absent(names) == names
        return gone or self._store.get([self._failed]) != [None]

    def fail(self, error: BaseException, purpose: Callable[[], str]) -> None:
        """Leave word of the error, if it is the first one."""
        abort = abort_of(error, self._rank, purpose())
        self._store.leave_word(self._failed, _TELLER.pack(self._rank) + abort_payload(abort))

    @property
    def _failed(self) -> str:
        return f"{self._comm_name}_failed"

    def _name(self, rank: int) -> str:
        return f"{self._comm_name}{rank}"

    def _failure(self, word: bytes, purpose: Callable[[], str]) -> FmiError:
        try:
            (teller,) = _TELLER.unpack_from(word)
            return error_of(decode_abort(word[_TELLER.size :]), teller)
        except (struct.error, FrameError) as error:
            return MismatchError(f"{purpose()}: {self._failed!r} in {self._store.name} is no rank's last word: {error}")
