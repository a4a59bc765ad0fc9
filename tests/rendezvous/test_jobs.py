"""Jobs, ranks and whom they are introduced to."""

from collections.abc import Iterator
from itertools import count

import pytest

from rendezvous.job_state import NO_TICKET, Delivery, RelayEndpoint
from rendezvous.jobs import Jobs
from rendezvous.protocol import Endpoint, ProtocolError
from rendezvous.protocol.messages import (
    Abort,
    Announce,
    Introduction,
    PeerEnded,
    ProbeRequest,
    Refusal,
    RefusalReason,
    Registration,
)
from rendezvous.protocol.waiting import Awaited, Waiting


def tickets() -> Iterator[bytes]:
    return (number.to_bytes(32, "big") for number in count(1))


def jobs(relaying: bool = False, raw_names: frozenset[bytes] = frozenset()) -> Jobs[str]:
    source = tickets()
    return Jobs(relaying, raw_names, lambda: next(source))


def registration(
    rank: int, size: int = 4, job: str = "", comm: str = "comm", instance: int = 0, local: str = "192.0.2.1"
) -> Registration:
    return Registration(job, comm, rank, size, bytes([rank, instance]) * 8, Endpoint(local, 1000 + rank))


def join(jobs: Jobs[str], client: str, rank: int, observed: str = "", **more: object) -> list[Delivery[str]]:
    known = registration(rank, **more)  # type: ignore[arg-type] # passed through
    return jobs.register(client, known, Endpoint(observed, 7) if observed else known.local)


def introduction(client: str, peer: int, *endpoints: tuple[str, int], ticket: bytes = NO_TICKET) -> Delivery[str]:
    return Delivery(client, Introduction(peer, tuple(Endpoint(*endpoint) for endpoint in endpoints), ticket))


def test_two_ranks_that_announce_themselves_to_each_other_are_introduced() -> None:
    known = jobs()
    assert join(known, "a", 0) == join(known, "b", 1, local="192.0.2.9") == []
    assert known.announce("a", Announce(1, 50)) == []
    assert known.announce("b", Announce(2, 60)) == []
    assert known.announce("b", Announce(0, 61)) == [
        introduction("b", 0, ("192.0.2.1", 50)),
        introduction("a", 1, ("192.0.2.9", 61)),
    ]


def test_behind_a_nat_the_public_port_is_probed_and_the_same_nat_is_seen() -> None:
    known = jobs()
    join(known, "a", 0, observed="203.0.113.1", local="10.0.0.1")
    join(known, "b", 1, observed="203.0.113.1", local="10.0.0.2")
    join(known, "c", 2, local="203.0.113.9")
    (request,) = known.announce("a", Announce(1, 50))
    assert isinstance(request.message, ProbeRequest)
    (other,) = known.announce("b", Announce(0, 60))
    assert isinstance(other.message, ProbeRequest)
    assert known.probed(request.message.ticket, Endpoint("203.0.113.1", 5000)) == []
    assert known.probed(other.message.ticket, Endpoint("203.0.113.1", 6000)) == [
        introduction("b", 0, ("10.0.0.1", 50), ("203.0.113.1", 5000)),
        introduction("a", 1, ("10.0.0.2", 60), ("203.0.113.1", 6000)),
    ]
    known.announce("c", Announce(0, 70))
    (request,) = known.announce("a", Announce(2, 51))
    assert isinstance(request.message, ProbeRequest)
    assert known.probed(request.message.ticket, Endpoint("203.0.113.1", 5001)) == [
        introduction("a", 2, ("203.0.113.9", 70)),
        introduction("c", 0, ("203.0.113.1", 5001)),  # no local address for one who is not there
    ]
    assert known.probed(b"guessed", Endpoint("203.0.113.1", 1)) is None


def test_announcements_are_valid_until_withdrawn_so_that_a_rank_may_reconnect() -> None:
    known = jobs()
    join(known, "a", 0)
    join(known, "b", 1)
    known.announce("a", Announce(1, 50))
    known.announce("b", Announce(0, 60))
    assert join(known, "b again", 1) == []
    assert len(known) == 2
    assert len(known.announce("b again", Announce(0, 60))) == 2
    known.withdraw("a", 1)
    assert known.announce("b again", Announce(0, 60)) == []


def test_tickets_lead_to_the_two_ends_of_a_relay_until_withdrawn() -> None:
    known = jobs(relaying=True)
    join(known, "a", 0)
    join(known, "b", 1)
    known.announce("a", Announce(1, 50))
    to_b, to_a = (delivery.message for delivery in known.announce("b", Announce(0, 60)))
    assert isinstance(to_a, Introduction)
    assert isinstance(to_b, Introduction)
    one, other = known.relay_endpoint(to_a.ticket), known.relay_endpoint(to_b.ticket)
    assert one == RelayEndpoint(("", "comm"), 0, 1)
    assert other == one.other()
    assert known.relay_endpoint(NO_TICKET) is None
    known.withdraw("a", 1)
    assert known.relay_endpoint(to_a.ticket) is None
    known.remove("b")
    assert known.relay_endpoint(to_b.ticket) is None


def test_an_abort_reaches_all_others_and_those_that_register_later_once() -> None:
    known = jobs()
    for rank, client in enumerate("abc"):
        join(known, client, rank)
    abort = Abort(0, 2, 1, "lost rank 2")
    assert known.abort("a", abort) == [Delivery("b", abort), Delivery("c", abort)]
    assert known.abort("b", Abort(1, 2, 1, "a later one")) == []
    assert join(known, "d", 3) == [Delivery("d", abort)]
    for client in "abcd":
        known.remove(client)
    assert join(known, "next run", 0) == []


def test_two_processes_of_one_rank_refuse_all_ranks_of_the_job() -> None:
    known = jobs()
    join(known, "a", 0)
    join(known, "c", 2)
    refusals = join(known, "b", 0, instance=1)
    assert [delivery.client for delivery in refusals] == ["a", "c", "b"]
    assert all(
        isinstance(delivery.message, Refusal)
        and delivery.message.reason is RefusalReason.mismatch
        and "two processes run as rank 0" in delivery.message.text
        for delivery in refusals
    )
    assert len(known) == known.count == 0


def test_another_world_size_refuses_all_ranks_of_the_job() -> None:
    known = jobs()
    join(known, "a", 0)
    join(known, "b", 1)
    refusals = join(known, "c", 2, size=3)
    assert [delivery.client for delivery in refusals] == ["a", "b", "c"]
    assert "with 4 ranks, rank 2 with 3" in str(refusals[0].message)


def test_a_peer_in_raw_mode_is_refused_whichever_arrives_first() -> None:
    known = jobs(raw_names=frozenset({b"comm2_1"}))
    join(known, "a", 1)
    (refusal,) = known.announce("a", Announce(2, 50))
    assert "rank 2 at the rendezvous server does not run in framed mode as rank 1 does" in str(refusal.message)

    known = jobs()
    join(known, "a", 1)
    join(known, "in a job", 1, job="job")
    known.announce("a", Announce(2, 50))
    known.announce("in a job", Announce(2, 50))
    for unrelated in (b"comm3_1", b"comm2_", b"_1", b"2_1", b"\xff\xfe_1", b"comm999999_1"):
        assert known.on_raw_client(unrelated) == []
    assert [delivery.client for delivery in known.on_raw_client(b"comm2_1")] == ["a"]


@pytest.mark.parametrize("peer", [1, 4, 2**32 - 1])
def test_an_invalid_peer_is_a_protocol_error(peer: int) -> None:
    known = jobs()
    join(known, "a", 1)
    with pytest.raises(ProtocolError):
        known.announce("a", Announce(peer, 50))


def test_a_client_that_has_not_registered_is_a_protocol_error() -> None:
    known = jobs()
    join(known, "a", 1)
    for act in (
        lambda: known.announce("stranger", Announce(1, 50)),
        lambda: known.withdraw("stranger", 1),
        lambda: known.abort("stranger", Abort(1, 1, 1, "")),
        lambda: known.abort("a", Abort(2, 1, 1, "in another's name")),
    ):
        with pytest.raises(ProtocolError):
            act()


def test_a_late_rank_of_a_named_job_that_failed_is_notified() -> None:
    known = jobs()
    abort = Abort(0, 2, 1, "lost rank 2")
    join(known, "a", 0, job="named")
    known.abort("a", abort)
    known.remove("a")
    assert join(known, "late", 1, job="named") == [Delivery("late", abort)]
    join(known, "b", 0, job="other")
    join(known, "c", 1, size=2, job="other")
    (refusal,) = join(known, "late", 2, job="other")
    assert "with 4 ranks, rank 1 with 2" in str(refusal.message)


def test_ranks_that_connect_to_an_ended_rank_are_notified_now_or_when_they_announce() -> None:
    known = jobs()
    for rank, client in enumerate("abc"):
        join(known, client, rank)
    known.announce("a", Announce(2, 50))
    assert known.leave("c") == [Delivery("a", PeerEnded(2, False))]
    assert known.announce("b", Announce(2, 50)) == [Delivery("b", PeerEnded(2, False))]
    assert join(known, "next communicator", 2, instance=1) == []
    assert known.announce("b", Announce(2, 50)) == []


def test_ranks_that_wait_for_an_ended_rank_are_notified_now_or_when_they_report_it() -> None:
    known = jobs()
    for rank, client in enumerate("abc"):
        join(known, client, rank)
    waiting = Waiting(2, Awaited.writing, 0, b"", "recv")
    assert known.record_wait("a", waiting) == []
    assert known.disconnected("c")() == [Delivery("a", PeerEnded(2, True))]
    assert known.record_wait("b", waiting) == [Delivery("b", PeerEnded(2, True))]
    assert join(known, "c again", 2) == []
    assert known.record_wait("b", waiting) == []


def test_a_late_rank_of_a_named_job_that_lost_a_rank_is_notified_when_it_waits_for_it() -> None:
    known, waiting = jobs(), Waiting(1, Awaited.writing, 0, b"", "recv")
    for job in ("named", ""):
        join(known, f"b {job}", 1, job=job)
        assert known.disconnected(f"b {job}")() == []
    assert join(known, "a", 0, job="named") == []
    assert known.record_wait("a", waiting) == [Delivery("a", PeerEnded(1, True))]
    join(known, "b again", 1, job="named", instance=1)
    assert known.record_wait("a", waiting) == []
    join(known, "next run's", 0)
    assert known.record_wait("next run's", waiting) == []


def test_a_rank_of_a_named_job_that_registers_after_another_has_left_is_notified_when_it_connects_to_it() -> None:
    known = jobs()
    for job in ("named", ""):
        join(known, f"b {job}", 1, job=job)
        assert known.leave(f"b {job}") == []
        join(known, f"a {job}", 0, job=job)
    assert known.announce("a named", Announce(1, 50)) == [Delivery("a named", PeerEnded(1, False))]
    assert known.announce("a ", Announce(1, 50)) == []
    join(known, "b again", 1, job="named")
    assert known.announce("a named", Announce(1, 50)) == []


def test_a_rank_that_leaves_when_all_have_registered_is_not_remembered() -> None:
    known = jobs()
    for client, rank in (("a", 0), ("b", 1)):
        join(known, client, rank, size=2, job="named")
    known.leave("b")
    known.leave("a")
    join(known, "a of the next communicator", 0, size=2, job="named")
    assert known.announce("a of the next communicator", Announce(1, 50)) == []


def test_ranks_that_left_one_after_the_other_are_forgotten_when_all_have() -> None:
    known = jobs()
    for client, rank in (("a", 0), ("b", 1)):
        join(known, client, rank, size=2, job="named")
        known.leave(client)
    join(known, "a of the next communicator", 0, size=2, job="named")
    assert known.announce("a of the next communicator", Announce(1, 50)) == []


def test_the_end_of_an_earlier_run_does_not_affect_a_rank_of_the_next_one() -> None:
    known = jobs()
    join(known, "a", 0)
    join(known, "b", 1)
    known.leave("b")
    join(known, "c", 2)
    assert known.announce("c", Announce(1, 50)) == []


def test_a_rank_is_lost_unless_it_reconnects() -> None:
    known = jobs()
    join(known, "a", 0)
    join(known, "b", 1)
    known.announce("a", Announce(1, 50))
    tell = known.disconnected("b")
    join(known, "b again", 1)
    assert tell() == []
    tell = known.disconnected("b again")
    assert tell() == [Delivery("a", PeerEnded(1, True))]
    tell = known.disconnected("a")
    join(known, "next run", 1)
    known.announce("next run", Announce(0, 50))
    assert tell() == []
    assert known.disconnected("stranger")() == []


def test_the_oldest_of_too_many_failed_jobs_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rendezvous.jobs._FAILED_JOBS", 3)
    known = jobs()
    failure = Abort(0, 0, 1, "it failed")
    for number in range(5):
        join(known, f"first of {number}", 0, job=f"job {number}")
        known.abort(f"first of {number}", failure)
        known.remove(f"first of {number}")
    for number in range(5):
        answers = join(known, f"late in {number}", 1, job=f"job {number}")
        assert [answer.message for answer in answers] == ([] if number < 2 else [failure])
