"""The end of a chain of waiting ranks, also where it leads through several communicators."""

from rendezvous.cause_search import CauseSearch
from rendezvous.jobs import Jobs
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Cause, Registration, State, StateRequest

HERE = Endpoint("127.0.0.1", 1)
PART = "world0.1/"


def jobs(*members: tuple[str, str, int, int]) -> Jobs[str]:
    """Return jobs with registered members: client, communicator, rank, process."""
    known: Jobs[str] = Jobs()
    sizes = {comm: sum(other == comm for _, other, _, _ in members) for _, comm, _, _ in members}
    for client, comm, rank, process in members:
        instance = bytes([process]) * 8 + client.encode().ljust(8)[:8]
        known.register(client, Registration("job", comm, rank, sizes[comm], instance, HERE), HERE)
    return known


# Ranks 1 and 2 of the world are ranks 0 and 1 of a part of it.
WORLD = [("a", "world", 0, 10), ("b", "world", 1, 11), ("c", "world", 2, 12), ("b'", PART, 0, 11), ("c'", PART, 1, 12)]


def asked(search: CauseSearch[str]) -> set[str]:
    """Return which clients the search asks next."""
    deliveries = search.step()
    assert all(isinstance(delivery.message, StateRequest) for delivery in deliveries)
    return {delivery.client for delivery in deliveries}


def test_a_chain_through_a_part_names_the_rank_of_the_world() -> None:
    search = jobs(*WORLD).find_cause("a", 1)
    assert asked(search) == {"b", "b'"}
    requests = search.answer("b'", State(search.number, 1, "recv"))
    assert {delivery.client for delivery in requests} == {"c", "c'"}
    (result,) = search.no_answer()
    assert (result.client, search.done) == ("a", True)
    assert result.message == Cause(
        2,
        f"rank 0 of communicator {PART!r} in recv waits for rank 1 of communicator {PART!r}, "
        f"rank 1 of communicator {PART!r} (rank 2 here) does not answer: it is stopped, or busy in its own code",
    )


def test_a_process_that_waits_for_none_in_one_communicator_may_wait_in_another() -> None:
    search = jobs(*WORLD).find_cause("a", 1)
    asked(search)
    assert search.answer("b", State(search.number, None, "")) == []
    assert search.answer("b'", State(search.number, 1, "recv")) != []
    search.answer("c", State(search.number, None, ""))
    (result,) = search.answer("c'", State(search.number, None, ""))
    assert isinstance(result.message, Cause)
    assert result.message.origin == 2
    assert "is late" in result.message.text


def test_a_rank_that_has_ended_is_found_in_the_part_it_was_in() -> None:
    known = jobs(*WORLD)
    notify = [known.disconnected(client) for client in ("c", "c'")]
    for each in notify:
        each()
    search = known.find_cause("a", 1)
    asked(search)
    (result,) = search.answer("b'", State(search.number, 1, "recv"))
    assert isinstance(result.message, Cause)
    assert result.message.origin == 2
    assert result.message.text.endswith("(rank 2 here) has ended")


def test_a_rank_of_another_communicator_alone_is_described_but_not_numbered() -> None:
    search = jobs(*WORLD, ("d'", "other", 0, 13), ("b*", "other", 1, 11)).find_cause("a", 1)
    assert asked(search) == {"b", "b'", "b*"}
    search.answer("b*", State(search.number, 0, "recv"))
    (result,) = search.no_answer()
    assert isinstance(result.message, Cause)
    assert result.message.origin is None
    assert "rank 0 of communicator 'other' does not answer" in result.message.text


def test_a_cycle_through_two_communicators_has_no_end() -> None:
    search = jobs(*WORLD).find_cause("a", 1)
    asked(search)
    search.answer("b'", State(search.number, 1, "recv"))
    (result,) = search.answer("c", State(search.number, 0, "recv"))
    assert isinstance(result.message, Cause)
    assert result.message.origin is None


def test_ranks_of_one_communicator_in_one_process_are_asked_alone() -> None:
    search = jobs(("a", "world", 0, 10), ("b", "world", 1, 11), ("c", "world", 2, 11)).find_cause("a", 1)
    assert asked(search) == {"b"}
