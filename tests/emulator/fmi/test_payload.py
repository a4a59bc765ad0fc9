"""The state machine's input, in either published generation."""

import json
from pathlib import Path
from typing import Any

import pytest

from emulator.fmi.payload import PayloadError, parse_payload, read_payload

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
        ({"bucket": None}, "bucket is None, expected a text"),
        ({"bucket": "Not A Bucket"}, "bucket is 'Not A Bucket', a bucket's name has 3 to 63"),
        ({"bucket": ""}, "bucket is '', expected a text that is not empty"),
        ({"S3_object_name": "/"}, "S3_object_name is '/', expected a text that is not empty"),
        ({"script": 7}, "script is 7, expected a text"),
        ({"script": "/tmp/elsewhere/main.py"}, "expected a file in the folder that S3_object_name names"),
        ({"script": "Anomaly Detection/../../main.py"}, "expected a file in the folder that S3_object_name names"),
        ({"world_size": "many"}, "world_size is 'many', allowed is a whole number from 1 to 1000, also as a text"),
        ({"world_size": 0}, "world_size is 0, allowed is"),
        ({"world_size": True}, "world_size is True, allowed is"),
        ({"world_size": 1001}, "world_size is 1001, allowed is"),
        ({"world_size": 2.5}, "world_size is 2.5, allowed is"),
        ({"batch_size": "-1"}, "batch_size is '-1', allowed is"),
        ({"object_type": "file"}, "object_type is 'file', allowed is \"folder\""),
        ({"result_path": ["a"]}, "result_path is ['a'], expected a text"),
        ({"padding": "x" * 300_000}, "Step Functions takes at most 262144"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_and_what_is_allowed(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PayloadError) as refused:
        parse_payload({**FIRST, **changes})
    assert said in str(refused.value)


def test_without_world_size_and_data_nobody_knows_how_many_ranks_there_are() -> None:
    event = {key: value for key, value in FIRST.items() if key != "world_size"}
    with pytest.raises(PayloadError, match="world_size is missing, and so is data_prefix"):
        parse_payload(event)
    missing = {key: value for key, value in FIRST.items() if key != "script"}
    with pytest.raises(PayloadError, match="script is missing"):
        parse_payload(missing)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[1]", r"expected a JSON object, got \[1\]"),
        (b"\xff", "is no text"),
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
