"""Records of streams reach functions, in their order, batch by batch."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.emulator.aws.triggers.test_delivery import Queue

pytestmark = pytest.mark.timeout(90)
# Sends what it receives to a queue, and fails for records that ask for it.
ECHO = """
import json, os
import boto3

def handler(event, context):
    boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(event))
    for record in event["Records"]:
        if record.get("kinesis", {}).get("partitionKey") == "reported":
            return {"batchItemFailures": [{"itemIdentifier": record["kinesis"]["sequenceNumber"]}]}
        if record.get("kinesis", {}).get("partitionKey") == "bad":
            raise ValueError("asked to fail")
"""


@pytest.fixture(scope="module")
def sqs(client: Callable[[str], Any]) -> Any:
    return client("sqs")


@pytest.fixture
def seen(sqs: Any) -> Queue:
    return Queue(sqs)


@pytest.fixture
def echo(deploy: Callable[..., str], seen: Queue) -> str:
    return deploy(ECHO, Environment={"Variables": {"SEEN": seen.url}})


def test_the_changes_of_a_table_invoke_a_function(
    client: Callable[[str], Any], functions: Any, echo: str, seen: Queue
) -> None:
    tables, name = client("dynamodb"), f"test-{uuid.uuid4().hex[:8]}"
    tables.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    stream = tables.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    pattern = json.dumps({"eventName": ["INSERT"], "dynamodb": {"NewImage": {"n": {"N": ["5"]}}}})
    made = functions.create_event_source_mapping(
        FunctionName=echo,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        FilterCriteria={"Filters": [{"Pattern": pattern}]},
    )
    assert (made["BatchSize"], made["ParallelizationFactor"], made["DestinationConfig"]) == (100, 1, {"OnFailure": {}})
    assert (made["MaximumRetryAttempts"], made["MaximumRecordAgeInSeconds"], made["TumblingWindowInSeconds"]) == (
        -1,
        -1,
        0,
    )
    assert (made["LastProcessingResult"], made["StateTransitionReason"]) == ("No records processed", "User action")
    for number in ("4", "5"):
        item = {"id": {"S": number}, "n": {"N": number}, "b": {"B": b"\x00\xff"}}
        tables.put_item(TableName=name, Item=item)
    (record,) = seen.receive()["Records"]
    assert (record["eventSource"], record["eventSourceARN"]) == ("aws:dynamodb", stream)
    assert record["dynamodb"]["NewImage"] == {"id": {"S": "5"}, "n": {"N": "5"}, "b": {"B": "AP8="}}
    functions.delete_event_source_mapping(UUID=made["UUID"])


def test_records_that_fail_are_halved_and_their_places_go_to_the_destination(
    client: Callable[[str], Any], functions: Any, echo: str, seen: Queue, sqs: Any
) -> None:
    kinesis, name, failed = client("kinesis"), f"test-{uuid.uuid4().hex[:8]}", Queue(sqs)
    kinesis.create_stream(StreamName=name, ShardCount=1)
    stream = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    keys = ("good", "bad", "reported")
    kinesis.put_records(StreamName=name, Records=[{"Data": b"{}", "PartitionKey": key} for key in keys])
    made = functions.create_event_source_mapping(
        FunctionName=echo,
        EventSourceArn=stream,
        StartingPosition="TRIM_HORIZON",
        MaximumRetryAttempts=1,
        BisectBatchOnFunctionError=True,
        FunctionResponseTypes=["ReportBatchItemFailures"],
        DestinationConfig={"OnFailure": {"Destination": failed.arn}},
    )
    given_up = [failed.receive(), failed.receive()]
    places = [record["KinesisBatchInfo"]["startSequenceNumber"] for record in given_up]
    assert places == sorted(places, key=int)
    assert len(set(places)) == 2
    assert {record["KinesisBatchInfo"]["batchSize"] for record in given_up} == {1}
    assert {record["requestContext"]["condition"] for record in given_up} == {"RetryAttemptsExhausted"}
    first = seen.receive()["Records"]
    assert [record["kinesis"]["partitionKey"] for record in first] == list(keys)
    assert first[0]["kinesis"]["data"] == "e30="
    assert functions.delete_event_source_mapping(UUID=made["UUID"])["LastProcessingResult"] in (
        "OK",
        "PROBLEM: Function call failed",
    )
