"""What a rank tells the server of itself first: which rank of which job it is, and where."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from rendezvous.protocol.endpoints import ADDRESS_BYTES, Endpoint, ProtocolError, decode_endpoint
from rendezvous.protocol.v1 import MAX_NAME_BYTES

MAX_JOB_BYTES = 64
MAX_WORLD_SIZE = 65_536
INSTANCE_BYTES = 16

_REGISTER = struct.Struct(f"!II{INSTANCE_BYTES}s{ADDRESS_BYTES}sBB")


@dataclass(frozen=True, slots=True)
class Registration:
    """Which rank of which job, and where it is on its own side of a NAT.

    Attributes
    ----------
    job
        Keeps runs apart that use the same communicator name; may be empty.
    comm_name, rank, world_size
        As given to the communicator.
    instance
        16 random bytes of this communicator: tells a rank that comes back from a second one.
    local
        The rank's end of the control connection, as it sees it itself.
    """

    job: str
    comm_name: str
    rank: int
    world_size: int
    instance: bytes
    local: Endpoint

    def encode(self) -> bytes:
        """Return the bytes of this registration, over which the proof is made."""
        job, name = self.job.encode(), self.comm_name.encode()
        fixed = _REGISTER.pack(self.rank, self.world_size, self.instance, self.local.encode(), len(job), len(name))
        return fixed + job + name


def decode_registration(body: bytes) -> Registration:
    """Return the registration in `body`.

    Raises
    ------
    ProtocolError
        If there is none.
    """
    rank, world_size, instance, local, job_bytes, name_bytes = _REGISTER.unpack_from(body)
    strings = body[_REGISTER.size :]
    if len(strings) != job_bytes + name_bytes:
        raise ProtocolError(f"{job_bytes + name_bytes} bytes were expected, {len(strings)} came")
    if job_bytes > MAX_JOB_BYTES or name_bytes > MAX_NAME_BYTES:
        raise ProtocolError(f"a job has at most {MAX_JOB_BYTES} bytes, a communicator {MAX_NAME_BYTES}")
    if not 0 <= rank < world_size <= MAX_WORLD_SIZE:
        raise ProtocolError(f"rank {rank} of {world_size}; ranks are below the world size, at most {MAX_WORLD_SIZE}")
    job, name = strings[:job_bytes].decode(), strings[job_bytes:].decode()
    return Registration(job, name, rank, world_size, instance, decode_endpoint(local))
