"""No request holds the endpoint's event loop: a watchdog measures its processor time between two iterations."""

import asyncio
import gc
import io
import json
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config

from emulator.cloud import LocalCloud
from tests.emulator.conftest import ROLE

MOST_BLOCKED_S = 0.1


@pytest.fixture(scope="module")
def endpoint() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        # moto is imported and its services are made at the first requests to them.
        running.client("s3").create_bucket(Bucket="documents")
        running.reset()
        yield running


@contextmanager
def watchdog(cloud: LocalCloud) -> Iterator[None]:
    """Check that the loop's thread used at most 0.1 s of processor time between two iterations."""
    blocked: list[float] = []

    async def watch() -> None:
        while True:
            started = time.thread_time()
            await asyncio.sleep(0)
            blocked.append(time.thread_time() - started)

    # What moto and other tests have made is not collected here.
    gc.collect()
    gc.freeze()
    watching = asyncio.run_coroutine_threadsafe(watch(), cloud._loop)
    try:
        yield
    finally:
        watching.cancel()
        gc.unfreeze()
    assert max(blocked) < MOST_BLOCKED_S


def client(cloud: LocalCloud, service: str) -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=120)
    keys = cloud.credentials.for_boto3()
    return boto3.client(service, endpoint_url=cloud.endpoint_url, region_name="us-east-1", config=config, **keys)  # type: ignore[call-overload]


def archive_of_many_files(number: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for index in range(number):
            opened.writestr(f"folder{index % 50}/file{index}.py", f"VALUE = {index}")
    return buffer.getvalue()


def test_archives_are_unpacked_beside_the_event_loop(endpoint: LocalCloud) -> None:
    functions = client(endpoint, "lambda")
    code = archive_of_many_files(2000)
    settings = {"Runtime": "python3.11", "Handler": "main.handler", "Role": ROLE}
    with watchdog(endpoint):
        functions.create_function(FunctionName="many", Code={"ZipFile": code}, **settings)
        functions.publish_layer_version(LayerName="many", Content={"ZipFile": code})
    assert functions.get_function(FunctionName="many")["Configuration"]["CodeSize"] == len(code)
    with pytest.raises(functions.exceptions.ResourceConflictException):
        functions.create_function(FunctionName="many", Code={"ZipFile": code}, **settings)


def test_a_reset_deletes_objects_in_pieces(endpoint: LocalCloud) -> None:
    s3 = client(endpoint, "s3")
    s3.create_bucket(Bucket="many")
    s3.put_object(Bucket="many", Key="source", Body=b"x" * 20_000)
    for number in range(400):
        s3.put_object(Bucket="many", Key=str(number), Body=b"x" * 20_000)
    with watchdog(endpoint):
        endpoint.reset()
    assert s3.list_buckets()["Buckets"] == []


@pytest.mark.parametrize("kind", ["CSV", "JSON", "JSONL"])
def test_documents_of_a_distributed_map_are_read_beside_the_event_loop(endpoint: LocalCloud, kind: str) -> None:
    rows = 40_000
    document = {
        "CSV": "name,value\n" + "row,1\n" * rows,
        "JSON": json.dumps([{"name": "row", "value": 1}] * rows),
        "JSONL": '{"name":"row","value":1}\n' * rows,
    }[kind]
    s3, states = client(endpoint, "s3"), client(endpoint, "stepfunctions")
    bucket = f"documents-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="items", Body=document.encode())
    configuration: dict[str, Any] = {"InputType": kind, "MaxItems": 2}
    if kind == "CSV":
        configuration["CSVHeaderLocation"] = "FIRST_ROW"
    definition = {
        "StartAt": "M",
        "States": {
            "M": {
                "Type": "Map",
                "ItemProcessor": {
                    "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"},
                    "StartAt": "P",
                    "States": {"P": {"Type": "Pass", "End": True}},
                },
                "ItemReader": {
                    "Resource": "arn:aws:states:::s3:getObject",
                    "ReaderConfig": configuration,
                    "Parameters": {"Bucket": bucket, "Key": "items"},
                },
                "End": True,
            }
        },
    }
    name = f"documents-{kind}"
    arn = states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)["stateMachineArn"]
    with watchdog(endpoint):
        execution = states.start_execution(stateMachineArn=arn)["executionArn"]
        while (ended := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
            time.sleep(0.05)
    assert ended["status"] == "SUCCEEDED", ended
    assert len(json.loads(ended["output"])) == 2


def test_large_log_groups_are_searched_and_deleted_in_pieces(endpoint: LocalCloud) -> None:
    logs = client(endpoint, "logs")
    logs.create_log_group(logGroupName="large")
    logs.create_log_stream(logGroupName="large", logStreamName="stream")
    past = int(time.time() * 1000) - 3_600_000
    for call in range(8):
        events = [{"timestamp": past + call * 5000 + number, "message": "message"} for number in range(5000)]
        logs.put_log_events(logGroupName="large", logStreamName="stream", logEvents=events)
    logs.put_log_events(
        logGroupName="large", logStreamName="stream", logEvents=[{"timestamp": past + 10**6, "message": "other"}]
    )
    with watchdog(endpoint):
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName="large", filterPattern="other")
        found = [event["message"] for page in pages for event in page["events"]]
        logs.delete_log_group(logGroupName="large")
    assert found == ["other"]
    assert logs.describe_log_groups()["logGroups"] == []


def test_a_thousand_objects_are_deleted_in_pieces(endpoint: LocalCloud) -> None:
    s3 = client(endpoint, "s3")
    s3.create_bucket(Bucket="thousand")
    keys = [{"Key": str(number)} for number in range(1000)]
    for key in keys[:300]:
        s3.put_object(Bucket="thousand", Body=b"x", **key)
    with watchdog(endpoint):
        deleted = s3.delete_objects(Bucket="thousand", Delete={"Objects": keys})
    assert len(deleted["Deleted"]) == 1000
    s3.delete_bucket(Bucket="thousand")
