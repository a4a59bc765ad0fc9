"""Which ranks of which jobs are there, and whom they want to meet: the extension's state, without sockets.

Every method takes what a rank did and returns what is to be delivered to whom.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container
from typing import Generic, TypeVar

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
"""Of how many named jobs failures, and lost ranks, are remembered for ranks that are yet to come."""


class Jobs(Generic[Client]):
    """Registered ranks by job and communicator name; ranks of different jobs never learn of each other.

    Parameters
    ----------
    relaying
        Whether introductions carry tickets for the relay.
    raw_names
        Pairing names under which clients of version 1 wait at the moment.
    new_ticket
        Makes tickets, which must be impossible to guess.
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
        self._lost: dict[tuple[str, str], dict[int, PeerEnded]] = {}

    def __len__(self) -> int:
        """Return the number of registered ranks."""
        return len(self._members)

    @property
    def count(self) -> int:
        """Number of jobs."""
        return len(self._jobs)

    def register(self, client: Client, registration: Registration, observed: Endpoint) -> list[Delivery[Client]]:
        """Take a rank in, or refuse it and all others, if it is in conflict with one of them.

        A rank that comes back, known by its instance, takes the place of its former connection. One that comes to a
        named job that has failed, or has lost a rank, is told so; where jobs have no names, it may be the next run's.
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
        lost = self._lost.get(key, {})
        lost.pop(registration.rank, None)
        member = Member(client, registration, observed, gone=dict(lost))
        job.members[registration.rank] = member
        self._members[client] = (job, member)
        for each in job.members.values():
            each.gone.pop(registration.rank, None)
        return [] if job.abort is None else [Delivery(client, job.abort)]

    def announce(self, client: Client, announce: Announce) -> list[Delivery[Client]]:
        """Take note that a rank listens for a peer; introduce them if both do.

        Raises
        ------
        ProtocolError
            If the client is not registered, or there can be no such peer.
        """
        job, member = self._member_of(client)
        rank, peer = member.registration.rank, announce.peer
        if peer == rank or peer >= job.world_size:
            raise ProtocolError(f"rank {rank} of {job.world_size} cannot meet rank {peer}")
        name = f"{member.registration.comm_name}{max(rank, peer)}_{min(rank, peer)}"
        if not member.registration.job and name.encode() in self._raw_names:
            return [self._refuse(client, _raw_peer(rank, peer))]
        if peer in member.gone:
            return [Delivery(client, member.gone[peer])]
        return self._introductions.announce(job, member, peer, announce.port)

    def probed(self, ticket: bytes, observed: Endpoint) -> list[Delivery[Client]] | None:
        """Take the public address of an announced port; None if there is no such ticket."""
        return self._introductions.probed(ticket, observed)

    def withdraw(self, client: Client, peer: int) -> None:
        """Forget that a rank listens for a peer.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        self._introductions.withdraw(self._member_of(client)[1], peer)

    def relay_endpoint(self, ticket: bytes) -> RelayEndpoint | None:
        """Return which end of which relayed connection a ticket is for."""
        return self._introductions.relay_endpoint(ticket)

    def abort(self, client: Client, abort: Abort) -> list[Delivery[Client]]:
        """Pass a rank's abort on to all others of its communicator; the first one is remembered for those to come.

        Raises
        ------
        ProtocolError
            If the client is not registered, or speaks in another rank's name.
        """
        job, member = self._member_of(client)
        if abort.reported_by != member.registration.rank:
            raise ProtocolError(f"rank {member.registration.rank} sent an abort of rank {abort.reported_by}")
        if job.abort is not None:
            return []
        job.abort = abort
        self._remember_failure(job, abort)
        return [Delivery(other.client, abort) for other in job.members.values() if other is not member]

    def record_wait(self, client: Client, waiting: Waiting) -> list[Delivery[Client]]:
        """Take note that a rank does nothing but wait for another; tell all ranks of a cycle that they are in one.

        If the other has gone, this one is told that.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        job, member = self._member_of(client)
        cycle = job.wait_for_graph.record(member.registration.rank, waiting)
        if waiting.peer in member.gone:
            return [Delivery(client, member.gone[waiting.peer])]
        if cycle is None:
            return []
        told = Deadlock(job.wait_for_graph.describe(cycle))
        return [Delivery(job.members[rank].client, told) for rank in cycle if rank in job.members]

    def leave(self, client: Client) -> list[Delivery[Client]]:
        """Take note that a rank ends in peace; tell those that want to meet it, now or later.

        Raises
        ------
        ProtocolError
            If the client is not registered.
        """
        job, member = self._member_of(client)
        self.remove(client)
        return self._gone(job, member.registration.rank, lost=False)

    def disconnected(self, client: Client) -> Callable[[], list[Delivery[Client]]]:
        """Forget a client whose connection has ended without a word.

        Returns
        -------
        Callable
            To be called when it has had time to come back: tells those that want to meet it, if it has not.
        """
        found = self._members.get(client)
        self.remove(client)
        if found is None:
            return list
        job, member = found
        rank = member.registration.rank

        def tell() -> list[Delivery[Client]]:
            current = self._jobs.get(job.key)
            if current is not None and rank in current.members:
                return []
            if job.key[0]:
                _remember(self._lost, job.key, {**self._lost.get(job.key, {}), rank: PeerEnded(rank, True)})
            return self._gone(job, rank, lost=True) if current is job else []

        return tell

    def _gone(self, job: Job[Client], rank: int, lost: bool) -> list[Delivery[Client]]:
        told = PeerEnded(rank, lost)
        for member in job.members.values():
            member.gone.setdefault(rank, told)
        return [
            Delivery(member.client, told)
            for other, member in job.members.items()
            if rank in member.announcements or job.wait_for_graph.awaited(other) == rank
        ]

    def remove(self, client: Client) -> None:
        """Forget a client whose connection is gone, with all it has announced."""
        found = self._members.get(client)
        if found is None:
            return
        job, member = found
        for peer in tuple(member.announcements):
            self._introductions.withdraw(member, peer)
        del self._members[client]
        del job.members[member.registration.rank]
        job.wait_for_graph.forget(member.registration.rank)
        if not job.members:
            del self._jobs[job.key]

    def on_raw_client(self, name: bytes) -> list[Delivery[Client]]:
        """Take note that a client of version 1 waits under a name; refuse ranks without a job that await it.

        It was started in raw mode, and they would wait for each other for ever.
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
            raise ProtocolError("a rank must register before anything else")
        return found

    def _refuse(self, client: Client, text: str) -> Delivery[Client]:
        self.remove(client)
        return Delivery(client, Refusal(RefusalReason.mismatch, text))

    def _refuse_all(self, job: Job[Client], newcomer: Client, text: str) -> list[Delivery[Client]]:
        self._remember_failure(job, Refusal(RefusalReason.mismatch, text))
        everybody = [self._refuse(member.client, text) for member in tuple(job.members.values())]
        return [*everybody, Delivery(newcomer, Refusal(RefusalReason.mismatch, text))]

    def _remember_failure(self, job: Job[Client], message: Abort | Refusal) -> None:
        if job.key[0]:
            _remember(self._failed, job.key, message)


def _remember(jobs: dict[tuple[str, str], Value], key: tuple[str, str], value: Value) -> None:
    jobs[key] = value
    if len(jobs) > _FAILED_JOBS:
        del jobs[next(iter(jobs))]


def _raw_peer(rank: int, peer: int) -> str:
    """Return what a rank is told whose peer speaks version 1."""
    return (
        f"rank {peer} at the rendezvous server does not run in framed mode as rank {rank} does: "
        "set FMI_FRAMED or backends.Direct.framed alike on all ranks"
    )


def _is_rank(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_WORLD_SIZE))
