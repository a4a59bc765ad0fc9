"""The language of faults: what fails in a run, when, and, where that is left to chance, by which seed. No I/O.

Faults are separated by semicolons::

    kill rank 2 at allreduce 3          its process ends at its third allreduce
    kill rank any at random 20          one of the ranks, at one of its first 20 calls
    stop rank 1 at 0.5s for 2s          its process is stopped, and continued 2 s later; without `for`, never
    delay rank 0 by 1s                  it opens its communicator 1 s late
    slow link 0-1 by 5ms jitter 1ms     each message between the two arrives 5 to 6 ms late
    limit link all to 600mbit           bits per second of each link and direction
    lose link 1-any 0.1%                this share of segments is lost, and TCP stalls until it has sent them again
    cut link 0-1 at send 2 for 1s       no byte passes; without `for`, until the end
    drop server at 1s                   the rendezvous server ends
    restart server at 1s after 0.5s     it ends, and another one listens on its port 0.5 s later
    hang rank 1 at barrier 2            it makes no progress, until its time limit
    exhaust rank 1 at barrier 2         it uses memory until that is exhausted
    fail s3 at put 3                    S3 answers with 503 SlowDown; `fail s3 20%`: a share of all requests
    slow s3 by 100ms                    S3 answers late
    tear s3 at get 2                    the connection ends before the body of the response
    throttle lambda at invoke 3         the endpoint refuses an invocation with TooManyRequestsException
    duplicate lambda at invoke 3        the function is invoked twice with the same event, at the same time

`at` takes a time since the rank opened its communicator, or the n-th call of an operation (`call` stands for any).
``random N`` is a call from 1 to N, ``random 2s`` a time up to 2 s, ``any`` a rank. All three are drawn from the seed:
the same text, seed and number of ranks is the same plan on every rank.
"""

from __future__ import annotations

import enum
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fmi_shim.errors import ConfigError

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, None: 1.0}
_BIT_UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_OPERATIONS = (
    "call",
    "send",
    "recv",
    "bcast",
    "gather",
    "scatter",
    "reduce",
    "allreduce",
    "scan",
    "barrier",
    "allgather",
    "alltoall",
    "reduce_scatter",
    "exscan",
)
_S3_REQUESTS = ("request", "get", "put", "head", "post", "delete")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min)?")
_TIME = r"\d+(?:\.\d+)?(?:us|ms|s|min)"
_RANK = r"rank (?P<rank>\d+|any)"
_LINK = r"link (?P<link>all|(?:\d+|any)-(?:\d+|any))"
_AT = rf"(?: at (?:(?P<time>{_TIME})|random (?P<bound>{_TIME}|\d+)|(?P<operation>[a-z_]+) (?P<number>\d+)))?"
_AT_TIME = rf"(?: at (?:(?P<time>{_TIME})|random (?P<bound>{_TIME})))?"
_FOR = rf"(?: for (?P<lasts>{_TIME}))?"
_PERCENT = r"(?P<percent>\d+(?:\.\d+)?)%"
_REQUEST = r" at (?:random (?P<bound>\d+)|(?P<operation>[a-z]+) (?P<number>\d+))"
_SOME = rf"(?:{_REQUEST}| {_PERCENT})?"


class Action(enum.Enum):
    """What a fault does, by its first word and what it concerns."""

    KILL = "kill rank"
    STOP = "stop rank"
    DELAY = "delay rank"
    SLOW = "slow link"
    LIMIT = "limit link"
    LOSE = "lose link"
    CUT = "cut link"
    DROP_SERVER = "drop server"
    RESTART_SERVER = "restart server"
    HANG = "hang rank"
    EXHAUST = "exhaust rank"
    FAIL_S3 = "fail s3"
    SLOW_S3 = "slow s3"
    TEAR_S3 = "tear s3"
    THROTTLE = "throttle lambda"
    DUPLICATE = "duplicate lambda"


_FORMS: dict[Action, tuple[re.Pattern[str], str]] = {
    action: (re.compile(pattern), example)
    for action, pattern, example in (
        (Action.KILL, rf"kill {_RANK}{_AT}", "kill rank 2 at allreduce 3"),
        (Action.STOP, rf"stop {_RANK}{_AT}{_FOR}", "stop rank 1 at 0.5s for 2s"),
        (Action.DELAY, rf"delay {_RANK} by (?P<amount>{_TIME})", "delay rank 0 by 1s"),
        (
            Action.SLOW,
            rf"slow {_LINK} by (?P<amount>{_TIME})(?: jitter (?P<jitter>{_TIME}))?{_AT}{_FOR}",
            "slow link 0-1 by 5ms jitter 1ms",
        ),
        (
            Action.LIMIT,
            rf"limit {_LINK} to (?P<rate>\d+(?:\.\d+)?(?:[kmg]bit)){_AT}{_FOR}",
            "limit link all to 600mbit",
        ),
        (Action.LOSE, rf"lose {_LINK} {_PERCENT}{_AT}{_FOR}", "lose link 1-any 0.1%"),
        (Action.CUT, rf"cut {_LINK}{_AT}{_FOR}", "cut link 0-1 at send 2 for 1s"),
        (Action.DROP_SERVER, rf"drop server{_AT_TIME}", "drop server at 1s"),
        (Action.HANG, rf"hang {_RANK}{_AT}", "hang rank 1 at barrier 2"),
        (Action.EXHAUST, rf"exhaust {_RANK}{_AT}", "exhaust rank 1 at barrier 2"),
        (Action.FAIL_S3, rf"fail s3{_SOME}", "fail s3 at put 3"),
        (Action.SLOW_S3, rf"slow s3 by (?P<amount>{_TIME})(?:{_REQUEST})?", "slow s3 by 100ms"),
        (Action.TEAR_S3, rf"tear s3{_SOME}", "tear s3 at get 2"),
        (Action.THROTTLE, rf"throttle lambda{_REQUEST}", "throttle lambda at invoke 3"),
        (Action.DUPLICATE, rf"duplicate lambda{_REQUEST}", "duplicate lambda at invoke 3"),
        (Action.RESTART_SERVER, rf"restart server{_AT_TIME}(?: after (?P<lasts>{_TIME}))?", "restart server at 1s"),
    )
}


_OPERATIONS_OF = {
    Action.FAIL_S3: _S3_REQUESTS,
    Action.SLOW_S3: _S3_REQUESTS,
    Action.TEAR_S3: _S3_REQUESTS,
    Action.THROTTLE: ("invoke",),
    Action.DUPLICATE: ("invoke",),
}
"""What is counted of the requests to the AWS endpoint."""
_OF_CALLS = (Action.KILL, Action.STOP, Action.HANG, Action.EXHAUST)


class FaultError(ConfigError):
    """A fault is not written in the language, or names a rank that is not there."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a fault happens: after some seconds, or at the n-th call of an operation.

    Attributes
    ----------
    seconds
        Seconds since the rank opened its communicator; None for a call.
    operation
        Name of the operation, ``call`` for any.
    number
        Which of its calls, from 1.
    """

    seconds: float | None = None
    operation: str = "call"
    number: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, with all that was left to chance decided.

    Attributes
    ----------
    action
        What it does.
    ranks
        The rank it concerns, or the two ends of the link; empty for all links, and for the server.
    moment
        When it begins; None for the beginning.
    lasts
        Seconds until its end; None for no end.
    amount
        Seconds of a delay, bits per second of a limit, or the share of a loss.
    jitter
        Longest additional delay, s.
    """

    action: Action
    ranks: tuple[int, ...] = ()
    moment: Moment | None = None
    lasts: float | None = None
    amount: float = 0.0
    jitter: float = 0.0

    @property
    def of_link(self) -> bool:
        """Whether it concerns links."""
        return self.action in (Action.SLOW, Action.LIMIT, Action.LOSE, Action.CUT)

    @property
    def of_endpoint(self) -> bool:
        """Whether it concerns requests to the AWS endpoint."""
        return self.action in _OPERATIONS_OF

    @property
    def of_server(self) -> bool:
        """Whether it concerns the rendezvous server."""
        return self.action in (Action.DROP_SERVER, Action.RESTART_SERVER)

    def __str__(self) -> str:
        words = [self.action.value]
        if self.of_link:
            words.append("-".join(map(str, self.ranks)) or "all")
        elif self.ranks:
            words.append(str(self.ranks[0]))
        if self.action in (Action.DELAY, Action.SLOW, Action.SLOW_S3):
            words.append(f"by {_shown(self.amount)}")
        if self.jitter:
            words.append(f"jitter {_shown(self.jitter)}")
        if self.action is Action.LIMIT:
            words.append(f"to {self.amount / 1e6:.12g}mbit")
        if self.action is Action.LOSE or (self.of_endpoint and self.action is not Action.SLOW_S3 and self.amount):
            words.append(f"{self.amount * 100:.12g}%")
        if self.moment is not None and self.moment.seconds is not None:
            words.append(f"at {_shown(self.moment.seconds)}")
        elif self.moment is not None:
            words.append(f"at {self.moment.operation} {self.moment.number}")
        if self.lasts is not None:
            words.append(f"{'after' if self.of_server else 'for'} {_shown(self.lasts)}")
        return " ".join(words)


def parse_faults(text: str, size: int, seed: int) -> tuple[Fault, ...]:
    """Return the faults in a text, with all that it leaves to chance drawn from the seed.

    Parameters
    ----------
    text
        The faults, separated by semicolons.
    size
        Number of ranks.
    seed
        The seed.

    Raises
    ------
    FaultError
        If the text is not in the language, or names a rank that is not there.
    """
    clauses = [" ".join(clause.split()) for clause in text.split(";")]
    return tuple(
        _parse(clause, size, random.Random(f"{seed}/{index}"))  # noqa: S311 - to replay a run, not a secret
        for index, clause in enumerate(clauses)
        if clause
    )


def _parse(clause: str, size: int, chance: random.Random) -> Fault:
    action = _action(clause)
    pattern, example = _FORMS[action]
    found = pattern.fullmatch(clause)
    if found is None:
        raise FaultError(f"invalid fault {clause!r}: expected the form of {example!r}")
    parts = found.groupdict()
    ranks = _ranks(clause, parts, size, chance)
    moment = _moment(clause, parts, chance, _OPERATIONS_OF.get(action, _OPERATIONS))
    if moment is None and action in _OF_CALLS:
        moment = Moment()
    lasts = parts.get("lasts")
    amount = 0.0
    try:
        if parts.get("amount"):
            amount = seconds(parts["amount"])
        elif parts.get("rate"):
            amount = bits_per_second(parts["rate"])
        elif parts.get("percent"):
            amount = share(parts["percent"] + "%")
    except ValueError as error:
        raise FaultError(f"invalid fault {clause!r}: {error}") from None
    jitter = seconds(parts["jitter"]) if parts.get("jitter") else 0.0
    return Fault(action, ranks, moment, None if lasts is None else seconds(lasts), amount, jitter)


def _action(clause: str) -> Action:
    for action in Action:
        if clause.startswith(action.value):
            return action
    known = ", ".join(repr(action.value) for action in Action)
    raise FaultError(f"invalid fault {clause!r}: expected one that begins with {known}")


def _ranks(clause: str, parts: dict[str, str], size: int, chance: random.Random) -> tuple[int, ...]:
    """Return the rank, or the ends of the link with the lower one first."""
    given = [parts["rank"]] if parts.get("rank") else (parts.get("link") or "all").split("-")
    if given == ["all"]:
        return ()
    fixed = {int(rank) for rank in given if rank != "any"}
    for rank in fixed:
        if rank >= size:
            raise FaultError(f"invalid fault {clause!r}: there is no rank {rank}: expected 0 to {size - 1}")
    for end in given:
        if end == "any":
            others = [known for known in range(size) if known not in fixed]
            if others:
                fixed.add(chance.choice(others))
    if len(fixed) != len(given):
        raise FaultError(f"invalid fault {clause!r}: expected a link between two different ranks")
    return tuple(sorted(fixed))


def _moment(clause: str, parts: dict[str, str], chance: random.Random, operations: Sequence[str]) -> Moment | None:
    if parts.get("time"):
        return Moment(seconds(parts["time"]))
    bound = parts.get("bound")
    if bound is not None:
        if bound.isdigit():
            return Moment(operation=operations[0], number=chance.randint(1, _call_number(clause, bound)))
        return Moment(chance.uniform(0.0, seconds(bound)))
    operation = parts.get("operation")
    if operation is None:
        return None
    if operation not in operations:
        raise FaultError(
            f"invalid fault {clause!r}: unknown operation {operation}: expected one of {', '.join(operations)}"
        )
    return Moment(operation=operation, number=_call_number(clause, parts["number"]))


def _call_number(clause: str, text: str) -> int:
    number = int(text)
    if number < 1:
        raise FaultError(f"invalid fault {clause!r}: calls are counted from 1")
    return number


def seconds(duration: float | str) -> float:
    """Return a duration in seconds: a number of seconds, or a text such as ``0.5s``, ``20ms`` or ``2min``.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(duration, str):
        found = _DURATION.fullmatch(duration.strip())
        if found is not None:
            return float(found[1]) * _UNITS[found[2]]
    elif not isinstance(duration, bool) and 0 <= duration < math.inf:
        return float(duration)
    raise ValueError(f"invalid duration {duration!r}: expected seconds, or a text such as 0.5s, 20ms or 2min")


def bits_per_second(text: str) -> float:
    """Return a rate such as ``600mbit`` in bits per second.

    Raises
    ------
    ValueError
        If it is none, or zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]bit)", text.strip())
    if found is None or not float(found[1]):
        raise ValueError(f"invalid bandwidth {text!r}: expected bits per second above 0 such as 600mbit or 10gbit")
    return float(found[1]) * _BIT_UNITS[found[2]]


def share(text: str) -> float:
    """Return a percentage such as ``0.1%`` as a number from 0 to 1.

    Raises
    ------
    ValueError
        If it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)%", text.strip())
    if found is None or float(found[1]) > 100:
        raise ValueError(f"invalid share {text!r}: expected a percentage up to 100% such as 0.1%")
    return float(found[1]) / 100


def _shown(duration: float) -> str:
    return f"{duration:.12g}s"


def of_link(faults: Sequence[Fault], rank: int, peer: int) -> tuple[Fault, ...]:
    """Return the faults of the link between two ranks."""
    ends = tuple(sorted((rank, peer)))
    return tuple(fault for fault in faults if fault.of_link and fault.ranks in ((), ends))
