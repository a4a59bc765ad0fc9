"""The extension's state against a model of a few lines: whatever ranks do, in whatever order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rendezvous.job_state import NO_TICKET
from rendezvous.jobs import Jobs
from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.messages import Announce, Introduction, Registration


class JobsAgainstModel(RuleBasedStateMachine):
    """The model is the set of (job, from rank, to rank, port) announced by those alive.

    Two are introduced if, and only if, each has announced itself to the other in the same job.
    """

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.jobs: Jobs[int] = Jobs(relaying=False)
        self.alive: dict[int, tuple[str, int]] = {}
        self.announced: dict[tuple[str, int, int], int] = {}
        self.born = 0
        self.failed: set[str] = set()

    @rule(target=clients, job=st.sampled_from("xy"), rank=st.integers(0, 3), instance=st.integers(0, 1))
    def register(self, job: str, rank: int, instance: int) -> int:
        self.born += 1
        known = Registration(job, "comm", rank, 4, bytes([instance] * 16), Endpoint("192.0.2.1", 1))
        former = next((client for client, home in self.alive.items() if home == (job, rank)), None)
        delivered = self.jobs.register(self.born, known, known.local)
        everybody = [client for client, home in self.alive.items() if home[0] == job]
        if job in self.failed:
            assert [delivery.client for delivery in delivered] == [self.born]
        elif delivered:  # another process of the same rank was there: all are sent away
            assert former is not None
            self.failed.add(job)
            assert sorted(delivery.client for delivery in delivered) == [*everybody, self.born]
            for client in everybody:
                self.depart(client)
        else:
            if former is not None:
                self.depart(former)
            self.alive[self.born] = (job, rank)
        return self.born

    @rule(client=clients, peer=st.integers(0, 3), port=st.integers(1, 65535))
    def announce(self, client: int, peer: int, port: int) -> None:
        if client not in self.alive or self.alive[client][1] == peer:
            with pytest.raises(ProtocolError):
                self.jobs.announce(client, Announce(peer, port))
            return
        job, rank = self.alive[client]
        self.announced[job, rank, peer] = port
        delivered = {delivery.client: delivery.message for delivery in self.jobs.announce(client, Announce(peer, port))}
        theirs = self.announced.get((job, peer, rank))
        if theirs is None:
            assert delivered == {}
            return
        other = next(found for found, home in self.alive.items() if home == (job, peer))
        assert delivered == {
            client: Introduction(peer, (Endpoint("192.0.2.1", theirs),), NO_TICKET),
            other: Introduction(rank, (Endpoint("192.0.2.1", port),), NO_TICKET),
        }

    @rule(client=clients, peer=st.integers(0, 3))
    def withdraw(self, client: int, peer: int) -> None:
        if client in self.alive:
            self.jobs.withdraw(client, peer)
            self.announced.pop((*self.alive[client], peer), None)

    @rule(client=consumes(clients))
    def leave(self, client: int) -> None:
        self.jobs.remove(client)
        self.depart(client)

    def depart(self, client: int) -> None:
        home = self.alive.pop(client, None)
        self.announced = {key: port for key, port in self.announced.items() if key[:2] != home}

    @invariant()
    def nobody_alive_is_forgotten(self) -> None:
        assert len(self.jobs) == len(self.alive)
        assert self.jobs.count == len({job for job, _ in self.alive.values()})


JobsAgainstModel.TestCase.settings = settings(max_examples=80, stateful_step_count=30)


TestJobsAgainstModel = JobsAgainstModel.TestCase
