from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import boto3
import pytest

from inference import dataset
from inference.errors import PartitionError
from inference.partition import Partition, write


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = boto3.client(
        "s3", endpoint_url=s3_server, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    client.create_bucket(Bucket="data")
    yield client
    for item in client.list_objects_v2(Bucket="data").get("Contents", []):
        client.delete_object(Bucket="data", Key=item["Key"])
    client.delete_bucket(Bucket="data")


def put_event(s3: Any, event: object) -> None:
    s3.put_object(Bucket="data", Key="payload.json", Body=json.dumps(event))


def test_a_rank_may_have_one_key_several_keys_or_none(s3: Any) -> None:
    put_event(s3, {"data_map": {"0": ["a/1.pt", "a/2.pt"], "2": "a/3.pt", "3": None, "7": "a/9.pt"}})
    assert dataset.read_data_map(s3, "data", 4) == [["a/1.pt", "a/2.pt"], [], ["a/3.pt"], []]


@pytest.mark.parametrize("event", [[], {}, {"data_map": ["1.pt"]}, {"data_map": {"0": 5}}, {"data_map": {"0": [1]}}])
def test_an_invalid_data_map_is_an_error(s3: Any, event: object) -> None:
    put_event(s3, event)
    with pytest.raises(PartitionError, match=r"s3://data/payload\.json: .*(expected|must be)"):
        dataset.read_data_map(s3, "data", 1)


def test_a_missing_or_invalid_event_is_an_error_that_names_it(s3: Any) -> None:
    with pytest.raises(PartitionError, match=r"s3://data/payload\.json: .*NoSuchKey"):
        dataset.read_data_map(s3, "data", 1)
    s3.put_object(Bucket="data", Key="payload.json", Body=b"\xffnot json")
    with pytest.raises(PartitionError, match=r"s3://data/payload\.json: expected the run's event"):
        dataset.read_data_map(s3, "data", 1)


def test_a_downloaded_partition_leaves_no_file(s3: Any, partition: Partition, tmp_path: Path) -> None:
    write(partition, tmp_path / "1.pt")
    s3.upload_file(str(tmp_path / "1.pt"), "data", "parts/1.pt")
    (tmp_path / "1.pt").unlink()
    assert dataset.download(s3, "data", "parts/1.pt").z_spec.tolist() == partition.z_spec.tolist()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_invalid_object_is_an_error_with_bucket_and_key(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match=r"s3://data/parts/1\.pt: expected a partition, the download failed"):
        dataset.download(s3, "data", "parts/1.pt")
    s3.put_object(Bucket="data", Key="parts/1.pt", Body=b"hello")
    with pytest.raises(PartitionError, match=r"s3://data/parts/1\.pt: expected a complete file"):
        dataset.download(s3, "data", "parts/1.pt")
    assert list(tmp_path.iterdir()) == []
