"""Who waits for whom: the server's state, without sockets or clocks.

Version 1 sends a name without its length, so that nothing in the bytes tells where the name ends. A client
writes it with one ``send`` of at most 99 bytes into an empty connection, which leaves as one segment; a
name in pieces comes only from a proxy on the way. The registry therefore takes what has come for the whole
name, at once and with no quiet period in every pairing, and when more comes from a client that is still
waiting, the longer name replaces the shorter one.
"""

from __future__ import annotations

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


class Registry(Generic[Client]):
    """Pairs clients two by two, first come first served within a name, and then forgets the name.

    Since the second client of a name is paired the moment it comes, a name never has more than one waiter.
    """

    def __init__(self) -> None:
        self._waiters: dict[bytes, Client] = {}
        self._names: dict[Client, bytes] = {}

    def __len__(self) -> int:
        """Return the number of waiting clients."""
        return len(self._waiters)

    def receive(self, client: Client, data: bytes) -> Pair[Client] | None:
        """Take name bytes from a client that is new or waiting; return the pair that they complete, if any.

        Raises
        ------
        ProtocolError
            If the bytes so far cannot be a name. The client is forgotten and should be disconnected.
        """
        so_far = self._names.get(client, b"")
        self.leave(client)
        name = check_name(so_far + data)
        partner = self._waiters.pop(name, None)
        if partner is None:
            self._waiters[name] = client
            self._names[client] = name
            return None
        del self._names[partner]
        return Pair(partner, client)

    def leave(self, client: Client) -> None:
        """Forget a client whose connection is gone; one that is not waiting is no matter."""
        name = self._names.pop(client, None)
        if name is not None:
            del self._waiters[name]
