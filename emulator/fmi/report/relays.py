"""Which ranks reached each other through the rendezvous server's relay alone, told from what they print."""

import re
from collections.abc import Collection

# The warning that fmi_shim.pairing.rendezvous_client logs.
_RELAYED = re.compile(r"\brank (\d+) and rank (\d+) are connected through the relay of the rendezvous server ")


def relayed_pair(text: str) -> tuple[int, int] | None:
    """Return the two ranks, lower first, that a line of output reports as relayed; None if it is another line."""
    found = _RELAYED.search(text)
    if found is None:
        return None
    low, high = sorted(map(int, found.groups()))
    return low, high


def relays_line(pairs: Collection[tuple[int, int]]) -> str:
    """Return what the run's summary says of relayed pairs, of which there is one at least."""
    listed = ", ".join(f"{low}-{high}" for low, high in sorted(pairs))
    what = "1 pair of ranks was" if len(pairs) == 1 else f"{len(pairs)} pairs of ranks were"
    return f"{what} relayed through the rendezvous server, slower than a direct connection: {listed}"
