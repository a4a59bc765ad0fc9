"""The registered ranks of all jobs, and the peers that they connect to. No I/O.

Every method takes an event of a rank and returns the messages to deliver.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Container, Sequence
from typing import Generic, TypeVar

from rendezvous.cause_search import CauseSearch
from rendezvous.introductions import Introductions
from rendezvous.job_state import Client, Delivery, Job, Member, RelayEndpoint
from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.extension import TICKET_BYTES
from rendezvous.protocol.messages import (
    MAX_WORLD_SIZE,
    Abort,
    Announce,
    Deadlock,
    PeerEnded,
    Refusal,
    RefusalReason,
    Registration,
)
from rendezvous.protocol.waiting import Waiting

Value = TypeVar("Value")

_FAILED_JOBS = 1000
"""The number of named jobs whose failures and ended ranks are remembered for ranks that register later."""


class Jobs(Generic[Client]):
    """Registered ranks by job and communicator name; ranks of different jobs never receive messages about each other.

    Parameters
    ----------
    relaying
        Whether introductions carry tickets for the relay.
    raw_names
        Pairing names under which clients of version 1 wait at the moment.
    new_ticket
        Returns a new ticket, which must be impossible to guess.
    """

    def __init__(
        self,
        relaying: bool = True,
        raw_names: Container[bytes] = (),
        new_ticket: Callable[[], bytes] = lambda: secrets.token_bytes(TICKET_BYTES),
    ) -> None:
        self._raw_names = raw_names
        self._jobs: dict[tuple[str, str], Job[Client]] = {}
        self._members: dict[Client, tuple[Job[Client], Member[Client]]] = {}
        self._introductions: Introductions[Client] = Introductions(relaying, new_ticket)
        self._failed: dict[tuple[str, str], Abort | Refusal] = {}
        self._ended: dict[tuple[str, str], dict[int, PeerEnded]] = {}
        self._processes: dict[tuple[str, bytes], dict[Client, Job[Client]]] = {}
        self._numbers = itertools.cycle(range(2**32))

    def __len__(self) -> int:
        """Return the number of registered ranks."""
        return len(self._members)

    @property
    def count(self) -> int:
        """Number of jobs."""
        return len(self._jobs)

    def register(self, client: Client, registration: Registration, observed: Endpoint) -> list[Delivery[Client]]:
        """Register a rank. If it conflicts with another one, refuse it and all others of its job.

        A rank that reconnects, identified by its instance, replaces its former connection. A rank of a named job that
        has failed, or of which a rank has ended, is notified. A job without a name may be the next run's, and is not.
        """
        key = (registration.job, registration.comm_name)
        failure = self._failed.get(key)
        if isinstance(failure, Refusal):
            return [Delivery(client, failure)]
        job = self._jobs.setdefault(key, Job(key, registration.world_size, abort=failure))
        if job.world_size != registration.world_size:
            other = min(job.members)
            return self._refuse_all(
                job,
                client,
                f"rank {other} was started with {job.world_size} ranks, rank {registration.rank} with "
                f"{registration.world_size}: all must have the same number",
            )
        former = job.members.get(registration.rank)
        if former is not None and former.registration.instance != registration.instance:
            return self._refuse_all(
                job,
                client,
                f"two processes run as rank {registration.rank}: each rank must be started once; "
                "for another run at the same time give another FMI_JOB",
            )
        if former is not None:
            self.remove(former.client)
            self._jobs[key] = job
        ended = self._ended.get(key, {})
        ended.pop(registration.rank, None)
        member = Member(client, registration, observed, ended=dict(ended))
        job.members[registration.rank] = member
        job.known[registration.rank] = member.process
        self._members[client] = (job, member)
        self._processes.setdefault(member.process, {})[client] = job
        for each in job.members.values():
            each.ended.pop(registration.rank, None)
        return [] if job.abort is None else [Delivery(client, job.abort)]

    def announce(self, client: Client, announce: Announce) -> list[Delivery[Client]]:
        """Record that a rank listens for a peer; introduce them if both listen.

        Raises
        ------
        ProtocolError
            If the client is not registered, or the peer is invalid.
        """
        job, member = self._member_of(client)
        rank, peer = member.registration.rank, announce.peer
        if peer == rank or peer >= job.world_size:
            raise ProtocolError(f"invalid peer {peer} of rank {rank}: expected another rank below {job.world_size}")
        name = f"{member.registration.comm_name}{max(rank, peer)}_{min(rank, peer)}"
        if not member.registration.job and name.encode() in self._raw_names:
            return [self._refuse(client, _raw_peer(rank, peer))]
        if peer in member.ended:
            return [Delivery(client, member.ended[peer])]
        return self._introductions.announce(job, member, peer, announce.port)

    def probed(self, ticket: bytes, observed: Endpoint) -> list[Delivery[Client]] | None:
        """Record the public address of an announced port; return None if the ticket is unknown."""
        return self._introductions.probed(ticket, observed)

    def withdraw(self, client: Client, peer: int) -> None:
        """Record that a rank no longer listens for a peer.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        self._introductions.withdraw(self._member_of(client)[1], peer)

    def registration(self, client: Client) -> Registration | None:
        """Return the registration of a client; None if it is not registered."""
        found = self._members.get(client)
        return None if found is None else found[1].registration

    def relay_endpoint(self, ticket: bytes) -> RelayEndpoint | None:
        """Return the end of a relayed connection that a ticket is for, None if the ticket is unknown."""
        return self._introductions.relay_endpoint(ticket)

    def abort(self, client: Client, abort: Abort) -> list[Delivery[Client]]:
        """Forward a rank's abort to all others of its communicator; the first is kept for ranks that register later.

        Raises
        ------
        ProtocolError
            If the client is not registered, or the abort names another rank as its sender.
        """
        job, member = self._member_of(client)
        if abort.reported_by != member.registration.rank:
            raise ProtocolError(f"invalid abort: expected sender {member.registration.rank}, got {abort.reported_by}")
        if job.abort is not None:
            return []
        job.abort = abort
        self._remember_failure(job, abort)
        return [Delivery(other.client, abort) for other in job.members.values() if other is not member]

    def record_wait(self, client: Client, waiting: Waiting) -> list[Delivery[Client]]:
        """Record that a rank only waits for another one; notify all ranks of a deadlock.

        If the peer has ended, notify this rank.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        job, member = self._member_of(client)
        cycle = job.wait_for_graph.record(member.registration.rank, waiting)
        if waiting.peer in member.ended:
            return [Delivery(client, member.ended[waiting.peer])]
        if cycle is None:
            return []
        message = Deadlock(job.wait_for_graph.describe(cycle))
        return [Delivery(job.members[rank].client, message) for rank in cycle if rank in job.members]

    def leave(self, client: Client) -> list[Delivery[Client]]:
        """Handle the end of a rank without an error; notify the ranks that connect to it, now or later.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        job, member = self._member_of(client)
        self.remove(client)
        if len(job.known) < job.world_size:  # else all have registered already, and are notified now
            self._remember_end(job, PeerEnded(member.registration.rank, False))
        return self._notify_ended(job, member.registration.rank, lost=False)

    def disconnected(self, client: Client) -> Callable[[], list[Delivery[Client]]]:
        """Remove a client whose connection ended without a `Leave`.

        Returns
        -------
        Callable
            To be called when it has had time to reconnect: notifies the ranks that connect to it, if it has not.
        """
        found = self._members.get(client)
        self.remove(client)
        if found is None:
            return list
        job, member = found
        rank = member.registration.rank

        def notify() -> list[Delivery[Client]]:
            current = self._jobs.get(job.key)
            if current is not None and rank in current.members:
                return []
            self._remember_end(job, PeerEnded(rank, True))
            return self._notify_ended(job, rank, lost=True) if current is job else []

        return notify

    def _notify_ended(self, job: Job[Client], rank: int, lost: bool) -> list[Delivery[Client]]:
        message = PeerEnded(rank, lost)
        for member in job.members.values():
            member.ended.setdefault(rank, message)
        return [
            Delivery(member.client, message)
            for other, member in job.members.items()
            if rank in member.announcements or rank in member.watched or job.wait_for_graph.awaited(other) == rank
        ]

    def watch(self, client: Client, peers: Sequence[int]) -> list[Delivery[Client]]:
        """Report the end of some ranks to one rank, now if they have ended already.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        _, member = self._member_of(client)
        member.watched = frozenset(peers)
        return [Delivery(client, member.ended[peer]) for peer in peers if peer in member.ended]

    def find_cause(self, client: Client, peer: int) -> CauseSearch[Client]:
        """Return a search for the rank that a rank which waits for `peer` waits for in the end.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        job, member = self._member_of(client)
        return CauseSearch(client, job, member.registration.rank, peer, self._numbers, self._places)

    def _places(self, member: Member[Client]) -> dict[Client, Job[Client]]:
        """Return where the process of a member is registered; nothing if it has several ranks of one communicator."""
        places = self._processes[member.process]
        is_one_rank = len({id(job) for job in places.values()}) == len(places)
        return places if is_one_rank else {}

    def remove(self, client: Client) -> None:
        """Remove a client whose connection ended, with its announcements."""
        found = self._members.get(client)
        if found is None:
            return
        job, member = found
        for peer in tuple(member.announcements):
            self._introductions.withdraw(member, peer)
        del self._members[client]
        places = self._processes[member.process]
        del places[client]
        if not places:
            del self._processes[member.process]
        del job.members[member.registration.rank]
        job.wait_for_graph.forget(member.registration.rank)
        if not job.members:
            del self._jobs[job.key]

    def on_raw_client(self, name: bytes) -> list[Delivery[Client]]:
        """Handle a client of version 1 that waits under a name; refuse ranks without a job that wait for it.

        It runs in raw mode; the two would wait for each other without end.
        """
        rest, _, low = name.decode(errors="replace").rpartition("_")
        deliveries = []
        for digits in range(1, len(str(MAX_WORLD_SIZE)) + 1):
            job, high = self._jobs.get(("", rest[:-digits])), rest[-digits:]
            if job is None or not _is_rank(low) or not _is_rank(high):
                continue
            for rank, peer in ((int(high), int(low)), (int(low), int(high))):
                member = job.members.get(rank)
                if member is not None and peer in member.announcements:
                    deliveries.append(self._refuse(member.client, _raw_peer(rank, peer)))
        return deliveries

    def _member_of(self, client: Client) -> tuple[Job[Client], Member[Client]]:
        found = self._members.get(client)
        if found is None:
            raise ProtocolError("expected a registration first")
        return found

    def _refuse(self, client: Client, text: str) -> Delivery[Client]:
        self.remove(client)
        return Delivery(client, Refusal(RefusalReason.mismatch, text))

    def _refuse_all(self, job: Job[Client], client: Client, text: str) -> list[Delivery[Client]]:
        self._remember_failure(job, Refusal(RefusalReason.mismatch, text))
        everybody = [self._refuse(member.client, text) for member in tuple(job.members.values())]
        return [*everybody, Delivery(client, Refusal(RefusalReason.mismatch, text))]

    def _remember_end(self, job: Job[Client], ended: PeerEnded) -> None:
        """Remember it for ranks that register later, until all have ended."""
        if job.key[0]:
            known = {**self._ended.get(job.key, {}), ended.peer: ended}
            if len(known) < job.world_size:
                _remember(self._ended, job.key, known)
            else:
                self._ended.pop(job.key, None)

    def _remember_failure(self, job: Job[Client], message: Abort | Refusal) -> None:
        if job.key[0]:
            _remember(self._failed, job.key, message)


def _remember(jobs: dict[tuple[str, str], Value], key: tuple[str, str], value: Value) -> None:
    jobs[key] = value
    if len(jobs) > _FAILED_JOBS:
        del jobs[next(iter(jobs))]


def _raw_peer(rank: int, peer: int) -> str:
    """Return the refusal of a rank whose peer speaks version 1."""
    return (
        f"rank {peer} at the rendezvous server does not run in framed mode as rank {rank} does: "
        "set FMI_FRAMED or backends.Direct.framed alike on all ranks"
    )


def _is_rank(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_WORLD_SIZE))
