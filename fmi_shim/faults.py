"""The language of faults."""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min)?")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, None: 1.0}


def seconds(duration: float | str) -> float:
    """Return a duration in seconds: a number of seconds, or a text such as ``0.5s``, ``20ms`` or ``2min``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(duration, str):
        found = _DURATION.fullmatch(duration.strip())
        if found is not None:
            return float(found[1]) * _UNITS[found[2]]
    elif not isinstance(duration, bool) and 0 <= duration < math.inf:
        return float(duration)
    raise ValueError(f"invalid duration {duration!r}: expected seconds, or a text such as 0.5s, 20ms or 2min")
