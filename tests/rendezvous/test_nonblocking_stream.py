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
    assert kept[:2] == ["0", "1"]
    assert notice.endswith(" lines are missing here: standard error was not read in time")
    assert len(kept) + int(notice.split()[0]) == 100


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
