"""Short messages over a pair of sockets, between a rank in an allreduce and bytes written by hand."""

import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from fmi_shim.config import DirectConfig
from fmi_shim.errors import MismatchError, PeerLostError
from fmi_shim.frames import Call, Kind, Operation, header, signature, waiting_frame
from fmi_shim.operators import Operator, ReduceFunction, builtin_combine
from fmi_shim.transports.tcp.connections import Stream
from fmi_shim.transports.tcp.framed import FramedChannel
from fmi_shim.transports.tcp.raw import RawChannel
from fmi_shim.transports.tcp.short_collectives import NumberReduction, ShortReduction
from fmi_shim.transports.tcp.short_messages import SHORT_BYTES

SUM = ReduceFunction(Operator.sum)
LONGEST = SHORT_BYTES // 8


class Pair:
    """Rank 0 of 2 with one connection, and the other end of it."""

    def __init__(self, framed: bool) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(10)
        self.framed = framed
        channel = FramedChannel if framed else RawChannel
        self.channel = channel(0, 2, "pair", DirectConfig("127.0.0.1", 1, 5.0, framed=framed))
        self.stream = Stream(ours, 1)
        self.channel._streams[1] = self.stream
        self.channel._by_descriptor[self.stream.descriptor] = self.stream

    def message(self, values: NDArray[np.float64], sequence: int, kind: Kind = Kind.data) -> bytes:
        call = allreduce(values.size, sequence)
        return (header(signature(call, kind), values.nbytes) if self.framed else b"") + values.tobytes()

    def allreduce(self, values: NDArray[np.float64], sequence: int = 0) -> NDArray[np.float64]:
        call = allreduce(values.size)
        schedule = self.channel.prepare(call, SUM, builtin_combine(Operator.sum, values.dtype))
        assert isinstance(schedule, NumberReduction if values.size == 1 else ShortReduction)
        self.channel.begin(call, sequence)
        return schedule(values, None)


def allreduce(count: int, sequence: int = 0) -> Call:
    return Call(Operation.allreduce, sequence, np.dtype("float64"), count, 0, SUM.code)


@pytest.fixture(params=[True, False], ids=["framed", "raw"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(request.param)
    yield made
    made.channel.close()
    made.theirs.close()


@pytest.mark.parametrize("count", [1, 7, LONGEST])
def test_each_rank_sends_its_value_and_returns_the_sum(pair: Pair, count: int) -> None:
    values = np.arange(float(count))
    for sequence in range(3):
        pair.theirs.sendall(pair.message(2 * values + sequence, sequence))
        np.testing.assert_array_equal(pair.allreduce(values, sequence), 3 * values + sequence)
        sent = pair.message(values, sequence)
        assert pair.theirs.recv(len(sent), socket.MSG_WAITALL) == sent
    np.testing.assert_array_equal(values, np.arange(float(count)))


def test_the_result_replaces_the_value_on_request(pair: Pair) -> None:
    values = np.array([1.0, 2.0])
    call = allreduce(2)
    schedule = pair.channel.prepare(call, SUM, builtin_combine(Operator.sum, values.dtype))
    pair.channel.begin(call, 0)
    pair.theirs.sendall(pair.message(np.array([10.0, 20.0]), 0))
    assert schedule(values, values) is values
    assert values.tolist() == [11.0, 22.0]


def test_a_message_may_arrive_late_and_in_pieces(pair: Pair) -> None:
    values = np.arange(5.0)
    arrives_in_pieces(pair, pair.message(values, 0), values)


@pytest.mark.parametrize("notice", [b"", waiting_frame(allreduce(5), 99)], ids=["", "notice"])
@pytest.mark.parametrize("kind", [Kind.data, Kind.posted])
@pytest.mark.parametrize("pair", [True], indirect=True, ids=["framed"])
def test_a_notice_may_precede_the_message_and_the_message_may_be_posted(pair: Pair, kind: Kind, notice: bytes) -> None:
    values = np.arange(5.0)
    arrives_in_pieces(pair, notice + pair.message(values, 0, kind), values)


def arrives_in_pieces(pair: Pair, data: bytes, values: NDArray[np.float64]) -> None:
    def write_pieces() -> None:
        for piece in (data[:9], data[9:33], data[33:50], data[50:]):
            time.sleep(0.03)  # longer than a rank blocks in the kernel
            pair.theirs.sendall(piece)

    writer = threading.Thread(target=write_pieces)
    writer.start()
    np.testing.assert_array_equal(pair.allreduce(values), 2 * values)
    writer.join()


@pytest.mark.parametrize("room", [0, 100])
def test_a_full_connection_is_waited_for_while_the_message_is_received(pair: Pair, room: int) -> None:
    """As if earlier messages were unread: none, or only a part, of the message is accepted at first."""
    filled = 0
    with pytest.raises(BlockingIOError):
        while True:
            filled += pair.stream.socket.send(bytes(512), socket.MSG_DONTWAIT)
    filled -= len(pair.theirs.recv(room)) if room else 0
    values = np.arange(float(LONGEST))
    message = pair.message(values, 0)
    read = bytearray()

    def answer() -> None:
        pair.theirs.sendall(message)
        while len(read) < filled + len(message):
            read.extend(pair.theirs.recv(filled + len(message) - len(read)))

    reader = threading.Thread(target=answer)
    reader.start()
    np.testing.assert_array_equal(pair.allreduce(values), 2 * values)
    reader.join()
    assert read.endswith(message)


def test_posted_messages_are_moved_first(pair: Pair) -> None:
    values, posted = np.arange(3.0), np.empty(2)
    call = Call(Operation.send, 0, np.dtype("float64"), 2, 1)
    pair.channel.begin(call, 0)
    pending = pair.channel.irecv(posted, 1)
    first = (header(signature(call, Kind.data), 16) if pair.framed else b"") + np.array([4.0, 5.0]).tobytes()
    pair.theirs.sendall(first + pair.message(values, 0))
    np.testing.assert_array_equal(pair.allreduce(values), 2 * values)
    assert pending.done
    assert posted.tolist() == [4.0, 5.0]


@pytest.mark.parametrize("pair", [True], indirect=True, ids=["framed"])
def test_a_rank_in_another_call_is_named(pair: Pair) -> None:
    pair.theirs.sendall(pair.message(np.arange(2.0), 7))
    with pytest.raises(MismatchError, match=r"rank 1 is in allreduce \(call 7, .* rank 0 is in allreduce \(call 0, "):
        pair.allreduce(np.arange(2.0))


def test_a_rank_that_ended_is_named(pair: Pair) -> None:
    pair.theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(PeerLostError, match=r"rank 0 in allreduce .* rank 1"):
        pair.allreduce(np.arange(2.0))
