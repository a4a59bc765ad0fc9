"""Output of a sandbox becomes log events, in whatever pieces it arrives."""

import struct
from collections.abc import Sequence

from hypothesis import assume, given
from hypothesis import strategies as st

from emulator.aws.lambda_.log_lines import SandboxLog


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def append(self, region: str, group: str, stream: str, messages: Sequence[str]) -> None:
        assert (group, stream) == ("group", "stream")
        self.kept += messages


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20)), st.data())
def test_output_in_any_pieces_is_logged_as_whole_lines(lines: list[str], data: st.DataObject) -> None:
    output = "".join(f"{line}\n" for line in lines).encode()
    sink = Lines()
    log = SandboxLog(sink, "us-east-1", "group", "stream")
    while output:
        cut = data.draw(st.integers(1, len(output)))
        log.write(output[:cut])
        output = output[cut:]
    assert sink.kept == [f"{line}\n" for line in lines if line.strip()]


@given(st.lists(st.binary(max_size=3000)))
def test_the_tail_is_the_end_of_the_output_since_the_start(outputs: list[bytes]) -> None:
    assume(b"\xa5\x5a\x00" not in b"".join(outputs))  # which begins a frame
    log = SandboxLog(Lines(), "us-east-1", "group", "stream")
    log.write_lines("before")
    log.start_tail()
    for output in outputs:
        log.write(output)
    log.write_lines("END")
    whole = b"".join(outputs)
    whole += b"END\n" if not whole or whole.endswith(b"\n") else b"\nEND\n"
    assert log.tail() == whole[-4096:]


def test_a_platform_line_ends_an_unfinished_line() -> None:
    sink = Lines()
    log = SandboxLog(sink, "us-east-1", "group", "stream")
    log.write(b"unfinished")
    log.write_lines("END")
    assert sink.kept == ["unfinished", "END\n"]


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    sink = Lines()
    SandboxLog(sink, "us-east-1", "group", "stream").write(b"a\xff\n")
    assert sink.kept == ["a\\xff\n"]


def framed(text: str) -> bytes:
    content = text.encode()
    return struct.pack(">IIQ", 0xA55A0003, len(content), 0) + content


@given(st.lists(st.one_of(st.just("line\n"), st.just("[INFO]\ta\nb\n")), min_size=1), st.data())
def test_a_frame_is_one_event_in_whatever_pieces_it_arrives(parts: list[str], data: st.DataObject) -> None:
    output = b"".join(framed(part) if part.startswith("[") else part.encode() for part in parts)
    sink = Lines()
    log = SandboxLog(sink, "us-east-1", "group", "stream")
    while output:
        cut = data.draw(st.integers(1, len(output)))
        log.write(output[:cut])
        output = output[cut:]
    assert sink.kept == parts


def test_a_frame_ends_an_unfinished_line() -> None:
    sink = Lines()
    log = SandboxLog(sink, "us-east-1", "group", "stream")
    log.write(b"unfinished" + framed("record\n") + b"rest\n")
    assert sink.kept == ["unfinished", "record\n", "rest\n"]
