"""A world: the ranks of a test, which run a function and return its values."""

from __future__ import annotations

import contextlib
import resource
import secrets
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emulator.testing import rank_process
from emulator.testing.errors import (
    WorldUsageError,
)
from emulator.testing.rank_process import (
    RankJob,
)
from emulator.testing.rendezvous_process import RendezvousProcess
from emulator.testing.run import PLAIN, Presentation, Run
from emulator.testing.services import Access, Services, WorldChannel
from fmi_shim.errors import ConfigError
from fmi_shim.faults import parse_faults, seconds
from fmi_shim.injection import FAULTS_VARIABLE, SEED_VARIABLE

DEFAULT_LIMIT_S = 30.0
DEFAULT_MAX_TIMEOUT_S = 20.0
_DESCRIPTORS_PER_RANK = 4
_BYTES_PER_RANK = 16 * 1024 * 1024
"""Memory that a rank needs of its own: 19.8 MB with boto3, about 8 MB without."""
_STARTS = ("fork", "spawn")


@dataclass
class World:
    """Ranks that run one function after another, each time in new processes.

    A call ``world(function, *arguments)`` forks `size` processes from this one, runs
    ``function(comm, *arguments)`` in each, and returns the values by rank.

    Attributes
    ----------
    size
        Number of ranks.
    services
        The servers that the ranks use.
    channel
        The channel between the ranks.
    framed
        Whether messages have headers.
    limit_s
        Seconds until all ranks must have ended.
    max_timeout_s
        The longest wait of a rank for another one, s.
    environment
        Further variables of the ranks.
    presentation
        How the ranks are shown to the user.
    faults
        What fails, in the language of `fmi_shim.faults`.
    seed
        Decides what the faults leave to chance; by default another one for each world.
    start
        ``fork``, or ``spawn`` for new interpreters, to which the function is pickled by cloudpickle; by default a fork,
        unless this process uses CUDA, which does not survive one.
    output
        What each rank of the last call wrote to its standard output and standard error.
    """

    size: int
    services: Services
    channel: WorldChannel = WorldChannel.DIRECT
    framed: bool = True
    limit_s: float = DEFAULT_LIMIT_S
    max_timeout_s: float = DEFAULT_MAX_TIMEOUT_S
    environment: Mapping[str, str] = field(default_factory=dict)
    presentation: Presentation = PLAIN
    faults: tuple[str, ...] = ()
    seed: int = field(default_factory=lambda: secrets.randbelow(2**31))
    start: str | None = None
    output: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the values.

        Raises
        ------
        WorldUsageError
            If a value is invalid, or the world is too large for this machine.
        """
        if callable(self.size):
            raise WorldUsageError(
                "invalid world size: got a function: expected the number of ranks first, as in fmi_world(4)(function)"
            )
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise WorldUsageError(f"invalid world size {self.size!r}: expected a whole number from 1")
        if self.start is not None and self.start not in _STARTS:
            raise WorldUsageError(f"invalid start {self.start!r}: expected one of {', '.join(_STARTS)}")
        for name, value in (("time limit", self.limit_s), ("max_timeout", self.max_timeout_s)):
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise WorldUsageError(f"invalid {name} {value!r}: expected seconds above 0")
        parse_faults("; ".join(self.faults), self.size, self.seed)
        _require_room(self.size)

    def _spawns(self) -> bool:
        torch = sys.modules.get("torch")
        uses_cuda = torch is not None and torch.cuda.is_initialized()
        return self.start == "spawn" or (self.start is None and uses_cuda)

    def fault(self, text: str) -> None:
        """Have something fail in the next calls: a text in the language of `fmi_shim.faults`.

        Raises
        ------
        FaultError
            If the text is not in the language, or names a rank that is not there.
        """
        parse_faults(text, self.size, self.seed)
        self.faults = (*self.faults, text)

    def kill(self, rank: int, at: str = "call 1") -> None:
        """Kill a rank in the next calls, at a moment such as ``0.5s``, ``allreduce 3`` or ``random 20``."""
        self.fault(f"kill rank {rank} at {at}")

    def delay(self, rank: int, duration: float | str) -> None:
        """Delay the start of a rank in the next calls, by seconds or a text such as ``0.5s``."""
        self.fault(f"delay rank {rank} by {seconds(duration):.6f}s")

    def __call__(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> list[Any]:
        """Run ``function(comm, *arguments, **keywords)`` on every rank and return the values by rank.

        The function may be a closure or a local one. Values must be picklable. Each rank is a fork of this process: it
        sees the objects of this one as they are now, and its changes to them are lost at its end.

        Raises
        ------
        WorldError
            If a rank failed. The others are given 3 s to end with their own errors.
        WorldTimeoutError
            If ranks have not ended within the time limit.
        WorldUsageError
            If the world cannot be started.
        """
        if not callable(function):
            raise WorldUsageError(f"invalid rank function {function!r}: expected a function of the communicator")
        if rank_process.inside_rank is not None:
            raise WorldUsageError(
                f"nested world: rank {rank_process.inside_rank} of a world asked for another world: expected a call in "
                "the test itself; use comm.split() to divide the ranks"
            )
        text = "; ".join(self.faults)
        planned = parse_faults(text, self.size, self.seed)
        server_faults = [fault for fault in planned if fault.of_server]
        name = f"world-{uuid.uuid4().hex[:12]}-"
        run = Run(self.size, self.presentation, f"faults: {text} (seed {self.seed})" if planned else "", self._spawns())
        # A server that fails is this world's own.
        secret = secrets.token_hex(32) if self.framed else ""
        server = RendezvousProcess(secret) if server_faults else self.services.rendezvous(framed=self.framed)
        access = self.services.access(self.channel, self.framed, self.max_timeout_s, server)
        for fault in server_faults:
            run.plan_server_fault(fault, server)
        endpoint_faults = [fault for fault in planned if fault.of_endpoint]
        if endpoint_faults:
            self.services.cloud.plan_faults(endpoint_faults, self.seed)
        jobs = [self._job(rank, function, arguments, keywords, access, name) for rank in range(self.size)]
        with contextlib.suppress(ConfigError):  # the ranks raise it
            jobs[0].configuration(jobs[0].environment)  # once, for all forks
        try:
            for job in jobs:
                run.start(job)
            return run.values(self.limit_s)
        finally:
            self.output = run.end()
            if server_faults:
                server.close()
            if endpoint_faults:
                self.services.cloud.plan_faults(())

    def _job(
        self,
        rank: int,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: Mapping[str, Any],
        access: Access,
        name: str,
    ) -> RankJob:
        faults = {FAULTS_VARIABLE: "; ".join(self.faults), SEED_VARIABLE: str(self.seed)} if self.faults else {}
        environment = {**access.environment, **faults, **self.environment}
        presentation = self.presentation
        return RankJob(
            rank,
            self.size,
            function,
            arguments,
            keywords,
            access.config,
            name,
            environment,
            presentation.format,
            presentation.debugger,
            presentation.post_mortem,
        )


def _require_room(size: int) -> None:
    """Raise if this machine cannot hold that many ranks."""
    import psutil  # not needed before the first world

    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limits = [(descriptors // _DESCRIPTORS_PER_RANK, f"{descriptors} file descriptors (ulimit -n)")]
    memory = psutil.virtual_memory().available
    limits.append((memory // _BYTES_PER_RANK, f"{memory >> 20} MB of free memory"))
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if processes != resource.RLIM_INFINITY:
        limits.append((processes, f"{processes} processes (ulimit -u)"))
    most, why = min(limits)
    if size > most:
        raise WorldUsageError(
            f"a world of {size} ranks is too large for this machine: expected at most {most}, because of {why}"
        )
