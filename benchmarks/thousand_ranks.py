"""A world of a thousand ranks on this machine: time until all have connected and finished an allreduce of 8 bytes.

The ranks are forked from one process that has imported numpy and fmi_shim, as the emulator's zygote does, and has run
the same program in a few worlds of two before: then the code that CPython specialises at its first runs is shared, a
sixth of a rank's memory. The time is measured from the first fork to the last rank's result. Memory is measured while
all ranks run, every shared page once.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fmi_shim as fmi
from benchmarks import arguments
from benchmarks.cleanup import exit_on_signals, signals_blocked_in_forks
from benchmarks.local_server import running_server

GOAL_SECONDS = 15.0
GOAL_BYTES = 4e9
_LIMIT_SECONDS = 120
_REHEARSALS = 10
"""CPython 3.11 specialises code that has run 8 times (``QUICKENING_WARMUP_DELAY``, Include/internal/pycore_code.h)."""
_RESULT = np.dtype([("finished", np.float64), ("sum", np.float64)])


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a world.

    Attributes
    ----------
    ranks
        World size.
    forked, first, last
        Seconds from the first fork until all ranks were forked, the first rank had the result, and all had it.
    memory_bytes
        Of all ranks, this process and the server, each shared page once (PSS); None if it cannot be read.
    descriptors
        Most open files of a rank, and of the server; None if it cannot be read.
    threads
        Most threads of a rank; None if it cannot be read.
    loopback_bytes
        Bytes through the loopback interface in this time, including other programs; None if it cannot be read.
    """

    ranks: int
    forked: float
    first: float
    last: float
    memory_bytes: int | None
    descriptors: tuple[int, int] | None
    threads: int | None
    loopback_bytes: int | None

    def __str__(self) -> str:
        lines = [
            f"{self.ranks} ranks: forked in {self.forked:.2f} s, the first had the sum after {self.first:.2f} s, "
            f"the last after {self.last:.2f} s (goal at 1000 ranks: {GOAL_SECONDS:.0f} s)"
        ]
        if self.memory_bytes is not None:
            a_rank = self.memory_bytes / self.ranks
            lines.append(
                f"memory: {self.memory_bytes / 1e6:.0f} MB for all, {a_rank / 1e6:.2f} MB per rank "
                f"(goal at 1000 ranks: {GOAL_BYTES / 1e9:.0f} GB)"
            )
        if self.descriptors is not None:
            lines.append(
                f"at most {self.descriptors[0]} open files and {self.threads} thread(s) per rank; "
                f"{self.descriptors[1]} open files at the rendezvous server"
            )
        if self.loopback_bytes is not None:
            lines.append(
                f"loopback: {self.loopback_bytes / 1e6:.1f} MB, {self.loopback_bytes / self.ranks / 1e3:.1f} kB "
                "per rank"
            )
        return "\n".join(lines)


def measure(ranks: int) -> Figures:
    """Run a world of this many ranks.

    Raises
    ------
    RuntimeError
        If a rank failed or computed a wrong sum.
    """
    _raise_descriptor_limit()
    with running_server() as server, tempfile.TemporaryDirectory() as folder, _world() as children:
        config = Path(folder) / "fmi.json"
        server.write_config(config, 1000 * _LIMIT_SECONDS)
        for rehearsal in range(_REHEARSALS):
            _rehearse(config, f"rehearsal-{rehearsal}-")
        results, results_end = os.pipe()
        stay, stay_end = os.pipe()  # the ranks live until its write end is closed
        gc.collect()
        gc.freeze()  # so that a collection in a rank does not write to, and thereby copy, shared pages
        traffic = _loopback_bytes()
        began = time.monotonic()
        with signals_blocked_in_forks():
            for rank in range(ranks):
                child = os.fork()
                if child == 0:
                    os.close(results)
                    os.close(stay_end)
                    _run_rank(rank, ranks, config, results_end, stay)
                children.append(child)
        forked = time.monotonic() - began
        os.close(results_end)
        os.close(stay)
        found = np.frombuffer(_collect(results, ranks), _RESULT)
        traffic = None if traffic is None else (_loopback_bytes() or 0) - traffic
        expected = ranks * (ranks - 1) / 2
        if len(found) < ranks or (found["sum"] != expected).any():
            raise RuntimeError(f"{ranks - len(found)} of {ranks} ranks failed, see above; sums {set(found['sum'])}")
        figures = Figures(
            ranks,
            forked,
            float(found["finished"].min()) - began,
            float(found["finished"].max()) - began,
            _memory([os.getpid(), server.pid, *children]),
            _descriptors(children, server.pid),
            _threads(children),
            traffic,
        )
        os.close(stay_end)
        os.close(results)
        for child in children:
            os.waitpid(child, 0)
        children.clear()
    return figures


def _sum(comm: fmi.Communicator) -> float:
    return float(comm.allreduce(np.array([float(comm.rank)]), fmi.func(fmi.op.sum))[0])


def _rehearse(config: Path, name: str) -> None:
    """Run the program as rank 0 of two."""
    child = os.fork()
    try:
        with fmi.Communicator(0 if child else 1, 2, config, name) as comm:
            _sum(comm)
    finally:
        if child == 0:
            os._exit(0)
    os.waitpid(child, 0)


def _run_rank(rank: int, ranks: int, config: Path, results: int, stay: int) -> None:
    """Run as a rank: reduce, write the result, wait until all ranks were measured. Never returns."""
    status = 1
    try:
        with fmi.Communicator(rank, ranks, config, "thousand-") as comm:
            total = _sum(comm)
            os.write(results, np.array([(time.monotonic(), total)], _RESULT).tobytes())  # atomic: below PIPE_BUF
            os.read(stay, 1)
        status = 0
    except BaseException as error:  # noqa: BLE001 - must not return into the parent's code
        print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


@contextmanager
def _world() -> Iterator[list[int]]:
    """Yield a list for the ranks' process ids. Processes that are in it at the end are killed."""
    children: list[int] = []
    try:
        yield children
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)


def _collect(results: int, ranks: int) -> bytes:
    """Return the results of the ranks; fewer than all if a rank failed or the time limit passed."""
    found = b""
    end = time.monotonic() + _LIMIT_SECONDS
    while len(found) < ranks * _RESULT.itemsize:
        if not select.select([results], [], [], max(0.0, end - time.monotonic()))[0]:
            break
        data = os.read(results, 1 << 16)
        if not data:
            break
        found += data
    return found


def _raise_descriptor_limit() -> None:
    """Raise the limit of open files to its maximum: the rendezvous server has one for each rank."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _memory(processes: Sequence[int]) -> int | None:
    """Return the proportional set size of all processes in bytes."""
    try:
        rollups = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    except OSError:
        return None
    return sum(1024 * int(line.split()[1]) for text in rollups for line in text.splitlines() if line[:4] == "Pss:")


def _descriptors(ranks: Sequence[int], server: int) -> tuple[int, int] | None:
    try:
        counts = [len(list(Path(f"/proc/{process}/fd").iterdir())) for process in (*ranks, server)]
    except OSError:
        return None
    return max(counts[:-1]), counts[-1]


def _threads(ranks: Sequence[int]) -> int | None:
    try:
        return max(len(list(Path(f"/proc/{process}/task").iterdir())) for process in ranks)
    except OSError:
        return None


def _loopback_bytes() -> int | None:
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[:1] == ["lo:"]), None)


def main(given: Sequence[str] | None = None) -> int:
    """Print the figures of one world."""
    parser = arguments.parser("benchmarks.thousand_ranks", __doc__)
    parser.add_argument(
        "--ranks", type=arguments.positive, default=1000, metavar="N", help="world size (default: %(default)s)"
    )
    options = parser.parse_args(given)
    exit_on_signals()
    print(measure(options.ranks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
