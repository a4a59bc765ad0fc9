"""Circles of waiting ranks are found, and nothing else is taken for one: against a simulation of ranks that send."""

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
    """The model: ranks send without waiting, messages are delivered late, statements are told late and once a wait."""
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
