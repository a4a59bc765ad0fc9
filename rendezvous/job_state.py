"""The state of ranks and jobs at the server."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from rendezvous.protocol import Endpoint
from rendezvous.protocol.extension import TICKET_BYTES
from rendezvous.protocol.messages import PROCESS_BYTES, Abort, Message, PeerEnded, Registration
from rendezvous.wait_for_graph import WaitForGraph

Client = TypeVar("Client", bound=Hashable)

NO_TICKET = bytes(TICKET_BYTES)


@dataclass(frozen=True, slots=True)
class Delivery(Generic[Client]):
    """A message and its recipient. After a `Refusal` the client is to be disconnected."""

    client: Client
    message: Message


@dataclass(frozen=True, slots=True)
class RelayEndpoint:
    """One rank's end of a relayed connection; `job` is opaque outside."""

    job: Hashable
    rank: int
    peer: int

    def other(self) -> RelayEndpoint:
        """Return the peer's end."""
        return RelayEndpoint(self.job, self.peer, self.rank)


@dataclass(slots=True)
class Announcement:
    """A rank listens for a peer; `public` is None until a probe has shown the port's public address."""

    port: int
    public: Endpoint | None = None
    probe: bytes = b""
    relay: bytes = b""


@dataclass(slots=True)
class Member(Generic[Client]):
    """A registered rank.

    Attributes
    ----------
    client, registration, observed
        Its connection, its registration, and its public address.
    announcements
        The ranks that it listens for.
    ended
        The ranks that have ended since it registered.
    watched
        The ranks whose end it asked for.
    """

    client: Client
    registration: Registration
    observed: Endpoint
    announcements: dict[int, Announcement] = field(default_factory=dict)
    ended: dict[int, PeerEnded] = field(default_factory=dict)
    watched: frozenset[int] = frozenset()

    @property
    def process(self) -> tuple[str, bytes]:
        """The run and the process that it belongs to, which may have registered in other communicators, too."""
        return self.registration.job, self.registration.instance[:PROCESS_BYTES]

    @property
    def translated(self) -> bool:
        """Whether it is behind a NAT: then only a probe shows a port's public address."""
        return self.observed != self.registration.local


@dataclass(slots=True)
class Job(Generic[Client]):
    """The ranks of one communicator.

    Attributes
    ----------
    key, world_size
        The job's and the communicator's name, and the number of ranks.
    members
        The registered ranks.
    known
        The processes of all ranks that ever registered.
    abort, wait_for_graph
        The first failure, and the ranks' waits.
    """

    key: tuple[str, str]
    world_size: int
    members: dict[int, Member[Client]] = field(default_factory=dict)
    known: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    abort: Abort | None = None
    wait_for_graph: WaitForGraph = field(default_factory=WaitForGraph)

    def rank_of(self, client: Client) -> int:
        """Return the number of a registered rank."""
        return next(rank for rank, member in self.members.items() if member.client == client)
