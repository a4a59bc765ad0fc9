"""Subscription filters: log events invoke a function."""

import base64
import gzip
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.aws.triggers.test_delivery import ECHO, Queue

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def group(log_client: Any) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    log_client.create_log_group(logGroupName=name)
    log_client.create_log_stream(logGroupName=name, logStreamName="stream")
    return name


def test_events_that_match_invoke_the_function(
    log_client: Any, functions: Any, deploy: Callable[..., str], client: Callable[[str], Any], group: str
) -> None:
    seen = Queue(client("sqs"))
    name = deploy(ECHO, Environment={"Variables": {"SEEN": seen.url}})
    arn = functions.get_function_configuration(FunctionName=name)["FunctionArn"]
    place = {"logGroupName": group, "filterName": "errors"}
    log_client.put_subscription_filter(**place, filterPattern="ERROR", destinationArn=arn)
    (described,) = log_client.describe_subscription_filters(logGroupName=group)["subscriptionFilters"]
    assert described.pop("creationTime") > 0
    assert described == {
        **place,
        "filterPattern": "ERROR",
        "destinationArn": arn,
        "distribution": "ByLogStream",
        "applyOnTransformedLogs": False,
    }
    now = int(time.time() * 1000)
    events = [{"timestamp": now, "message": message} for message in ("fine", "ERROR one", "ERROR two")]
    log_client.put_log_events(logGroupName=group, logStreamName="stream", logEvents=events)
    data = json.loads(gzip.decompress(base64.b64decode(seen.receive()["awslogs"]["data"])))
    assert [event.pop("message") for event in data["logEvents"]] == ["ERROR one", "ERROR two"]
    assert {event["timestamp"] for event in data["logEvents"]} == {now}
    del data["logEvents"]
    assert data == {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": group,
        "logStream": "stream",
        "subscriptionFilters": ["errors"],
    }
    log_client.put_subscription_filter(**place, filterPattern="[]", destinationArn=arn)
    log_client.put_subscription_filter(logGroupName=group, filterName="2", filterPattern="", destinationArn=arn)
    with pytest.raises(ClientError, match="LimitExceededException"):
        log_client.put_subscription_filter(logGroupName=group, filterName="3", filterPattern="", destinationArn=arn)
    log_client.delete_subscription_filter(**place)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        log_client.delete_subscription_filter(**place)
    log_client.delete_log_group(logGroupName=group)
    log_client.create_log_group(logGroupName=group)
    assert log_client.describe_subscription_filters(logGroupName=group)["subscriptionFilters"] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logGroupName": "none"}, "The specified log group does not exist"),
        ({}, "Could not execute the lambda function"),
        ({"destinationArn": "arn:aws:kinesis:us-east-1:123456789012:stream/s"}, "is not emulated"),
        ({"distribution": "none"}, "at 'distribution' failed to satisfy constraint"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(
    log_client: Any, group: str, settings: dict[str, str], message: str
) -> None:
    destination = "arn:aws:lambda:us-east-1:123456789012:function:nobody"
    request = {"logGroupName": group, "filterName": "f", "filterPattern": "", "destinationArn": destination}
    with pytest.raises(ClientError, match=message):
        log_client.put_subscription_filter(**{**request, **settings})
