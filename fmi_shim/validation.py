"""Checks of arguments, before anything is sent: each error names the argument, its value and what is allowed."""

from __future__ import annotations

from fmi_shim.operators import ReduceFunction
from fmi_shim.value_types import TypeDescriptor
from rendezvous.protocol import MAX_NAME_BYTES, ProtocolError, pair_name


def require_integer(name: str, value: object, lowest: int, highest: int) -> None:
    """Raise unless `value` is an integer from `lowest` to `highest`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}, allowed is a whole number")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} is {value}, allowed is {lowest} to {highest}")


def require_rank(name: str, value: object, size: int) -> None:
    """Raise unless `value` is the number of one of `size` ranks."""
    require_integer(name, value, 0, size - 1)


def require_peer(name: str, value: object, rank: int, size: int) -> None:
    """Raise unless `value` is the number of another rank than `rank`."""
    require_rank(name, value, size)
    if value == rank:
        raise ValueError(f"{name} is {value}, which is this rank itself: allowed is another rank")


def require_name(name: str, value: object, size: int) -> None:
    """Raise unless `value` can be the name of a communicator of so many ranks: it goes into FMI's pairing names."""
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, allowed is a string")
    try:
        pair_name(value, size - 1, size - 1)
    except (ProtocolError, UnicodeEncodeError) as error:
        shown = value if len(value) <= 120 else value[:117] + "..."
        longest = MAX_NAME_BYTES - len(pair_name("", size - 1, size - 1))
        raise ValueError(
            f"{name} is {shown!r}, allowed are at most {longest} bytes of UTF-8 without NUL: {error}"
        ) from None


def require_type(t: object) -> TypeDescriptor:
    """Return `t` if it is a type descriptor."""
    if not isinstance(t, TypeDescriptor):
        raise TypeError(f"t is {t!r}, allowed is fmi.types(...), or nothing for arrays")
    return t


def require_function(f: object) -> ReduceFunction:
    """Return `f` if it is a function that reduces."""
    if not isinstance(f, ReduceFunction):
        raise TypeError(f"f is {f!r}, allowed is fmi.func(...)")
    return f
