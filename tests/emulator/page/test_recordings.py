"""The pages of recorded runs, read as a browser reads them, and after the endpoint has ended."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from emulator.cloud import LocalCloud
from emulator.fmi.telemetry.kept import KeptRuns
from fmi_shim.telemetry.events import Closed, Message, Opened, Operations, Planned, Started, Status
from tests.emulator.signing import page_cookie

MS = 1_000_000
EPOCH = 10**18
RECV = Planned(0, 0, "recv", 1, None, "message", "Direct", "recv (1 x int64, from rank 1)")


def begun(job: str, rank: int) -> Message:
    start = Started(0, 2, 100 + rank, "host", EPOCH), Opened(0, 0, "world", rank, 2), RECV
    rows = Operations.of(((0, 0, 5 * MS, 2 * MS, 8),))
    status = Status(20 * MS, 0, 1, 10 * MS, 1 - rank, "program.py:7 in <step>", 50_000_000)
    return Message(job, rank, 0, 0, (*start, rows, status))


def ended(job: str, rank: int) -> Message:
    return Message(job, rank, 1, 0, (Closed(30 * MS),))


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(telemetry=True, state=tmp_path_factory.mktemp("state") / "state") as running:
        yield running


def read(cloud: LocalCloud, path: str) -> tuple[str, Any]:
    with open_page(cloud, path) as answer:
        return answer.read().decode(), answer.headers


def open_page(cloud: LocalCloud, path: str) -> Any:
    request = urllib.request.Request(f"{cloud.endpoint_url}/_emulator/{path}", headers={"Cookie": page_cookie(cloud)})
    return urllib.request.urlopen(request, timeout=30)


def test_a_running_run_is_followed_by_events_until_it_ends(cloud: LocalCloud) -> None:
    assert cloud.telemetry is not None
    for rank in range(2):
        cloud.telemetry.receive(begun("follow-me", rank))
    assert "recordings/follow-me" in read(cloud, "")[0]
    page, headers = read(cloud, "recordings/follow-me")
    assert 'data-events="/_emulator/recordings/follow-me/events"' in page
    assert "in recv 1 of &#39;world&#39;, waits for rank 1" in page
    assert "program.py:7 in &lt;step&gt;" in page
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "script-src" not in read(cloud, "")[1]["Content-Security-Policy"]
    events = open_page(cloud, "recordings/follow-me/events")
    with closing(events):
        assert events.headers["Content-Type"] == "text/event-stream"
        first = json.loads(events.readline().decode().removeprefix("data: "))
        assert not first["ended"]
        assert [rank["state"] for rank in first["ranks"]] == [
            f"in recv 1 of 'world', waits for rank {1 - rank}" for rank in range(2)
        ]
        for rank in range(2):
            cloud.telemetry.receive(ended("follow-me", rank))
        lines = [line for line in events.read().decode().split("\n\n") if line.strip()]
        assert json.loads(lines[-1].strip().removeprefix("data: "))["ended"]
    page, _ = read(cloud, "recordings/follow-me")
    assert "data-events" not in page
    assert "profile of 2 ranks over" in page


def test_the_trace_can_be_downloaded(cloud: LocalCloud) -> None:
    assert cloud.telemetry is not None
    cloud.telemetry.receive(begun("traced", 0))
    text, headers = read(cloud, "recordings/traced/trace.json")
    assert 'filename="trace.json"' in headers["Content-Disposition"]
    assert [event["name"] for event in json.loads(text)["traceEvents"] if event["ph"] == "X"] == ["recv"]


def test_the_script_is_the_endpoints_own(cloud: LocalCloud) -> None:
    text, headers = read(cloud, "recordings/live.js")
    assert "EventSource" in text
    assert headers.get_content_type() == "text/javascript"
    assert "innerHTML" not in text


@pytest.mark.parametrize("path", ["recordings/nobody", "recordings/nobody/events", "recordings/nobody/trace.json"])
def test_an_unknown_run_says_how_to_record_one(cloud: LocalCloud, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        read(cloud, path)
    assert refused.value.code == 404
    assert "Set FMI_TELEMETRY=bus" in refused.value.read().decode()


def test_runs_outlive_the_endpoint(tmp_path: Path) -> None:
    with LocalCloud(telemetry=True, state=tmp_path / "state") as first:
        assert first.telemetry is not None
        first.telemetry.receive(begun("kept", 0))
        first.telemetry.receive(begun("../../escapes", 0))
    assert not list(tmp_path.parent.glob("*.events"))
    with LocalCloud(telemetry=True, state=tmp_path / "state") as second:
        assert second.telemetry is not None
        assert set(second.telemetry.jobs()) == {"kept", "../../escapes"}
        page, _ = read(second, "recordings/kept")
        assert "profile of 1 ranks over" in page
        assert "data-events" not in page


def test_a_line_that_a_kill_has_cut_is_left_out(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    kept.append(begun("job", 0))
    kept.append(begun("job", 1))
    kept.close()
    (path,) = tmp_path.glob("*.events")
    path.write_bytes(path.read_bytes()[:-20])
    history = KeptRuns(tmp_path).history("job")
    assert history is not None
    assert set(history.ranks) == {0}
    assert history.has_ended


def test_the_oldest_runs_are_removed(tmp_path: Path) -> None:
    kept = KeptRuns(tmp_path)
    for number in range(53):
        kept.append(begun(f"job-{number}", 0))
    kept.close()
    assert len(KeptRuns(tmp_path).jobs()) == 50
