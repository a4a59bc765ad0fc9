"""The calls of a rank in one communicator: planned once, numbered and executed, until the first failure."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fmi_shim import injection
from fmi_shim.backoff import Deadline
from fmi_shim.channel import Channel, Schedule
from fmi_shim.collectives import python_objects
from fmi_shim.errors import (
    BrokenCommunicatorError,
    ConcurrentCallError,
    FmiError,
    PeerTimeoutError,
    SplitGroup,
)
from fmi_shim.frames import Call, Operation
from fmi_shim.log import log_failure
from fmi_shim.operators import Operator, ReduceFunction, divide
from fmi_shim.payload import combine_of
from fmi_shim.selection.policy import Hint
from fmi_shim.selection.selector import ChannelSelector
from fmi_shim.validation import require_timeout
from fmi_shim.value_types import ValueType, array_type

_BYTES = np.dtype(np.uint8), 1
"""Element type and number of elements of a row of objects."""
_BYTE = array_type(np.dtype(np.uint8), (1,), False)
_FILLING_REDUCTIONS = (Operation.exscan, Operation.reduce_scatter, Operation.reduce_scatterv)
"""Those whose schedule fills its last buffer."""
_MESSAGES = (Operation.send, Operation.send_object)
_BINDING_REDUCTIONS = (Operation.reduce, Operation.allreduce, Operation.scan)
_CACHED_PLANS = 256
"""Largest number of cached plans. When it is reached, all are dropped, and made again when they are needed."""


@dataclass(slots=True, eq=False)
class Plan:
    """The part of a call that is equal for all calls with the same arguments: made once, then cached.

    Attributes
    ----------
    call
        The call, which the other ranks must make, too.
    channel
        The channel that executes it.
    schedule
        Executes it, given the buffers of one call; see `Channel.prepare`.
    numbers
        The calls' numbers: those of the collectives, or of the messages from one rank to another.
    calls
        The calls of the communicator.
    """

    call: Call
    channel: Channel
    schedule: Callable[..., Any]
    numbers: Iterator[int]
    calls: Calls

    def run(self, *buffers: Any) -> Any:
        """Execute the call; any error closes the communicator, but that of a message which can be sent or received yet.

        Raises the channel's errors.
        """
        calls, call = self.calls, self.call
        if calls.running is not None:  # no other thread runs between this and the next line
            raise calls.refusal(call, self.numbers)
        calls.running = call
        try:
            self.channel.begin(call, next(self.numbers))
            result = self.schedule(*buffers)
        except BaseException as error:  # an interrupted call, too, leaves the streams of messages inconsistent
            calls.name_ranks(error)
            if calls.running is not call and isinstance(error, Exception):
                raise calls.interrupted(call) from error
            if isinstance(error, PeerTimeoutError) and error.repeatable and calls.give_back(self):
                calls.running = None
                raise
            calls.fail(error)
            raise
        if calls.running is not call:
            raise calls.interrupted(call)
        calls.running = None
        return result

    def for_one_call(self) -> Plan:
        """Return a plan of the next call alone, which may be run several times until it is done."""
        return replace(self, numbers=itertools.repeat(next(self.numbers)))

    def continued_with(self, schedule: Callable[..., Any]) -> Plan:
        """Return this plan with `schedule` in place of its own, to continue the call.

        Raises
        ------
        BrokenCommunicatorError
            If a call failed meanwhile, or the communicator was closed.
        """
        self.calls.require_open(self.call, self.numbers)
        return replace(self, schedule=self.calls.wrap_wait(schedule, self.channel))


@dataclass(frozen=True, slots=True, eq=False)
class Mean:
    """The schedule of a mean.

    Attributes
    ----------
    schedule
        That of the sum.
    ranks
        Number of ranks whose values are added; 0 leaves the sum as it is.
    fills
        Whether the sum is in the last buffer instead of the result.
    """

    schedule: Schedule
    ranks: int
    fills: bool

    def __call__(self, *buffers: Any) -> Any:
        """Run the sum, and divide it."""
        result = self.schedule(*buffers)
        total = buffers[-1] if self.fills else result
        if total is not None and self.ranks:
            divide(total, self.ranks)
        return result


class Calls:
    """Plans and executes the calls of one communicator.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    channels
        The channels to the other ranks.

    Attributes
    ----------
    barrier
        The plan of a barrier, once one was called.
    allreduces
        For each shape of arrays the function, the element type and the plan of the last allreduce. A short call
        compares these in the least time. Both are dropped with all plans, at the latest when the communicator ends.
    split_group
        Which ranks of the world its ranks are, if the communicator was split from it. Errors say so.
    running
        The call that a thread is in, None between calls; the error that ended the communicator, or that a call which
        began meanwhile has raised.
    """

    def __init__(self, rank: int, size: int, channels: ChannelSelector) -> None:
        self._rank = rank
        self._size = size
        self._channels = channels
        self._collectives = itertools.count()
        self._sent: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
        self._received: defaultdict[int, Iterator[int]] = defaultdict(itertools.count)
        self._plans: dict[object, Plan] = {}
        self.barrier: Plan | None = None
        self.allreduces: dict[tuple[int, ...], tuple[ReduceFunction, np.dtype[Any], Plan]] = {}
        self.split_group: SplitGroup | None = None
        self.running: Call | BaseException | None = None
        self._failure: BaseException | None = None

    @property
    def hint(self) -> Hint:
        """Whether the fastest or the cheapest channel is chosen."""
        return self._channels.hint

    @hint.setter
    def hint(self, hint: Hint) -> None:
        self._channels.hint = hint
        self._drop_plans()

    def collective(
        self, operation: Operation, value_type: ValueType | None = _BYTE, root: int = 0, f: ReduceFunction | None = None
    ) -> Plan:
        """Return the plan of a collective; without a value type the root determines it.

        Raises
        ------
        TypeError
            If `f` has no meaning for the element type.
        BrokenCommunicatorError
            If an earlier call failed, or the communicator was closed.
        """
        key = (operation, value_type, root, f)
        known = self._plans.get(key)
        if known is not None:
            return known
        if f is not None and value_type is not None and value_type.is_list and operation in _BINDING_REDUCTIONS:
            f = f if self._channels.framed else f.in_any_order()  # as FMI's Python binding, which other ranks may use
        if f is None or value_type is None:
            function, combine = None, None
        else:
            parts = self._size if operation is Operation.reduce_scatter else 1
            function, combine = f.combining(), combine_of(f, value_type, parts)
        described = (
            value_type.row() if value_type is not None and operation is Operation.reduce_scatterv else value_type
        )

        # Here and below a closure prepares the schedule: it runs once for each plan, never in a planned call.
        def prepare(channel: Channel, call: Call) -> Schedule:
            schedule = channel.prepare(call, function, combine)
            return self._mean(call, schedule) if f is not None and f.operator is Operator.avg else schedule

        return self._plan(
            key, _call(operation, described, root, 0 if f is None else f.code), self._collectives, prepare
        )

    def _mean(self, call: Call, schedule: Schedule) -> Schedule:
        """Return the schedule of a mean, given that of the sum."""
        ranks = {Operation.scan: self._rank + 1, Operation.exscan: self._rank}.get(call.operation, self._size)

        return Mean(schedule, ranks, call.operation in _FILLING_REDUCTIONS)

    def sending(self, dst: int, value_type: ValueType, posted: bool = False) -> Plan:
        """Return the plan of a message to rank `dst`."""
        key = ("to", value_type, dst, posted)
        return self._plans.get(key) or self._plan(
            key,
            _call(Operation.send, value_type, self._rank),
            self._sent[dst],
            lambda channel, call: functools.partial(channel.isend if posted else channel.send, dst=dst),
            dst,
            "isend" if posted else "send",
        )

    def receiving(self, src: int, value_type: ValueType | None, posted: bool = False) -> Plan:
        """Return the plan of a message from rank `src`; without a value type that rank determines it."""
        key = ("from", value_type, src, posted)
        return self._plans.get(key) or self._plan(
            key,
            _call(Operation.send, value_type, src),
            self._received[src],
            lambda channel, call: (
                functools.partial(channel.irecv, src=src) if posted else functools.partial(_receive, channel, src=src)
            ),
            src,
            "irecv" if posted else "recv",
        )

    def collective_of_objects(self, operation: Operation, root: int = 0) -> Plan:
        """Return the plan of a collective of Python objects; for its buffers see `collectives.python_objects`."""
        key = (operation, root)
        return self._plans.get(key) or self._plan(
            key,
            Call(operation, 0, *_BYTES, root, shape=()),
            self._collectives,
            lambda channel, call: channel.prepare(call, None, None),
        )

    def sending_object(self, dst: int) -> Plan:
        """Return the plan of an object to rank `dst`."""
        key = ("object to", dst)
        return self._plans.get(key) or self._plan(
            key,
            Call(Operation.send_object, 0, *_BYTES, self._rank, shape=()),
            self._sent[dst],
            lambda channel, call: functools.partial(python_objects.send, channel, dst=dst),
            dst,
            "send",
        )

    def receiving_object(self, src: int) -> Plan:
        """Return the plan of an object from rank `src`."""
        key = ("object from", src)
        return self._plans.get(key) or self._plan(
            key,
            Call(Operation.send_object, 0, *_BYTES, src, shape=()),
            self._received[src],
            lambda channel, call: functools.partial(python_objects.recv, channel, src=src),
            src,
            "recv",
        )

    @property
    def server_known(self) -> bool:
        """Whether the rendezvous server has answered."""
        return self._channels.server_known

    @property
    def longest_wait(self) -> float | None:
        """The configured limit of a wait for another rank, in seconds; None for no limit."""
        return self._channels.longest_wait

    def within(self, timeout: object) -> contextlib.AbstractContextManager[None]:
        """Limit the calls in the block to `timeout` seconds in all."""
        return self.until(Deadline(require_timeout(timeout)))

    @contextlib.contextmanager
    def until(self, deadline: Deadline) -> Iterator[None]:
        """End the calls in the block by `deadline`."""
        self._channels.call_deadline = deadline
        try:
            yield
        finally:
            self._channels.call_deadline = Deadline(None)

    def _plan(
        self,
        key: object,
        call: Call,
        numbers: Iterator[int],
        prepare: Callable[[Channel, Call], Callable[..., Any]],
        peer: int | None = None,
        performed: str | None = None,
    ) -> Plan:
        self.require_open(call, numbers)
        names = self._channels.names
        if self.running is not None:
            raise self.refusal(call, numbers)
        self.running = call
        try:
            channel = self._channels.choose(call, peer)
        except BaseException as error:
            self.name_ranks(error)
            if self.running is not call and isinstance(error, Exception):
                raise self.interrupted(call) from error
            self.fail(error)
            raise
        if self.running is not call:
            with contextlib.suppress(FmiError):
                channel.begin(call, next(numbers))  # which the abort names
            raise self.interrupted(call)
        self.running = None
        if self._channels.names != names:
            self._drop_plans()
        schedule = self.wrap_schedule(prepare(channel, call), call, channel, performed or call.operation.name, peer)
        faults = injection.current
        if faults is not None and faults.counts_calls:
            schedule = injection.CountedSchedule(faults, _performed(call, self._rank), schedule)
        plan = Plan(call, channel, schedule, numbers, self)
        if len(self._plans) >= _CACHED_PLANS:
            self._drop_plans()
        self._plans[key] = plan
        return plan

    def _drop_plans(self) -> None:
        self._plans.clear()
        self.barrier = None
        self.allreduces.clear()

    def require_open(self, call: Call, numbers: Iterator[int]) -> None:
        """Raise if an earlier call failed, or the communicator was closed."""
        if self._failure is None:
            return
        cause = f"{type(self._failure).__name__}: {self._failure}"
        refused = call.numbered(next(numbers))
        error = BrokenCommunicatorError(f"{refused} refused: the communicator ended with {cause}")
        self.name_ranks(error)
        raise error from self._failure

    def name_ranks(self, error: BaseException) -> None:
        """Add to an error which ranks of the world it names, if the communicator was split from it."""
        if self.split_group is not None and isinstance(error, FmiError) and error.split_group is None:
            error.split_group = self.split_group

    def give_back(self, plan: Plan) -> bool:
        """Give back the number of a message of which nothing was moved in time; return False if it is no message.

        The next call of this kind is for the same message. Posted messages keep their number.
        """
        if plan.call.operation not in _MESSAGES or not isinstance(plan.numbers, itertools.count):
            return False
        given = plan.numbers
        again = itertools.count(next(given) - 1)
        for numbers in (self._sent, self._received):
            numbers.update({peer: again for peer, known in numbers.items() if known is given})
        for other in (plan, *self._plans.values()):
            if other.numbers is given:
                other.numbers = again
        plan.channel.withdraw_wait()
        return True

    def require_idle(self) -> None:
        """Raise if another thread is in a call, which then fails as well: before the communicator is closed."""
        running = self.running
        if isinstance(running, Call):
            self.running = self._concurrent(f"close() began while {running.operation.name}")
            raise self.running

    def refusal(self, call: Call, numbers: Iterator[int]) -> ConcurrentCallError:
        """Return the error of `call`, which began while another call runs; that one fails as well when it returns.

        Raises
        ------
        BrokenCommunicatorError
            If an earlier call failed, or the communicator was closed.
        """
        self.require_open(call, numbers)
        running = self.running
        if isinstance(running, ConcurrentCallError):
            return self._copy(running)
        during = running.operation.name if isinstance(running, Call) else "another call"
        error = self._concurrent(f"{call.numbered(next(numbers))} began while {during}")
        self.running = self._copy(error)
        if running is None:  # it has returned meanwhile
            self.fail(error)
        return error

    def interrupted(self, call: Call) -> ConcurrentCallError:
        """Return the error of `call`, during which another one began, and close the communicator with it."""
        other = self.running
        if isinstance(other, ConcurrentCallError):
            error = self._copy(other)
        else:
            error = self._concurrent(f"the communicator ended with {other} while {call.operation.name}")
        self.fail(error)
        return error

    def _concurrent(self, what: str) -> ConcurrentCallError:
        error = ConcurrentCallError(
            f"rank {self._rank}: {what} was running: expected one call at a time: use a lock, or a communicator for "
            "each thread",
            self._rank,
        )
        self.name_ranks(error)
        return error

    def _copy(self, error: ConcurrentCallError) -> ConcurrentCallError:
        """Return the same error for another thread, in which it has another traceback."""
        copy = ConcurrentCallError(error.message, self._rank)
        self.name_ranks(copy)
        return copy

    def wrap_schedule(
        self, schedule: Callable[..., Any], call: Call, channel: Channel, performed: str, peer: int | None
    ) -> Callable[..., Any]:
        """Return the schedule to run in place of `schedule`: here `schedule` itself.

        Parameters
        ----------
        schedule, call, channel
            The schedule of a call, the call, and the channel that executes it.
        performed
            What this rank does in it: the name of a collective, ``send``, ``recv``, ``isend`` or ``irecv``.
        peer
            The other rank of a message; None in collectives.
        """
        return schedule

    def wrap_wait(self, schedule: Callable[..., Any], channel: Channel) -> Callable[..., Any]:
        """Return what to run in place of `schedule`, which moves posted messages: here `schedule` itself."""
        return schedule

    def fail(self, error: BaseException) -> None:
        """Report `error` to the other ranks, and refuse all further calls."""
        if self._failure is None:
            self._end(error)
            log_failure(self._rank, error)
            self._channels.fail(error)

    def abandon(self, error: BaseException) -> None:
        """Report to the other ranks that the program raised `error` between two calls, and refuse all further calls."""
        if self._failure is None:
            self._end(error)
            if isinstance(error, FmiError):
                error = error.within(self.split_group)
            else:
                what = f"{type(error).__name__}: {error}".rstrip(": ")
                error = FmiError(f"rank {self._rank} raised {what}, in its own code between two calls", self._rank)
            log_failure(self._rank, error)
            self._channels.fail(error)

    def close(self) -> None:
        """Close without an error, and refuse all further calls."""
        if self._failure is None:
            self._end(BrokenCommunicatorError("the communicator was closed"))
            self._channels.close()

    def _end(self, failure: BaseException) -> None:
        self._failure = self.running = failure
        self._drop_plans()


def _performed(call: Call, rank: int) -> str:
    """Return the name of what a rank does in a call: ``recv`` is the other end of ``send``."""
    return "recv" if call.operation is Operation.send and call.root != rank else call.operation.name


def _call(operation: Operation, value_type: ValueType | None, root: int, operator: int = 0) -> Call:
    if value_type is None:
        return Call(operation, 0, None, 0, root)
    if operation is Operation.barrier:
        return Call(operation, 0, value_type.dtype, value_type.count)
    return Call(operation, 0, value_type.dtype, value_type.count, root, operator, value_type.described_shape)


def _receive(channel: Channel, buffer: Any, src: int) -> Any:
    """Return the next message from rank `src`, in `buffer`, or the first part of it, if it is given."""
    return channel.recv_new(src) if buffer is None else channel.recv(buffer, src)
