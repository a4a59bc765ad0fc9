"""How much work the evaluation of expressions may be: little in the event loop, a limited amount in a thread.

Calls of intrinsic functions and queries ask before they work, so that one evaluation of any expression ends soon, or
continues in a thread and can be stopped there.
"""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar

from emulator.aws.stepfunctions.asl.json_values import Json, exceeds

# A Pass state takes 0.03 ms.
_INLINE_S = 0.01
# A function or query takes at most a few ms for so much JSON.
_INLINE_BYTES = 16 * 1024
# A query in 256 KB of JSON with one descent visits at most half a million values.
MOST_VISITED = 5_000_000
_VISITS_BETWEEN_CHECKS = 256
_Result = TypeVar("_Result")


class EvaluationTooLongError(Exception):
    """An evaluation in the event loop must be repeated in a thread."""


class EvaluationStoppedError(Exception):
    """An evaluation in a thread was stopped: nobody waits for its value."""


class TooManyVisitsError(Exception):
    """A query visits too many values."""


class Evaluation:
    """One evaluation of the expressions of a state.

    Parameters
    ----------
    inline
        Whether it runs in the event loop's thread.
    """

    def __init__(self, *, inline: bool) -> None:
        self._inline = inline
        self._ends = time.monotonic() + _INLINE_S if inline else math.inf
        self._visits = 0
        self._next_check = _VISITS_BETWEEN_CHECKS
        self._stopped = False

    def call(self, function: Callable[..., _Result], *arguments: object) -> _Result:
        """Call a function that evaluates expressions; without side effects, since it may be called again.

        Raises
        ------
        EvaluationTooLongError
            If it must be called in a thread.
        EvaluationStoppedError
            After `stop`.
        """
        former = _present.set(self)
        try:
            return function(*arguments)
        finally:
            _present.reset(former)

    def begin(self, value: Json) -> None:
        """Announce work on a value. Raises as `call`."""
        if self._inline and (time.monotonic() > self._ends or exceeds(value, _INLINE_BYTES)):
            raise EvaluationTooLongError
        if self._stopped:
            raise EvaluationStoppedError

    def visit(self, value: Json) -> None:
        """Count a value that a query visits, and its members. Raises as `call`, and TooManyVisitsError."""
        self._visits += 1 + len(value) if isinstance(value, dict | list) else 1
        if self._visits < self._next_check:
            return
        self._next_check = self._visits + _VISITS_BETWEEN_CHECKS
        self.begin(None)
        if self._visits > MOST_VISITED:
            raise TooManyVisitsError

    def stop(self) -> None:
        """Have the evaluation end soon, from another thread."""
        self._stopped = True


# Each thread has a context of its own.
_present: ContextVar[Evaluation | None] = ContextVar("evaluation", default=None)


def present_evaluation() -> Evaluation:
    """Return the evaluation that this thread is in; outside of one, one without a limit of time."""
    return _present.get() or Evaluation(inline=False)
