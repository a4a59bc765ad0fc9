"""When the bytes that a rank sends on a slow link arrive: delay, jitter, bandwidth and loss. No I/O, no clock.

Loss is modelled as the stall that TCP makes of it. A lost segment that at least three others follow is sent again after
one round trip (fast retransmit, RFC 5681); without them after the retransmission timeout, of which Linux's least is
0.2 s (TCP_RTO_MIN, include/net/tcp.h). Nothing that was sent later arrives before.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_SEGMENT_BYTES = 1448
"""Payload of an Ethernet frame with IPv4, TCP and its time stamps."""
_RETRANSMISSION_TIMEOUT_S = 0.2
_FAST_RETRANSMIT_SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class LinkConditions:
    """How slow a link is in one direction.

    Attributes
    ----------
    delay
        One-way delay, s.
    jitter
        Longest additional delay, s, drawn uniformly for each message.
    rate
        Bandwidth, bits per second; 0 for no limit.
    loss
        Share of lost segments.
    """

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0
    loss: float = 0.0


class LinkModel:
    """One direction of a link.

    Parameters
    ----------
    chance
        Source of jitter and loss.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._free_at = 0.0
        self._last_arrival = 0.0

    def arrival(self, now: float, size: int, conditions: LinkConditions) -> float:
        """Return when the last of `size` bytes that are sent now arrives, s on the clock of `now`."""
        self._free_at = max(now, self._free_at)
        if conditions.rate:
            self._free_at += 8 * size / conditions.rate
        if conditions.loss:
            segments = -(-size // _SEGMENT_BYTES)
            if self._chance.random() < 1 - (1 - conditions.loss) ** segments:
                is_fast = segments >= _FAST_RETRANSMIT_SEGMENTS
                self._free_at += 2 * conditions.delay if is_fast else _RETRANSMISSION_TIMEOUT_S
        delay = conditions.delay
        if conditions.jitter:
            delay += self._chance.uniform(0.0, conditions.jitter)
        self._last_arrival = max(self._last_arrival, self._free_at + delay)
        return self._last_arrival

    @property
    def free_at(self) -> float:
        """When the link accepts further bytes without a queue."""
        return self._free_at
