"""Requests: of posted messages, and of collectives that a thread runs; and the waits for several of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from fmi_shim.backoff import Deadline, pauses
from fmi_shim.calls import Calls, Plan
from fmi_shim.channel import Channel, Pending
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.payload import Payload
from fmi_shim.validation import require_timeout
from fmi_shim.value_types import wrap_announced

_FIRST_PAUSE, _LONGEST_PAUSE = 1e-4, 2e-3
"""Seconds between two polls of requests of several channels, which nothing can wait for together."""


_NEVER = Deadline(None)
C = TypeVar("C")
"""The communicator of a thread."""


class Awaited(Protocol):
    """What a request stands for.

    Attributes
    ----------
    returned
        Whether a wait has returned it.
    """

    returned: bool

    @property
    def done(self) -> bool: ...  # noqa: D102 - see the classes

    @property
    def driver(self) -> object: ...  # noqa: D102

    @property
    def longest_wait(self) -> float | None: ...  # noqa: D102

    def advance(self, others: Sequence[Awaited], wait: bool, deadline: Deadline) -> PeerTimeoutError | None:
        """Make progress with this and `others`, which have the same driver; if `wait` is true until one is done.

        Returns
        -------
        PeerTimeoutError | None
            The error if none was done at the deadline.
        """

    def value(self) -> Any:
        """Return its value, once it is done, or raise its error."""


@dataclass(slots=True, eq=False)
class Posted:
    """A posted message, and what its request returns. Implements `Awaited`.

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

    @staticmethod
    def begin(plan: Plan, target: Payload | None, receives: bool) -> Posted:
        """Post a message of `plan`."""
        plan = plan.for_one_call()
        return Posted(plan, plan.run(None if target is None else target.flat), target, receives)

    @property
    def done(self) -> bool:
        """Whether it is sent or received."""
        return self.pending.done

    @property
    def driver(self) -> object:
        """What moves it, together with others: its channel."""
        return self.plan.channel

    def advance(self, others: Sequence[Awaited], wait: bool, deadline: Deadline) -> PeerTimeoutError | None:
        """Move the messages of this channel; see `Awaited`."""
        plan = self.plan
        pending = [message.pending for message in (self, *others) if isinstance(message, Posted)]
        if deadline.seconds is None:
            plan.continued_with(plan.channel.progress).run(pending, wait)
            return None
        with plan.calls.until(deadline):
            error: PeerTimeoutError | None = plan.continued_with(_Progress(plan.channel)).run(pending, wait)
        if error is not None:
            plan.calls.name_ranks(error)
        return error

    @property
    def longest_wait(self) -> float | None:
        """The configured limit of a wait, in seconds; None for no limit."""
        return self.plan.calls.longest_wait

    def value(self) -> Any:
        """Return the received value; None for a message sent."""
        self.returned = True
        if not self.receives:
            return None
        array = self.pending.array
        assert array is not None  # noqa: S101 - it was received
        return wrap_announced(array) if self.target is None else self.target.restore_part(array)


@dataclass(slots=True, eq=False)
class Running:
    """A collective that a thread runs, and what its request returns. Implements `Awaited`.

    Attributes
    ----------
    calls
        The communicator, which an error of the collective ends.
    name
        Which collective it is, for errors.
    future
        Its result.
    returned
        Whether a wait has returned it.
    """

    calls: Calls
    name: str
    future: Future[Any]
    returned: bool = False

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.future.done()

    @property
    def driver(self) -> object:
        """What is common to all collectives: each is run without this thread."""
        return Running

    def advance(self, others: Sequence[Awaited], wait: bool, deadline: Deadline) -> PeerTimeoutError | None:
        """Wait, see `Awaited`."""
        if wait:
            futures = [other.future for other in (self, *others) if isinstance(other, Running)]
            # Ctrl-C in `concurrent.futures.wait` would leave locks of the futures held, and their thread blocked.
            ended: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
            for future in futures:
                future.add_done_callback(ended.put)
            try:
                ended.get(timeout=deadline.remaining())
            except queue.Empty:
                error = PeerTimeoutError(
                    f"{self.name} did not end within {deadline.elapsed}: check that all ranks have called it; "
                    "raise timeout if it needs longer"
                )
                self.calls.name_ranks(error)
                return error
        return None

    @property
    def longest_wait(self) -> float | None:
        """None: each wait of the thread is limited already."""
        return None

    def value(self) -> Any:
        """Return the result, or raise the error, which closes the communicator."""
        self.returned = True
        error = self.future.exception()
        if error is not None:
            self.calls.fail(error)
            raise error
        return self.future.result()


class Background(Generic[C]):
    """Runs collectives one after another in a thread, over a communicator of its own.

    So they move without this rank's calls, and beside its messages. The thread starts with the first collective.

    Parameters
    ----------
    open_communicator
        Returns that communicator, with connections of its own; called in the thread.

    Attributes
    ----------
    communicator
        That communicator, once it is open.
    """

    def __init__(self, open_communicator: Callable[[], C]) -> None:
        self._open = open_communicator
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[C], Any]] | None] = queue.SimpleQueue()
        self._last: Future[Any] | None = None
        self.communicator: C | None = None
        self._thread = threading.Thread(target=self._run, name="fmi collectives", daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[C], Any]) -> Future[Any]:
        """Run `call` with the communicator after all earlier calls."""
        self._last = Future()
        self._work.put((self._last, call))
        return self._last

    def close(self, shut: Callable[[C], object]) -> None:
        """End the thread after the last collective, and call `shut` with the communicator, if it was opened."""
        if self.communicator is not None:
            self._work.put((Future(), shut))
        self._work.put(None)
        idle = self._last is None or self._last.done()
        if idle and threading.current_thread() is not self._thread:  # garbage may be collected in any thread
            self._thread.join()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, call = item
            try:
                if self.communicator is None:
                    self.communicator = self._open()
                future.set_result(call(self.communicator))
            except BaseException as error:  # noqa: BLE001 - whatever ends the call is raised in the wait for it
                future.set_exception(error)


class Request:
    """A posted send or receive, or a collective that has begun, as ``MPI_Request``.

    Every request must be waited for, or tested until it is done, before the communicator is closed. A collective is run
    by a thread. A message is not: it moves while this rank is in a call of the communicator on the same channel, and in
    `wait`, `test` and the waits for several requests.
    """

    __slots__ = ("_awaited",)

    def __init__(self, awaited: Awaited) -> None:
        self._awaited = awaited

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the message is sent or received, or the collective has ended; return its value, None if sent.

        A further call returns the same. Errors are raised as in a blocking call, but after `timeout` seconds the
        request is as before, and may be waited for again.

        Raises
        ------
        PeerTimeoutError
            If the message is not sent or received within `timeout`, or nothing of it within ``max_timeout``.
        """
        return _wait(self._awaited, _deadline(timeout))

    def test(self) -> bool:
        """Return whether the request is done, after as much progress as is possible without blocking.

        Blocks only for the first message of two ranks, since both ranks open a connection together.
        """
        _advance([self._awaited], wait=False)
        return self._awaited.done

    @staticmethod
    def waitall(requests: Sequence[Request], timeout: float | None = None) -> list[Any]:
        """Block until all `requests` are done; return what `wait` returns for each.

        Raises
        ------
        PeerTimeoutError
            If they are not done within `timeout` seconds in all; see `wait`.
        """
        messages, deadline = _awaited(requests), _deadline(timeout)
        return [_wait(message, deadline) for message in messages]

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
        messages, deadline = _awaited(requests), _deadline(timeout)
        left = [message for message in messages if not message.returned]
        if left:
            _wait_for_one(left, deadline)
        return _first_done(messages)

    @staticmethod
    def testany(requests: Sequence[Request]) -> tuple[int | None, Any]:
        """Return the index and the value of a request that is done, without blocking; see `waitany` and `test`.

        If none is done, or all were returned before, (None, None) is returned.
        """
        messages = _awaited(requests)
        for group in _groups([message for message in messages if not message.returned]):
            _advance(group, wait=False)
        return _first_done(messages)


def _awaited(requests: Sequence[Request]) -> list[Awaited]:
    for request in requests:
        if not isinstance(request, Request):
            raise TypeError(f"invalid request {request!r}: expected what isend, irecv and the like return")
    return [request._awaited for request in requests]  # noqa: SLF001 - its own


def _deadline(timeout: float | None) -> Deadline:
    return Deadline(None if timeout is None else require_timeout(timeout))


def _first_done(requests: Sequence[Awaited]) -> tuple[int | None, Any]:
    for index, request in enumerate(requests):
        if request.done and not request.returned:
            return index, request.value()
    return None, None


def _groups(requests: Sequence[Awaited]) -> list[list[Awaited]]:
    """Return the requests by what moves them."""
    groups: dict[int, list[Awaited]] = {}
    for request in requests:
        groups.setdefault(id(request.driver), []).append(request)
    return list(groups.values())


def _wait(request: Awaited, deadline: Deadline) -> Any:
    """Block until `request` is done; return its value."""
    if not request.done:
        _wait_for_one([request], deadline)
    return request.value()


def _wait_for_one(requests: Sequence[Awaited], deadline: Deadline) -> None:
    """Block until one of `requests` is done."""
    groups = _groups(requests)
    if len(groups) == 1:
        error = _advance(requests, wait=True, deadline=deadline)
        if error is not None:
            raise error
        return
    deadline = deadline.within(requests[0].longest_wait)
    for pause in pauses(_LONGEST_PAUSE, _FIRST_PAUSE):
        for group in groups:
            _advance(group, wait=False)
        if any(request.done for request in requests):
            return
        if deadline.passed:
            error = _advance(groups[0], wait=True, deadline=deadline)
            if error is not None:
                raise error
        time.sleep(pause)


def _advance(requests: Sequence[Awaited], wait: bool, deadline: Deadline = _NEVER) -> PeerTimeoutError | None:
    """Move requests that one thing moves, if `wait` is true until one is done; return the error of the deadline."""
    if any(request.done for request in requests):
        return None
    return requests[0].advance(requests[1:], wait, deadline)


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
