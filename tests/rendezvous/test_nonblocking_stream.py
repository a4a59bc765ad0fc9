"""Standard error whose reader does not read: the program goes on, and the missing lines are counted."""

import io
import os
import threading
import time

import pytest

from rendezvous.nonblocking_stream import NonBlockingStream


class Slow(io.StringIO):
    """A stream that blocks until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait()
        return super().write(text)


def test_lines_beyond_the_queue_are_counted_and_the_number_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendezvous.nonblocking_stream._MOST_WAITING", 10)
    slow = Slow()
    stream = NonBlockingStream(slow, may_block=lambda: False)
    for number in range(100):
        print(number, file=stream, flush=True)
    slow.released.set()
    stream.close()
    text = slow.getvalue()
    *kept, notice, _ = text.split("\n")
    numbers = [int(line) for line in kept]
    # The thread takes the first line whenever it starts, which makes place for another one.
    assert numbers[:10] == [*range(10)]
    assert numbers[10:] == [] or (len(numbers) == 11 and 10 <= numbers[10] < 100)
    assert notice.endswith(" lines are missing here: standard error was not read in time")
    assert len(kept) + int(notice.split()[0]) == 100


@pytest.mark.parametrize("thread_has_the_first", [True, False])
def test_a_line_is_written_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch, thread_has_the_first: bool) -> None:
    monkeypatch.setattr("rendezvous.nonblocking_stream._MOST_WAITING", 3)
    slow = Slow()
    stream = NonBlockingStream(slow, may_block=lambda: False)
    stream.write("begun")
    if thread_has_the_first:
        stream.flush()
        while not stream._waiting.empty():
            time.sleep(0.001)
    for number in range(10):
        print(number, file=stream)
    stream.write("last")
    slow.released.set()
    stream.close()
    *kept, notice, _ = slow.getvalue().split("\n")
    assert kept[:2] == ["begun0", "1"]
    assert all(line in ("begun0", "last", *"123456789") for line in kept)
    assert notice.split()[1:3] == ["lines", "are"]


def test_a_begun_line_is_queued_by_flush() -> None:
    text = io.StringIO()
    stream = NonBlockingStream(text, may_block=lambda: True)
    stream.write("50 %")
    stream.flush()
    assert text.getvalue() == "50 %"
    stream.write(" 100 %\n")
    stream.close()
    assert text.getvalue() == "50 % 100 %\n"


def test_nothing_of_another_thread_comes_between_the_lines_of_a_text() -> None:
    written = io.StringIO()
    stream = NonBlockingStream(written, may_block=lambda: False)
    stream.write("first\nsecond")  # as print does: the end of the line is another call
    other = threading.Thread(target=lambda: print("other", file=stream))
    other.start()
    other.join()
    stream.write("\nbegun")
    stream.write("\n")
    stream.write("last")
    stream.close()
    assert written.getvalue() == "other\nfirst\nsecond\nbegun\nlast"


def test_a_thread_that_may_wait_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendezvous.nonblocking_stream._MOST_WAITING", 10)
    slow = Slow()
    stream = NonBlockingStream(slow, may_block=lambda: True)
    threading.Timer(0.1, slow.released.set).start()
    for number in range(100):
        print(number, file=stream)
    stream.flush()
    assert slow.getvalue().split() == [str(number) for number in range(100)]
    stream.close()


def test_the_end_waits_for_a_stuck_reader_for_a_limited_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendezvous.nonblocking_stream._CLOSE_S", 0.1)
    slow = Slow()
    stream = NonBlockingStream(slow, may_block=lambda: True)
    stream.stop_waiting()
    print("last words", file=stream, flush=True)
    started = time.monotonic()
    stream.close()
    assert time.monotonic() - started < 5
    assert slow.getvalue() == ""
    slow.released.set()


def test_a_closed_pipe_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        stream = NonBlockingStream(pipe, may_block=lambda: True)
        print("nobody reads", file=stream, flush=True)
        stream.close()
        with pytest.raises(BrokenPipeError):
            pipe.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())
