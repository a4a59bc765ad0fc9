"""Who waits for whom under a pairing name (TCPunch, both versions): state without sockets or clocks.

Version 1 sends a name without its length, so that nothing in the bytes tells where the name ends. A client
writes it with one ``send`` of at most 99 bytes into an empty connection, which leaves as one segment; a
name in pieces comes only from a proxy on the way. The registry therefore takes what has come for the whole
name, and when more comes from a client that is still waiting, the longer name replaces the shorter one.

Version 2 gives every wait a token, with which a client whose connection broke may go on waiting on another
one. In the meantime nobody is paired with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rendezvous.protocol import check_name

Client = TypeVar("Client", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pair(Generic[Client]):
    """Two clients that sent the same name, in the order of their coming."""

    first: Client
    second: Client


@dataclass(frozen=True, slots=True)
class Admission(Generic[Client]):
    """What came of a request of version 2.

    Attributes
    ----------
    token
        With which the wait can be resumed.
    since
        When the wait began, on the caller's clock.
    pair
        The pair that the request completed, if any.
    replaced
        The client whose wait this one goes on with, when its old connection is not known to be broken.
    """

    token: uuid.UUID
    since: float
    pair: Pair[Client] | None
    replaced: Client | None


@dataclass(slots=True)
class _Wait(Generic[Client]):
    """A wait of version 2; `client` is None while its connection is broken."""

    name: bytes
    since: float
    client: Client | None


class Registry(Generic[Client]):
    """Pairs clients two by two, first come first served within a name, and then forgets the name.

    Since the second client of a name is paired the moment it comes, a name never has more than one waiter.
    """

    def __init__(self) -> None:
        self._waiters: dict[bytes, Client] = {}
        self._names: dict[Client, bytes] = {}
        self._waits: dict[uuid.UUID, _Wait[Client]] = {}
        self._tokens: dict[Client, uuid.UUID] = {}

    def __len__(self) -> int:
        """Return the number of waiting clients."""
        return len(self._waiters)

    def __contains__(self, name: object) -> bool:
        """Return whether a client waits under `name`."""
        return name in self._waiters

    @property
    def remembered(self) -> int:
        """Number of waits whose client is away and may come back."""
        return len(self._waits) - len(self._tokens)

    def receive(self, client: Client, data: bytes) -> Pair[Client] | None:
        """Take name bytes from a version 1 client that is new or waiting; return the pair they complete, if any.

        Raises
        ------
        ProtocolError
            If the bytes so far cannot be a name. The client is forgotten and should be disconnected.
        """
        so_far = self._names.get(client, b"")
        self.leave(client)
        return self._pair_or_wait(client, check_name(so_far + data))

    def request(
        self, client: Client, name: bytes, token: uuid.UUID | None, fresh: uuid.UUID, now: float
    ) -> Admission[Client]:
        """Take a request of version 2 from a new client.

        A token that is not, or no longer, that of a wait under this name is of no effect, as in the original.

        Parameters
        ----------
        token
            What the client sent.
        fresh
            The token for a wait that begins.
        now
            When it begins.
        """
        resumed = None if token is None else self._waits.get(token)
        if token is None or resumed is None or resumed.name != name:
            return self._admit(client, name, fresh, now, None)
        replaced = resumed.client
        if replaced is not None:
            self.leave(replaced)
        return self._admit(client, name, token, resumed.since, replaced)

    def leave(self, client: Client) -> uuid.UUID | None:
        """Forget a client whose connection is gone; one that is not waiting is no matter.

        Returns the token with which its wait may still be resumed, to be forgotten in time.
        """
        name = self._names.pop(client, None)
        if name is not None:
            del self._waiters[name]
        token = self._tokens.pop(client, None)
        if token is not None:
            self._waits[token].client = None
        return token

    def forget(self, token: uuid.UUID) -> None:
        """End a wait whose client has not come back, so that it can be resumed no more."""
        wait = self._waits.get(token)
        if wait is not None and wait.client is None:
            del self._waits[token]

    def _admit(
        self, client: Client, name: bytes, token: uuid.UUID, since: float, replaced: Client | None
    ) -> Admission[Client]:
        pair = self._pair_or_wait(client, name)
        if pair is None:
            self._waits[token] = _Wait(name, since, client)
            self._tokens[client] = token
        else:
            self._waits.pop(token, None)
        return Admission(token, since, pair, replaced)

    def _pair_or_wait(self, client: Client, name: bytes) -> Pair[Client] | None:
        partner = self._waiters.pop(name, None)
        if partner is None:
            self._waiters[name] = client
            self._names[client] = name
            return None
        del self._names[partner]
        token = self._tokens.pop(partner, None)
        if token is not None:
            del self._waits[token]
        return Pair(partner, client)
