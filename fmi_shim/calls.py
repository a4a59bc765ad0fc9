"""The calls a rank makes in one communicator: numbered, carried out one by one, and over at the first failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from fmi_shim.channels.base import Channel
from fmi_shim.channels.enabled import EnabledChannels
from fmi_shim.errors import BrokenCommunicatorError, FmiError
from fmi_shim.forms import Form
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import ReduceFunction

Result = TypeVar("Result")

_BYTE = np.dtype(np.uint8)


class Calls:
    """What a communicator does, call by call.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    channels
        The ways to the other ranks.
    """

    def __init__(self, rank: int, size: int, channels: EnabledChannels) -> None:
        self._rank = rank
        self._channels = channels
        self._collectives = 0
        self._sent = [0] * size
        self._received = [0] * size
        self._failure: BaseException | None = None

    def collective(
        self, operation: Operation, form: Form | None, root: int = 0, f: ReduceFunction | None = None
    ) -> Call:
        """Return, and count, the next call of all ranks together; without a form the root decides what travels."""
        sequence = self._collectives
        self._collectives += 1
        if form is None:
            return Call(operation, sequence, None, 0, root)
        code = 0 if f is None else f.code
        return Call(operation, sequence, form.dtype, form.count, root, code, form.described_shape)

    def barrier(self) -> Call:
        """Return, and count, the next call of all ranks, a barrier: it is one byte."""
        sequence = self._collectives
        self._collectives += 1
        return Call(Operation.barrier, sequence, _BYTE, 1)

    def sending(self, dst: int, form: Form) -> Call:
        """Return, and count, the call that sends the next message to rank `dst`."""
        sequence = self._sent[dst]
        self._sent[dst] += 1
        return Call(Operation.send, sequence, form.dtype, form.count, self._rank, 0, form.described_shape)

    def receiving(self, src: int, form: Form | None) -> Call:
        """Return, and count, the call that receives the next message from `src`; without a form that rank decides."""
        sequence = self._received[src]
        self._received[src] += 1
        if form is None:
            return Call(Operation.send, sequence, None, 0, src)
        return Call(Operation.send, sequence, form.dtype, form.count, src, 0, form.described_shape)

    def channel(self, call: Call) -> Channel:
        """Return the channel that `call` takes.

        Raises
        ------
        BrokenCommunicatorError
            If an earlier call failed, or the communicator was closed.
        """
        if self._failure is not None:
            cause = f"{type(self._failure).__name__}: {self._failure}"
            raise BrokenCommunicatorError(f"{call} refused, the communicator ended with {cause}") from self._failure
        try:
            return self._channels.choose(call)
        except BaseException as error:
            self.fail(error)
            raise

    def perform(self, call: Call, schedule: Callable[[Channel], Result], channel: Channel | None = None) -> Result:
        """Run `schedule` for `call`; whatever goes wrong in it is the end of the communicator.

        Takes `channel` if the call began on it, and raises what `channel` raises.
        """
        chosen = self.channel(call)
        channel = channel or chosen
        try:
            channel.begin(call)
            return schedule(channel)
        except BaseException as error:  # a Ctrl-C in the middle leaves the messages out of step, too
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks of `error`, and refuse all further calls."""
        if self._failure is None:
            self._failure = error
            self._channels.fail(error)

    def abandon(self, error: BaseException) -> None:
        """Tell the other ranks that the program raised `error` outside of any call, and refuse all further calls."""
        if self._failure is None:
            self._failure = error
            if not isinstance(error, FmiError):
                what = f"{type(error).__name__}: {error}".rstrip(": ")
                error = FmiError(f"rank {self._rank} raised {what}, in its own code between two calls", self._rank)
            self._channels.fail(error)

    def close(self) -> None:
        """Leave in peace, and refuse all further calls."""
        if self._failure is None:
            self._failure = BrokenCommunicatorError("the communicator was closed")
            self._channels.close()
