"""Short and long messages over a pair of sockets, whole and in pieces, between a rank and bytes written by hand."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from fmi_shim.config import DirectConfig
from fmi_shim.error_codec import decode_termination, goodbye_frame
from fmi_shim.errors import MismatchError, PeerLostError
from fmi_shim.frames import Call, Kind, Operation, header, signature, waiting_frame
from fmi_shim.transports.tcp.connections import Stream
from fmi_shim.transports.tcp.framed import FramedChannel
from rendezvous.protocol.messages import Abort, AbortReason


class Pair:
    """Rank 0, with one connection, and the other end of it."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.channel = FramedChannel(0, 2, "pair", DirectConfig("127.0.0.1", 1, 5.0, framed=True))
        stream = Stream(ours, 1)
        self.channel._streams[1] = stream
        self.channel._by_descriptor[stream.descriptor] = stream

    def begin(self, count: int, sequence: int = 0) -> Call:
        call = Call(Operation.allreduce, sequence, np.dtype("float64"), count, 0, 1)
        self.channel.begin(call, sequence)
        return call


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.channel.close()
    made.theirs.close()


def message(call: Call, values: np.ndarray, kind: Kind = Kind.data) -> bytes:
    return header(signature(call, kind), values.nbytes) + values.tobytes()


@pytest.mark.parametrize("count", [0, 1, 512, 513, 40_000])  # 4096 bytes are the longest of the short ones
@pytest.mark.parametrize("kind", [Kind.data, Kind.posted])
@pytest.mark.parametrize("noted", [False, True])
def test_a_message_is_received_in_pieces_of_any_size(pair: Pair, count: int, kind: Kind, noted: bool) -> None:
    values = np.arange(float(count))
    for sequence in range(3):
        call = pair.begin(count, sequence)
        note = waiting_frame(call, 99) if noted else b""
        data = note + message(call, values + sequence, kind)

        def write_pieces(data: bytes = data) -> None:
            for piece in (data[:7], data[7:33], data[33:60], data[60:]):
                pair.theirs.sendall(piece)
                time.sleep(0.002)

        writer = threading.Thread(target=write_pieces)
        writer.start()
        received = np.empty(count)
        pair.channel.recv(received, 1)
        writer.join()
        np.testing.assert_array_equal(received, values + sequence)


@pytest.mark.parametrize("count", [1, 512, 40_000])
def test_what_is_sent_is_a_header_and_the_payload(pair: Pair, count: int) -> None:
    values = np.arange(float(count))
    expected = message(pair.begin(count), values)
    reader = threading.Thread(target=pair.channel.send, args=(values, 1))
    reader.start()
    came = b""
    while len(came) < len(expected):
        came += pair.theirs.recv(1 << 16)
    reader.join()
    assert came == expected


def test_short_messages_that_do_not_fit_are_exchanged_all_the_same(pair: Pair) -> None:
    """The other end sends only after it has read everything: rank 0 has to go on sending what the kernel left."""
    pair.channel._streams[1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    values, received = np.arange(512.0), np.empty(512)
    call = pair.begin(512)
    rounds = 50

    def read_then_write() -> None:
        left = rounds * len(message(call, values))
        while left:
            left -= len(pair.theirs.recv(1000))
        for _ in range(rounds):
            pair.theirs.sendall(message(call, -values))

    other = threading.Thread(target=read_then_write)
    other.start()
    for _ in range(rounds - 1):
        pair.channel.send(values, 1)
    pair.channel.sendrecv(values, 1, received, 1)
    np.testing.assert_array_equal(received, -values)
    for _ in range(rounds - 1):
        pair.channel.recv(received, 1)
    other.join()


@pytest.mark.parametrize("count", [1, 512, 4_000])
def test_posted_messages_arrive_in_order_if_the_kernel_accepts_only_the_first(pair: Pair, count: int) -> None:
    pair.channel._streams[1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    values = np.arange(float(count))
    call = pair.begin(count)
    posted = [pair.channel.isend(values, 1) for _ in range(6)]
    came = b""
    while not all(pending.done for pending in posted):
        came += pair.theirs.recv(1 << 16)
        pair.channel.progress([posted[-1]], wait=False)
    pair.theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            came += pair.theirs.recv(1 << 16)
    kinds = [message(call, values, kind) for kind in (Kind.data, Kind.posted)]
    length = len(kinds[0])
    assert len(came) == 6 * length
    assert all(came[at : at + length] in kinds for at in range(0, len(came), length))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (message(Call(Operation.barrier, 0, np.dtype("uint8"), 1), np.ones(1, np.uint8)), "rank 1 is in barrier"),
        (message(Call(Operation.allreduce, 0, np.dtype("float64"), 2, 0, 1), np.ones(2)), "2 x float64"),
        (b"GET / HTTP/1.1\r\nHost: someone else\r\n\r\n", "invalid frame"),
    ],
)
def test_another_message_of_any_length_is_peer_error(pair: Pair, sent: bytes, expected: str) -> None:
    pair.begin(1)
    pair.theirs.sendall(sent)
    with pytest.raises(MismatchError, match=expected):
        pair.channel.recv(np.empty(1), 1)


@pytest.mark.parametrize(
    ("last", "expected"), [(b"", "lost rank 1"), (goodbye_frame(), "rank 1 closed the communicator")]
)
def test_the_end_instead_of_a_short_message_is_peer_error(pair: Pair, last: bytes, expected: str) -> None:
    pair.begin(1)
    pair.theirs.sendall(last)
    pair.theirs.close()
    with pytest.raises(PeerLostError, match=expected):
        pair.channel.recv(np.empty(1), 1)


@pytest.fixture
def connected() -> Iterator[tuple[FramedChannel, socket.socket]]:
    """Rank 0, connected by TCP with little memory in the kernel, and the other end."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    channel = FramedChannel(0, 2, "pair", DirectConfig("127.0.0.1", 1, 5.0, framed=True))
    stream = Stream(ours, 1)
    channel._streams[1] = stream
    channel._by_descriptor[stream.descriptor] = stream
    with theirs:
        yield channel, theirs
    channel.close()


def fill(channel: FramedChannel) -> int:
    """Send whole messages of 1 KiB until the kernel accepts no more; return how many bytes were sent."""
    stream, sent = channel._streams[1].socket, 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += stream.send(bytes(1024), socket.MSG_DONTWAIT)
    while sent % 1024:
        with contextlib.suppress(BlockingIOError):
            sent += stream.send(bytes(1024 - sent % 1024), socket.MSG_DONTWAIT)
            continue
        return sent  # the last message is incomplete, which the frame must follow all the same
    return sent


def test_an_error_reaches_a_rank_that_reads_late_and_sends_meanwhile(
    connected: tuple[FramedChannel, socket.socket],
) -> None:
    channel, theirs = connected
    channel.begin(Call(Operation.barrier, 0, np.dtype("uint8"), 1), 0)
    expected = fill(channel)
    failing = threading.Thread(target=channel.fail, args=(RuntimeError("a bug"),))
    failing.start()
    theirs.sendall(bytes(1000))  # unread, it would reset the connection
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := theirs.recv(1 << 16):
            received += data
            theirs.send(b"more", socket.MSG_DONTWAIT)
    failing.join()
    assert received[:expected] == bytes(expected)
    assert decode_termination(memoryview(received[expected:]), 0) == Abort(
        0, 0, AbortReason.failed, "rank 0 in barrier (call 0) raised RuntimeError: a bug"
    )


def test_a_rank_that_never_reads_delays_the_end_of_a_failed_one_for_a_bounded_time(
    connected: tuple[FramedChannel, socket.socket],
) -> None:
    channel, theirs = connected
    channel.begin(Call(Operation.barrier, 0, np.dtype("uint8"), 1), 0)
    fill(channel)
    began = time.monotonic()
    channel.fail(RuntimeError("a bug"))
    assert time.monotonic() - began >= 0.5
    assert theirs.recv(1) == b"\0"


def test_a_closing_rank_with_unread_bytes_says_goodbye(connected: tuple[FramedChannel, socket.socket]) -> None:
    channel, theirs = connected
    theirs.sendall(bytes(1000))
    channel.close()
    assert decode_termination(memoryview(theirs.recv(1000)), 0) is Kind.goodbye
    assert theirs.recv(1) == b""  # and no reset
