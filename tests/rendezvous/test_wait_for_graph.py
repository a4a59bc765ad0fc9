"""Circles of waiting ranks are found, and nothing else is taken for one: against a simulation of ranks that send."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rendezvous.protocol.waiting import Awaited, Counts, Waiting, pack_counts
from rendezvous.wait_for_graph import WaitForGraph


def waiting(peer: int, *counts: tuple[int, int, int], awaited: Awaited = Awaited.sending, turn: int = 0) -> Waiting:
    """Return the statement of a rank that is connected with all others; `counts` are those that are not 0."""
    known = {other: Counts(other, 0, 0) for other in range(100)} | {each[0]: Counts(*each) for each in counts}
    return Waiting(peer, awaited, turn, pack_counts(list(known.values())), "recv")


def test_a_deadlock_of_three_ranks_is_found_with_the_last_report() -> None:
    waits = WaitForGraph()
    assert waits.record(0, waiting(1)) is None
    assert waits.record(1, waiting(2)) is None
    assert waits.record(2, waiting(0)) == [2, 0, 1]
    assert waits.describe([2, 0, 1]).startswith(
        "deadlock: 3 ranks wait for each other: rank 2 in recv waits for rank 0, "
        "rank 0 in recv waits for rank 1, rank 1 in recv waits for rank 2; make matching calls"
    )


def test_a_message_in_transit_is_no_deadlock() -> None:
    waits = WaitForGraph()
    waits.record(0, waiting(1, (2, 1, 0)))
    waits.record(1, waiting(2))
    assert waits.record(2, waiting(0)) is None
    assert waits.record(2, waiting(0, (0, 0, 1))) == [2, 0, 1]


def test_a_rank_that_waits_for_a_deadlock_is_not_in_it() -> None:
    waits = WaitForGraph()
    waits.record(0, waiting(1))
    assert waits.record(3, waiting(0)) is None
    assert waits.record(1, waiting(0)) == [1, 0]
    assert waits.record(3, waiting(0)) is None


def test_a_sender_must_report_again_after_the_other_has_started_to_wait() -> None:
    waits = WaitForGraph()
    waits.record(0, waiting(1, (1, 1, 0), awaited=Awaited.receiving))
    waits.record(0, waiting(1, (1, 1, 0), awaited=Awaited.receiving))
    assert waits.record(1, waiting(2)) is None
    assert waits.record(2, waiting(0)) is None
    assert waits.record(0, waiting(1, (1, 1, 0), awaited=Awaited.receiving)) is None
    assert waits.record(0, waiting(1, (1, 1, 0), awaited=Awaited.receiving)) == [0, 1, 2]


def test_a_wait_for_an_object_must_be_reported_again_after_the_other_has_started_to_wait() -> None:
    waits = WaitForGraph()
    zero, one, other = (waiting(peer, awaited=Awaited.writing) for peer in (1, 0, 2))
    assert waits.awaited(0) is None
    assert [waits.record(0, zero), waits.record(0, zero), waits.record(1, one)] == [None] * 3
    assert waits.record(1, one) is None, "rank 0 may find what rank 1 wrote before it began to wait"
    assert waits.record(0, zero) is None, "it may have looked before rank 1 began"
    assert waits.record(0, zero) == [0, 1]
    assert waits.awaited(0) == 1
    assert waits.record(1, other) is None
    assert waits.record(1, waiting(0, awaited=Awaited.writing, turn=1)) is None
    assert waits.record(0, zero) is None, "rank 1 went on, and is in another wait"


def test_a_sender_and_its_receiver_are_no_deadlock() -> None:
    waits = WaitForGraph()
    for _ in range(3):
        assert waits.record(0, waiting(1, (1, 1, 0), awaited=Awaited.receiving)) is None
        assert waits.record(1, waiting(0, (0, 0, 1))) is None


def test_ranks_that_are_not_connected_wait_for_each_other_until_they_are() -> None:
    waits = WaitForGraph()
    alone = lambda peer: Waiting(peer, Awaited.connecting, 0, b"", "recv")  # noqa: E731
    assert waits.record(0, alone(1)) is None
    assert waits.record(1, alone(0)) is None
    assert waits.record(1, alone(2)) is None
    assert waits.record(2, waiting(0)) is None
    assert waits.record(2, alone(0)) == [2, 0, 1]


def only(peer: int, awaited: Awaited, *counts: tuple[int, int, int], turn: int = 0) -> Waiting:
    """Return the report of a rank that is connected only with the ranks of `counts`."""
    return Waiting(peer, awaited, turn, pack_counts([Counts(*each) for each in counts]), "recv")


def blocked(report: Waiting, *counts: tuple[int, int, int]) -> bool:
    """Return whether one report of rank 0, which waits for rank 1, counts in a cycle with rank 1.

    Rank 1 waits for an object of rank 0, and its reports count, since they are repeated. `counts` are its counts.
    """
    waits = WaitForGraph()
    assert waits.record(0, report) is None
    assert waits.record(1, only(0, Awaited.writing, *counts)) is None
    cycle = waits.record(1, only(0, Awaited.writing, *counts))
    assert cycle in (None, [1, 0])
    return cycle is not None


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        ([(1, 0, 5)], [(0, 5, 0)], True),
        ([(1, 0, 4)], [(0, 5, 0)], False),
        ([(1, 5, 0)], [(0, 5, 0)], False),
        ([(2, 0, 5)], [(0, 5, 0)], False),
        ([(1, 0, 5)], [(2, 5, 0)], False),
        ([], [(0, 0, 0)], False),
        ([(1, 0, 0)], [], False),
        ([], [], False),
    ],
)
def test_a_wait_for_a_message_counts_only_if_all_messages_of_the_peer_were_received(
    own: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]], expected: bool
) -> None:
    assert blocked(only(1, Awaited.sending, *own), *theirs) is expected


@pytest.mark.parametrize(
    ("own", "theirs", "expected"),
    [
        ([(0, 4, 5)], [(1, 4, 6)], True),
        ([(0, 4, 5)], [(1, 5, 6)], False),
        ([(0, 4, 5)], [(1, 6, 7)], False),
        ([(1, 4, 5)], [(1, 4, 6)], False),
        ([(0, 4, 5)], [(0, 4, 6)], False),
        ([(0, 4, 5)], [], False),
        ([], [(1, 4, 6)], False),
    ],
)
def test_a_wait_for_a_round_counts_only_if_the_peer_has_not_reached_it(
    own: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]], expected: bool
) -> None:
    assert blocked(only(1, Awaited.round, *own), *theirs) is expected


def test_a_wait_for_a_connection_counts_only_if_the_peer_is_not_connected() -> None:
    assert blocked(only(1, Awaited.connecting), (2, 0, 0))
    assert not blocked(only(1, Awaited.connecting), (0, 0, 0))
    assert blocked(only(1, Awaited.connecting, (1, 0, 0)))


@pytest.mark.parametrize("awaited", [Awaited.receiving, Awaited.writing])
def test_a_single_report_of_sending_or_of_an_object_does_not_count(awaited: Awaited) -> None:
    assert not blocked(only(1, awaited, (1, 0, 0)), (0, 0, 0))


def test_two_ranks_that_send_to_each_other_with_full_buffers_are_a_deadlock() -> None:
    waits = WaitForGraph()
    zero, one = only(1, Awaited.receiving, (1, 3, 0)), only(0, Awaited.receiving, (0, 3, 0))
    reports = [(0, zero), (1, one)] * 2 + [(0, zero)]
    assert [waits.record(rank, report) for rank, report in reports] == [None, None, None, None, [0, 1]]


def test_the_first_report_of_a_wait_is_when_it_began_however_often_it_is_repeated() -> None:
    waits = WaitForGraph()
    zero, one = only(1, Awaited.writing), only(0, Awaited.writing)
    assert waits.record(0, zero) is None
    assert waits.record(1, one) is None
    assert waits.record(0, zero) is None
    assert waits.record(1, one) is None
    assert waits.record(0, zero) == [0, 1], "both have looked again after the other began"


def test_a_new_wait_for_the_same_rank_must_be_repeated_itself() -> None:
    waits = WaitForGraph()
    one = only(0, Awaited.writing)
    assert waits.record(1, one) is None
    for _ in range(3):
        assert waits.record(0, only(2, Awaited.writing)) is None
    assert [waits.record(1, one), waits.record(1, one)] == [None, None]
    assert waits.record(0, only(1, Awaited.writing, turn=1)) is None
    assert waits.record(1, one) is None
    assert [waits.record(0, only(1, Awaited.writing, turn=1)) for _ in range(2)] == [None, None]
    assert waits.record(1, one) == [1, 0]


def test_a_rank_without_a_report_is_in_no_cycle() -> None:
    waits = WaitForGraph()
    assert waits.awaited(1) is None
    assert waits.record(0, waiting(1)) is None
    assert (waits.awaited(0), waits.awaited(1)) == (1, None)
    assert waits.record(1, waiting(0)) == [1, 0]
    waits.forget(0)
    assert waits.awaited(0) is None
    assert waits.record(0, waiting(1)) == [0, 1]


def test_a_large_deadlock_is_described_in_part() -> None:
    waits = WaitForGraph()
    for rank in range(99):
        waits.record(rank, waiting(rank + 1))
    cycle = waits.record(99, waiting(0))
    assert cycle is not None
    assert len(cycle) == 100
    text = waits.describe(cycle)
    assert "rank 4 in recv waits for rank 5, and 94 more ranks" in text
    assert len(text) < 1000


def test_the_reports_of_a_removed_rank_are_removed() -> None:
    waits = WaitForGraph()
    waits.record(0, waiting(1))
    waits.forget(0)
    waits.forget(7)
    assert waits.record(1, waiting(0)) is None


actions = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["send", "recv", "deliver", "tell"]))
)


@settings(max_examples=300)
@given(actions)
def test_a_deadlock_is_found_only_if_no_rank_can_continue_and_always_once_all_have_reported(
    acts: list[tuple[int, int, str]],
) -> None:
    """The model: ranks send without waiting, messages and reports are delivered late, one report for each wait."""
    waits, size = WaitForGraph(), 4
    sent = [[0] * size for _ in range(size)]
    received = [[0] * size for _ in range(size)]
    awaited: list[int | None] = [None] * size
    untold: list[Waiting | None] = [None] * size
    turns = [0] * size

    def stuck() -> set[int]:
        """The ranks whose chain of waits, with nothing on its way, leads back to themselves."""
        found = set()
        for rank in range(size):
            chain: list[int] = []
            at: int | None = rank
            while at is not None and at not in chain:
                chain.append(at)
                peer = awaited[at]
                at = None if peer is None or sent[peer][at] > received[at][peer] else peer
            if at == rank:
                found.add(rank)
        return found

    def tell(rank: int) -> None:
        statement, untold[rank] = untold[rank], None
        if statement is not None:
            cycle = waits.record(rank, statement)
            assert cycle is None or set(cycle) <= stuck()

    for rank, peer, act in acts:
        if rank == peer:
            continue
        if act == "send" and awaited[rank] is None:
            sent[rank][peer] += 1
        elif act == "recv" and awaited[rank] is None:
            tell(rank)  # a connection keeps its order
            awaited[rank], turns[rank] = peer, turns[rank] + 1
            counts = [(other, sent[rank][other], received[rank][other]) for other in range(size)]
            untold[rank] = waiting(peer, *counts, turn=turns[rank])
        elif act == "deliver" and awaited[rank] == peer and sent[peer][rank] > received[rank][peer]:
            received[rank][peer] += 1
            awaited[rank] = None
        elif act == "tell":
            tell(rank)
    before = stuck()
    for rank in range(size):
        tell(rank)
    if before:
        again = [rank for rank in before if awaited[rank] is not None]
        peers = [awaited[rank] for rank in again]
        found = []
        for rank, peer in zip(again, peers, strict=True):
            assert peer is not None
            counts = [(other, sent[rank][other], received[rank][other]) for other in range(size)]
            found.append(waits.record(rank, waiting(peer, *counts, turn=turns[rank])))
        assert all(cycle is not None for cycle in found)
