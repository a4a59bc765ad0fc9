"""The state machine's input, in either published generation, and the local files that it names."""

import json
from pathlib import Path
from typing import Any

import pytest

from emulator.fmi.bundle import UploadedFile
from emulator.fmi.payload import MissingCodeError, PayloadError, code_folder, parse_payload, read_payload, uploads

FIRST = {
    "bucket": "cosmicai-data",
    "world_size": "4",
    "object_type": "folder",
    "S3_object_name": "Anomaly Detection",
    "data_path": "/tmp/Anomaly Detection/Inference/resized_inference.pt",
    "script": "/tmp/Anomaly Detection/Inference/inference.py",
}
SECOND = {
    "bucket": "cosmicai-data",
    "file_limit": "11",
    "batch_size": 512,
    "object_type": "folder",
    "S3_object_name": "scripts/Anomaly Detection",
    "script": "/tmp/scripts/Anomaly Detection/Inference/inference.py",
    "result_path": "result-partition-100MB/1GB/1",
    "data_bucket": "cosmicai-2",
    "data_prefix": "100MB",
}


def test_the_first_generation_names_its_ranks_and_no_data() -> None:
    payload = parse_payload(FIRST)
    assert (payload.bucket, payload.folder, payload.script) == (
        *("cosmicai-data", "Anomaly Detection", "Inference/inference.py"),
    )
    assert (payload.world_size, payload.data_bucket, payload.data_prefix, payload.result_path) == (4, "", "", "")
    assert payload.event is FIRST


def test_the_second_generation_names_data_and_has_a_rank_a_file() -> None:
    payload = parse_payload(SECOND)
    assert (payload.folder, payload.script) == ("scripts/Anomaly Detection", "Inference/inference.py")
    assert (payload.world_size, payload.data_bucket, payload.data_prefix) == (None, "cosmicai-2", "100MB")
    assert payload.result_path == "result-partition-100MB/1GB/1"


def test_the_script_may_be_named_without_tmp_and_all_data_of_a_bucket_without_prefix() -> None:
    payload = parse_payload({**SECOND, "script": "scripts/Anomaly Detection/main.py", "data_prefix": ""})
    assert (payload.script, payload.data_bucket, payload.data_prefix) == ("main.py", "cosmicai-2", "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bucket": None}, "invalid bucket None: expected a string"),
        ({"bucket": "Not A Bucket"}, "invalid bucket 'Not A Bucket': expected 3 to 63"),
        ({"bucket": "Group4-cosmicai"}, "AWS refuses it, too: use 'group4-cosmicai'"),
        ({"bucket": ""}, "invalid bucket '': expected a string that is not empty"),
        ({"S3_object_name": "/"}, "invalid S3_object_name '/': expected a string that is not empty"),
        ({"script": 7}, "invalid script 7: expected a string"),
        ({"script": "/tmp/elsewhere/main.py"}, "expected a file in the folder that S3_object_name names"),
        ({"script": "Anomaly Detection/../../main.py"}, "expected a file in the folder that S3_object_name names"),
        (
            {"world_size": "many"},
            "invalid world_size 'many': expected a whole number from 1 to 100000, as a number or a string",
        ),
        ({"world_size": 0}, "invalid world_size 0: expected a whole number"),
        ({"world_size": True}, "invalid world_size True: expected a whole number"),
        ({"world_size": 100_001}, "invalid world_size 100001: expected a whole number from 1 to 100000"),
        ({"world_size": 2.5}, "invalid world_size 2.5: expected a whole number"),
        ({"batch_size": "-1"}, "invalid batch_size '-1': expected a whole number"),
        ({"object_type": "file"}, "invalid object_type 'file': expected \"folder\""),
        ({"result_path": ["a"]}, "invalid result_path ['a']: expected a string"),
        ({"padding": "x" * 300_000}, "Step Functions accepts at most 262144"),
    ],
)
def test_an_invalid_key_is_named_with_its_value_and_what_was_expected(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PayloadError) as refused:
        parse_payload({**FIRST, **changes})
    assert said in str(refused.value)


def test_world_size_or_data_is_required() -> None:
    event = {key: value for key, value in FIRST.items() if key != "world_size"}
    with pytest.raises(PayloadError, match="missing world_size: give it, or a data_prefix"):
        parse_payload(event)
    missing = {key: value for key, value in FIRST.items() if key != "script"}
    with pytest.raises(PayloadError, match="missing script: expected a string"):
        parse_payload(missing)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1]", r"must be a JSON object, got \[1\]"),
        (b"\xff", "is not text"),
        (None, "No such"),
    ],
)
def test_a_file_that_is_no_payload_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "payload.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PayloadError, match=said) as refused:
        read_payload(path)
    assert "payload.json" in str(refused.value)


@pytest.mark.parametrize("name", ["pipeline.json", "cosmic_ai.json"])
def test_the_examples_are_payloads(name: str) -> None:
    examples = Path(__file__).resolve().parents[3] / "examples"
    payload = read_payload(examples / name)
    assert (examples / payload.script).is_file()
    assert json.loads((examples / name).read_text()) == payload.event


PAYLOAD = parse_payload(
    {
        "bucket": "code",
        "S3_object_name": "scripts/my job",
        "script": "/tmp/scripts/my job/in/main.py",
        "data_bucket": "data",
        "data_prefix": "25MB",
    }
)


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
    with pytest.raises(MissingCodeError, match=r"does not contain the script 'in/main.py' that the payload names"):
        code_folder(PAYLOAD, tmp_path, tmp_path)


def test_files_go_where_the_payload_says(checkout: Path, tmp_path: Path) -> None:
    data = tmp_path / "partitions"
    data.mkdir()
    (data / "1.pt").touch()
    assert uploads(PAYLOAD, checkout, data, pytest.fail) == {
        "code": [UploadedFile(checkout / "in" / "main.py", "scripts/my job/in/main.py")],
        "data": [UploadedFile(data / "1.pt", "25MB/1.pt")],
    }
    assert uploads(PAYLOAD, None, None, pytest.fail) == {}


def test_data_requires_a_prefix_in_the_payload(tmp_path: Path) -> None:
    first = parse_payload({"bucket": "code", "world_size": 1, "S3_object_name": "a", "script": "a/b.py"})
    with pytest.raises(MissingCodeError, match="missing data_prefix in the payload"):
        uploads(first, None, tmp_path, pytest.fail)
