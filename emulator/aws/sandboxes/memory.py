"""The memory of a sandbox: the anonymous memory of its processes.

Page cache and /tmp are not counted, and neither is what the processes share with the zygote.
"""

import contextlib
import functools
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_PROC = sys.platform == "linux"
_KIB = 1024


@dataclass(frozen=True)
class ProcessMemory:
    """A process and what it is charged, bytes."""

    pid: int
    charged: int


class MemoryGauge:
    """Reads the memory of a worker and its descendants.

    On Linux, anonymous memory is resident memory less that of files, see proc_pid_statm(5): a hundred reads a second
    take a tenth of psutil's time. What a fork inherits from the zygote stays the zygote's until the fork writes to it,
    and is not charged. Processes that share pages with each other are charged too much by that: `charges` is exact, and
    slower.

    Parameters
    ----------
    pid
        The process id of the worker.
    inherited
        The anonymous memory of the zygote when it forked the worker, bytes.
    """

    def __init__(self, pid: int, inherited: int) -> None:
        self._pid = pid
        self._inherited = inherited
        self._peak = 0

    def estimate(self) -> int:
        """Return the memory of all processes, bytes, or more; 0 when the worker has ended."""
        total = sum(max(0, anonymous_memory(pid) - self._inherited) for pid in process_tree(self._pid))
        self._peak = max(self._peak, total)
        return total

    def charges(self) -> list[ProcessMemory]:
        """Return what each process is charged, bytes: pages that processes share are divided among them."""
        if not _PROC:
            return [ProcessMemory(pid, anonymous_memory(pid)) for pid in process_tree(self._pid)]
        own = _proportional_memory("self")
        return [ProcessMemory(pid, self._charge(pid, own)) for pid in process_tree(self._pid)]

    def peak(self) -> int:
        """Return the largest memory so far, bytes, as far as it was read."""
        now = self.estimate()
        # What the worker itself has released since its own peak.
        self._peak = max(self._peak, now + _released(self._pid))
        return self._peak

    def raise_peak(self, peak: int) -> None:
        """Take a peak that another gauge of the same worker has read."""
        self._peak = max(self._peak, peak)

    def _charge(self, pid: int, shared_with_zygote: int) -> int:
        found = _proportional_memory(str(pid))
        return max(0, found - shared_with_zygote) if _command(pid) == _command_of_zygote() else found


def anonymous_memory(pid: int | str = "self") -> int:
    """Return the anonymous memory of a process, bytes; elsewhere than on Linux its resident memory; 0 at its end."""
    try:
        if _PROC:
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_bytes().split()
            return (int(resident) - int(shared)) * resource.getpagesize()
        return int(psutil.Process(None if pid == "self" else int(pid)).memory_info().rss)
    except (OSError, psutil.NoSuchProcess):
        return 0


def resident_memory() -> int:
    """Return the resident memory of this process, bytes."""
    if _PROC:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    return int(psutil.Process().memory_info().rss)


def process_tree(pid: int) -> Iterator[int]:
    """Yield a process and its descendants; see proc_pid_children(5)."""
    yield pid
    try:
        if _PROC:
            children = [
                int(child)
                for thread in Path(f"/proc/{pid}/task").iterdir()
                for child in (thread / "children").read_text().split()
            ]
        else:
            children = [child.pid for child in psutil.Process(pid).children()]
    except (OSError, psutil.NoSuchProcess):
        return
    for child in children:
        yield from process_tree(child)


def _proportional_memory(pid: str) -> int:
    """Return the anonymous memory of a process, each page divided by the processes that share it, bytes."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * _KIB
    return anonymous_memory(pid)


def _released(pid: int) -> int:
    """Return by how much the resident memory of a process is below its peak, bytes."""
    if not _PROC:
        return 0
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    sizes = {line.split()[0]: int(line.split()[1]) * _KIB for line in lines if line.startswith(("VmHWM:", "VmRSS:"))}
    return sizes.get("VmHWM:", 0) - sizes.get("VmRSS:", 0)


def _command(pid: int | str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@functools.cache
def _command_of_zygote() -> bytes:
    """Return the command line of this process, which its forks have, too, until they run another program."""
    return _command("self")
