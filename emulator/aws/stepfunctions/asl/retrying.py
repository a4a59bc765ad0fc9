"""Retriers and catchers: who takes a failure, and how long to wait before a state is tried again."""

import random
from dataclasses import dataclass

from emulator.aws.stepfunctions.asl.expressions import Expression, ReferencePath
from emulator.aws.stepfunctions.asl.failures import (
    ALL,
    DATA_LIMIT_EXCEEDED,
    HEARTBEAT_TIMEOUT,
    RUNTIME,
    TASK_FAILED,
    TIMEOUT,
)

# The language's own values: https://states-language.net/#errors
DEFAULT_INTERVAL_S = 1
DEFAULT_MAX_ATTEMPTS = 3
DEFAULT_BACKOFF_RATE = 2.0


@dataclass(frozen=True)
class Retrier:
    """One entry of a state's Retry.

    Parameters
    ----------
    errors
        The names of the errors it takes.
    interval_s
        Wait before the first retry, seconds.
    max_attempts
        Most retries.
    backoff_rate
        What each wait is longer than the one before by.
    max_delay_s
        Longest wait, seconds, or None.
    jitter
        Whether a wait is drawn at random between nothing and its length.
    """

    errors: tuple[str, ...]
    interval_s: float = DEFAULT_INTERVAL_S
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    backoff_rate: float = DEFAULT_BACKOFF_RATE
    max_delay_s: float | None = None
    jitter: bool = False

    def base_delay_s(self, retries: int) -> float:
        """Return the wait before the next retry, seconds, when some have been made already; before any jitter."""
        try:
            delay_s = self.interval_s * self.backoff_rate**retries
        except OverflowError:
            delay_s = float("inf")
        return delay_s if self.max_delay_s is None else min(delay_s, self.max_delay_s)


class RetryCounts:
    """How often each retrier of one state has been used, in one visit of the state.

    Parameters
    ----------
    retriers
        The state's retriers, in their order.
    """

    def __init__(self, retriers: tuple[Retrier, ...]) -> None:
        self._retriers = retriers
        self._used = [0] * len(retriers)

    def next_delay_s(self, error: str | None) -> float | None:
        """Return how long to wait before the state is tried again, seconds; None when it is not.

        The first retrier that means the error decides, even when it is used up.
        """
        for index, retrier in enumerate(self._retriers):
            if matches(retrier.errors, error):
                if self._used[index] >= retrier.max_attempts:
                    return None
                delay_s = retrier.base_delay_s(self._used[index])
                self._used[index] += 1
                return random.uniform(0, delay_s) if retrier.jitter else delay_s  # noqa: S311 - spreads load
        return None


@dataclass(frozen=True)
class Catcher:
    """One entry of a state's Catch.

    Parameters
    ----------
    errors
        The names of the errors it takes.
    next
        The state to go on with.
    result_path
        Where Error and Cause go in the state's input; None leaves the input as it is.
    assign
        Sets variables from Error and Cause, or None.
    """

    errors: tuple[str, ...]
    next: str
    result_path: ReferencePath | None
    assign: Expression | None = None


def matches(names: tuple[str, ...], error: str | None) -> bool:
    """Tell whether the ErrorEquals of a retrier or catcher mean an error.

    Sources: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html: States.Runtime is
    always fatal, States.DataLimitExceeded is not among States.ALL, and States.TaskFailed means all but timeouts.
    """
    if error == RUNTIME:
        return False
    if error in names:
        return True
    if error == DATA_LIMIT_EXCEEDED:
        return False
    if error == HEARTBEAT_TIMEOUT and TIMEOUT in names:
        return True
    return ALL in names or (TASK_FAILED in names and error not in (TIMEOUT, HEARTBEAT_TIMEOUT))
