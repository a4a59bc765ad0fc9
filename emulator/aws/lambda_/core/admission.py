"""How many executions may run at once: the account's limit and functions' reservations.

Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.errors import ApiError


class Admission:
    """Counts running executions and turns away what is too much.

    Parameters
    ----------
    functions
        Knows the reservations.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions
        self._running: Counter[str] = Counter()

    @contextmanager
    def admitted(self, name: str) -> Iterator[None]:
        """Hold one of the function's executions.

        Raises
        ------
        ApiError
            When all of them are taken: 429, as AWS answers.
        """
        reserved = self._functions.reserved(name)
        if reserved is not None:
            self._refuse_from(self._running[name], reserved, "ReservedFunctionConcurrentInvocationLimitExceeded")
        else:
            shared = sum(count for other, count in self._running.items() if self._functions.reserved(other) is None)
            self._refuse_from(shared, self._functions.unreserved(), "ConcurrentInvocationLimitExceeded")
        self._running[name] += 1
        try:
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]

    def _refuse_from(self, running: int, limit: int, reason: str) -> None:
        if running >= limit:
            raise ApiError(
                "TooManyRequestsException",
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Rate Exceeded: {running} executions are running of {limit} ({reason})",
                {"Reason": reason},
            )
