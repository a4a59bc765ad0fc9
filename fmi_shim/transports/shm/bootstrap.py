"""How the ranks of a communicator open one segment.

They connect over framed TCP, which only pairs ranks of one name that connect at the same time: two runs of the same
name do not pair, and leftovers of a crashed run do not matter. When all ranks are connected, rank 0 creates the segment
and broadcasts its random name. All open it, and rank 0 then unlinks the name, which exists for about a millisecond.
Messages: four trees, ``4 * (p - 1)`` in all.
"""

from __future__ import annotations

import contextlib

import numpy as np

from fmi_shim.backoff import Deadline
from fmi_shim.collectives import bcast, gather
from fmi_shim.config import DirectConfig
from fmi_shim.errors import ConfigError
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array
from fmi_shim.pairing.rendezvous_client import RendezvousClient
from fmi_shim.transports.shm import segment, semaphores
from fmi_shim.transports.shm.segment import TOKEN_BYTES, Segment
from fmi_shim.transports.tcp.framed import FramedChannel

NAME_SUFFIX = "shm"
"""Keeps the bootstrap's connections from pairing with those of a Direct channel of the same communicator."""

_BYTE = np.dtype(np.uint8)


def open_segment(
    rank: int,
    size: int,
    comm_name: str,
    config: DirectConfig,
    required: bool = True,
    session: RendezvousClient | None = None,
    deadline: Deadline | None = None,
) -> Segment:
    """Return the segment, once all `size` ranks have opened it.

    Unless it is `required`, too little memory at rank 0 is treated as memory that the ranks do not share.

    Raises
    ------
    ConfigError
        On all ranks, if one of them cannot see rank 0's memory, or there is too little of it.
    FmiError
        As the Direct channel does, if the ranks cannot connect.
    """
    known = session is not None and session.known
    channel = FramedChannel(rank, size, comm_name + NAME_SUFFIX, config, server_known=known)
    channel.call_deadline = Deadline(None) if deadline is None else deadline
    with channel.monitoring(session) if session is not None else contextlib.nullcontext():
        opened, attached = _open_with(channel, rank, size, required)
    if opened is None or not attached.all():
        missing = ", ".join(map(str, np.flatnonzero(attached == 0)))
        raise ConfigError(
            f"FMI_CHANNEL is shm, but rank(s) {missing} cannot see the memory of rank 0: run all ranks on one host, "
            "as one user, in containers that share /dev/shm (docker run --ipc=host), or use the Direct channel"
        )
    return opened


def _open_with(channel: FramedChannel, rank: int, size: int, required: bool) -> tuple[Segment | None, Array]:
    """Return the segment, None where it cannot be opened, and for each rank whether it has opened it."""
    token = b""
    try:
        _begin(channel, 0, 1)
        gather.binomial(channel, np.ones(1, np.uint8), 0)  # all are connected: the rest takes no time
        opened = None
        if rank == 0 and semaphores.AVAILABLE:
            try:
                token, opened = segment.create(size)
            except ConfigError:
                if required:
                    raise
        _begin(channel, 1, TOKEN_BYTES)
        name = np.frombuffer(token or bytes(TOKEN_BYTES), np.uint8)
        name = name if rank == 0 else name.copy()
        name = bcast.binomial(channel, name, 0)
        if opened is None and semaphores.AVAILABLE:
            opened = segment.attach(name.tobytes(), size, rank)
        _begin(channel, 2, 1)
        attached = gather.binomial(channel, np.array([opened is not None], np.uint8), 0)
        if token:
            segment.unlink(token)
        _begin(channel, 3, size)
        attached = bcast.binomial(channel, np.empty(size, np.uint8) if attached is None else attached, 0)
    except BaseException as error:
        channel.fail(error)
        raise
    finally:
        if token:
            segment.unlink(token)
    channel.close()
    return opened, attached


def _begin(channel: FramedChannel, sequence: int, count: int) -> None:
    channel.begin(Call(Operation.attach, 0, _BYTE, count), sequence)
