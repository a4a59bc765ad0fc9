"""What is told from an execution's history, and where code and data are looked for."""

from pathlib import Path
from typing import Any

import pytest

from emulator.orchestration.bundle import UploadedFile
from emulator.orchestration.payload import parse_payload
from emulator.orchestration.pipeline import MissingCodeError, code_folder, failed_state, transitions, uploads

PAYLOAD = parse_payload(
    {
        "bucket": "code",
        "S3_object_name": "scripts/my job",
        "script": "/tmp/scripts/my job/in/main.py",
        "data_bucket": "data",
        "data_prefix": "25MB",
    }
)


def history(*entries: tuple[str, int, str]) -> list[dict[str, Any]]:
    return [
        {"id": number, "previousEventId": previous, "type": kind, "stateEnteredEventDetails": {"name": name}}
        for number, (kind, previous, name) in enumerate(entries, 1)
    ]


RETRIED = history(
    ("ExecutionStarted", 0, ""),
    ("TaskStateEntered", 1, "First"),
    ("TaskScheduled", 2, ""),
    ("TaskFailed", 3, ""),
    ("TaskScheduled", 4, ""),
    ("TaskSucceeded", 5, ""),
    ("MapStateEntered", 6, "Ranks"),
    ("TaskStateEntered", 7, "One"),
    ("TaskScheduled", 8, ""),
    ("TaskStateEntered", 7, "Two"),
    ("TaskScheduled", 10, ""),
    ("TaskFailed", 9, ""),
    ("TaskStateAborted", 11, ""),
    ("ExecutionFailed", 12, ""),
)


def test_states_entered_and_retries_are_what_is_charged() -> None:
    assert transitions(RETRIED) == 4 + 1
    assert transitions([]) == 0


def test_the_state_that_failed_last_ended_the_execution() -> None:
    assert failed_state(RETRIED) == "One"
    assert failed_state(RETRIED[:7]) == "First"
    assert failed_state(history(("ExecutionStarted", 0, ""), ("ExecutionAborted", 1, ""))) == ""
    assert failed_state(history(("MapStateEntered", 0, "Ranks"), ("MapRunFailed", 1, ""))) == "Ranks"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "my job" / "in"
    folder.mkdir(parents=True)
    (folder / "main.py").touch()
    return folder.parent


def test_code_is_found_beside_the_payload_and_above_it(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert code_folder(PAYLOAD, None, checkout.parent) == checkout
    assert code_folder(PAYLOAD, None, checkout) == checkout
    assert code_folder(PAYLOAD, None, tmp_path) is None
    assert code_folder(PAYLOAD, checkout, tmp_path) == checkout
    with pytest.raises(MissingCodeError, match=r"the script 'in/main.py' that the payload names is not in"):
        code_folder(PAYLOAD, tmp_path, tmp_path)


def test_files_go_where_the_payload_says(checkout: Path, tmp_path: Path) -> None:
    data = tmp_path / "partitions"
    data.mkdir()
    (data / "1.pt").touch()
    assert uploads(PAYLOAD, checkout, data) == {
        "code": [UploadedFile(checkout / "in" / "main.py", "scripts/my job/in/main.py")],
        "data": [UploadedFile(data / "1.pt", "25MB/1.pt")],
    }
    assert uploads(PAYLOAD, None, None) == {}


def test_data_without_a_prefix_in_the_payload_has_nowhere_to_go(tmp_path: Path) -> None:
    first = parse_payload({"bucket": "code", "world_size": 1, "S3_object_name": "a", "script": "a/b.py"})
    with pytest.raises(MissingCodeError, match="names no data_prefix"):
        uploads(first, None, tmp_path)
