"""Seeded worlds under faults: ``python -m tests.campaign --worlds 500``.

Every world is a random program of collectives and messages on real rank processes, with at most one fault: a rank is
killed, stopped, late, raises, ends early or makes another call than the others, in the world or within a communicator
that was split from it, or the rendezvous server is killed and started again. Every rank must return right values up to
the fault, and then end in time, either with right values or with an error of the library that names the rank at fault.
Seeds are printed: ``--seed N --worlds 1`` repeats a world.
The exit status is 1 when a value is wrong, a rank hangs, something is left behind, or fewer than `REQUIRED` of the
errors name the right rank.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis

import fmi_shim as fmi
from fmi_shim.errors import FmiError
from tests.fmi_shim.world import Outcome, World

REQUIRED = 0.95
MAX_TIMEOUT_MS = {"direct": 3000, "shm": 3000, "redis": 3000, "s3": 8000}
PATIENCE = 5
LATE_SECONDS = 0.7
NOTICE_SECONDS = 5.0
"""Within this time, and `MAX_TIMEOUT_MS` where a rank only waits, every rank must have noticed a fault."""
STEP_SECONDS = {"direct": 0.1, "shm": 0.1, "redis": 0.2, "s3": 1.0}
"""How long a step may take beside it. S3 is polled, and split and dup open channels of their own."""
FAULTS = ("none", "kill", "stop", "late", "raise", "exit", "mismatch", "server")
OPERATIONS = ("barrier", "bcast", "gather", "allgather", "scatter", "reduce", "allreduce", "scan", "alltoall")
OPERATIONS += (
    "exchange",
    "message",
    "split",
    "split",
    "dup",
    "posted",
    "iallreduce",
    "reduce_scatter",
    "exscan",
    "object",
)
CHANNELS = {"direct": 6, "shm": 4, "redis": 4, "s3": 1}
"""How often worlds are on a channel: on S3 one takes ten times as long."""
BUCKET = "campaign"
LEFT = "left"
"""What a call returns in which its rank ended early."""
SUM = fmi.func(fmi.op.sum)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a program: its root or source, its destination, and how many elements a rank has."""

    operation: str
    root: int
    other: int
    count: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A world: its seed and size, what all ranks do, and what goes wrong at which rank before which step.

    All time limits are `slow` times as long as on an idle machine.
    With `inside`, and where that step is a split, it goes wrong within the new communicator.
    """

    seed: int
    channel: str
    size: int
    steps: tuple[Step, ...]
    fault: str
    culprit: int
    step: int
    inside: bool
    slow: float = 1.0

    @property
    def max_timeout(self) -> int:
        """The longest wait in ms. Where no rank is at fault, it is longer: a new server may start late under load."""
        patience = PATIENCE if self.fault in ("none", "late", "server") else 1
        return int(MAX_TIMEOUT_MS[self.channel] * self.slow * patience)

    @property
    def within_split(self) -> bool:
        """Whether the fault happens in a split."""
        return self.inside and self.steps[self.step].operation == "split"


@dataclass(frozen=True, slots=True)
class Report:
    """What a rank returned, and the error that it ended with."""

    values: list[Any]
    error: str | None
    origin: int | None
    text: str
    seconds: float


def scenario(seed: int, channels: Sequence[str], slow: float = 1.0) -> Scenario:
    """Return the world of a seed."""
    chance = random.Random(seed)
    (channel,) = chance.choices(channels, [CHANNELS[name] for name in channels])
    size = chance.randint(2, 5)
    steps = []
    for _ in range(chance.randint(3, 12)):
        root, other = chance.sample(range(size), 2)
        count = chance.choice((1, 3, 1000, 40_000))
        steps.append(Step(chance.choice(OPERATIONS), root, other, count))
    fault = chance.choice(FAULTS)
    culprit, step = chance.randrange(size), chance.randrange(len(steps))
    splits = [number for number, each in enumerate(steps) if each.operation == "split"]
    inside = bool(splits) and chance.random() < 0.5
    if inside:
        step = chance.choice(splits)
    return Scenario(seed, channel, size, tuple(steps), fault, culprit, step, inside, slow)


def own(rank: int, number: int, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return what a rank contributes to a step."""
    return np.arange(count, dtype=float) % 7 + 10 * rank + number


def carry_out(
    comm: fmi.Communicator, rank: int, size: int, number: int, step: Step, fault: Callable[[], bool] | None = None
) -> Any:
    """Make one call, with a fault within a split, if there is one; return what the call returns, or `LEFT`."""
    value = own(rank, number, step.count)
    match step.operation:
        case "barrier":
            return comm.barrier()
        case "bcast":
            return comm.bcast(value, step.root)
        case "gather":
            return comm.gather(value, step.root)
        case "allgather":
            return comm.allgather(value)
        case "scatter":
            return comm.scatter(np.repeat(value, size) if rank == step.root else None, step.root)
        case "reduce":
            return comm.reduce(value, step.root, SUM)
        case "allreduce":
            return comm.allreduce(value, SUM)
        case "scan":
            return comm.scan(value, SUM)
        case "alltoall":
            return comm.alltoall(np.tile(value, size))
        case "exchange":
            return comm.sendrecv(value, (rank + 1) % size, (rank - 1) % size)
        case "message":
            if rank == step.root:
                return comm.send(value, step.other)
            return comm.recv(step.root) if rank == step.other else None
        case "split":
            with comm.split(rank % 2, rank) as part:
                if fault is not None and fault():
                    return LEFT
                return part.allreduce(value, SUM)
        case "dup":
            with comm.dup() as copy:
                return copy.allreduce(value, SUM)
        case "posted":
            sending = comm.isend(value, (rank + 1) % size)
            return fmi.Request.waitall([sending, comm.irecv((rank - 1) % size)])[1]
        case "iallreduce":
            return comm.iallreduce(value, SUM).wait()
        case "reduce_scatter":
            return comm.reduce_scatter(np.tile(value, size), SUM)
        case "exscan":
            return comm.exscan(value, SUM)
        case "object":
            return comm.bcast_object({"values": value} if rank == step.root else None, step.root)["values"]
    raise AssertionError(step.operation)


def expected(rank: int, size: int, number: int, step: Step) -> Any:
    """Return what `carry_out` must return."""
    values = [own(each, number, step.count) for each in range(size)]
    match step.operation:
        case "bcast":
            return values[step.root]
        case "gather":
            return np.concatenate(values) if rank == step.root else np.empty(0)
        case "allgather":
            return np.concatenate(values)
        case "scatter":
            return np.repeat(values[step.root], size)[rank * step.count : (rank + 1) * step.count]
        case "reduce":
            return sum(values) if rank == step.root else None
        case "allreduce" | "dup" | "iallreduce" | "reduce_scatter":
            return sum(values)
        case "exscan":
            return sum(values[:rank]) if rank else None
        case "object":
            return values[step.root]
        case "scan":
            return sum(values[: rank + 1])
        case "alltoall":
            return np.concatenate(values)
        case "exchange" | "posted":
            return values[rank - 1]
        case "message":
            return values[step.root] if rank == step.other else None
        case "split":
            return sum(values[rank % 2 :: 2])
    return None


def run_rank(comm: fmi.Communicator, rank: int, size: int, this: Scenario, begun: Path) -> Report:
    """Run the program of a rank, with its fault; the file `begun` says that all have begun."""
    values: list[Any] = []
    began = time.monotonic()
    try:
        with comm:
            if this.fault == "server":
                comm.barrier()  # the server is lost in the middle, not before
                begun.touch()
            for number, step in enumerate(this.steps):
                if this.fault == "server":
                    time.sleep(0.2)
                faulty = rank == this.culprit and number == this.step and this.fault not in ("none", "server")
                if faulty and not this.within_split:
                    if commit(this) and this.fault == "exit":
                        return Report(values, None, None, "ended early", time.monotonic() - began)
                    if this.fault == "mismatch":
                        continue
                fault = functools.partial(commit, this) if faulty and this.within_split else None
                value = carry_out(comm, rank, size, number, step, fault)
                if value is LEFT and this.fault == "exit":
                    return Report(values, None, None, "ended early", time.monotonic() - began)
                if value is not LEFT:
                    values.append(value)
    except FmiError as error:
        return Report(values, type(error).__name__, error.world_origin, str(error), time.monotonic() - began)
    except LookupError as error:
        return Report(values, "own", rank, str(error), time.monotonic() - began)
    return Report(values, None, None, "", time.monotonic() - began)


def commit(this: Scenario) -> bool:
    """Commit a fault; return whether the rank does not make the call."""
    fault = this.fault
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "stop":
        stopped = os.getpid()
        if os.fork() == 0:
            time.sleep(this.max_timeout / 1000 + 2)
            os.kill(stopped, signal.SIGCONT)
            os._exit(0)
        os.kill(stopped, signal.SIGSTOP)
    elif fault == "late":
        time.sleep(LATE_SECONDS)
    elif fault == "raise":
        raise LookupError("no such galaxy")
    return fault in ("exit", "mismatch")


def judge_value(found: Any, wanted: Any) -> bool:
    """Return whether a value is right, to the bit."""
    if wanted is None:
        return found is None
    return bool(np.array_equal(np.asarray(found), wanted))


class Campaign:
    """Runs worlds and counts what came of them.

    Parameters
    ----------
    timed
        Whether a rank that notices a fault late is a problem.
    """

    def __init__(self, timed: bool = True) -> None:
        self._timed = timed
        self.problems: list[str] = []
        self.origins: collections.Counter[bool] = collections.Counter()
        self.by_fault: collections.Counter[str] = collections.Counter()
        self.blames: list[str] = []

    def check(self, this: Scenario, outcomes: Sequence[Outcome]) -> None:
        """Count the outcomes of one world, and keep its problems."""
        self.by_fault[f"{this.channel} {this.fault}"] += 1
        for rank, outcome in enumerate(outcomes):
            self._check_rank(this, rank, outcome)

    def _check_rank(self, this: Scenario, rank: int, outcome: Outcome) -> None:
        place = f"seed {this.seed} ({this.channel}, {this.size} ranks, {this.fault} of {this.culprit} at {this.step})"
        report = outcome.value
        if not isinstance(report, Report):
            if not (this.fault == "kill" and rank == this.culprit):
                self.problems.append(
                    f"{place}: rank {rank} ended with {outcome.error!r}, exit code {outcome.exit_code}"
                )
            return
        skipped = rank == this.culprit and this.fault == "mismatch"
        numbers = [number for number in range(len(this.steps)) if not (skipped and number == this.step)]
        for number, found in zip(numbers, report.values, strict=False):
            if not judge_value(found, expected(rank, this.size, number, this.steps[number])):
                if this.fault == "mismatch" and number >= this.step:
                    continue  # a wrong program: only its errors are asked for
                self.problems.append(f"{place}: rank {rank} has a wrong value in {this.steps[number]}")
        limit = this.slow * (NOTICE_SECONDS + STEP_SECONDS[this.channel] * len(this.steps)) + (
            2 * this.max_timeout / 1000 if this.fault in ("stop", "mismatch", "server") else 0
        )
        if self._timed and this.fault != "none" and report.seconds > limit:
            self.problems.append(f"{place}: rank {rank} took {report.seconds:.1f} s: {report.text}")
        if this.fault in ("none", "late", "server"):
            if report.error is not None:
                self.problems.append(f"{place}: rank {rank} failed without a fault: {report.error}: {report.text}")
        elif rank != this.culprit and report.error is not None and this.fault != "mismatch":
            right = report.origin == this.culprit
            self.origins[right] += 1
            if not right:
                self.blames.append(f"{place}: rank {rank} names {report.origin}: {report.error}: {report.text}")
        if report.error is None and rank != this.culprit and len(report.values) != len(this.steps):
            self.problems.append(f"{place}: rank {rank} ended without an error after {len(report.values)} steps")

    @property
    def share_right(self) -> float:
        """Share of the errors that name the right rank."""
        return self.origins[True] / max(1, self.origins.total())


class Server:
    """A rendezvous server that can be killed and started again on its port."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "rendezvous", "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline().split()[-1].rpartition(":")[2])

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.communicate()

    @contextlib.contextmanager
    def restarted_after(self, begun: Path) -> Iterator[None]:
        """Kill it a moment after a file has appeared, and start it again, while the block runs."""
        over = threading.Event()

        def restart() -> None:
            while not begun.exists():
                if over.wait(0.05):
                    return
            over.wait(0.3)
            self.kill()
            time.sleep(0.1)
            self.start()

        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            yield
        finally:
            over.set()
            restarting.join()


@contextlib.contextmanager
def redis_server() -> Iterator[int]:
    """Run a Redis server that keeps nothing on disk; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.terminate()


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run the local cloud with a bucket; yield the variables by which boto3 finds it."""
    from emulator.cloud import LocalCloud  # every rank imports this module

    with LocalCloud() as cloud:
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        yield cloud.environment


@dataclass(frozen=True, slots=True)
class Stores:
    """Where objects are exchanged: the port of a Redis server, and the variables by which boto3 finds S3."""

    redis_port: int = 0
    s3_access: dict[str, str] | None = None


def world_of(this: Scenario, server: Server, stores: Stores, folder: Path) -> World:
    """Return where the ranks of a world run."""
    backends: dict[str, dict[str, object]] | None = None
    environment = {"FMI_JOB": f"campaign-{this.seed}", "FMI_SECRET": "the secret of the campaign"}
    direct: dict[str, object] = {"host": "127.0.0.1", "port": server.port}
    if this.channel == "redis":
        backends = {"Redis": {"host": "127.0.0.1", "port": stores.redis_port, "timeout": 5}}
        environment["FMI_RENDEZVOUS"] = f"127.0.0.1:{server.port}"
    elif this.channel == "s3":
        assert stores.s3_access is not None
        backends = {"S3": {"bucket_name": BUCKET, "s3_region": "us-east-1", "timeout": 20}}
        environment |= {"FMI_RENDEZVOUS": f"127.0.0.1:{server.port}", **stores.s3_access}
    elif this.channel == "shm":
        environment["FMI_CHANNEL"] = "shm"
    return World(f"127.0.0.1:{direct['port']}", folder, backends, environment)


def run_world(this: Scenario, server: Server, stores: Stores, folder: Path) -> Sequence[Outcome]:
    """Run one world to its end."""
    begun = folder / "begun"
    with server.restarted_after(begun) if this.fault == "server" else contextlib.nullcontext():
        return world_of(this, server, stores, folder).run(
            run_rank, this.size, this, begun, max_timeout=this.max_timeout, limit=120.0 * this.slow
        )


def segments() -> set[str]:
    """Return the names of the segments of shared memory that there are."""
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def kept_keys(redis_port: int) -> list[str]:
    """Return the keys in Redis that do not expire; none without a server."""
    if not redis_port:
        return []
    with redis.Redis(port=redis_port, decode_responses=True) as client:
        return [key for key in client.scan_iter() if client.ttl(key) < 0]


def main() -> int:
    """Run a campaign; print its problems and counts, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--worlds", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6, help="of the first world; default: any")
    parser.add_argument("--channels", default=",".join(CHANNELS), help="some of %(default)s")
    parser.add_argument(
        "--slow", type=float, default=1.0, help="factor for all time limits, for a machine with other load"
    )
    options = parser.parse_args()
    channels = options.channels.split(",")
    if unknown := set(channels) - {*CHANNELS}:
        parser.error(f"unknown channels {sorted(unknown)}: expected some of {', '.join(CHANNELS)}")
    if "redis" in channels and shutil.which("redis-server") is None:
        parser.error("redis-server is missing: install it, or leave redis out of --channels")
    print(f"seeds {options.seed} to {options.seed + options.worlds - 1}", flush=True)
    campaign = Campaign()
    before = segments()
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        server = Server()
        opened.callback(lambda: server.kill())
        stores = Stores(
            opened.enter_context(redis_server()) if "redis" in channels else 0,
            opened.enter_context(s3_server()) if "s3" in channels else None,
        )
        seen = 0, 0
        for number in range(options.worlds):
            this = scenario(options.seed + number, channels, options.slow)
            place = Path(folder) / str(number)
            place.mkdir()
            try:
                campaign.check(this, run_world(this, server, stores, place))
            except AssertionError as hang:
                campaign.problems.append(f"seed {this.seed} ({this.channel}, {this.fault}): {hang}")
            for problem in [*campaign.problems[seen[0] :], *campaign.blames[seen[1] :]]:
                print(problem, flush=True)
            seen = len(campaign.problems), len(campaign.blames)
            if (number + 1) % 25 == 0:
                print(
                    f"{number + 1} worlds, {len(campaign.problems)} problems, {campaign.share_right:.1%} right",
                    flush=True,
                )
        left = [*(segments() - before), *kept_keys(stores.redis_port)]
    print(", ".join(f"{name}: {count}" for name, count in sorted(campaign.by_fault.items())))
    print(
        f"{options.worlds} worlds: {len(campaign.problems)} problems, {campaign.origins.total()} errors of victims, "
        f"{campaign.share_right:.1%} of them name the rank at fault, {len(left)} segments and keys left"
    )
    return int(bool(campaign.problems or left) or campaign.share_right < REQUIRED)


if __name__ == "__main__":
    sys.exit(main())
