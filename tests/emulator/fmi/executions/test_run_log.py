"""Log events of several runs in one group, in whatever order and however late CloudWatch returns them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.fmi.executions.log_window import LogWindow
from emulator.fmi.executions.run_log import RankOutput, RunLog
from emulator.fmi.log_reader import GroupEvent
from fmi_shim.log_lines import rank_line


def invocation(stream: str, began_ms: int, request: str, rank: int, run: str, lines: list[str]) -> list[GroupEvent]:
    texts = [f"START RequestId: {request} Version: $LATEST", rank_line(rank, 2, request, run), *lines]
    texts += [
        f"END RequestId: {request}",
        f"REPORT RequestId: {request}\tDuration: 10.00 ms\tBilled Duration: {10 + rank} ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 50 MB\t",
    ]
    return [GroupEvent(stream, began_ms + number, text + "\n") for number, text in enumerate(texts)]


# A sandbox runs a rank of one run, then one of another run; a second sandbox runs the other rank.
FIRST = [
    invocation("s1", 1000, "r-1", 0, "mine", ["a", "START of something"]),
    invocation("s1", 2000, "r-2", 0, "other", ["not mine"]),
    invocation("s1", 3000, "r-4", 1, "other", ["neither"]),
]
SECOND = invocation("s2", 1000, "r-3", 1, "mine", ["b", "c"])
EVENTS = [event for events in [*FIRST, SECOND] for event in events]
EXPECTED = {(0, "a"), (0, "START of something"), (1, "b"), (1, "c")}


@st.composite
def arrivals(draw: st.DrawFn) -> list[GroupEvent]:
    """Return the events in any order in which a stream's next invocation comes after the end of the one before."""
    first = [event for events in FIRST for event in draw(st.permutations(events))]
    second = list(draw(st.permutations(SECOND)))
    from_first = draw(st.permutations([True] * len(first) + [False] * len(second)))
    return [(first if is_first else second).pop(0) for is_first in from_first]


@given(arrivals(), st.integers(1, 7))
def test_any_order_gives_each_line_once_to_its_rank(events: list[GroupEvent], at_once: int) -> None:
    log = RunLog("mine")
    lines = [line for start in range(0, len(events), at_once) for line in log.add(events[start : start + at_once])]
    assert len(lines) == len(EXPECTED)
    assert {(line.rank, line.text) for line in lines} == EXPECTED
    # The billed time is the line's, here another than its duration.
    assert {rank: report.billed_ms for rank, report in log.reports.items()} == {0: 10, 1: 11}


def test_lines_in_order_are_returned_in_order() -> None:
    lines = RunLog("mine").add(EVENTS)
    assert [line for line in lines if line.rank == 1] == [RankOutput(1, 1002, "b"), RankOutput(1, 1003, "c")]


class LateLogs:
    """CloudWatch Logs that returns an event only some calls after it was written, in pages of two."""

    def __init__(self, delays: dict[int, int]) -> None:
        self.calls = 0
        self._delays = delays

    def filter_log_events(self, *, startTime: int, nextToken: str = "0", **_: object) -> dict[str, object]:  # noqa: N803 - boto3's names
        self.calls += nextToken == "0"
        found = [
            {"eventId": str(at), "timestamp": at, "logStreamName": "s", "message": str(at)}
            for at, calls in sorted(self._delays.items())
            if calls < self.calls and at >= startTime
        ]
        page = found[int(nextToken) : int(nextToken) + 2]
        more = {"nextToken": str(int(nextToken) + 2)} if int(nextToken) + 2 < len(found) else {}
        return {"events": page, **more}


@pytest.mark.parametrize("counted_s", [0.0, 600.0])
def test_the_events_of_ten_minutes_of_sleep_are_returned_once(counted_s: float) -> None:
    """The clock counts the time that the machine slept, or does not; events came before, during and after it."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    delays = {at_s * 1000: 0 if at_s < 10 else 1 for at_s in range(0, 610, 7)}
    window = LogWindow(LateLogs(delays), "group", 0, clock=lambda: now[0], sleep=sleep)
    before = [int(event.message) for event in window.fetch()]
    now[0] += counted_s
    after = [int(event.message) for event in window.fetch()]
    assert (before, sorted(after)) == ([0, 7000], sorted(delays)[2:])
    assert window.fetch() == []


def test_late_events_are_returned_once_and_requests_keep_the_quota() -> None:
    now = [0.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    logs = LateLogs({1000: 0, 5000: 2, 20000: 0, 29000: 1, 90000: 3, 2000: 4})
    window = LogWindow(logs, "group", 0, clock=lambda: now[0], sleep=sleep)
    found = [[int(event.message) for event in window.fetch()] for _ in range(4)]
    assert found == [[1000, 20000], [29000], [5000], [90000]]
    # Later than expected: the last reading of a run begins at its start.
    assert window.fetch() == []
    window.read_again()
    assert [event.message for event in window.fetch()] == ["2000"]
    requests = now[0] and len(waits)
    assert requests
    assert now[0] >= 4
