"""An announced length allocates no memory before the data arrives: read in processes with little memory."""

import multiprocessing
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from fmi_shim.errors import FmiError
from fmi_shim.frames import Call, Kind, Operation, header, signature
from fmi_shim.transports.objects.codec import ReceivedObject
from rendezvous.protocol import ProtocolError, Replies
from rendezvous.protocol.messages import Decoder
from rendezvous.protocol.waiting import Waiting
from tests.fmi_shim.transports.test_framing import Listener, Tape

LEFT = 128 << 20
"""Bytes of memory that a process has left."""
LENGTHS = [0, *(2**bits + more for bits in range(3, 64) for more in (-1, 0, 8)), 2**64 - 1]
OPEN = Call(Operation.send, 3, None, 0, 1)

Reading = tuple[str, Callable[[], object]]


def frames() -> Iterator[Reading]:
    """Yield, for each kind and length, how a message is read that announces it and does not come."""
    for length in LENGTHS:
        shape = (length // 8,)
        for call in (replace(OPEN, dtype=np.dtype(float), count=length // 8, shape=shape), replace(OPEN, shape=None)):
            for kind in Kind:
                head = header(signature(call, kind), length, call.shape)
                for expected in (OPEN, replace(OPEN, dtype=np.dtype(float), count=1)):
                    listener = Listener(Tape(head, 4096), expected)
                    read = (lambda to=listener: to.recv_new(1)) if expected is OPEN else _filled(listener)
                    yield f"a {kind.name} frame of {length} bytes", read
        content = header(signature(replace(OPEN, dtype=np.dtype(float), count=length // 8, shape=shape)), length, shape)
        yield f"an object of {length} bytes", ReceivedObject(content, 1, "the object", 0, OPEN).new_array


def _filled(listener: Listener) -> Callable[[], object]:
    return lambda: listener.recv(np.empty(1), 1)


def messages() -> Iterator[Reading]:
    """Yield, for each kind and length, how a rendezvous message is fed that announces it, with a little of it."""
    for kind in range(16):
        for length in {length & 0xFFFF for length in LENGTHS}:
            whole = struct.pack("!HB", length, kind) + bytes(min(length, 64))
            yield f"message {kind} of {length} bytes", lambda data=whole: Decoder().feed(data)
    for counts in range(0, 65536, 255):
        body = struct.pack("!IBQH", 1, 0, 0, counts)
        whole = struct.pack("!HB", len(body), Waiting.kind) + body
        yield f"{counts} counts", lambda data=whole: Decoder().feed(data)
    yield "endless records", lambda: Replies().feed(bytes(1 << 20))


def read_all(readings: Callable[[], Iterator[Reading]], result: Connection) -> None:
    """Read everything with `LEFT` bytes of memory; send those that did not raise an error of the library."""
    import resource  # there is none on Windows, nor such a limit on macOS

    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + LEFT, in_use + LEFT))
    wrong = []
    for name, read in readings():
        try:
            read()
        except (FmiError, ProtocolError):
            pass
        except BaseException as error:  # noqa: BLE001 - any other error is a failure
            wrong.append(f"{name}: {error!r}")
    result.send(wrong)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="a process's memory can be limited on Linux only")
@pytest.mark.parametrize("readings", [frames, messages])
def test_an_announced_length_allocates_no_memory(readings: Callable[[], Iterator[Reading]]) -> None:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    child = context.Process(target=read_all, args=(readings, theirs))
    child.start()
    theirs.close()
    try:
        assert ours.poll(50), "it hangs"
        assert ours.recv() == []
    finally:
        child.kill()
        child.join()
