"""Messages under way: what ``isend`` and ``irecv`` return."""

from __future__ import annotations

from typing import Any

from fmi_shim.calls import Plan
from fmi_shim.channel import Pending
from fmi_shim.payload import Payload


class Request:
    """A message that is sent or received while the program goes on.

    It moves whenever this rank is in a call of the communicator on the same channel, and when it is waited
    for or tested; there is no thread. Every request must be waited for, or tested until it is done, before
    the communicator is closed.
    """

    __slots__ = ("_pending", "_plan", "_receives", "_result")

    def __init__(self, plan: Plan, payload: Payload, receives: bool) -> None:
        self._result = payload  # keeps the memory alive, too
        self._receives = receives
        self._plan = plan.again()
        self._pending: Pending = self._plan.run(payload.flat)

    def wait(self) -> Any:
        """Wait until the message has gone or come; return what was received, None for a message sent.

        Waiting again returns the same. What goes wrong is raised as in a blocking call.
        """
        self._progress(wait=True)
        return self._result.restore() if self._receives else None

    def test(self) -> bool:
        """Move what can be moved without waiting, and return whether the message has gone or come.

        Only the first message of two ranks makes it block, since a connection is opened by both together.
        """
        return self._progress(wait=False)

    def _progress(self, wait: bool) -> bool:
        return self._pending.done or bool(self._plan.resumed(self._plan.channel.progress).run(self._pending, wait))
