"""Measures from which size on the schedule for large payloads is faster, for each operation over Direct.

Prints the time of both schedules, then the switch points of this machine in the form of FMI_SWITCH_POINTS. The table in
`fmi_shim.transports.tcp.switch_points` comes from here. It takes about two minutes on 2 cores.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks import arguments
from benchmarks.cleanup import exit_on_signals, signals_blocked_in_forks
from benchmarks.local_server import running_server
from fmi_shim import config
from fmi_shim.channel import Channel
from fmi_shim.collectives import allgather, allreduce, alltoall, reduce
from fmi_shim.frames import Call, Operation
from fmi_shim.operators import Array, Operator, builtin_combine
from fmi_shim.transports.tcp.framed import FramedChannel

SIZES = tuple(1 << exponent for exponent in range(14, 24))
WORLDS = (2, 4, 8)

_FLOAT64 = np.dtype(np.float64)
_COMBINE = builtin_combine(Operator.max, _FLOAT64)  # repeated sums would overflow to infinity
_BYTES_A_TURN = 16 << 20
_CALLS_A_TURN = 40

Schedule = Callable[[Channel, Array], object]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the table: an operation's schedules for payloads below the point, and from it on."""

    operation: Operation
    below: Schedule
    above: Schedule


def _at_root(channel: Channel, buffer: Array) -> Array | None:
    return buffer if channel.rank == 0 else None


def _slices(channel: Channel, buffer: Array) -> tuple[Array, Array]:
    outgoing = buffer.reshape(channel.size, -1)
    return outgoing, np.empty_like(outgoing)


ENTRIES: Mapping[str, Entry] = {
    "allreduce": Entry(
        Operation.allreduce,
        lambda channel, buffer: allreduce.recursive_doubling(channel, buffer, _COMBINE),
        lambda channel, buffer: allreduce.reduce_scatter_allgather(channel, buffer, buffer, _COMBINE),
    ),
    "reduce": Entry(
        Operation.reduce,
        lambda channel, buffer: reduce.binomial(channel, buffer, 0, _COMBINE),
        lambda channel, buffer: reduce.pipelined(channel, buffer, _at_root(channel, buffer), 0, _COMBINE),
    ),
    "alltoall": Entry(
        Operation.alltoall,
        lambda channel, buffer: alltoall.bruck(channel, *_slices(channel, buffer)),
        lambda channel, buffer: alltoall.spread(channel, *_slices(channel, buffer)),
    ),
    "allgather": Entry(
        Operation.allgather,
        lambda channel, buffer: allgather.bruck(channel, buffer.reshape(channel.size, -1)),
        lambda channel, buffer: allgather.ring(channel, buffer.reshape(channel.size, -1)),
    ),
}


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds per call of both schedules: medians, over the turns, of the slowest rank."""

    entry: str
    size_bytes: int
    world_size: int
    below: float
    above: float

    @property
    def ratio(self) -> float:
        """How many times longer the schedule for large payloads takes."""
        return self.above / self.below


def measure(entries: Sequence[str], sizes: Sequence[int], world_size: int, turns: int) -> list[Trial]:
    """Measure all entries at all sizes on this many forked ranks."""
    processes = multiprocessing.get_context("fork")
    with running_server() as server, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fmi.json"
        server.write_config(path)
        pipes = [processes.Pipe(duplex=False) for _ in range(world_size)]
        ranks = [
            processes.Process(target=_rank, args=(end, rank, world_size, path, entries, sizes, turns), daemon=True)
            for rank, (_, end) in enumerate(pipes)
        ]
        try:
            with signals_blocked_in_forks():
                for rank, (_, end) in zip(ranks, pipes, strict=True):
                    rank.start()
                    end.close()
            times = np.array([ours.recv() for ours, _ in pipes])  # by rank, case, schedule and turn
        except EOFError:
            raise SystemExit("benchmarks.switch_points: a rank failed, see above") from None
        finally:
            for rank in ranks:
                if rank.pid is not None:
                    rank.kill()
                    rank.join()
    cases = [(entry, size) for entry in entries for size in sizes]
    medians = np.median(times.max(axis=0), axis=-1)
    return [
        Trial(entry, size, world_size, float(below), float(above))
        for (entry, size), (below, above) in zip(cases, medians, strict=True)
    ]


def _rank(
    result: Connection,
    rank: int,
    world_size: int,
    path: Path,
    entries: Sequence[str],
    sizes: Sequence[int],
    turns: int,
) -> None:
    direct = config.load(path).direct
    assert direct is not None
    channel = FramedChannel(rank, world_size, "switch-", direct)
    calls = 0
    times = []
    for entry in (ENTRIES[name] for name in entries):
        for size in sizes:
            buffer = np.ones(size // _FLOAT64.itemsize)
            call = Call(entry.operation, 0, _FLOAT64, buffer.size)
            repetitions = max(2, min(_CALLS_A_TURN, _BYTES_A_TURN // size // world_size))
            taken: list[list[float]] = [[], []]
            for _ in range(turns):
                for schedule, seconds in zip((entry.below, entry.above), taken, strict=True):
                    channel.begin(call, calls)
                    calls += 1
                    schedule(channel, buffer)  # connects and synchronizes the ranks
                    start = time.perf_counter()
                    for _ in range(repetitions):
                        channel.begin(call, calls)
                        calls += 1
                        schedule(channel, buffer)
                    seconds.append((time.perf_counter() - start) / repetitions)
            times.append(taken)
    result.send(times)
    channel.close()


def point(trials: Sequence[Trial]) -> int | None:
    """Return the least size from which on the schedule for large payloads takes less, on the mean over world sizes.

    None if it never does. The mean is of the ratios' logarithms.
    """
    sizes = sorted({trial.size_bytes for trial in trials})
    found = None
    for size in reversed(sizes):
        if statistics.fmean(math.log(trial.ratio) for trial in trials if trial.size_bytes == size) > 0:
            break
        found = size
    return found


def main(given: Sequence[str] | None = None) -> int:
    """Print the table, and the points."""
    parser = arguments.parser("benchmarks.switch_points", __doc__)
    parser.add_argument("--entries", nargs="+", choices=ENTRIES, default=list(ENTRIES), help="default: all")
    parser.add_argument(
        "--sizes", nargs="+", type=arguments.positive, default=SIZES, metavar="BYTES", help="default: 16 KiB to 8 MiB"
    )
    parser.add_argument(
        "--worlds", nargs="+", type=arguments.positive, default=WORLDS, metavar="N", help="default: 2 4 8"
    )
    parser.add_argument(
        "--turns",
        type=arguments.positive,
        default=7,
        metavar="N",
        help="of each schedule at each size (default: %(default)s)",
    )
    options = parser.parse_args(given)
    exit_on_signals()
    print("milliseconds per call of the schedules below and above the point; the ratio is above / below")
    print(f"{'entry':<10}{'bytes':>10}{'N':>4}{'below':>12}{'above':>12}{'ratio':>8}", flush=True)
    trials = []
    for world_size in options.worlds:
        for trial in measure(options.entries, options.sizes, world_size, options.turns):
            trials.append(trial)
            print(
                f"{trial.entry:<10}{trial.size_bytes:>10}{trial.world_size:>4}"
                f"{trial.below * 1e3:>12.3f}{trial.above * 1e3:>12.3f}{trial.ratio:>8.2f}",
                flush=True,
            )
    points = {entry: point([trial for trial in trials if trial.entry == entry]) for entry in options.entries}
    print("FMI_SWITCH_POINTS=" + ",".join(f"{entry}={size}" for entry, size in points.items() if size is not None))
    for entry, size in points.items():
        if size is None:
            print(f"{entry}: the schedule for large payloads was never faster")
    return 0


if __name__ == "__main__":
    sys.exit(main())
