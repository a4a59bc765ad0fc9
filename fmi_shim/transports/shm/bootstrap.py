"""How the ranks of a communicator come to one segment.

They meet over Direct connections, which only pair ranks of one name that come at the same time: two runs of the
same name do not meet, and what a crashed run left does not matter. When all have come, rank 0 makes the segment and
broadcasts its random name, all open it, and as soon as rank 0 knows that, the name is gone: it is there for about a
millisecond. Messages: four trees, ``4 * (p - 1)`` in all.
"""

from __future__ import annotations

import numpy as np

from fmi_shim.collectives import bcast, gather
from fmi_shim.config import DirectConfig
from fmi_shim.errors import ConfigError
from fmi_shim.frames import Call, Operation
from fmi_shim.transports.shm import segment, semaphores
from fmi_shim.transports.shm.segment import TOKEN_BYTES, Segment
from fmi_shim.transports.tcp.framed import FramedChannel

SUFFIX = "shm"
"""Told apart by it, the meeting's connections never pair with those of a Direct channel of the same communicator."""

_BYTE = np.dtype(np.uint8)


def meet(rank: int, size: int, comm_name: str, config: DirectConfig, required: bool = True) -> Segment:
    """Return the segment that all `size` ranks have opened.

    Unless it is `required`, too little memory at rank 0 counts as memory that the ranks do not share.

    Raises
    ------
    ConfigError
        On all ranks, if one of them cannot see rank 0's memory, or there is too little of it.
    FmiError
        As the Direct channel does, if the ranks do not come together.
    """
    channel = FramedChannel(rank, size, comm_name + SUFFIX, config)
    token = b""
    try:
        _begin(channel, 0, 1)
        gather.binomial(channel, np.ones(1, np.uint8), 0)  # all have come: from here on it takes no time
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
        sighted = gather.binomial(channel, np.array([opened is not None], np.uint8), 0)
        if token:
            segment.unlink(token)
        _begin(channel, 3, size)
        sighted = bcast.binomial(channel, np.empty(size, np.uint8) if sighted is None else sighted, 0)
    except BaseException as error:
        channel.fail(error)
        raise
    finally:
        if token:
            segment.unlink(token)
    channel.close()
    if opened is None or not sighted.all():
        blind = ", ".join(map(str, np.flatnonzero(sighted == 0)))
        raise ConfigError(
            f"FMI_CHANNEL is shm, but rank(s) {blind} cannot see the memory of rank 0: run all ranks on one host, "
            "as one user, in containers that share /dev/shm (docker run --ipc=host), or use the Direct channel"
        )
    return opened


def _begin(channel: FramedChannel, sequence: int, count: int) -> None:
    channel.begin(Call(Operation.attach, 0, _BYTE, count), sequence)
