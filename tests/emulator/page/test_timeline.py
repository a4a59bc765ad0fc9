"""The timeline of a run: rows, shapes and times."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.lambda_.core.history import InvocationRecord, InvocationStatus
from emulator.page.timeline import WIDTH, Activity, handler_span, start_spread, timeline, times
from fmi_shim.log_lines import Phase
from tests.emulator.page.calls import call

DOWNLOAD = Phase("download", ((100.6, 100.9),), 0.3, 1)
COMMUNICATION = Phase("communication", ((101.0, 101.5), (102.0, 102.4)), 0.8, 12)


def traced(_: InvocationRecord) -> list[Phase]:
    return [DOWNLOAD, COMMUNICATION]


def untraced(_: InvocationRecord) -> list[Phase]:
    return []


def spans(path: str) -> list[tuple[int, int]]:
    return [(int(low), int(low) + int(width)) for low, width in re.findall(r"M(\d+) \d+h(\d+)", path)]


def test_a_row_has_its_phases_at_their_times() -> None:
    drawn = timeline([call(0)], traced, 100.0, 102.5)
    (row,) = drawn.rows
    assert {shape.part: spans(shape.path) for shape in row.shapes} == {
        Activity.COLD_START: [(0, 2000)],
        Activity.COMPUTE: [(2000, 10000)],
        Activity.DOWNLOAD: [(2400, 3600)],
        Activity.COMMUNICATION: [(4000, 6000), (8000, 9600)],
    }
    assert drawn.parts == (Activity.COLD_START, Activity.DOWNLOAD, Activity.COMPUTE, Activity.COMMUNICATION)


def test_compute_is_the_rest_of_the_handlers_time() -> None:
    took = times(call(0), traced(call(0)), 200.0)
    assert (took.cold, took.download, took.communication, took.calls) == (0.5, 0.3, 0.8, 12)
    assert took.compute is not None
    assert round(took.compute, 6) == 0.9
    unknown = times(call(0, init_ms=None, billed_ms=2000), [], 200.0)
    assert (unknown.cold, unknown.download, unknown.communication, unknown.compute) == (None, None, None, 2.0)


def test_the_endpoints_own_work_is_not_the_handlers_time() -> None:
    late = call(0, billed_ms=1500)
    assert handler_span(late, 200.0) == (101.5, 102.5)
    assert times(late, [], 200.0).compute == 1.0
    (row,) = timeline([late], untraced, 100.0, 102.5).rows
    assert {shape.part: spans(shape.path) for shape in row.shapes} == {
        Activity.WAIT: [(2000, 6000)],
        Activity.COLD_START: [(0, 2000)],
        Activity.COMPUTE: [(6000, 10000)],
    }


def test_a_running_rank_extends_to_the_present_and_a_waiting_one_has_a_thin_line() -> None:
    running = call(0, status=InvocationStatus.RUNNING, ended=None, init_ms=None, started=100.0)
    waiting = call(1, status=InvocationStatus.RUNNING, ended=None, init_ms=None, started=None)
    drawn = timeline([running, waiting], untraced, 100.0, 110.0)
    assert [(shape.part, spans(shape.path)) for row in drawn.rows for shape in row.shapes] == [
        (Activity.COMPUTE, [(0, WIDTH)]),
        (Activity.WAIT, [(0, WIDTH)]),
    ]


def test_a_thousand_rows_are_small_and_those_beyond_are_counted() -> None:
    drawn = timeline([call(rank) for rank in range(1100)], traced, 100.0, 102.5)
    assert (len(drawn.rows), drawn.left_out, drawn.height) == (1000, 100, 2000)
    labelled = [row for row in drawn.rows if row.is_labelled]
    assert [row.label for row in labelled[:3]] == ["rank 0", "rank 10", "rank 20"]
    assert all(low.y + 14 <= high.y for low, high in itertools.pairwise(labelled))


def test_the_spread_is_from_the_first_start_of_a_rank_to_the_last() -> None:
    starts = [call(0), call(1, started=103.0), call(2, started=None, ended=None), call(None, started=1.0)]
    assert start_spread(starts) == 2.5
    assert start_spread(starts[:1]) is None


@given(
    st.lists(st.tuples(st.floats(100, 103), st.floats(100, 103)), max_size=30),
    st.floats(100, 103),
    st.floats(0, 1e6),
)
def test_shapes_stay_within_the_drawing_for_any_intervals(
    intervals: list[tuple[float, float]], start: float, span: float
) -> None:
    phase = Phase("communication", tuple(intervals), 1.0, 1)
    drawn = timeline([call(0)], lambda _: [phase], start, start + span)
    for shape in drawn.rows[0].shapes:
        found = spans(shape.path)
        assert all(0 <= low < high <= WIDTH + 10 for low, high in found)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(found))
    assert len(drawn.ticks) <= 10
    assert all(0 <= tick.percent <= 100.001 for tick in drawn.ticks)
