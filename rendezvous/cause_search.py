"""Finds the rank that others wait for in the end: asks along the chain of waiting ranks. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from rendezvous.job_state import Client, Delivery, Job, Member
from rendezvous.protocol.messages import Cause, State, StateRequest

_SHOWN = 4
"""The most ranks of a chain that the error describes."""


class CauseSearch(Generic[Client]):
    """The search of one rank whose time limit is over.

    Reports of waits are not used: they are not withdrawn when a rank continues. A rank that waits answers at once.
    One that does not answer is stopped, or in its own code.

    Parameters
    ----------
    client
        The rank that asked.
    job
        Its job.
    rank
        Its number.
    peer
        The rank that it waits for.
    numbers
        Where the numbers of requests come from.

    Attributes
    ----------
    client
        The rank that asked.
    number
        Number of the current request.
    done
        Whether the result is known.
    """

    def __init__(self, client: Client, job: Job[Client], rank: int, peer: int, numbers: Iterator[int]) -> None:
        self.client = client
        self.number = 0
        self._numbers = numbers
        self._job = job
        self._path = [rank]
        self._next = peer
        self._texts: list[str] = []
        self._asked: Member[Client] | None = None
        self.done = False

    def step(self) -> Delivery[Client]:
        """Return the request to the next rank, or the result."""
        rank = self._next
        if rank in self._path:
            return self._result(None, "")
        member = self._job.members.get(rank)
        self._path.append(rank)
        if member is None:
            known = any(rank in other.ended for other in self._job.members.values())
            return self._result(rank, "has ended" if known else "has not been started, or has not registered")
        self._asked = member
        self.number = next(self._numbers)
        return Delivery(member.client, StateRequest(self.number))

    def answer(self, client: Client, state: State) -> Delivery[Client] | None:
        """Handle an answer; return the next request, the result, or None for an answer to another request."""
        if self.done or self._asked is None or self._asked.client != client or state.number != self.number:
            return None
        if state.awaited is None:
            return self._result(self._path[-1], "is late: it waits for no rank")
        self._texts.append(f"rank {self._path[-1]} in {state.text} waits for rank {state.awaited}")
        self._next = state.awaited
        return self.step()

    def no_answer(self) -> Delivery[Client]:
        """Handle the end of the time in which the current request had to be answered; return the result."""
        return self._result(self._path[-1], "does not answer: it is stopped, or busy in its own code")

    def _result(self, origin: int | None, what: str) -> Delivery[Client]:
        self.done = True
        texts = self._texts[:_SHOWN]
        if len(self._texts) > _SHOWN:
            texts.append(f"and so on over {len(self._texts) - _SHOWN} more ranks")
        if origin is not None:
            texts.append(f"rank {origin} {what}")
        return Delivery(self.client, Cause(origin, ", ".join(texts)))
