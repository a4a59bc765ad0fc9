"""Introduces ranks that listen for each other: announced ports, probes behind NATs, tickets for the relay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from rendezvous.job_state import NO_TICKET, Announcement, Client, Delivery, Job, Member, RelayEndpoint
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Introduction, ProbeRequest


class Introductions(Generic[Client]):
    """The valid tickets, of probes and of the relay.

    Parameters
    ----------
    relaying
        Whether introductions carry tickets for the relay.
    new_ticket
        Returns a new ticket, which must be impossible to guess.
    """

    def __init__(self, relaying: bool, new_ticket: Callable[[], bytes]) -> None:
        self._relaying = relaying
        self._new_ticket = new_ticket
        self._probes: dict[bytes, tuple[Job[Client], Member[Client], int]] = {}
        self._relay_endpoints: dict[bytes, RelayEndpoint] = {}

    def announce(self, job: Job[Client], member: Member[Client], peer: int, port: int) -> list[Delivery[Client]]:
        """Record that a member listens for a peer; introduce them if both listen and their public ports are known."""
        self.withdraw(member, peer)
        announcement = Announcement(port)
        member.announcements[peer] = announcement
        if not member.translated:
            announcement.public = Endpoint(member.observed.host, port)
            return self._introduce(job, member, peer)
        announcement.probe = self._new_ticket()
        self._probes[announcement.probe] = (job, member, peer)
        return [Delivery(member.client, ProbeRequest(peer, announcement.probe))]

    def probed(self, ticket: bytes, observed: Endpoint) -> list[Delivery[Client]] | None:
        """Record the public address of an announced port; return None if the ticket is unknown."""
        found = self._probes.get(ticket)
        if found is None:
            return None
        job, member, peer = found
        member.announcements[peer].public = observed
        return self._introduce(job, member, peer)

    def withdraw(self, member: Member[Client], peer: int) -> None:
        """Record that a member no longer listens for a peer."""
        announcement = member.announcements.pop(peer, None)
        if announcement is not None:
            self._probes.pop(announcement.probe, None)
            self._relay_endpoints.pop(announcement.relay, None)

    def relay_endpoint(self, ticket: bytes) -> RelayEndpoint | None:
        """Return the end of a relayed connection that a ticket is for, None if the ticket is unknown."""
        return self._relay_endpoints.get(ticket)

    def _introduce(self, job: Job[Client], member: Member[Client], peer: int) -> list[Delivery[Client]]:
        other = job.members.get(peer)
        if other is None:
            return []
        own = member.announcements[peer]
        theirs = other.announcements.get(member.registration.rank)
        if own.public is None or theirs is None or theirs.public is None:
            return []
        return [
            self._introduction(job, member, own, other, theirs, theirs.public),
            self._introduction(job, other, theirs, member, own, own.public),
        ]

    def _introduction(
        self,
        job: Job[Client],
        member: Member[Client],
        own: Announcement,
        other: Member[Client],
        theirs: Announcement,
        public: Endpoint,
    ) -> Delivery[Client]:
        peer = other.registration.rank
        local = Endpoint(other.registration.local.host, theirs.port)
        # Behind the same NAT the public address does not work with most routers, and the local one is shorter.
        endpoints = (local, public) if member.observed.host == public.host and local != public else (public,)
        if self._relaying and not own.relay:
            own.relay = self._new_ticket()
            self._relay_endpoints[own.relay] = RelayEndpoint(job.key, member.registration.rank, peer)
        return Delivery(member.client, Introduction(peer, endpoints, own.relay or NO_TICKET))
