"""Layout, semaphores and lanes by themselves."""

import itertools
import mmap
import multiprocessing
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.errors import MismatchError
from fmi_shim.transports.shm import process_memory, segment
from fmi_shim.transports.shm.abort_record import Alarm
from fmi_shim.transports.shm.layout import (
    ABORT,
    BLOCK_PREFIX,
    BLOCKS,
    GATE,
    LINE,
    MAX_RANKS,
    PAGE,
    ROW_BYTES,
    SAID_BYTES,
    TURNS,
    WINDOW_BYTES,
    Layout,
    layout_for,
)
from fmi_shim.transports.shm.ring import Inlet, Outlet
from fmi_shim.transports.shm.semaphores import Semaphore

linux = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="POSIX semaphores in shared memory: Linux")


@given(st.integers(1, MAX_RANKS))
def test_everything_has_a_place_of_its_own(size: int) -> None:
    plan = layout_for(size)
    spans = [(GATE, GATE + LINE), (ABORT, PAGE)]
    for turn in range(TURNS):
        spans += [(plan.tags(turn), plan.tags(turn) + 8 * size), (plan.settled(turn), plan.settled(turn) + 8)]
        spans.append((plan.rows(turn), plan.rows(turn) + (size + 1) * plan.row(ROW_BYTES)))
    for rank in range(size):
        spans += [(place(rank), place(rank) + LINE) for place in (plan.farewell, plan.doorbell)]
        spans.append((plan.news(rank), plan.news(rank) + plan.news_bytes))
        spans += [(plan.said(rank, turn), plan.said(rank, turn) + SAID_BYTES) for turn in range(TURNS)]
    few = range(0, size, max(1, size // 8))
    spans += [(plan.lane_of(src, dst), plan.lane_of(src, dst) + plan.lane) for src in few for dst in few]
    spans.append((plan.slots, plan.total))
    spans.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert all(start % 8 == 0 for start, _ in spans)
    assert plan.lane_of(size - 1, size - 1) + plan.lane <= plan.slots
    assert plan.slot % PAGE == 0
    assert plan.turn >= max((size + 1) * plan.stride, WINDOW_BYTES)


@given(st.integers(1, MAX_RANKS))
def test_a_segment_has_a_bounded_size(size: int) -> None:
    assert layout_for(size).total <= max(48 << 20, size * size * 5000 + (40 << 20))
    assert layout_for(16).total <= 48 << 20


@given(st.integers(1, MAX_RANKS))
def test_a_signal_of_any_call_fits_a_block(size: int) -> None:
    assert layout_for(size).block >= 8 + 32 + 8 * 32


def lane() -> tuple[mmap.mmap, Layout, Outlet, Inlet]:
    plan = Layout(2, 64, PAGE)
    memory = mmap.mmap(-1, plan.total)
    for offset in (0, LINE):
        Semaphore(memory, plan.lane_of(0, 1) + offset).initialise()
    return memory, plan, Outlet(memory, plan, 0, 1), Inlet(memory, plan, 0, 1)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    start = 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        yield data[start:cut]
        start = cut


@linux
@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000)), st.lists(st.integers(0, 2000)))
def test_a_lane_hands_bytes_on_in_order_however_they_are_cut(data: bytes, sent: list[int], read: list[int]) -> None:
    _, _, outlet, inlet = lane()
    outgoing = [memoryview(piece) for piece in pieces(data, sent) if piece]
    parts = [bytearray(len(piece)) for piece in pieces(data, read)]
    incoming = [memoryview(part) for part in parts if part]
    while outgoing or incoming:
        assert outlet.push(outgoing) + inlet.pull(incoming) > 0
    assert b"".join(parts) == data


@linux
def test_a_full_lane_takes_no_more_until_half_of_it_was_read() -> None:
    _, _, outlet, inlet = lane()
    for number in range(BLOCKS):
        assert outlet.push([memoryview(bytes([number]))]) == 1
    assert not outlet.poll()
    assert not outlet.sleep(0.001)
    for number in range(BLOCKS // 2):
        assert not outlet.poll()
        found = bytearray(1)
        assert inlet.pull([memoryview(found)]) == 1
        assert found[0] == number
    assert outlet.poll()


@linux
def test_a_label_tells_of_a_message_before_it_is_read() -> None:
    _, _, outlet, inlet = lane()
    assert inlet.peek() == 0
    outlet.push([memoryview(b"abc")], 7)
    outlet.push([memoryview(b"def")])
    assert inlet.peek() == 7
    found = bytearray(6)
    buffers = [memoryview(found)]
    assert (inlet.pull(buffers), inlet.label, inlet.labels) == (3, 7, 1)
    assert (inlet.pull(buffers), inlet.label, inlet.labels) == (3, 0, 1)
    assert found == b"abcdef"


def _answer(memory: mmap.mmap, turns: int) -> None:
    ping, pong = Semaphore(memory, 0), Semaphore(memory, LINE)
    for _ in range(turns):
        while not ping.wait(1.0):
            pass
        number = int.from_bytes(memory[PAGE : PAGE + 8], "little")
        memory[PAGE : PAGE + 8] = (number + 1).to_bytes(8, "little")
        pong.post()


@linux
def test_what_was_written_before_a_post_is_seen_after_the_wait() -> None:
    memory = mmap.mmap(-1, 2 * PAGE)
    ping, pong = Semaphore(memory, 0), Semaphore(memory, LINE)
    ping.initialise()
    pong.initialise()
    other = multiprocessing.get_context("fork").Process(target=_answer, args=(memory, 2000))
    other.start()
    for turn in range(2000):
        memory[PAGE : PAGE + 8] = (7 * turn).to_bytes(8, "little")
        ping.post()
        while not pong.wait(1.0):
            assert other.is_alive()
        assert int.from_bytes(memory[PAGE : PAGE + 8], "little") == 7 * turn + 1
    other.join()
    assert other.exitcode == 0


@linux
def test_the_memory_of_a_process_is_copied_or_it_is_said_why_not() -> None:
    source, target = np.arange(5_000_000.0), np.empty(3_000_000)  # more than one call copies
    process_memory.copy(os.getpid(), source[1000:].ctypes.data, target)
    assert np.array_equal(target, source[1000:3_001_000])
    with pytest.raises(OSError, match="cannot be read: Bad address"):
        process_memory.copy(os.getpid(), 8, target)
    ended = multiprocessing.get_context("fork").Process(target=int)
    ended.start()
    ended.join()
    with pytest.raises(ProcessLookupError, match=f"process {ended.pid} cannot be read: No such process"):
        process_memory.copy(ended.pid or 0, source.ctypes.data, target)


@linux
def test_a_semaphore_without_a_post_lets_nobody_through() -> None:
    memory = mmap.mmap(-1, PAGE)
    semaphore = Semaphore(memory, 0)
    semaphore.initialise(1)
    assert semaphore.try_wait()
    assert not semaphore.try_wait()
    assert not semaphore.wait(0.001)
    semaphore.post()
    assert semaphore.wait(0.001)


@linux
@given(st.integers(0, 2**32 - 1))
def test_a_block_that_announces_more_than_fits_is_named_and_never_read(length: int) -> None:
    memory, plan, outlet, inlet = lane()
    outlet.push([memoryview(b"x" * 8)])
    struct.pack_into("<I", memory, plan.lane_of(0, 1) + 3 * LINE, length)
    room = plan.block - BLOCK_PREFIX
    if length <= room:
        assert inlet.pull([memoryview(bytearray(2 * room))]) == length
        return
    with pytest.raises(MismatchError, match=f"rank 0 announces a block of {length} bytes, {room} fit"):
        inlet.pull([memoryview(bytearray(2 * room))])


@linux
@given(st.integers(0, 2**32 - 1), st.binary(max_size=200))
def test_a_damaged_alarm_is_named_or_an_alarm(length: int, record: bytes) -> None:
    plan = layout_for(2)
    memory = mmap.mmap(-1, plan.total)
    Semaphore(memory, GATE).initialise(1)
    told = struct.pack("<iI", 1, length) + record
    memory[ABORT : ABORT + len(told)] = told
    try:
        heard = Alarm(memory, plan).heard()
    except MismatchError as error:
        assert "the shared memory is damaged" in str(error)
    else:
        assert heard is not None


@linux
@pytest.mark.parametrize("length", [0, 100, 1 << 20])
def test_a_file_that_is_no_segment_of_so_many_ranks_is_not_the_one(length: int) -> None:
    token, made = segment.create(2)
    path = Path("/dev/shm") / f"fmi-{token.hex()}"
    try:
        assert segment.attach(token, 64, 1) is None
        os.truncate(path, length)
        assert segment.attach(token, 2, 1) is None
        path.unlink()
        path.symlink_to("/dev/zero")
        assert segment.attach(token, 2, 1) is None
    finally:
        segment.unlink(token)
        made.close()
