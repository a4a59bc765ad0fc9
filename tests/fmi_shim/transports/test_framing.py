"""Arbitrary bytes instead of a message raise an error of the library, and allocate no memory."""

import tracemalloc
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.error_codec import abort_frame, goodbye_frame
from fmi_shim.errors import FmiError, MismatchError, PeerLostError
from fmi_shim.frames import Call, Kind, Operation, header, signature, waiting_frame
from fmi_shim.transports import framing
from fmi_shim.transports.framing import Framing
from fmi_shim.transports.transfers import Buffers, OnReceived, Transfer, advance
from rendezvous.protocol.messages import Abort, AbortReason


@dataclass
class Tape:
    """A link from which recorded bytes come, `step` at a time."""

    data: bytes
    step: int
    peer: int = 1
    ended: bool = False
    sent: int = 0
    received: int = 0

    def push_back(self, data: bytes) -> None:
        self.data = data + self.data


class Listener(Framing[Tape]):
    def __init__(self, tape: Tape, call: Call) -> None:
        self.rank, self.size, self.tape = 0, 2, tape
        self._expect(call)

    def _link(self, peer: int) -> Tape:
        return self.tape

    def _post(self, transfer: Transfer[Tape]) -> Transfer[Tape]:
        raise AssertionError("nothing is posted here")

    def _move(
        self,
        target: Tape | None,
        outgoing: Buffers,
        source: Tape | None,
        incoming: Buffers,
        on_received: OnReceived | None = None,
    ) -> None:
        assert source is not None
        advance(incoming, 0)
        while incoming:
            piece = source.data[: min(source.step, len(incoming[0]))]
            if not piece:
                raise PeerLostError("the tape is over")
            source.data = source.data[len(piece) :]
            incoming[0][: len(piece)] = piece
            advance(incoming, len(piece))
            if on_received is not None:
                on_received(len(piece))


CALL = Call(Operation.send, 3, np.dtype("float64"), 4, 1, 0, (2, 2))
OPEN = Call(Operation.send, 3, None, 0, 1)
VALUES = np.arange(4.0)
MESSAGE = header(signature(CALL), 32, (2, 2)) + VALUES.tobytes()
POSTED = header(signature(CALL, Kind.posted), 32, (2, 2)) + VALUES.tobytes()
NOTE = waiting_frame(CALL, 7)

frames = st.sampled_from([MESSAGE, POSTED, NOTE, goodbye_frame(), abort_frame(Abort(0, 1, AbortReason.failed, "text"))])
noise = st.binary(max_size=80)
damage = st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=8))


def damaged(parts: list[bytes], change: tuple[int, bytes] | None) -> bytes:
    data = bytearray(b"".join(parts))
    if change is not None:
        at, replacement = change
        data[at : at + len(replacement)] = replacement
    return bytes(data)


tapes = st.builds(
    Tape,
    st.builds(damaged, st.lists(frames | noise, max_size=4), st.none() | damage),
    st.sampled_from([1, 7, 32, 4096]),
)


@given(tapes, st.booleans())
def test_any_bytes_are_a_message_or_an_error_and_cost_no_memory(tape: Tape, known: bool) -> None:
    listener = Listener(tape, CALL if known else OPEN)
    tracemalloc.start()
    try:
        received = listener.recv(np.empty((2, 2)), 1) if known else listener.recv_new(1)
        assert received is None or received.nbytes <= 4096
    except FmiError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 26


@given(st.lists(st.just(NOTE), max_size=3), st.sampled_from([MESSAGE, POSTED]), st.sampled_from([1, 7, 32, 4096]))
def test_wait_notices_before_a_message_are_skipped(notes: list[bytes], message: bytes, step: int) -> None:
    filled = np.empty((2, 2))
    Listener(Tape(b"".join([*notes, message]), step), CALL).recv(filled, 1)
    assert filled.ravel().tolist() == VALUES.tolist()
    opened = Listener(Tape(b"".join([*notes, message]), step), OPEN).recv_new(1)
    assert opened.tolist() == filled.tolist()


@pytest.mark.parametrize("step", [7, 32])
def test_an_invalid_wait_notice_is_an_error_that_names_the_rank(step: int) -> None:
    damaged_note = b"??" + NOTE[2:]
    with pytest.raises(MismatchError, match="invalid frame of rank 1"):
        Listener(Tape(damaged_note + MESSAGE, step), CALL).recv(np.empty((2, 2)), 1)


def test_a_message_above_the_size_limit_is_refused_before_memory_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert framing.MAX_ANNOUNCED_BYTES == 16 << 30
    monkeypatch.setattr(framing.np, "empty", lambda *_: pytest.fail("memory was asked for"))
    for count in ((16 << 30) // 8 + 1, 1 << 40):
        head = header(signature(replace(CALL, count=count, shape=(count,))), 8 * count, (count,))
        with pytest.raises(MismatchError, match=f"announced {8 * count} bytes"):
            Listener(Tape(head, 4096), OPEN).recv_new(1)
