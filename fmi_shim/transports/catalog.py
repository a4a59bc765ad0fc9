"""The channels of one communicator: chosen per operation, opened when first chosen."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from fmi_shim.channel import Channel
from fmi_shim.config import Config, Sharing
from fmi_shim.errors import ConfigError
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import keeps_order
from fmi_shim.pairing.server_registration import Attendance
from fmi_shim.selection.model import ChannelName, Pattern, Task
from fmi_shim.selection.policy import Hint, choose
from fmi_shim.transports.objects.channel import ObjectChannel
from fmi_shim.transports.objects.redis import RedisStore
from fmi_shim.transports.objects.s3 import S3Store
from fmi_shim.transports.shm.channel import SharedMemoryChannel
from fmi_shim.transports.tcp.framed import FramedChannel
from fmi_shim.transports.tcp.raw import DirectChannel

_log = logging.getLogger("fmi_shim")

_ONE_SIDED = (Operation.send, Operation.bcast, Operation.scatter)


class EnabledChannels:
    """What ``fmi.json`` enables.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The configuration.
    memory_mib
        Memory of the function, MiB.

    Attributes
    ----------
    hint
        What the choice favours.
    """

    def __init__(self, rank: int, size: int, comm_name: str, config: Config, memory_mib: int) -> None:
        self.hint = Hint.cheap
        self._size = size
        self._model = config.model
        self._memory_mib = memory_mib
        self._open: dict[ChannelName, Callable[[], Channel]] = {}
        self._opened: dict[ChannelName, Channel] = {}
        direct, redis, s3 = config.direct, config.redis, config.s3
        server = config.rendezvous if config.framed else None
        if direct is not None:
            message_channel = FramedChannel if direct.framed else DirectChannel
            self._open[ChannelName.Direct] = lambda: message_channel(rank, size, comm_name, direct)
        if redis is not None:
            self._open[ChannelName.Redis] = lambda: ObjectChannel(
                rank, size, comm_name, RedisStore(redis), redis, Attendance(rank, size, f"{comm_name}rd", server)
            )
        if s3 is not None:
            self._open[ChannelName.S3] = lambda: ObjectChannel(
                rank, size, comm_name, S3Store(s3), s3, Attendance(rank, size, f"{comm_name}s3", server)
            )
        self._names = tuple(self._open)
        self._undecided = False
        """Whether the ranks are to find out if they share memory."""
        if direct is not None and config.sharing is not Sharing.never:
            required = config.sharing is Sharing.always
            self._open[ChannelName.SharedMemory] = lambda: SharedMemoryChannel(rank, size, comm_name, direct, required)
            self._undecided = not required and size > 1
            if required:
                self._names = (ChannelName.SharedMemory,)

    @property
    def names(self) -> tuple[ChannelName, ...]:
        """The channels there are, as far as that is known."""
        return self._names

    def choose(self, call: Call) -> Channel:
        """Return the channel for `call`, opened now if it was not.

        All ranks must come to the same choice. Of an array that only its sender may know, in a ``send``,
        ``bcast`` or ``scatter`` without ``fmi.types``, the size is therefore taken for zero. Whether they share memory
        they find out together, in the first collective for which ``fast`` is wanted.
        """
        if self._undecided and self.hint is Hint.fast and call.operation is not Operation.send:
            self._decide()
        name = self._names[0]
        if len(self._names) > 1:
            task = Task(Pattern.of(call.operation), _known_bytes(call), self._size, keeps_order(call.operator))
            name = choose(self._names, task, self._model, self._memory_mib, self.hint)
        if name not in self._opened:
            self._opened[name] = self._open[name]()
        return self._opened[name]

    def _decide(self) -> None:
        """Open shared memory, if all ranks can."""
        self._undecided = False
        try:
            self._opened[ChannelName.SharedMemory] = self._open[ChannelName.SharedMemory]()
        except ConfigError as error:
            _log.info("fast channels: no shared memory: %s", error)
        else:
            self._names = (*self._names, ChannelName.SharedMemory)

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks, where a channel can, and close all channels."""
        for channel in self._opened.values():
            channel.fail(error)

    def close(self) -> None:
        """Leave all channels in peace."""
        with contextlib.ExitStack() as leaving:  # all, even if one fails
            for channel in self._opened.values():
                leaving.callback(channel.close)


def _known_bytes(call: Call) -> int:
    """Return the size that every rank knows."""
    if call.dtype is None or (call.shape is not None and call.operation in _ONE_SIDED):
        return 0
    return call.count * call.dtype.itemsize
