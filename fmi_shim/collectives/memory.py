"""The memory of a collective's result: adapts algorithms to the buffers of a `Schedule`.

An algorithm in place overwrites its buffer, but a program's value must not change unless it is given as `spare`.
The classes here copy the value first where that is needed, and call the algorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fmi_shim.operators import Array


@dataclass(slots=True, eq=False)
class InPlaceReduction:
    """A reduction whose algorithm overwrites its buffer: ``algorithm(buffer)`` returns the result, or None.

    Copies: one, none where `spare` is the value.
    """

    algorithm: Callable[[Array], Array | None]

    def __call__(self, value: Array, spare: Array | None) -> Array | None:
        """Return the result in `spare`, or in new memory where that is None."""
        buffer = working_copy(value, spare)
        result = self.algorithm(buffer)
        return result if result is None or result is buffer else placed(result, buffer)  # mostly without a call


@dataclass(slots=True, eq=False)
class InPlaceScan:
    """A prefix reduction whose algorithm replaces the content of its buffer by the result. Copies as above."""

    algorithm: Callable[[Array], None]

    def __call__(self, value: Array, spare: Array | None) -> Array:
        """Return the result in `spare`, or in new memory where that is None."""
        buffer = working_copy(value, spare)
        self.algorithm(buffer)
        return buffer


@dataclass(slots=True, eq=False)
class ConsumingReduction:
    """A reduction whose algorithm overwrites its buffer and fills other memory: ``algorithm(buffer, out)``."""

    algorithm: Callable[[Array, Array], None]

    def __call__(self, value: Array, spare: Array | None, out: Array) -> None:
        """Leave the result in `out`."""
        self.algorithm(working_copy(value, spare), out)


@dataclass(slots=True, eq=False)
class OutOfPlaceReduction:
    """A reduction whose algorithm reads the value and writes the result elsewhere: ``algorithm(value, result)``.

    Copies: none.
    """

    algorithm: Callable[[Array, Array], Array]

    def __call__(self, value: Array, spare: Array | None) -> Array:
        """Return the result in `spare`, or in new memory where that is None."""
        return self.algorithm(value, result_memory(value, spare))


def result_memory(value: Array, spare: Array | None) -> Array:
    """Return memory for a result of the type and size of `value`: `spare`, or new memory where that is None."""
    return np.empty_like(value) if spare is None else spare


def working_copy(value: Array, spare: Array | None) -> Array:
    """Return memory with the content of `value` that may be overwritten: `spare`, or new memory where that is None."""
    if spare is None:
        return value.copy()
    if spare is not value:
        spare[...] = value
    return spare


def placed(result: Array, place: Array | None) -> Array:
    """Return `result`, copied into `place` if it is given."""
    if place is None or result is place:
        return result
    place[...] = result
    return place
