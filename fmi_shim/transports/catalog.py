"""The transports: one entry each, which says when it is enabled and how it is opened.

A transport is a folder here and an entry in `TRANSPORTS`. Which one an operation takes is decided in `selection`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fmi_shim.backoff import Deadline
from fmi_shim.channel import Channel
from fmi_shim.config import ChannelName, Config, Sharing
from fmi_shim.pairing.rendezvous_client import RendezvousClient, ServerRegistration
from fmi_shim.transports.objects.channel import ObjectChannel
from fmi_shim.transports.objects.redis import RedisStore
from fmi_shim.transports.objects.s3 import S3Store
from fmi_shim.transports.shm.channel import SharedMemoryChannel
from fmi_shim.transports.tcp.framed import FramedChannel
from fmi_shim.transports.tcp.raw import RawChannel


@dataclass(frozen=True, slots=True)
class Place:
    """A rank's place in a communicator.

    Attributes
    ----------
    rank, size
        This rank and the number of ranks.
    comm_name
        Name of the communicator, the same on all ranks.
    config
        The configuration.
    session
        The communicator's session with the rendezvous server; None in raw mode, or where no server is configured.
    deadline
        The instant by which the running call must end, and a channel that it needs must be open.
    """

    rank: int
    size: int
    comm_name: str
    config: Config
    session: RendezvousClient | None = None
    deadline: Deadline = field(default_factory=lambda: Deadline(None))


@dataclass(frozen=True, slots=True)
class Transport:
    """A way to move messages.

    Attributes
    ----------
    name
        Its key in ``fmi.json``.
    enabled
        Whether a configuration enables it.
    open
        Returns its channel, given the rank's place; raises what that channel raises.
    """

    name: ChannelName
    enabled: Callable[[Config], bool]
    open: Callable[[Place], Channel]


def open_direct(place: Place) -> Channel:
    """Return a channel over TCP connections: with headers, or raw where the configuration says so."""
    direct = place.config.direct
    assert direct is not None  # noqa: S101 - it is enabled
    if direct.framed:
        return FramedChannel(place.rank, place.size, place.comm_name, direct, place.session)
    return RawChannel(place.rank, place.size, place.comm_name, direct)


def open_redis(place: Place) -> Channel:
    """Return a channel through Redis."""
    redis = place.config.redis
    assert redis is not None  # noqa: S101 - it is enabled
    registration = ServerRegistration(place.rank, place.session)
    return ObjectChannel(place.rank, place.size, place.comm_name, RedisStore(redis), redis, registration)


def open_s3(place: Place) -> Channel:
    """Return a channel through S3."""
    s3 = place.config.s3
    assert s3 is not None  # noqa: S101 - it is enabled
    registration = ServerRegistration(place.rank, place.session)
    return ObjectChannel(place.rank, place.size, place.comm_name, S3Store(s3), s3, registration)


def open_shared_memory(place: Place) -> Channel:
    """Return a channel through memory that all ranks share. All ranks must call this at the same time.

    Raises
    ------
    ConfigError
        If the ranks share no memory.
    """
    direct = place.config.direct
    assert direct is not None  # noqa: S101 - `load` requires it where memory may be shared
    required = place.config.sharing is Sharing.always
    return SharedMemoryChannel(place.rank, place.size, place.comm_name, direct, required, place.session, place.deadline)


TRANSPORTS = {
    transport.name: transport
    for transport in (
        Transport(ChannelName.Direct, lambda config: config.direct is not None, open_direct),
        Transport(ChannelName.Redis, lambda config: config.redis is not None, open_redis),
        Transport(ChannelName.S3, lambda config: config.s3 is not None, open_s3),
        Transport(ChannelName.SharedMemory, lambda config: config.sharing is not Sharing.never, open_shared_memory),
    )
}
"""All transports, in the order in which FMI compares channels."""
