"""Unit tests of layout, semaphores, rings, cross-memory attach and abort record."""

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
from fmi_shim.transports.shm import cma, segment
from fmi_shim.transports.shm.abort_record import AbortRecord
from fmi_shim.transports.shm.layout import (
    ABORT_READY,
    ABORT_RECORD,
    BLOCK_PREFIX,
    BLOCKS,
    CALL_HEADER_BYTES,
    LINE,
    MAX_RANKS,
    MAX_ROW_BYTES,
    PAGE,
    ROUNDS_IN_FLIGHT,
    WINDOW_BYTES,
    Layout,
    layout_for,
)
from fmi_shim.transports.shm.ring import RingReader, RingWriter
from fmi_shim.transports.shm.semaphores import Semaphore

linux = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="POSIX semaphores in shared memory: Linux")


@given(st.integers(1, MAX_RANKS))
def test_no_two_parts_of_a_segment_overlap(size: int) -> None:
    plan = layout_for(size)
    spans = [(ABORT_READY, ABORT_READY + LINE), (ABORT_RECORD, PAGE)]
    for slot_index in range(ROUNDS_IN_FLIGHT):
        spans += [
            (plan.tags(slot_index), plan.tags(slot_index) + 8 * size),
            (plan.result_tag(slot_index), plan.result_tag(slot_index) + 8),
        ]
        spans.append((plan.rows(slot_index), plan.rows(slot_index) + (size + 1) * plan.row_stride(MAX_ROW_BYTES)))
    for rank in range(size):
        spans += [(place(rank), place(rank) + LINE) for place in (plan.closed, plan.doorbell)]
        spans.append((plan.notifications(rank), plan.notifications(rank) + plan.notifications_bytes))
        spans += [
            (plan.call_header(rank, slot_index), plan.call_header(rank, slot_index) + CALL_HEADER_BYTES)
            for slot_index in range(ROUNDS_IN_FLIGHT)
        ]
    few = range(0, size, max(1, size // 8))
    spans += [(plan.ring(src, dst), plan.ring(src, dst) + plan.ring_stride) for src in few for dst in few]
    spans.append((plan.slots, plan.total))
    spans.sort()
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert all(start % 8 == 0 for start, _ in spans)
    assert plan.ring(size - 1, size - 1) + plan.ring_stride <= plan.slots
    assert plan.slot % PAGE == 0
    assert plan.round_stride >= max((size + 1) * plan.slot_stride, WINDOW_BYTES)


@given(st.integers(1, MAX_RANKS))
def test_a_segment_has_a_bounded_size(size: int) -> None:
    assert layout_for(size).total <= max(48 << 20, size * size * 5000 + (40 << 20))
    assert layout_for(16).total <= 48 << 20


@given(st.integers(1, MAX_RANKS))
def test_the_header_of_any_call_fits_a_block(size: int) -> None:
    assert layout_for(size).block >= 8 + 32 + 8 * 32


def make_ring() -> tuple[mmap.mmap, Layout, RingWriter, RingReader]:
    plan = Layout(2, 64, PAGE)
    memory = mmap.mmap(-1, plan.total)
    for offset in (0, LINE):
        Semaphore(memory, plan.ring(0, 1) + offset).initialise()
    return memory, plan, RingWriter(memory, plan, 0, 1), RingReader(memory, plan, 0, 1)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    start = 0
    for cut in sorted({min(cut, len(data)) for cut in cuts} | {len(data)}):
        yield data[start:cut]
        start = cut


@linux
@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000)), st.lists(st.integers(0, 2000)))
def test_a_ring_transfers_bytes_in_order_whatever_the_buffers(data: bytes, sent: list[int], read: list[int]) -> None:
    _, _, writer, reader = make_ring()
    outgoing = [memoryview(piece) for piece in pieces(data, sent) if piece]
    parts = [bytearray(len(piece)) for piece in pieces(data, read)]
    incoming = [memoryview(part) for part in parts if part]
    while outgoing or incoming:
        assert writer.push(outgoing) + reader.pull(incoming) > 0
    assert b"".join(parts) == data


@linux
def test_a_full_ring_accepts_no_block_until_half_of_it_was_read() -> None:
    _, _, writer, reader = make_ring()
    for number in range(BLOCKS):
        assert writer.push([memoryview(bytes([number]))]) == 1
    assert not writer.poll()
    assert not writer.sleep(0.001)
    for number in range(BLOCKS // 2):
        assert not writer.poll()
        found = bytearray(1)
        assert reader.pull([memoryview(found)]) == 1
        assert found[0] == number
    assert writer.poll()


@linux
def test_the_label_of_a_message_can_be_read_before_the_message() -> None:
    _, _, writer, reader = make_ring()
    assert reader.peek() == 0
    writer.push([memoryview(b"abc")], 7)
    writer.push([memoryview(b"def")])
    assert reader.peek() == 7
    found = bytearray(6)
    buffers = [memoryview(found)]
    assert (reader.pull(buffers), reader.label, reader.labelled) == (3, 7, 1)
    assert (reader.pull(buffers), reader.label, reader.labelled) == (3, 0, 1)
    assert found == b"abcdef"


def _reply(memory: mmap.mmap, turns: int) -> None:
    ping, pong = Semaphore(memory, 0), Semaphore(memory, LINE)
    for _ in range(turns):
        while not ping.wait(1.0):
            pass
        number = int.from_bytes(memory[PAGE : PAGE + 8], "little")
        memory[PAGE : PAGE + 8] = (number + 1).to_bytes(8, "little")
        pong.post()


@linux
def test_a_write_before_a_post_is_visible_after_the_wait() -> None:
    memory = mmap.mmap(-1, 2 * PAGE)
    ping, pong = Semaphore(memory, 0), Semaphore(memory, LINE)
    ping.initialise()
    pong.initialise()
    other = multiprocessing.get_context("fork").Process(target=_reply, args=(memory, 2000))
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
def test_the_memory_of_a_process_is_copied_or_the_error_says_why_not() -> None:
    source, target = np.arange(5_000_000.0), np.empty(3_000_000)  # more than one system call's worth
    cma.copy_from_process(os.getpid(), source[1000:].ctypes.data, target)
    assert np.array_equal(target, source[1000:3_001_000])
    with pytest.raises(OSError, match=r"cannot read memory of process .*: Bad address"):
        cma.copy_from_process(os.getpid(), 8, target)
    ended = multiprocessing.get_context("fork").Process(target=int)
    ended.start()
    ended.join()
    with pytest.raises(ProcessLookupError, match=f"cannot read memory of process {ended.pid}: No such process"):
        cma.copy_from_process(ended.pid or 0, source.ctypes.data, target)


@linux
def test_a_semaphore_without_a_post_cannot_be_taken() -> None:
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
def test_a_block_longer_than_its_capacity_is_an_error_and_is_not_read(length: int) -> None:
    memory, plan, writer, reader = make_ring()
    writer.push([memoryview(b"x" * 8)])
    struct.pack_into("<I", memory, plan.ring(0, 1) + 3 * LINE, length)
    room = plan.block - BLOCK_PREFIX
    if length <= room:
        assert reader.pull([memoryview(bytearray(2 * room))]) == length
        return
    with pytest.raises(MismatchError, match=f"block of rank 0: expected at most {room} bytes, got {length}"):
        reader.pull([memoryview(bytearray(2 * room))])


@linux
@given(st.integers(0, 2**32 - 1), st.binary(max_size=200))
def test_a_damaged_abort_record_is_an_abort_or_an_error(length: int, record: bytes) -> None:
    plan = layout_for(2)
    memory = mmap.mmap(-1, plan.total)
    Semaphore(memory, ABORT_READY).initialise(1)
    written = struct.pack("<iI", 1, length) + record
    memory[ABORT_RECORD : ABORT_RECORD + len(written)] = written
    try:
        abort = AbortRecord(memory, plan).read_error()
    except MismatchError as error:
        assert "shared memory is damaged" in str(error)
    else:
        assert abort is not None


@linux
@pytest.mark.parametrize("length", [0, 100, 1 << 20])
def test_a_file_that_is_no_segment_of_this_size_is_not_attached(length: int) -> None:
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
