"""How much memory a process holds."""

import resource
import sys
from pathlib import Path

import psutil

_PROC = sys.platform == "linux"


class MemoryGauge:
    """Reads one process's resident memory.

    On Linux straight from /proc, see proc_pid_statm(5): a tenth of psutil's time, and this is read a hundred times a
    second.

    Parameters
    ----------
    pid
        The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0

    def resident(self) -> int:
        """Return the resident memory now, bytes; 0 when the process has ended."""
        try:
            if _PROC:
                return int(Path(f"/proc/{self._pid}/statm").read_bytes().split()[1]) * resource.getpagesize()
            return int(psutil.Process(self._pid).memory_info().rss)
        except (OSError, psutil.NoSuchProcess):
            return 0

    def peak(self) -> int:
        """Return the most resident memory there has been, bytes; off Linux, the most that was read."""
        self._peak = max(self._peak, self._high_water_mark(), self.resident())
        return self._peak

    def _high_water_mark(self) -> int:
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return 0
        marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(marks[0]) * 1024 if marks else 0
