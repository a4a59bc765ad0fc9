"""How much a server on the public internet gives to whom."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; the length of a name, 99 bytes, is the protocol's.

    Attributes
    ----------
    connections_per_address
        Open connections from one IP address. Many ranks may come through one NAT gateway.
    waiters
        Clients and ranks that are known, in all.
    silence_seconds
        A client that has not said what it wants by then is disconnected.
    waiting_seconds
        Longest wait for a partner; Lambda's longest timeout, so that no run is cut off by default.
    punching_seconds
        How long a connection is kept once its partner is known: its NAT mapping must last while it punches.
    relays
        Pairs relayed at a time; 0 relays nothing.
    relay_bytes_per_second
        Of one pair, both directions together; 0 sets no bound.
    relay_seconds
        Longest life of a relayed connection.
    """

    connections_per_address: int = 4096
    waiters: int = 50_000
    silence_seconds: float = 30.0
    waiting_seconds: float = 900.0
    punching_seconds: float = 120.0
    relays: int = 256
    relay_bytes_per_second: int = 0
    relay_seconds: float = 900.0
