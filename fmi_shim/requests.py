"""Requests: posted messages that ``isend`` and ``irecv`` return."""

from __future__ import annotations

from typing import Any

from fmi_shim.calls import Plan
from fmi_shim.channel import Pending
from fmi_shim.payload import Payload


class Request:
    """A posted send or receive, as ``MPI_Request``.

    There is no thread: the message moves while this rank is in a call of the communicator on the same channel, and in
    `wait` and `test`. Every request must be waited for, or tested until it is done, before the communicator is closed.
    """

    __slots__ = ("_pending", "_plan", "_receives", "_result")

    def __init__(self, plan: Plan, payload: Payload, receives: bool) -> None:
        self._result = payload  # keeps the memory alive, too
        self._receives = receives
        self._plan = plan.for_one_call()
        self._pending: Pending = self._plan.run(payload.flat)

    def wait(self) -> Any:
        """Block until the message is sent or received; return the received value, or None for a message sent.

        A further call returns the same. Errors are raised as in a blocking call.
        """
        self._progress(wait=True)
        return self._result.restore() if self._receives else None

    def test(self) -> bool:
        """Return whether the message is sent or received, after as much progress as is possible without blocking.

        Blocks only for the first message of two ranks, since both ranks open a connection together.
        """
        return self._progress(wait=False)

    def _progress(self, wait: bool) -> bool:
        return self._pending.done or bool(
            self._plan.continued_with(self._plan.channel.progress).run(self._pending, wait)
        )
