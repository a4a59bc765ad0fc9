"""Checks of arguments before anything is sent. Each error names the argument, its value and what is expected."""

from __future__ import annotations

import math
import operator

from fmi_shim.operators import ReduceFunction
from fmi_shim.value_types import TypeDescriptor
from rendezvous.protocol import MAX_NAME_BYTES, ProtocolError, pair_name


def require_integer(name: str, value: object, lowest: int, highest: int) -> None:
    """Raise unless `value` is an integer from `lowest` to `highest`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"invalid {name} {value!r}: expected a whole number")
    if not lowest <= value <= highest:
        raise ValueError(f"invalid {name} {value}: expected {lowest} to {highest}")


def require_rank(name: str, value: object, size: int) -> None:
    """Raise unless `value` is a rank, from 0 to ``size - 1``."""
    if type(value) is not int or not 0 <= value < size:  # what most calls pass is checked in the least time
        require_integer(name, value, 0, size - 1)


def require_timeout(value: object) -> float:
    """Return `value` if it is a time limit in seconds."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"invalid timeout {value!r}: expected a number of seconds, or None")
    if not 0 < value < math.inf:
        raise ValueError(f"invalid timeout {value}: expected seconds above 0, or None for max_timeout alone")
    return value


def require_counts(name: str, value: object, size: int) -> list[int]:
    """Return `value` as a list if it is a number of rows for each of `size` ranks."""
    try:
        counts = [operator.index(count) for count in value]  # type: ignore[attr-defined] # the TypeError is the check
    except TypeError:
        raise TypeError(f"invalid {name} {value!r}: expected {size} whole numbers, one for each rank") from None
    if len(counts) != size or any(count < 0 for count in counts):
        raise ValueError(f"invalid {name} {counts}: expected {size} numbers of rows from 0 on, one for each rank")
    return counts


def require_rows(name: str, counts: list[int], rows: int, rank: int | None = None) -> None:
    """Raise unless `counts` are of a value with `rows` rows in all, or, for a `rank`, of which it has that number."""
    if rank is None and sum(counts) != rows:
        raise ValueError(f"invalid {name} {counts}: expected the {rows} rows of the value in all, got {sum(counts)}")
    if rank is not None and counts[rank] != rows:
        raise ValueError(f"invalid {name} {counts}: expected {rows} rows for rank {rank}, as its value has")


def require_name(name: str, value: object, size: int) -> None:
    """Raise unless `value` can name a communicator of `size` ranks. The name is part of FMI's pairing names."""
    if not isinstance(value, str):
        raise TypeError(f"invalid {name} {value!r}: expected a string")
    try:
        pair_name(value, size - 1, size - 1)
    except (ProtocolError, UnicodeEncodeError) as error:
        shown = value if len(value) <= 120 else value[:117] + "..."
        longest = MAX_NAME_BYTES - len(pair_name("", size - 1, size - 1))
        raise ValueError(
            f"invalid {name} {shown!r}: expected at most {longest} bytes of UTF-8 without NUL: {error}"
        ) from None


def require_type(t: object) -> TypeDescriptor:
    """Return `t` if it is a type descriptor."""
    if not isinstance(t, TypeDescriptor):
        raise TypeError(f"invalid t {t!r}: expected fmi.types(...), or None for arrays")
    return t


def require_function(f: object) -> ReduceFunction:
    """Return `f` if it is a reduction function."""
    if not isinstance(f, ReduceFunction):
        raise TypeError(f"invalid f {f!r}: expected fmi.func(...)")
    return f
