"""The clients that wait under a pairing name (TCPunch, both versions). No I/O, no clock.

Version 1 sends a name without its length, so that the bytes do not show where the name ends. A client writes it with
one ``send`` of at most 99 bytes into an empty connection, which leaves as one segment; only a proxy splits it. The
registry therefore treats the bytes received so far as the whole name. If more arrive from a client that still waits,
the longer name replaces the shorter one.

Version 2 gives every wait a token, with which a client whose connection broke may resume it on another one. In the
meantime no client is paired with it. Such waits are counted for each address, since they cost an attacker nothing: the
server evicts the oldest of the address that has most.
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
    """Two clients that sent the same name, in the order of arrival."""

    first: Client
    second: Client


@dataclass(frozen=True, slots=True)
class Admission(Generic[Client]):
    """The result of a request of version 2.

    Attributes
    ----------
    token
        Resumes the wait.
    since
        When the wait began, on the caller's clock.
    pair
        The pair that the request completed, if any.
    replaced
        The client whose wait this one resumes, if its connection is still open.
    """

    token: uuid.UUID
    since: float
    pair: Pair[Client] | None
    replaced: Client | None


@dataclass(slots=True)
class _Wait(Generic[Client]):
    """A wait of version 2; `client` is None while its connection, from `address`, is broken."""

    name: bytes
    since: float
    client: Client | None
    address: str = ""


class Registry(Generic[Client]):
    """Pairs clients of the same name in the order of arrival, and then removes the name.

    The second client of a name is paired when it arrives, so that a name has at most one waiting client.
    """

    def __init__(self) -> None:
        self._waiters: dict[bytes, Client] = {}
        self._names: dict[Client, bytes] = {}
        self._waits: dict[uuid.UUID, _Wait[Client]] = {}
        self._tokens: dict[Client, uuid.UUID] = {}
        self._broken: dict[str, dict[uuid.UUID, None]] = {}

    def __len__(self) -> int:
        """Return the number of waiting clients."""
        return len(self._waiters)

    def __contains__(self, name: object) -> bool:
        """Return whether a client waits under `name`."""
        return name in self._waiters

    @property
    def remembered(self) -> int:
        """Number of waits whose client is disconnected and may resume."""
        return len(self._waits) - len(self._tokens)

    def receive(self, client: Client, data: bytes) -> Pair[Client] | None:
        """Add name bytes of a version 1 client that is new or waiting; return the pair that they complete, if any.

        Raises
        ------
        ProtocolError
            If the bytes so far cannot be a name. The client is removed and should be disconnected.
        """
        so_far = self._names.get(client, b"")
        self.leave(client)
        return self._pair_or_wait(client, check_name(so_far + data))

    def request(
        self, client: Client, name: bytes, token: uuid.UUID | None, fresh: uuid.UUID, now: float
    ) -> Admission[Client]:
        """Handle a request of version 2 from a new client.

        A token that is not, or no longer, that of a wait under this name has no effect, as in the original.

        Parameters
        ----------
        token
            The token that the client sent.
        fresh
            The token for a new wait.
        now
            The time at which it starts.
        """
        resumed = None if token is None else self._waits.get(token)
        if token is None or resumed is None or resumed.name != name:
            return self._admit(client, name, fresh, now, None)
        replaced = resumed.client
        if replaced is not None:
            self.leave(replaced)
        self._drop_broken(token, resumed)
        return self._admit(client, name, token, resumed.since, replaced)

    def leave(self, client: Client, address: str = "") -> uuid.UUID | None:
        """Remove a client whose connection, from `address`, ended; one that does not wait is ignored.

        Returns the token with which its wait may still be resumed, to be passed to `forget` in time.
        """
        name = self._names.pop(client, None)
        if name is not None:
            del self._waiters[name]
        token = self._tokens.pop(client, None)
        if token is not None:
            wait = self._waits[token]
            wait.client, wait.address = None, address
            self._broken.setdefault(address, {})[token] = None
        return token

    def forget(self, token: uuid.UUID) -> None:
        """End a wait whose client has not resumed it."""
        wait = self._waits.get(token)
        if wait is not None and wait.client is None:
            del self._waits[token]
            self._drop_broken(token, wait)

    def remembered_of(self, address: str) -> int:
        """Return how many waits may be resumed that an address has left."""
        return len(self._broken.get(address, ()))

    def evict(self, address: str | None = None) -> bool:
        """End the oldest wait that may be resumed, of `address` or of the one with most; return False without one."""
        if not self._broken or (address is not None and address not in self._broken):
            return False
        waits = self._broken[
            max(self._broken, key=lambda each: len(self._broken[each])) if address is None else address
        ]
        self.forget(next(iter(waits)))
        return True

    def _drop_broken(self, token: uuid.UUID, wait: _Wait[Client]) -> None:
        waits = self._broken.get(wait.address, {})
        waits.pop(token, None)
        if not waits:
            self._broken.pop(wait.address, None)

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
