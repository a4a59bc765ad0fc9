"""The daemon's stream of output, and the marks in it."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.limits import LOG_EVENT_BYTES
from emulator.aws.sandboxes.containers.output import MarkedOutput, OutputFrames, OutputPipes, WholeLines, new_mark

_STREAMS = st.sampled_from([1, 2])
_SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=20)


def frame(stream: int, output: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(output).to_bytes(4) + output


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    parts, turn = [], 0
    while stream:
        size = sizes[turn % len(sizes)]
        parts.append(stream[:size])
        stream, turn = stream[size:], turn + 1
    return parts


@given(st.lists(st.tuples(_STREAMS, st.binary(max_size=300)), max_size=20), _SIZES)
def test_frames_are_decoded_however_the_stream_is_cut(outputs: list[tuple[int, bytes]], sizes: list[int]) -> None:
    frames, received = OutputFrames(), {1: b"", 2: b""}
    for part in cut(b"".join(frame(*output) for output in outputs), sizes):
        for stream, piece in frames.feed(part):
            received[stream] += piece
    for stream, text in received.items():
        assert text == b"".join(output for number, output in outputs if number == stream)


@given(st.binary(max_size=60), st.binary(max_size=60), st.sampled_from([b"", b"m", b"mark", b"mar"]), _SIZES, _SIZES)
def test_marks_are_taken_out_of_the_output_however_it_is_cut(
    before: bytes, after: bytes, like: bytes, pieces: list[int], sizes: list[int]
) -> None:
    mark = b"mark-of-this-test"
    # The end of the output before it may look like a mark, and frames end anywhere in one.
    written = cut(before + like + mark + after, pieces)
    output, received, arrived = MarkedOutput(), b"", 0
    output.expect(mark)
    for part in cut(b"".join(frame(1, piece) for piece in written), sizes):
        texts, marks = output.feed(part)
        received += b"".join(text for _, text in texts)
        if marks:
            arrived += 1
            assert received.startswith(before + like)
    assert received + b"".join(text for _, text in output.end()) == before + like + after
    assert arrived == 1


def test_what_looks_like_a_mark_is_delivered_when_no_mark_is_expected_and_at_the_end() -> None:
    output = MarkedOutput()
    output.expect(b"mark")
    assert output.feed(frame(1, b"text ma"))[0] == [(1, b"text ")]
    # The beginning on one stream is not continued by the other.
    assert output.feed(frame(2, b"rk"))[0] == [(2, b"rk")]
    output.forget(b"mark")
    assert output.feed(frame(1, b"rk"))[0] == [(1, b"mark")]
    output.expect(b"mark")
    output.feed(frame(1, b"m"))
    assert output.end() == [(1, b"m")]


@given(st.lists(st.tuples(_STREAMS, st.sampled_from([b"a", b"b\n", b"\n", b"cd\nef"])), max_size=20))
def test_the_lines_of_one_stream_are_not_cut_by_the_other(pieces: list[tuple[int, bytes]]) -> None:
    lines = WholeLines()
    delivered = [lines.feed(stream, piece) for stream, piece in pieces]
    assert all(text.endswith(b"\n") for text in delivered if text)
    unfinished = lines.flush()
    for stream in (1, 2):
        own = WholeLines()
        text = b"".join(own.feed(number, piece) for number, piece in pieces if number == stream)
        written = b"".join(piece for number, piece in pieces if number == stream)
        assert text + own.flush() == written
        assert all(line in b"".join(delivered).splitlines() for line in text.splitlines())
    assert len(b"".join(delivered)) + len(unfinished) == sum(len(piece) for _, piece in pieces)


def test_a_very_long_line_is_delivered_unfinished() -> None:
    lines, long = WholeLines(), b"x" * (LOG_EVENT_BYTES + 1)
    assert lines.feed(1, b"a\n" + long) == b"a\n" + long
    assert lines.flush() == b""


def test_a_mark_follows_what_is_in_the_pipes_even_in_full_ones() -> None:
    async def run() -> None:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        process = os.getpid()
        saved = [os.dup(1), os.dup(2)]
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        try:
            pipes = OutputPipes.of_process(process)
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)
        assert pipes is not None
        # Both were the same pipe.
        (descriptor,) = pipes.descriptors
        filled = 0
        while True:
            try:
                filled += os.write(writer, b"x" * 4096)
            except BlockingIOError:
                break
        mark = new_mark()
        writing = asyncio.create_task(pipes.write(descriptor, mark))
        await asyncio.sleep(0)
        assert not writing.done()
        assert os.read(reader, filled) == b"x" * filled
        assert await writing
        assert os.read(reader, filled) == mark
        os.close(writer)
        os.close(reader)
        assert not await pipes.write(descriptor, mark)
        pipes.close()
        assert not await pipes.write(descriptor, mark)

    asyncio.run(run())


def test_what_is_no_pipe_has_no_marks() -> None:
    with Path(os.devnull).open("w") as null:
        saved = os.dup(1)
        os.dup2(null.fileno(), 1)
        try:
            assert OutputPipes.of_process(os.getpid()) is None
        finally:
            os.dup2(saved, 1)
            os.close(saved)
