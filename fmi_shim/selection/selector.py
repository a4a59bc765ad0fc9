"""The channels of one communicator: one is chosen for each call, and opened when it is first chosen."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Channel
from fmi_shim.config import ChannelName, Config, Sharing
from fmi_shim.error_codec import make_abort
from fmi_shim.errors import ConfigError
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import keeps_order
from fmi_shim.pairing.rendezvous_client import open_session
from fmi_shim.selection.model import Pattern, Task
from fmi_shim.selection.policy import Hint, choose
from fmi_shim.transports.catalog import TRANSPORTS, Place
from fmi_shim.transports.loopback import Loopback

_log = logging.getLogger("fmi_shim")

_ONE_SIDED = (Operation.send, Operation.bcast, Operation.scatter)


class ChannelSelector:
    """Chooses among the channels that ``fmi.json`` enables.

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
    server_known
        Whether the rendezvous server has answered, to the communicator that this one was split from.

    Attributes
    ----------
    hint
        Whether the fastest or the cheapest channel is chosen.
    names
        The channels to choose from, as far as known now. Only read it.
    framed
        Whether messages have headers, so that all ranks are of this library.
    """

    def __init__(
        self, rank: int, size: int, comm_name: str, config: Config, memory_mib: int, server_known: bool = False
    ) -> None:
        self.hint = Hint.cheap
        self.framed = config.framed
        server = config.rendezvous if config.framed and size > 1 else None
        session = None if server is None else open_session(server, comm_name, rank, size, server_known)
        self._place = Place(rank, size, comm_name, config, session)
        self._memory_mib = memory_mib
        self._opened: dict[ChannelName, Channel] = {}
        self._loopback = Loopback(rank)
        enabled = tuple(name for name, transport in TRANSPORTS.items() if transport.enabled(config))
        network: tuple[ChannelName, ...] = tuple(name for name in enabled if name is not ChannelName.SharedMemory)
        self._required = config.sharing is Sharing.always
        self.names: tuple[ChannelName, ...] = (ChannelName.Direct,) if self._required else network
        self._undecided = self._required or (ChannelName.SharedMemory in enabled and size > 1)
        """Whether the ranks have not yet opened shared memory, which all do together."""

    @property
    def comm_name(self) -> str:
        """Name of the communicator."""
        return self._place.comm_name

    def name_of(self, channel: Channel) -> str:
        """Return the name of a channel that `choose` returned."""
        names = (name.value for name, opened in self._opened.items() if opened is channel)
        return next(names, "loopback")

    @property
    def server_known(self) -> bool:
        """Whether the rendezvous server has answered."""
        return self._place.session is not None and self._place.session.known

    @property
    def longest_wait(self) -> float | None:
        """The longest of the enabled channels' limits of a wait, in seconds; None if one has no limit."""
        config = self._place.config
        limits = [backend.max_timeout for backend in (config.direct, config.redis, config.s3) if backend is not None]
        return None if None in limits else max(limit for limit in limits if limit is not None)

    @property
    def call_deadline(self) -> Deadline:
        """The instant by which the running call must end, on every channel."""
        return self._place.deadline

    @call_deadline.setter
    def call_deadline(self, deadline: Deadline) -> None:
        self._place = replace(self._place, deadline=deadline)
        for channel in self._opened.values():
            channel.call_deadline = deadline

    def choose(self, call: Call, peer: int | None = None) -> Channel:
        """Return the channel for `call`, which concerns rank `peer` alone; it is opened now if it was not.

        All ranks must make the same choice. Therefore the size of an array that only its sender may know (a ``send``,
        ``bcast`` or ``scatter`` without ``fmi.types``) counts as 0. Whether the ranks share memory is determined by
        all together, in the first collective, or the first one after the hint became ``fast`` where shared memory is
        not required. Messages before it need two ranks only, and take another channel.
        """
        if peer == self._place.rank:
            return self._loopback
        if self._undecided and peer is None and (self._required or self.hint is Hint.fast):
            self._open_shared_memory()
        name = self.names[0]
        if len(self.names) > 1:
            task = Task(Pattern.of(call.operation), _known_bytes(call), self._place.size, keeps_order(call.operator))
            name = choose(self.names, task, self._place.config.model, self._memory_mib, self.hint)
        if name not in self._opened:
            self._opened[name] = self._open(name)
        return self._opened[name]

    def _open_shared_memory(self) -> None:
        """Open shared memory, if all ranks can; raise if it is required and they cannot."""
        self._undecided = False
        name = ChannelName.SharedMemory
        for channel in self._opened.values():
            channel.complete_posted()  # another rank may wait for them before it opens shared memory
        try:
            self._opened[name] = self._open(name)
        except ConfigError as error:
            if self._required:
                raise
            _log.info("rank %d: does not use shared memory: %s", self._place.rank, error)
        else:
            self.names = (name,) if self._required else (*self.names, name)

    def _open(self, name: ChannelName) -> Channel:
        channel = TRANSPORTS[name].open(self._place)
        channel.call_deadline = self._place.deadline
        _log.info("rank %d: opened channel %s of %r", self._place.rank, name.value, self._place.comm_name)
        return channel

    def fail(self, error: BaseException) -> None:
        """Report `error` to the other ranks, where a channel can, and close all channels."""
        session = self._place.session
        with contextlib.ExitStack() as closing:
            if session is not None:
                closing.callback(session.close)
                rank = self._place.rank
                closing.callback(session.abort, make_abort(error, rank, f"rank {rank}"))  # if no channel was open
            for channel in self._opened.values():
                closing.callback(channel.fail, error)

    def close(self) -> None:
        """Close all channels, even if closing one of them fails."""
        with contextlib.ExitStack() as closing:
            for channel in self._opened.values():
                closing.callback(channel.close)
            if self._place.session is not None:  # first: a channel may wait for ranks that wait for this one
                closing.callback(self._place.session.close)


def _known_bytes(call: Call) -> int:
    """Return the size that every rank knows."""
    if call.dtype is None or (call.shape is not None and call.operation in _ONE_SIDED):
        return 0
    return call.count * call.dtype.itemsize
