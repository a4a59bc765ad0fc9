"""Which ranks of an object channel are alive, and whether one has failed.

A rank that fails writes its error under ``comm_name + "_failed"``; the first one counts. Waiting ranks read it. Redis
knows its connected clients, and so which processes are alive; S3 cannot detect that a process died. What a rendezvous
server knows beyond that, if there is one, `registration` provides.
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
from fmi_shim.transports.objects.timing import CHECK
from rendezvous.protocol.messages import Abort, Cause

_REPORTED_BY = struct.Struct("<i")


class Liveness:
    """Detects on one rank that the process of another rank has ended.

    Parameters
    ----------
    rank
        This rank.
    comm_name
        Name of the communicator.
    store
        Where their objects are.
    framed
        Whether all ranks are ours, and so register their presence.
    registration
        This rank's registration with the rendezvous server.
    """

    def __init__(self, rank: int, comm_name: str, store: Store, framed: bool, registration: ServerRegistration) -> None:
        self._rank = rank
        self._comm_name = comm_name
        self._store = store
        self._framed = framed
        self._registration = registration
        self._marked = False
        self._seen: set[int] = set()
        self._next = 0.0

    def mark_present(self) -> None:
        """Register this rank, if it is not registered; raise the error that the server has sent, if any."""
        self._registration.clear_wait()
        if self._marked:
            self._registration.check_errors()
            return
        self._marked = True
        self._registration.register()
        self._store.register_presence(self._name(self._rank))

    def mark_seen(self, rank: int) -> None:
        """Record that a rank has written an object."""
        if self._framed:
            self._seen.add(rank)

    def start_wait(self) -> None:
        """Begin a wait: its first check is due after `CHECK`."""
        self._registration.start_wait()
        self._next = time.monotonic() + CHECK

    def withdraw_wait(self) -> None:
        """Report that this rank waits for none any more, after a wait that timed out."""
        self._registration.withdraw_wait()

    def sleep(self, seconds: float) -> None:
        """Sleep, or raise as soon as the server reports a failure."""
        self._registration.sleep(seconds)

    def find_cause(self, peer: int) -> Cause | None:
        """Have the server find the rank that this one waits for in the end; None if that is not known."""
        return self._registration.find_cause(peer)

    def check_peers(self, awaited: Sequence[int], found: Callable[[int], bool], call: Callable[[], Call]) -> None:
        """Raise if a rank has failed, or an awaited one has ended; return at once if the last check is recent.

        Parameters
        ----------
        awaited
            Ranks that this rank waits for.
        found
            Returns whether an awaited object of a rank exists meanwhile.
        call
            Returns the running call.
        """
        self._registration.wait_for(awaited[0], call)
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + CHECK
        self._registration.report_missing(awaited, call())
        lost = sorted(self._seen & self._absent({*awaited}) | self._registration.ended.keys() & {*awaited})
        (record,) = self._store.get([self._failed])  # read last: a failing rank writes it before it deregisters
        if record is not None:
            raise self._failure(record, call())
        for rank in lost:
            if not found(rank):
                raise self._lost_error(rank, call())

    def _lost_error(self, rank: int, call: Call) -> PeerLostError:
        left = f"{self._comm_name}{rank}_left"
        if not self._registration.ended.get(rank, True) or self._store.present({left}, self._comm_name):
            how = (
                f"rank {rank} closed the communicator too early, or its program ended: all ranks must make the same "
                "calls"
            )
        else:
            how = f"lost rank {rank}, its process ended"
        return PeerLostError(f"rank {self._rank} in {call.made_by(self._rank)}: {how}", origin=rank)

    def readers_gone(self, readers: Iterable[int]) -> bool:
        """Return whether no reader is left to wait for: a rank has failed, or all were present and have ended.

        Returns False at once if the last check is recent.
        """
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + CHECK
        waited = set(readers)
        absent = self._absent(waited)
        gone = self._framed and bool(waited) and waited <= self._seen & absent
        return gone or self._store.get([self._failed]) != [None]

    def unregistered(self, ranks: AbstractSet[int]) -> set[int]:
        """Return those of `ranks` that the store knows not to be registered; none if it cannot know (S3)."""
        return self._absent(ranks) if ranks else set()

    def _absent(self, ranks: AbstractSet[int]) -> set[int]:
        """Return those of `ranks` that the store knows to be absent; record the others as seen."""
        names = {self._name(rank): rank for rank in ranks}
        absent = {names[name] for name in self._store.absent(names.keys())}
        if self._store.detects_absence:
            self._seen |= ranks - absent
        return absent

    def report_failure(self, abort: Abort) -> None:
        """Report the failure to the server."""
        self._registration.abort(abort)

    def record_failure(self, abort: Abort) -> None:
        """Write the failure to the store, if it is the first one."""
        self._store.put_temporarily(self._failed, _REPORTED_BY.pack(self._rank) + encode_abort(abort))

    @property
    def _failed(self) -> str:
        return f"{self._comm_name}_failed"

    def _name(self, rank: int) -> str:
        return f"{self._comm_name}{rank}"

    def _failure(self, record: bytes, call: Call) -> FmiError:
        try:
            (reported_by,) = _REPORTED_BY.unpack_from(record)
            return abort_error(decode_abort(record[_REPORTED_BY.size :], reported_by))
        except (struct.error, FrameError) as error:
            return MismatchError(
                f"rank {self._rank} in {call.made_by(self._rank)}: {self._failed!r} in {self._store.name} is invalid: "
                f"expected the record of a failed rank: {error}"
            )
