"""Division of the event loop's time between executions and everything else that runs in it."""

import asyncio
import time
from collections import deque

# Time that executions may run before the loop handles other events again.
_SLICE_S = 0.005


class Turns:
    """Lets executions run in slices of the event loop's time.

    Executions run without a pause while the slice lasts. Then they wait, and one more of them continues in each
    iteration of the loop, so that the loop handles sockets and timers between them however many executions there are.
    """

    def __init__(self) -> None:
        self._slice_end = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._renewing = False

    async def wait(self) -> None:
        """Return at once while the slice lasts, otherwise wait for a turn. States that do not wait must call it."""
        if self._renewing:
            if not self._waiting and time.monotonic() < self._slice_end:
                return
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
            return
        self._start_slice()

    def _start_slice(self) -> None:
        self._slice_end = time.monotonic() + _SLICE_S
        self._renewing = True
        asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Start the next slice in the loop's next iteration, and let one execution continue."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._start_slice()
                turn.set_result(None)
                return
        self._renewing = False
