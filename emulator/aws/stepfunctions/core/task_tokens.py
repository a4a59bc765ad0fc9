"""Task tokens: whoever has one may send a Task its result."""

import asyncio
import base64
import uuid
from http import HTTPStatus

from emulator.aws.stepfunctions.asl.failures import HEARTBEAT_TIMEOUT, StateFailure
from emulator.aws.stepfunctions.asl.json_values import Json
from emulator.errors import ApiError

# The last tokens that are done are remembered, so that a late sender is told so.
_REMEMBERED = 10_000


class TaskToken:
    """A token and what was sent with it.

    Attributes
    ----------
    text
        The token itself.
    """

    def __init__(self) -> None:
        self.text = base64.urlsafe_b64encode(uuid.uuid4().bytes + uuid.uuid4().bytes).decode()
        self.result: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self.beat = asyncio.Event()

    async def wait(self, heartbeat_s: float | None) -> Json:
        """Wait for the result.

        Raises
        ------
        StateFailure
            The failure that was sent instead, or that no heartbeat came in time.
        """
        while True:
            beat = asyncio.ensure_future(self.beat.wait())
            try:
                await asyncio.wait({self.result, beat}, timeout=heartbeat_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                beat.cancel()
            if self.result.done():
                return self.result.result()
            if not self.beat.is_set():
                raise StateFailure(HEARTBEAT_TIMEOUT)
            self.beat.clear()


class TaskTokens:
    """The tokens that somebody waits for."""

    def __init__(self) -> None:
        self._waiting: dict[str, TaskToken] = {}
        self._done: dict[str, None] = {}

    def issue(self) -> TaskToken:
        """Return a new token."""
        token = TaskToken()
        self._waiting[token.text] = token
        return token

    def revoke(self, token: TaskToken) -> None:
        """Take note that nobody waits for a token any more."""
        if self._waiting.pop(token.text, None) is not None:
            self._done[token.text] = None
            if len(self._done) > _REMEMBERED:
                del self._done[next(iter(self._done))]

    def succeed(self, text: str, output: Json) -> None:
        """Send a Task its result.

        Raises
        ------
        ApiError
            When nobody waits for the token.
        """
        token = self._awaited(text)
        if not token.result.done():
            token.result.set_result(output)

    def fail(self, text: str, failure: StateFailure) -> None:
        """Send a Task a failure; raises as `succeed`."""
        token = self._awaited(text)
        if not token.result.done():
            token.result.set_exception(failure)

    def beat(self, text: str) -> None:
        """Tell a Task that its work is going on; raises as `succeed`."""
        self._awaited(text).beat.set()

    def _awaited(self, text: str) -> TaskToken:
        if text in self._waiting:
            return self._waiting[text]
        if text in self._done:
            raise ApiError(
                "TaskTimedOut",
                HTTPStatus.BAD_REQUEST,
                "Task Timed Out: 'Provided task does not exist anymore: it has ended, or was stopped'",
            )
        raise ApiError("InvalidToken", HTTPStatus.BAD_REQUEST, f"Invalid Token: 'Invalid token': {text[:80]!r}")
