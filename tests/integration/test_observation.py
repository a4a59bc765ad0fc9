"""fmirun with the options that show what ranks do."""

import json
from pathlib import Path

import pytest

from tests.integration.fmirun import EXAMPLES, fmirun


def test_a_run_writes_its_trace_and_prints_its_profile(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    status, output, errors = fmirun(tmp_path, "-n", 2, "--trace", trace, "--profile", EXAMPLES / "reduce.py")
    assert status == 0, errors
    assert "fmi-" not in output
    assert f"trace in {trace}: open it in ui.perfetto.dev" in errors
    assert "profile of 2 ranks over" in errors
    assert "critical path: " in errors
    content = json.loads(trace.read_text())
    names = {(event["pid"], event["name"]) for event in content["traceEvents"] if event["ph"] == "X"}
    assert names == {(rank, name) for rank in range(2) for name in ("download", "reduce")}
    assert content["otherData"]["calls dropped"] == 0


@pytest.mark.parametrize("option", ["--trace"])
def test_a_file_that_cannot_be_written_is_reported_before_the_run(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").touch()
    status, output, errors = fmirun(tmp_path, "-n", 2, option, tmp_path / "file" / "trace", EXAMPLES / "reduce.py")
    assert (status, output) == (2, "")
    assert "is not a folder" in errors
    assert len(errors.splitlines()) == 1
