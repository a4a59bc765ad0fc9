"""How long a rank waits while it pairs with another one. All values are seconds."""

from __future__ import annotations

# Reaching the rendezvous server.

FIRST_RECONNECT_PAUSE = 0.05
LONGEST_RECONNECT_PAUSE = 1.0
"""Pauses between two attempts to reach the server double from the first to the longest."""
UNKNOWN_SERVER = 2.0
"""A server that has never answered may still be starting; after this time it is considered absent."""
KNOWN_SERVER = 60.0
"""A server that has answered before may be restarted; it is retried for this time."""
ANSWER = 10.0
"""A server that accepts a connection and sends nothing for this time is considered lost."""
CLOSED_UNANSWERED = 0.5
"""A server that closes every connection during this time without an answer to the extension does not speak it. One that
is being restarted refuses connections instead."""
V1_ANSWER = 1.0
"""A server of TCPunch's version 1 answers a name at once. One that is silent for this time may wait for the rest of a
request of version 2."""
OPTIONAL_REGISTRATION = 5.0
"""How long a server that is not required may take to answer. If none listens, the connect fails at once."""
WAIT_REPORT = 0.5
"""How long a waiting rank tries to reach the server to report its wait."""
CAUSE = 5.0
"""How long a rank whose time limit is over waits for the server to find the rank at fault."""
PROBE_AND_RELAY = 5.0
"""How long the connect of a probe or relay connection may take."""

# Connecting to the peer.

CONNECT_RETRY = 0.02
"""Mean pause between two attempts to connect; each is drawn at random, so that two ends do not retry in step."""
CONNECT_ATTEMPT = 1.5
"""A SYN that a NAT dropped is abandoned after this time and sent again from a new socket."""
DIRECT_ONLY = 1.5
"""How long only a direct connection is tried once the peer's address is known. It is long enough to repeat one lost
SYN, and short enough for the relay to take over within 3 s."""
RELAY_RETRY = 0.5
"""Pause before another relay connection is opened if one broke."""

# Detecting deadlocks.

DEADLOCK_REPORT = 0.2
"""A rank that has waited for this time reports its wait to the server, which looks for a deadlock."""
RANK_START = 0.02
"""How long one rank may take to start if many start one after the other; large worlds wait longer to report."""
