"""Worlds of real rank processes around a real rendezvous server."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import fmi_shim as fmi

Program = Callable[..., Any]
"""A module-level function of communicator, rank, world size and further arguments: what a rank runs."""

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["numpy", "boto3", "fmi_shim.communicator", "tests.fmi_shim.matrix", "tests.fmi_shim.failing_programs"]
)


@contextmanager
def rendezvous_server(*options: str) -> Iterator[str]:
    """Run ``fmi-rendezvous`` on a free port, with these options; give its host:port."""
    command = [sys.executable, "-m", "rendezvous", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


@dataclass(frozen=True)
class Outcome:
    """How a rank ended: with a value, with an exception, or, if both are None, without a word."""

    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    exit_code: int | None = None


class World:
    """Runs programs on worlds of ranks, all of which end before `run` returns.

    Parameters
    ----------
    address
        host:port of the rendezvous server.
    folder
        Where to write fmi.json.
    backends
        What fmi.json says of other channels to enable instead of Direct, but for ``max_timeout`` and ``framed``.
    environment
        Variables for the ranks.
    """

    def __init__(
        self,
        address: str,
        folder: Path,
        backends: dict[str, dict[str, object]] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.address = address
        self.folder = folder
        self.backends = backends
        self.environment = environment or {}
        self._runs = 0

    def config(self, framed: bool = True, max_timeout: int = 20_000) -> Path:
        """Write an fmi.json; `max_timeout` in ms."""
        host, _, port = self.address.rpartition(":")
        backends = self.backends or {"Direct": {"host": host, "port": port}}
        rest = {"enabled": True, "max_timeout": max_timeout, "framed": framed}
        path = self.folder / f"fmi-{framed}-{max_timeout}.json"
        path.write_text(json.dumps({"backends": {name: known | rest for name, known in backends.items()}}))
        return path

    def run(
        self,
        program: Program,
        ranks: int | Sequence[tuple[int, int]],
        *arguments: object,
        framed: bool = True,
        max_timeout: int = 20_000,
        limit: float = 50.0,
    ) -> list[Outcome]:
        """Run `program(comm, rank, size, *arguments)` on every rank; return the outcomes by rank.

        `ranks` is the world size, or the (rank, world size) of each process.
        """
        places = [(rank, ranks) for rank in range(ranks)] if isinstance(ranks, int) else ranks
        processes: list[BaseProcess] = []
        try:
            processes, ends = self._start(places, framed, max_timeout, program, arguments)
            return _outcomes(processes, ends, time.monotonic() + limit)
        finally:
            for process in processes:
                process.kill()
                process.join()

    def _start(
        self,
        places: Sequence[tuple[int, int]],
        framed: bool,
        max_timeout: int,
        program: Program,
        arguments: tuple[object, ...],
    ) -> tuple[list[BaseProcess], list[Connection]]:
        """Start a process for each (rank, world size) and return them, with the ends where their outcomes come."""
        self._runs += 1
        name = f"{self.folder.name}-{self._runs}-"
        config = self.config(framed, max_timeout)
        processes: list[BaseProcess] = []
        ends: list[Connection] = []
        for rank, size in places:
            ours, theirs = _PROCESSES.Pipe()
            job = _Job(rank, size, config, name, self.environment, program, arguments)
            process = _PROCESSES.Process(target=_rank, args=(theirs, job))
            process.start()
            theirs.close()
            processes.append(process)
            ends.append(ours)
        return processes, ends

    @contextmanager
    def begun(
        self, program: Program, places: Sequence[tuple[int, int]], *arguments: object, max_timeout: int = 20_000
    ) -> Iterator[None]:
        """Run processes, given as to `run`, within the block, and ignore their results."""
        processes, _ = self._start(places, True, max_timeout, program, arguments)
        try:
            yield
        finally:
            for process in processes:
                process.kill()
                process.join()

    @contextmanager
    def opened(self, size: int, framed: bool = True, max_timeout: int = 20_000) -> Iterator[OpenWorld]:
        """Keep the ranks of one communicator for many programs."""
        world = OpenWorld(self, size, framed, max_timeout)
        try:
            yield world
        finally:
            world.close()

    def values(self, program: Program, size: int, *arguments: object, framed: bool = True) -> list[Any]:
        """Run `program` on `size` ranks, none of which may fail; return their values."""
        outcomes = self.run(program, size, *arguments, framed=framed)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            assert outcome.exit_code == 0
        return [outcome.value for outcome in outcomes]


class OpenWorld:
    """Ranks that run one program after another on the same communicator, until one of them fails.

    Parameters
    ----------
    world
        Where the processes come from.
    size, framed, max_timeout
        See `World.run`.
    """

    def __init__(self, world: World, size: int, framed: bool, max_timeout: int) -> None:
        self.size = size
        self._start = lambda: world._start([(rank, size) for rank in range(size)], framed, max_timeout, _serve, ())
        self._processes: list[BaseProcess] = []
        self._ends: list[Connection] = []

    def values(self, program: Program, *arguments: object) -> list[Any]:
        """Run `program` on all ranks, none of which may fail; return their values. After a failure all begin anew."""
        if not self._processes:
            self._processes, self._ends = self._start()
        for end in self._ends:
            end.send((program, arguments))
        outcomes = _received(self._ends, time.monotonic() + 50)
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        if errors:
            self._end(kill=True)
            raise errors[0]
        return [outcome.value for outcome in outcomes]

    def close(self) -> None:
        """Have all ranks close their communicators and end."""
        self._end(kill=False)

    def _end(self, kill: bool) -> None:
        for process, end in zip(self._processes, self._ends, strict=True):
            if kill:
                process.kill()
            end.close()
        for process in self._processes:
            process.join()
        self._processes, self._ends = [], []


def _serve(comm: fmi.Communicator, rank: int, size: int, jobs: Connection) -> None:
    """Run what comes, until nothing more does."""
    while True:
        try:
            program, arguments = jobs.recv()
        except EOFError:
            comm.close()
            return
        jobs.send(Outcome(program(comm, rank, size, *arguments)))


@dataclass(frozen=True)
class _Job:
    rank: int
    size: int
    config: Path
    name: str
    environment: dict[str, str]
    program: Program
    arguments: tuple[object, ...]


def _rank(result: Connection, job: _Job) -> None:
    for variable in ("FMI_RENDEZVOUS", "FMI_FRAMED", "FMI_CHANNEL"):
        os.environ.pop(variable, None)
    os.environ.update(job.environment)
    start = time.monotonic()
    comm = None
    try:
        comm = fmi.Communicator(job.rank, job.size, job.config, job.name)
        arguments = (result,) if job.program is _serve else job.arguments
        value = job.program(comm, job.rank, job.size, *arguments)
    except BaseException as error:  # noqa: BLE001 - whatever ends a rank is its outcome
        result.send(Outcome(error=error, seconds=time.monotonic() - start))
    else:
        with contextlib.suppress(BrokenPipeError):  # an open world was closed: nobody wants to know
            result.send(Outcome(value, seconds=time.monotonic() - start))


def _outcomes(processes: list[BaseProcess], ends: list[Connection], deadline: float) -> list[Outcome]:
    done = []
    for outcome, process in zip(_received(ends, deadline), processes, strict=True):
        process.join(max(0.0, deadline - time.monotonic()))
        done.append(Outcome(outcome.value, outcome.error, outcome.seconds, process.exitcode))
    return done


def _received(ends: list[Connection], deadline: float) -> list[Outcome]:
    outcomes = [Outcome()] * len(ends)
    missing = dict(zip(ends, range(len(ends)), strict=True))
    while missing:
        ready = wait(list(missing), max(0.0, deadline - time.monotonic()))
        assert ready, f"ranks {sorted(missing.values())} did not end in time"
        for end in ready:
            assert isinstance(end, Connection)
            index = missing.pop(end)
            with contextlib.suppress(EOFError):  # ended without a word
                outcomes[index] = end.recv()
    return outcomes
