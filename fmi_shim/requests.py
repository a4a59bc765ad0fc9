"""Messages under way: what ``isend`` and ``irecv`` return."""

from __future__ import annotations

from typing import Any

from fmi_shim.calls import Calls
from fmi_shim.channels.base import Channel, Pending
from fmi_shim.frames import Call
from fmi_shim.payload import Payload


class Request:
    """A message that is sent or received while the program goes on.

    It moves whenever this rank is in a call of the communicator on the same channel, and when it is waited
    for or tested; there is no thread. Every request must be waited for, or tested until it is done, before
    the communicator is closed.
    """

    __slots__ = ("_call", "_calls", "_channel", "_payload", "_pending", "_receives")

    def __init__(self, calls: Calls, call: Call, payload: Payload, peer: int, receives: bool) -> None:
        self._calls = calls
        self._call = call
        self._payload = payload  # keeps the memory alive, too
        self._receives = receives
        self._channel: Channel = calls.channel(call)
        flat = payload.flat
        post = (lambda c: c.irecv(flat, peer)) if receives else (lambda c: c.isend(flat, peer))
        self._pending: Pending = calls.perform(call, post, self._channel)

    def wait(self) -> Any:
        """Wait until the message has gone or come; return what was received, None for a message sent.

        Waiting again returns the same. What goes wrong is raised as in a blocking call.
        """
        self._progress(wait=True)
        return self._payload.restore() if self._receives else None

    def test(self) -> bool:
        """Move what can be moved without waiting, and return whether the message has gone or come.

        Only the first message of two ranks makes it block, since a connection is opened by both together.
        """
        return self._progress(wait=False)

    def _progress(self, wait: bool) -> bool:
        if self._pending.done:
            return True
        return self._calls.perform(self._call, lambda channel: channel.progress(self._pending, wait), self._channel)
