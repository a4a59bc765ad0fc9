"""Who waited for whom, and the rest of the profile, of histories with known times and of a real run."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.fmi.telemetry.history import History
from emulator.fmi.telemetry.profile import PROGRAM, advice, profile, profile_text
from emulator.fmi.telemetry.waits import Cause, by_pair, waits
from tests.emulator.fmi.telemetry.made_histories import MS, Made, made_history


def pairs(history: History) -> dict[tuple[int, int, Cause], int]:
    return {key: duration // MS for key, duration in by_pair(waits(history)).items()}


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        # rank 1 receives from 2 ms on what rank 0 sends at 10 ms
        ([[Made("send", 10, 11, peer=1)], [Made("recv", 2, 12, peer=0)]], {(1, 0, Cause.LATE_SENDER): 8}),
        # rank 0 cannot send before rank 1 receives
        ([[Made("send", 0, 9, peer=1)], [Made("recv", 7, 9, peer=0)]], {(0, 1, Cause.LATE_RECEIVER): 7}),
        # the kernel took the message: nobody waited
        ([[Made("send", 0, 1, peer=1)], [Made("recv", 7, 8, peer=0)]], {}),
        # the message with number 1 is another one
        ([[Made("send", 10, 11, 1, peer=1)], [Made("recv", 2, 12, 0, peer=0)]], {}),
        # a posted receipt waits in its wait alone
        (
            [
                [Made("isend", 10, 11, peer=1)],
                [Made("irecv", 1, 2, peer=0), Made("wait", 6, 12), Made("arrived", 6, 12, peer=0)],
            ],
            {(1, 0, Cause.LATE_SENDER): 4},
        ),
        (
            [[Made("barrier", 1, 9)], [Made("barrier", 8, 9)], [Made("barrier", 3, 9)]],
            {(0, 1, Cause.LAST_RANK): 7, (2, 1, Cause.LAST_RANK): 5},
        ),
        # a broadcast does not wait for the last rank
        (
            [[Made("bcast", 1, 9, root=1)], [Made("bcast", 5, 6, root=1)], [Made("bcast", 8, 9, root=1)]],
            {(0, 1, Cause.LATE_ROOT): 4},
        ),
        # a leaf of a reduction does not wait
        (
            [[Made("reduce", 1, 9, root=1)], [Made("reduce", 2, 9, root=1)], [Made("reduce", 8, 9, root=1)]],
            {(1, 2, Cause.LATE_SENDER): 6},
        ),
        # a prefix needs the ranks below alone
        (
            [[Made("scan", 5, 6)], [Made("scan", 1, 7)], [Made("scan", 9, 10)], [Made("scan", 2, 11)]],
            {(1, 0, Cause.LATE_SENDER): 4, (3, 2, Cause.LATE_SENDER): 7},
        ),
    ],
)
def test_waits_are_attributed_to_the_rank_that_was_late(
    ranks: list[list[Made]], expected: dict[tuple[int, int, Cause], int]
) -> None:
    assert pairs(made_history(*ranks)) == expected


def test_clocks_of_machines_are_compared_by_the_time_of_day() -> None:
    history = made_history([Made("barrier", 1, 9)], [Made("barrier", 1, 9)], epochs=[10**18, 10**18 + 5 * MS])
    assert pairs(history) == {(0, 1, Cause.LAST_RANK): 5}


def test_the_critical_path_leads_through_the_ranks_that_were_late() -> None:
    history = made_history(
        [Made("barrier", 2, 10), Made("send", 60, 61, peer=1), Made("barrier", 62, 80, 1)],
        [Made("barrier", 9, 10), Made("recv", 20, 61, peer=0), Made("barrier", 79, 80, 1)],
        [Made("barrier", 1, 10), Made("barrier", 11, 80, 1)],
    )
    found = profile(history)
    way = [(segment.rank, segment.began // MS % 1000, segment.ended // MS % 1000) for segment in reversed(found.path)]
    # rank 1 was last in the first barrier; then rank 1 waits for rank 0's message, and all for rank 1.
    assert way == [(1, 0, 9), (0, 9, 60), (1, 60, 79), (0, 79, 80)]
    parts = {name: sum(segment.parts.get(name, 0) for segment in found.path) // MS for name in (PROGRAM, "recv")}
    assert parts == {PROGRAM: 9 + 50 + 18, "recv": 1}
    assert found.seconds == pytest.approx(0.080)


def test_operations_and_bytes_are_summed() -> None:
    history = made_history(
        [Made("allreduce", 0, 4, 0, size=100), Made("bcast", 5, 6, 1, root=0, size=1000, channel="S3")],
        [Made("allreduce", 2, 4, 0, size=100), Made("bcast", 5, 6, 1, root=0, size=1000, channel="S3")],
    )
    found = profile(history)
    first, second = found.operations
    assert (first.operation, first.calls, first.last) == ("allreduce", 2, (1, 1.0))
    assert (first.seconds, first.waiting, first.spread) == pytest.approx((0.006, 0.002, 0.002))
    assert (second.operation, second.waiting) == ("bcast", 0)
    assert [(way.channel, way.operation, way.bytes) for way in found.algorithms] == [
        ("S3", "bcast", 2000),
        ("Direct", "allreduce", 200),
    ]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (
            made_history([Made("barrier", 0, 9)], [Made("barrier", 8, 9)]),
            "100% of all waiting is for rank 1: give rank 1",
        ),
        (
            made_history(
                [Made("barrier", 0, 9), Made("barrier", 18, 19, 1)], [Made("barrier", 8, 9), Made("barrier", 10, 19, 1)]
            ),
            "the ranks wait for each other in turn during 42% of their time",
        ),
        (
            made_history(*[[Made("allreduce", at, at + 0.9, at) for at in range(600)]] * 2),
            "combine their values into fewer, larger calls",
        ),
        (made_history(*[[Made("allreduce", 0, 9, size=10**6, channel="S3")]] * 2), "enable Direct"),
        (made_history(*[[Made("allreduce", 0, 9, size=10**6)]] * 2), "send less, in a shorter type"),
        (made_history(*[[Made("allreduce", 8, 9)]] * 2), None),
    ],
)
def test_advice_is_given_where_the_figures_allow_it(history: History, expected: str | None) -> None:
    sentence = advice(profile(history))
    if expected is None:
        assert sentence is None
        assert "advice" not in profile_text(profile(history))
    else:
        assert sentence is not None
        assert expected in sentence
        assert profile_text(profile(history)).splitlines()[-1] == f"advice: {sentence}"


CALLS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=8)


@given(st.lists(CALLS, min_size=2, max_size=4))
def test_a_critical_path_covers_the_run_without_gaps(steps: list[list[tuple[int, int]]]) -> None:
    ranks = []
    for own in steps:
        calls, now = [], 0
        for number, (pause, length) in enumerate(own):
            calls.append(Made("barrier", now + pause, now + pause + length, number))
            now += pause + length
        ranks.append(calls)
    found = profile(made_history(*ranks))
    path = list(reversed(found.path))
    assert path[0].began <= min(segment.began for segment in path)
    assert all(before.ended == after.began for before, after in itertools.pairwise(path))
    assert sum(segment.ended - segment.began for segment in path) == pytest.approx(found.seconds * 1e9, abs=1000)
    for segment in path:
        assert sum(segment.parts.values()) == segment.ended - segment.began


def test_a_real_run_names_the_late_ranks(recorded: Callable[[str], History]) -> None:
    found = profile(recorded("late_sender"))
    waited = {(waiting, late): seconds for waiting, late, _, seconds in found.pairs}
    assert waited[1, 0] > 0.1
    assert all(waited[rank, 2] > 0.1 for rank in (0, 1, 3))
    assert found.waiting > 0.1
    text = profile_text(found)
    assert "late sender" in text
    assert "last rank" in text
    assert "% of all waiting is for rank 2" in text


def test_a_run_without_calls_has_a_profile() -> None:
    assert profile_text(profile(History())) == "profile: no calls were recorded"
