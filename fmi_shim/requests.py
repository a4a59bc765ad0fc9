"""Messages under way: what ``isend`` and ``irecv`` return."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from fmi_shim.calls import Calls, Plan
from fmi_shim.channels.base import Pending
from fmi_shim.payload import Payload


class Request:
    """A message that is sent or received while the program goes on.

    It moves whenever this rank is in a call of the communicator on the same channel, and when it is waited
    for or tested; there is no thread. Every request must be waited for, or tested until it is done, before
    the communicator is closed.
    """

    __slots__ = ("_calls", "_pending", "_plan", "_receives", "_result")

    def __init__(self, calls: Calls, plan: Plan, payload: Payload, receives: bool) -> None:
        self._calls = calls
        self._result = payload  # keeps the memory alive, too
        self._receives = receives
        post = replace(plan, numbers=itertools.repeat(next(plan.numbers)))  # it is one call, however often it goes on
        self._pending: Pending = calls.run(post, payload.flat)
        self._plan = replace(post, schedule=plan.channel.progress)

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
        return self._pending.done or bool(self._calls.run(self._plan, self._pending, wait))
