"""How long operations took, as the log tells it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmi_shim.calls import Calls
from fmi_shim.tracing import Intervals, TracedCalls, calls_type

PROGRAM = """
import sys, fmi_shim as fmi, time
comm = fmi.Communicator(0, 1, sys.argv[1], "traced")
for _ in range(3):
    comm.barrier()
    time.sleep(0.01)
if sys.argv[2:]:
    raise SystemExit("over")
"""


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=400))
def test_the_sums_are_exact_and_the_intervals_bounded_and_in_order(steps: list[tuple[float, float]]) -> None:
    intervals, now, total = Intervals(), 0.0, 0.0
    for pause, length in steps:
        intervals.add(now + pause, now + pause + length)
        now += pause + length
        total += length
    assert intervals.count == len(steps)
    assert intervals.seconds == pytest.approx(total)
    assert len(intervals.merged) <= 100
    assert intervals.merged == sorted(intervals.merged)
    assert sum(end - start for start, end in intervals.merged) >= total - 1e-6


@pytest.mark.parametrize(("value", "kind"), [(None, Calls), ("", Calls), ("0", Calls), ("1", TracedCalls)])
def test_without_fmi_trace_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, value: str | None, kind: type[Calls]
) -> None:
    monkeypatch.delenv("FMI_TRACE", raising=False)
    if value is not None:
        monkeypatch.setenv("FMI_TRACE", value)
    assert calls_type() is kind


@pytest.mark.parametrize("how", [[], ["fails"]])
def test_a_traced_program_writes_one_line_at_its_end(tmp_path: Path, how: list[str]) -> None:
    config = tmp_path / "fmi.json"
    config.write_text('{"backends": {"Direct": {"enabled": true, "host": "127.0.0.1", "port": 1, "max_timeout": 0}}}')
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, config, *how],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "FMI_TRACE": "1"},
    )
    (line,) = ended.stdout.splitlines()
    marker, _, said = line.partition(" ")
    assert marker == "fmi-trace:"
    trace = json.loads(said)
    assert (trace["phase"], trace["calls"]) == ("communication", 3)
    assert len(trace["intervals"]) == 3
    starts = [start for start, _ in trace["intervals"]]
    assert starts == sorted(starts)
