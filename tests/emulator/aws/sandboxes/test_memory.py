"""What a sandbox's memory is: what its processes have written, not what they share with the zygote."""

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emulator.aws.sandboxes.memory import MemoryGauge, anonymous_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere resident memory is counted")

MIB = 1024 * 1024
INHERITED = 64 * MIB


def written(size: int) -> mmap.mmap:
    """Return anonymous memory whose pages exist."""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    touch(block)
    return block


def touch(block: mmap.mmap) -> None:
    for offset in range(0, len(block), mmap.PAGESIZE):
        block[offset] = 1


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """Fork a child that does its work and waits; yield its pid when the work is done."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        kept = work()
        os.write(write, b"." if kept is not None else b"-")
        time.sleep(1000)
    os.read(read, 1)
    try:
        yield pid
    finally:
        os.close(read)
        os.close(write)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_inherited_pages_are_charged_when_they_are_written() -> None:
    shared = written(INHERITED)
    inherited = anonymous_memory()
    with child(lambda: sum(shared[offset] for offset in range(0, INHERITED, mmap.PAGESIZE))) as reader:
        assert MemoryGauge(reader, inherited).estimate() < INHERITED // 4
    with child(lambda: written(INHERITED)) as writer:
        gauge = MemoryGauge(writer, inherited)
        assert 0.9 * INHERITED <= gauge.estimate() < 1.5 * INHERITED
        assert 0.9 * INHERITED <= sum(found.charged for found in gauge.charges()) < 1.5 * INHERITED


def test_children_count_and_what_they_share_counts_once() -> None:
    # In a small process of its own: other forks of this one, and what it writes, change what each page counts for.
    program = "from tests.emulator.aws.sandboxes.test_memory import check_a_family; check_a_family()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[4])


def check_a_family() -> None:
    inherited = anonymous_memory()

    def family() -> object:
        own = written(INHERITED)
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(1000)
        return own

    with child(family) as parent:
        gauge = MemoryGauge(parent, inherited)
        charges = gauge.charges()
        try:
            assert len(charges) == 4
            assert 0.9 * INHERITED <= sum(found.charged for found in charges) < 1.5 * INHERITED
            assert gauge.estimate() > 3 * INHERITED, "the estimate counts shared pages for each process"
        finally:
            for found in charges:
                if found.pid != parent:
                    os.kill(found.pid, signal.SIGKILL)


def test_the_peak_includes_what_was_released() -> None:
    inherited = anonymous_memory()
    with child(lambda: written(INHERITED).close() or True) as pid:
        gauge = MemoryGauge(pid, inherited)
        assert gauge.estimate() < INHERITED // 2
        assert gauge.peak() >= 0.9 * INHERITED


def test_a_process_that_has_ended_has_none() -> None:
    with child(lambda: True) as pid:
        pass
    assert MemoryGauge(pid, 0).estimate() == 0
