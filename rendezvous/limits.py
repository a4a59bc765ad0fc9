"""Limits that protect a server on the public internet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a server. The length of a name, 99 bytes, is set by the protocol.

    Attributes
    ----------
    connections_per_address
        Open connections from one IP address. Many ranks may come through one NAT gateway.
    waiters
        Waiting clients and registered ranks in total.
    silence_seconds
        A client that has not sent its request in this time is disconnected.
    waiting_seconds
        Longest wait for a partner. The default is Lambda's longest timeout, so that it ends no run.
    punching_seconds
        How long a connection is kept once its partner is known: its NAT mapping must last while the two ranks punch.
    relays
        Pairs relayed at a time; 0 disables the relay.
    relay_bytes_per_second
        Of one pair, both directions in total; 0 for no limit.
    relay_seconds
        Longest lifetime of a relayed connection.
    """

    connections_per_address: int = 4096
    waiters: int = 50_000
    silence_seconds: float = 30.0
    waiting_seconds: float = 900.0
    punching_seconds: float = 120.0
    relays: int = 256
    relay_bytes_per_second: int = 0
    relay_seconds: float = 900.0
