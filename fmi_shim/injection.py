"""Applies the faults of FMI_FAULTS to this process: kills, stops and delays it, counts its calls, shapes its links.

`current` is None unless FMI_FAULTS is set; then nothing here runs.
"""

from __future__ import annotations

import atexit
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fmi_shim.errors import ConfigError
from fmi_shim.faults import Action, Fault, FaultError, Moment, of_link, parse_faults
from fmi_shim.link_model import LinkConditions

FAULTS_VARIABLE = "FMI_FAULTS"
SEED_VARIABLE = "FMI_FAULTS_SEED"
_CHUNK_BYTES = 1 << 24
_MEASURED_S = 5.0
_UNSAID = Moment(None, "call", 1)
"""The moment of a fault that names none."""


class LinkFaults:
    """The faults of the link from this rank to another one, as they are at each instant.

    Parameters
    ----------
    faults
        The faults of the link.
    began
        For each of the rank's faults, the monotonic time at which it began; without an entry, it has not yet.
    chance
        Source of jitter and loss in this direction.
    """

    def __init__(self, faults: tuple[Fault, ...], began: Mapping[Fault, float], chance: random.Random) -> None:
        self._faults = faults
        self._began = began
        self.chance = chance

    def _active(self, now: float) -> list[Fault]:
        return [
            fault
            for fault in self._faults
            if (began := self._began.get(fault, math.inf)) <= now and (fault.lasts is None or now < began + fault.lasts)
        ]

    def is_cut(self, now: float) -> bool:
        """Whether no byte passes."""
        return any(fault.action is Action.CUT for fault in self._active(now))

    def is_cut_for_ever(self, now: float) -> bool:
        """Whether no byte will pass again."""
        return any(fault.action is Action.CUT and fault.lasts is None for fault in self._active(now))

    def conditions(self, now: float) -> LinkConditions:
        """Return the sum of all delays, the least bandwidth, and the largest loss."""
        active = self._active(now)
        slow = [fault for fault in active if fault.action is Action.SLOW]
        rates = [fault.amount for fault in active if fault.action is Action.LIMIT]
        losses = [fault.amount for fault in active if fault.action is Action.LOSE]
        return LinkConditions(
            sum(fault.amount for fault in slow),
            sum(fault.jitter for fault in slow),
            min(rates, default=0.0),
            max(losses, default=0.0),
        )


class RankFaults:
    """The faults of this process.

    Parameters
    ----------
    rank, size
        This rank and the number of ranks, in the first communicator of the process.
    text, seed
        See `fmi_shim.faults.parse_faults`.
    """

    def __init__(self, rank: int, size: int, text: str, seed: int) -> None:
        self.rank = rank
        self.size = size
        self._seed = seed
        self._faults = parse_faults(text, size, seed)
        self._own = [fault for fault in self._faults if fault.ranks == (rank,) and not fault.of_link]
        self._links = [fault for fault in self._faults if fault.of_link and (not fault.ranks or rank in fault.ranks)]
        self._began: dict[Fault, float] = {}
        self._counts: Counter[str] = Counter()
        self.has_printed_missed = False

    def start(self) -> None:
        """Delay the rank's start, and begin to count the time of the other faults."""
        for fault in self._own:
            if fault.action is Action.DELAY:
                time.sleep(fault.amount)
        now = time.monotonic()
        for fault in (*self._own, *self._links):
            if fault.moment is None:
                self._began[fault] = now
            elif fault.moment.seconds is not None:
                if fault.of_link:
                    self._began[fault] = now + fault.moment.seconds
                else:
                    timer = threading.Timer(fault.moment.seconds, self._strike_by_time, (fault,))
                    timer.daemon = True
                    timer.start()

    def _strike_by_time(self, fault: Fault) -> None:
        self._began[fault] = time.monotonic()
        _strike(fault)

    @property
    def counts_calls(self) -> bool:
        """Whether a fault happens at a call."""
        return any(fault.moment is not None and fault.moment.seconds is None for fault in (*self._own, *self._links))

    def on_call(self, operation: str) -> None:
        """Count a call of this rank, before it is executed; a fault may end the process."""
        self._counts[operation] += 1
        self._counts["call"] += 1
        for fault in (*self._own, *self._links):
            moment = fault.moment
            if moment is None or moment.seconds is not None or moment.operation not in (operation, "call"):
                continue
            if self._counts[moment.operation] == moment.number and fault not in self._began:
                self._began[fault] = time.monotonic()
                if not fault.of_link:
                    _strike(fault)

    def missed(self) -> list[str]:
        """Return a line for each fault of this rank that has not happened: its call or its time was not reached."""
        lines = []
        for fault in (*self._own, *self._links):
            moment = fault.moment
            if moment is None or self._began.get(fault, math.inf) <= time.monotonic():
                continue
            operation = "" if moment.operation == "call" else f" of {moment.operation}"
            calls = f"made {self._counts[moment.operation]} calls{operation}"
            made = calls if moment.seconds is None else "ended before"
            lines.append(f"fault {str(fault)!r} did not happen: rank {self.rank} {made}: choose an earlier moment")
        return lines

    def link(self, rank: int, size: int, peer: int) -> LinkFaults | None:
        """Return the faults of the link to another rank, or None.

        In a communicator with other numbers, made by `split`, those of all links.
        """
        if (rank, size) == (self.rank, self.size):
            faults = of_link(self._faults, rank, peer)
        else:
            faults = tuple(fault for fault in self._faults if fault.of_link and not fault.ranks)
        if not faults:
            return None
        chance = random.Random(f"{self._seed}/{rank}-{peer}")  # noqa: S311 - to replay a run, not a secret
        return LinkFaults(faults, self._began, chance)


@dataclass(frozen=True, slots=True, eq=False)
class CountedSchedule:
    """A schedule whose calls are counted, so that a fault may happen at one of them."""

    faults: RankFaults
    operation: str
    schedule: Callable[..., Any]

    def __call__(self, *buffers: Any) -> Any:
        """Count the call, then run the schedule."""
        self.faults.on_call(self.operation)
        return self.schedule(*buffers)


current: RankFaults | None = None
"""The faults of this process; None if there are none."""


def start_faults(rank: int, size: int, environment: Mapping[str, str] = os.environ) -> None:
    """Read FMI_FAULTS and FMI_FAULTS_SEED once in a process, when it opens its first communicator.

    Raises
    ------
    ConfigError
        If one of them is invalid.
    """
    global current
    text = environment.get(FAULTS_VARIABLE, "")
    if not text or current is not None:
        return
    seed = environment.get(SEED_VARIABLE, "") or "0"
    if not seed.isdecimal():
        raise ConfigError(f"environment: invalid {SEED_VARIABLE} {seed!r}: expected a whole number")
    current = RankFaults(rank, size, text, int(seed))
    atexit.register(print_missed)
    current.start()


def print_missed() -> None:
    """Print the faults of this process that have not happened to standard error, once, at the program's end."""
    if current is None or current.has_printed_missed:
        return
    current.has_printed_missed = True
    for line in current.missed():
        print(line, file=sys.stderr, flush=True)


def check_immediate(fault: Fault) -> None:
    """Raise unless a command can apply this fault to a rank that runs.

    Raises
    ------
    FaultError
        If it is neither ``kill rank`` nor ``stop rank``, or names another moment than now.
    """
    if fault.action not in (Action.KILL, Action.STOP) or fault.moment != _UNSAID:
        raise FaultError(f"fault '{fault}' cannot be applied now: expected 'kill rank N' or 'stop rank N for TIME'")


def strike_now(rank: int, size: int, text: str) -> None:
    """Kill or stop this process, if it is a rank that the faults in `text` name.

    Raises
    ------
    FaultError
        If the text is invalid, or names a fault that cannot be applied now.
    """
    faults = parse_faults(text, size, 0)
    for fault in faults:
        check_immediate(fault)
    for fault in faults:
        if fault.ranks == (rank,):
            _strike(fault)


def _strike(fault: Fault) -> None:
    """Kill or stop this process, or have it hang or exhaust its memory."""
    if fault.action is Action.KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.action is Action.STOP:
        if fault.lasts is not None:
            # A stopped process cannot continue itself.
            subprocess.Popen(  # noqa: S603 - numbers alone
                ["/bin/sh", "-c", f"sleep {fault.lasts:.6f}; kill -CONT {os.getpid()}"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault.action is Action.HANG:
        threading.Event().wait()
    elif fault.action is Action.EXHAUST:
        _exhaust_memory()


def _exhaust_memory() -> None:
    """Use memory until the function's limit ends the process; raise `MemoryError` where there is no limit."""
    limit = int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0"))
    used = [b"\x01" * _CHUNK_BYTES for _ in range(limit * 2 * 1024 * 1024 // _CHUNK_BYTES)]
    if used:
        # The emulator measures it within a moment.
        time.sleep(_MEASURED_S)
    raise MemoryError("the fault 'exhaust rank' has used all memory")
