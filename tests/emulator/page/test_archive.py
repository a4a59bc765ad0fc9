"""Runs that outlive the endpoint."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

from emulator.aws.lambda_.core.history import InvocationStatus
from emulator.cloud import LocalCloud
from emulator.page.archive import RunArchive
from emulator.page.phases import PhaseLog
from emulator.page.runs import Run, RunState
from fmi_shim.log_lines import Phase
from tests.emulator.page.calls import call
from tests.emulator.page.test_recordings import read

CALLS = (call(0), call(1, status=InvocationStatus.FAILED, error_type="ValueError"))
ENDED = Run(
    "../one", "one", "pipeline", RunState.FAILED, 100.0, 103.0, CALLS, "rank 1: ValueError", 5, "arn", ("slow",)
)
COMMUNICATION = Phase("communication", ((101.0, 102.0),), 1.0, 7)


class Sink:
    def append(self, region: str, group: str, stream: str, messages: object) -> None:
        pass


def archive_of(folder: Path) -> tuple[RunArchive, PhaseLog]:
    phases = PhaseLog(Sink())
    return RunArchive(folder, phases), phases


def test_a_run_that_has_ended_is_the_same_at_the_next_endpoint_with_its_phases(tmp_path: Path) -> None:
    first, phases = archive_of(tmp_path / "runs")
    phases.remember(CALLS[0].log_stream, COMMUNICATION)
    first.keep([ENDED, replace(ENDED, key="other", state=RunState.RUNNING, ended=None)])
    assert [path.parent.name for path in tmp_path.rglob("*.json")] == ["runs"]
    second, phases = archive_of(tmp_path / "runs")
    assert second.past == [ENDED]
    assert phases.phases(CALLS[0].log_stream, 100.0, 103.0) == [COMMUNICATION]


def test_a_run_that_gets_another_rank_is_written_again(tmp_path: Path) -> None:
    first, _ = archive_of(tmp_path)
    later = replace(ENDED, calls=(*CALLS, call(2)))
    first.keep([ENDED])
    first.keep([later])
    assert archive_of(tmp_path)[0].past == [later]


def test_a_damaged_file_is_left_out_and_a_reset_deletes_all(tmp_path: Path) -> None:
    first, _ = archive_of(tmp_path)
    first.keep([ENDED])
    (tmp_path / "cut.json").write_text('{"run": {"key')
    second, _ = archive_of(tmp_path)
    assert second.past == [ENDED]
    second.clear()
    assert not list(tmp_path.iterdir())


def test_the_page_shows_runs_of_an_earlier_endpoint_until_a_reset(tmp_path: Path) -> None:
    state, archive = tmp_path / "state", io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ranks.py", "def handle(event, context):\n    return event\n")
    with LocalCloud(state=state) as cloud:
        client = cloud.client("lambda")
        client.create_function(
            FunctionName="ranks",
            Runtime="python3.12",
            Role="arn:aws:iam::123456789012:role/any",
            Handler="ranks.handle",
            Code={"ZipFile": archive.getvalue()},
        )
        answer = client.invoke(FunctionName="ranks", Payload=json.dumps({"RANK": 0, "WORLD_SIZE": 1}))
        request_id = answer["ResponseMetadata"]["RequestId"]
    with LocalCloud(state=state) as cloud:
        assert f"runs/{request_id}" in read(cloud, "")[0]
        assert "succeeded" in read(cloud, f"runs/{request_id}")[0]
        assert "START RequestId" in read(cloud, f"logs/ranks?request={request_id}")[0]
        cloud.reset()
        assert f"runs/{request_id}" not in read(cloud, "")[0]
