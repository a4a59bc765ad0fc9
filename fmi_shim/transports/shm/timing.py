"""The time constants of the shared-memory transport."""

ROUND_SPINS = 200
"""Polls of a round's tags before the first yield of the processor, where each rank may have a core of its own."""
ROUND_YIELDS = 100
"""Polls with a yield before each, after which a rank waits for a round as for a message."""

WAIT_SPINS = 100
"""Polls of a ring or a round before the first yield, where each rank may have a core of its own."""
YIELD_SECONDS = 1e-3
"""How long a rank then polls with a yield before each poll, before it sleeps."""
NAP_SECONDS = 0.02
"""Time limit of one sleep. After it the rank checks whether the awaited process is alive and any rank has failed."""
SHORT_NAP_SECONDS = 0.001
"""The same limit while a rank waits for several events, of which it can sleep on one only."""

REPORT_SECONDS = 1.0
"""Interval at which a rank repeats the report of a wait to the rendezvous server."""

ABANDONED_SECONDS = 60
"""Age from which an unlocked segment file counts as abandoned. The creator of a younger one may be about to lock it."""
