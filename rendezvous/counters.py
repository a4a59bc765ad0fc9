"""Counters of a server."""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, field


class Refused(enum.Enum):
    """Why the server closed a connection."""

    address_limit = "address_limit"
    waiter_limit = "waiter_limit"
    protocol = "protocol"
    silence = "silence"
    secret = "secret"  # noqa: S105 - the name of a reason
    relay_limit = "relay_limit"
    slow_reader = "slow_reader"


@dataclass(slots=True)
class Counters:
    """Counts since the start of the server.

    Attributes
    ----------
    connections
        Accepted.
    pairings
        Pairs of clients of either TCPunch version.
    introductions
        Introductions sent to ranks over the extension.
    timeouts
        Clients whose partner did not connect in time.
    evicted
        Waits that could have been resumed, ended because an address had too many, or the server.
    aborts
        Aborts forwarded.
    relays
        Pairs relayed.
    relayed_bytes
        Both directions in total.
    refused
        Connections closed, by reason.
    """

    connections: int = 0
    pairings: int = 0
    introductions: int = 0
    timeouts: int = 0
    evicted: int = 0
    aborts: int = 0
    relays: int = 0
    relayed_bytes: int = 0
    refused: Counter[Refused] = field(default_factory=Counter)
