"""Requests: posted messages that ``isend`` and ``irecv`` return, and the waits for several of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmi_shim.backoff import Deadline, pauses
from fmi_shim.calls import Plan
from fmi_shim.channel import Channel, Pending
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.payload import Payload
from fmi_shim.validation import require_timeout

_FIRST_PAUSE, _LONGEST_PAUSE = 1e-4, 2e-3
"""Seconds between two polls of requests of several channels, which nothing can wait for together."""


@dataclass(slots=True, eq=False)
class Posted:
    """A posted message, and what its request returns.

    Attributes
    ----------
    plan
        The call that posted it.
    pending
        The channel's record of it.
    target
        Where it is received, or what is sent, whose memory must stay; None if only the sender knows the type.
    receives
        Whether it is received.
    returned
        Whether a wait has returned it.
    """

    plan: Plan
    pending: Pending
    target: Payload | None
    receives: bool
    returned: bool = False

    def wait(self, deadline: Deadline) -> Any:
        """Block until it is done; return the received value."""
        if not self.pending.done:
            _wait_for_one([self], deadline)
        return self.value()

    def value(self) -> Any:
        """Return the received value; None for a message sent."""
        self.returned = True
        if not self.receives:
            return None
        array = self.pending.array
        assert array is not None  # noqa: S101 - it was received
        return array if self.target is None else self.target.restore_part(array)


class Request:
    """A posted send or receive, as ``MPI_Request``.

    There is no thread: the message moves while this rank is in a call of the communicator on the same channel, and in
    `wait`, `test` and the waits for several requests. Every request must be waited for, or tested until it is done,
    before the communicator is closed.
    """

    __slots__ = ("_posted",)

    def __init__(self, plan: Plan, payload: Payload | None, receives: bool) -> None:
        plan = plan.for_one_call()
        self._posted = Posted(plan, plan.run(None if payload is None else payload.flat), payload, receives)

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the message is sent or received; return the received value, or None for a message sent.

        A further call returns the same. Errors are raised as in a blocking call, but after `timeout` seconds the
        request is as before, and may be waited for again.

        Raises
        ------
        PeerTimeoutError
            If the message is not sent or received within `timeout`, or nothing of it within ``max_timeout``.
        """
        return self._posted.wait(_deadline(timeout))

    def test(self) -> bool:
        """Return whether the message is sent or received, after as much progress as is possible without blocking.

        Blocks only for the first message of two ranks, since both ranks open a connection together.
        """
        _advance([self._posted], wait=False)
        return self._posted.pending.done

    @staticmethod
    def waitall(requests: Sequence[Request], timeout: float | None = None) -> list[Any]:
        """Block until all `requests` are done; return what `wait` returns for each.

        Raises
        ------
        PeerTimeoutError
            If they are not done within `timeout` seconds in all; see `wait`.
        """
        messages, deadline = _posted(requests), _deadline(timeout)
        return [message.wait(deadline) for message in messages]

    @staticmethod
    def waitany(requests: Sequence[Request], timeout: float | None = None) -> tuple[int | None, Any]:
        """Block until one of `requests` is done; return its index and what `wait` returns for it.

        A request that was returned by any wait before is ignored, so that repeated calls with the same requests return
        all of them, each once. When none is left, (None, None) is returned.

        Raises
        ------
        PeerTimeoutError
            If none is done within `timeout` seconds; see `wait`.
        """
        messages, deadline = _posted(requests), _deadline(timeout)
        left = [message for message in messages if not message.returned]
        if left:
            _wait_for_one(left, deadline)
        return _first_done(messages)

    @staticmethod
    def testany(requests: Sequence[Request]) -> tuple[int | None, Any]:
        """Return the index and the value of a request that is done, without blocking; see `waitany` and `test`.

        If none is done, or all were returned before, (None, None) is returned.
        """
        messages = _posted(requests)
        for group in _groups([message for message in messages if not message.returned]):
            _advance(group, wait=False)
        return _first_done(messages)


def _posted(requests: Sequence[Request]) -> list[Posted]:
    for request in requests:
        if not isinstance(request, Request):
            raise TypeError(f"invalid request {request!r}: expected what isend and irecv return")
    return [request._posted for request in requests]  # noqa: SLF001 - its own


def _deadline(timeout: float | None) -> Deadline:
    return Deadline(None if timeout is None else require_timeout(timeout))


def _first_done(messages: Sequence[Posted]) -> tuple[int | None, Any]:
    for index, message in enumerate(messages):
        if message.pending.done and not message.returned:
            return index, message.value()
    return None, None


def _groups(messages: Sequence[Posted]) -> list[list[Posted]]:
    """Return the messages by channel."""
    groups: dict[int, list[Posted]] = {}
    for message in messages:
        groups.setdefault(id(message.plan.channel), []).append(message)
    return list(groups.values())


def _wait_for_one(messages: Sequence[Posted], deadline: Deadline) -> None:
    """Block until one of `messages` is done."""
    groups = _groups(messages)
    if len(groups) == 1:
        error = _advance(messages, wait=True, deadline=deadline)
        if error is not None:
            raise error
        return
    deadline = deadline.within(messages[0].plan.calls.longest_wait)
    for pause in pauses(_LONGEST_PAUSE, _FIRST_PAUSE):
        for group in groups:
            _advance(group, wait=False)
        if any(message.pending.done for message in messages):
            return
        if deadline.passed:
            error = _advance(groups[0], wait=True, deadline=deadline)
            if error is not None:
                raise error
        time.sleep(pause)


def _advance(messages: Sequence[Posted], wait: bool, deadline: Deadline | None = None) -> PeerTimeoutError | None:
    """Move the messages of one channel, if `wait` is true until one is done; return the error of the deadline."""
    if any(message.pending.done for message in messages):
        return None
    plan, pending = messages[0].plan, [message.pending for message in messages]
    if deadline is None or deadline.seconds is None:
        plan.continued_with(plan.channel.progress).run(pending, wait)
        return None
    with plan.calls.until(deadline):
        error: PeerTimeoutError | None = plan.continued_with(_Progress(plan.channel)).run(pending, wait)
    return error


class _Progress:
    """Moves messages; returns the error of a time limit that ends this call, but not the messages."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __call__(self, pending: Sequence[Pending], wait: bool) -> PeerTimeoutError | None:
        """Return None if one of the messages is done, or none is awaited."""
        try:
            self._channel.progress(pending, wait)
        except PeerTimeoutError as error:
            if error.reported_by is not None or not self._channel.call_deadline.passed:
                raise
            return error
        return None
