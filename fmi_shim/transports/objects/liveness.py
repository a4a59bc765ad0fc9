"""Who of the ranks that meet in a store is still there, and whether one has failed.

A rank that fails leaves its reason under ``comm_name + "_failed"``, of which the first counts; a rank that waits
looks for it. Whether a process lives is known where the store knows who is connected (Redis); S3 does not. What a
rendezvous server knows beyond that, where there is one, `registration` brings.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet

from fmi_shim.error_codec import abort_error, decode_abort, encode_abort
from fmi_shim.errors import FmiError, MismatchError, PeerLostError
from fmi_shim.frames import Call, FrameError
from fmi_shim.pairing.rendezvous_client import ServerRegistration
from fmi_shim.transports.objects.store import Store
from rendezvous.protocol.messages import Abort

LOOK_SECONDS = 0.25
"""How often a waiting rank looks whether the others are well."""

_REPORTED_BY = struct.Struct("<i")


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
    registration
        What the rendezvous server knows of them.
    """

    def __init__(self, rank: int, comm_name: str, store: Store, framed: bool, registration: ServerRegistration) -> None:
        self._rank = rank
        self._comm_name = comm_name
        self._store = store
        self._framed = framed
        self._registration = registration
        self._shown = False
        self._seen: set[int] = set()
        self._next = 0.0

    def show(self) -> None:
        """Let the others see that this rank is there, and raise what the server has told since."""
        if self._shown:
            self._registration.check_errors()
            return
        self._shown = True
        self._registration.register()
        self._store.attend(self._name(self._rank))

    def heard_of(self, rank: int) -> None:
        """Take note that a rank has written something."""
        if self._framed:
            self._seen.add(rank)

    def wait_begins(self) -> None:
        """Look for the first time after a while."""
        self._registration.start_wait()
        self._next = time.monotonic() + LOOK_SECONDS

    def sleep(self, seconds: float) -> None:
        """Pause for so long, or until the server tells of a failure, which is raised."""
        self._registration.sleep(seconds)

    def close(self) -> None:
        """Say that this rank ends in peace: whoever waits for what it has not written is told."""
        self._registration.close()

    def look(self, awaited: Sequence[int], there: Callable[[], bool], call: Callable[[], Call]) -> None:
        """Raise if a rank has failed, or one of those awaited is gone; does nothing more often than it should.

        Parameters
        ----------
        awaited
            Ranks that must write something before this one goes on.
        there
            Looks whether something has come meanwhile.
        call
            Tells the running call.
        """
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        self._registration.report_missing(awaited[0], call())
        lost = sorted(self._seen & self._absent({*awaited}) | self._registration.ended.keys() & {*awaited})
        (word,) = self._store.get([self._failed])  # after that: who fails leaves word before it goes
        if word is not None:
            raise self._failure(word, call())
        if lost and not there():
            raise self._lost(lost[0], call())

    def _lost(self, rank: int, call: Call) -> PeerLostError:
        mark = f"{self._comm_name}{rank}_left"
        if not self._registration.ended.get(rank, True) or self._store.present({mark}, self._comm_name):
            how = f"rank {rank} has left: its program ended, or closed the communicator, too early"
        else:
            how = f"lost rank {rank}, its process ended"
        return PeerLostError(f"rank {self._rank} in {call}: {how}", origin=rank)

    def over(self, readers: Iterable[int]) -> bool:
        """Whether no reader will come any more: a rank has failed, or they were there and are gone.

        Looks as seldom as `look`.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + LOOK_SECONDS
        waited = set(readers)
        absent = self._absent(waited)
        gone = self._framed and bool(waited) and waited <= self._seen & absent
        return gone or self._store.get([self._failed]) != [None]

    def _absent(self, ranks: AbstractSet[int]) -> set[int]:
        """Return who of `ranks` is not there, as far as the store knows; the others have been seen."""
        names = {self._name(rank): rank for rank in ranks}
        absent = {names[name] for name in self._store.absent(names.keys())}
        if self._store.knows_who_is_there:
            self._seen |= ranks - absent
        return absent

    def fail(self, abort: Abort) -> None:
        """Tell the server, and leave word, if this is the first failure."""
        self._registration.abort(abort)
        self._store.leave_word(self._failed, _REPORTED_BY.pack(self._rank) + encode_abort(abort))

    @property
    def _failed(self) -> str:
        return f"{self._comm_name}_failed"

    def _name(self, rank: int) -> str:
        return f"{self._comm_name}{rank}"

    def _failure(self, word: bytes, call: Call) -> FmiError:
        try:
            (reported_by,) = _REPORTED_BY.unpack_from(word)
            return abort_error(decode_abort(word[_REPORTED_BY.size :], reported_by))
        except (struct.error, FrameError) as error:
            return MismatchError(
                f"rank {self._rank} in {call}: {self._failed!r} in {self._store.name} is no rank's last word: {error}"
            )
