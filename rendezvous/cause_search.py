"""Finds the rank that others wait for in the end: asks along the chain of waiting ranks. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic

from rendezvous.job_state import Client, Delivery, Job, Member
from rendezvous.protocol.messages import Cause, State, StateRequest

_SHOWN = 4
"""The most ranks of a chain that the error describes."""


class CauseSearch(Generic[Client]):
    """The search of one rank whose time limit is over.

    Reports of waits are not used: they are not withdrawn when a rank continues. A rank that waits answers at once, in
    the communicator that it waits in. One that does not answer is stopped, or in its own code. The chain may lead from
    one communicator to another: a process is asked in all of them.

    Parameters
    ----------
    client
        The rank that asked.
    job
        Its communicator.
    rank
        Its number.
    peer
        The rank that it waits for.
    numbers
        Where the numbers of requests come from.
    places
        Returns the communicators in which the process of a member is registered.

    Attributes
    ----------
    client
        The rank that asked.
    number
        Number of the current request.
    done
        Whether the result is known.
    """

    def __init__(
        self,
        client: Client,
        job: Job[Client],
        rank: int,
        peer: int,
        numbers: Iterator[int],
        places: Callable[[Member[Client]], Mapping[Client, Job[Client]]],
    ) -> None:
        self.client = client
        self.number = 0
        self._numbers = numbers
        self._places = places
        self._own = job
        self._passed = {job.members[rank].process}
        self._job = job
        self._rank = peer
        self._texts: list[str] = []
        self._asked: dict[Client, tuple[Job[Client], int]] = {}
        self._is_late = False
        self.done = False

    def step(self) -> list[Delivery[Client]]:
        """Return the requests to the next rank, or the result."""
        member = self._job.members.get(self._rank)
        if member is None:
            known = any(self._rank in other.ended for other in self._job.members.values())
            return self._result("has ended" if known else "has not been started, or has not registered")
        if member.process in self._passed:
            return self._result("")
        self._passed.add(member.process)
        self._is_late = False
        self.number = next(self._numbers)
        places = {member.client: self._job, **self._places(member)}
        self._asked = {client: (job, job.rank_of(client)) for client, job in places.items()}
        return [Delivery(client, StateRequest(self.number)) for client in self._asked]

    def answer(self, client: Client, state: State) -> list[Delivery[Client]]:
        """Handle an answer; return the next requests, the result, or nothing while other answers are expected."""
        if self.done or client not in self._asked or state.number != self.number:
            return []
        job, rank = self._asked[client]
        if state.awaited is not None:
            self._texts.append(f"{self._name(job, rank)} in {state.text} waits for {self._name(job, state.awaited)}")
            self._job, self._rank = job, state.awaited
            return self.step()
        del self._asked[client]
        self._is_late = True
        return [] if self._asked else self.no_answer()

    def no_answer(self) -> list[Delivery[Client]]:
        """Handle the end of the time in which the current request had to be answered; return the result."""
        if self._is_late:
            return self._result("is late: it waits for no rank")
        return self._result("does not answer: it is stopped, or busy in its own code")

    def _name(self, job: Job[Client], rank: int) -> str:
        return f"rank {rank}" if job is self._own else f"rank {rank} of communicator {job.key[1]!r}"

    def _result(self, what: str) -> list[Delivery[Client]]:
        """Return the result: what is said of the last rank, or nothing if the chain is a cycle."""
        self.done = True
        texts = self._texts[:_SHOWN]
        if len(self._texts) > _SHOWN:
            texts.append(f"and so on over {len(self._texts) - _SHOWN} more ranks")
        origin = None
        if what:
            origin = self._own_number()
            same = "" if self._job is self._own or origin is None else f" (rank {origin} here)"
            texts.append(f"{self._name(self._job, self._rank)}{same} {what}")
        return [Delivery(self.client, Cause(origin, ", ".join(texts)))]

    def _own_number(self) -> int | None:
        """Return which rank of the asking rank's communicator the last one is; None if it is in another one only."""
        if self._job is self._own:
            return self._rank
        process = self._job.known.get(self._rank)
        return next((rank for rank, each in self._own.known.items() if each == process), None)
