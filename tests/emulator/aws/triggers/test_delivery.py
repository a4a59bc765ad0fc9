"""What happens in one service reaches functions and queues of another one."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud

pytestmark = pytest.mark.timeout(90)
# Sends each event that it receives to a queue.
ECHO = """
import json, os
import boto3

def handler(event, context):
    boto3.client("sqs").send_message(QueueUrl=os.environ["SEEN"], MessageBody=json.dumps(event))
    for record in event.get("Records", []):
        if "fail" in record.get("body", ""):
            return {"batchItemFailures": [{"itemIdentifier": record["messageId"]}]}
    if event.get("fail"):
        raise ValueError("asked to fail")
    return {"answer": 42}
"""


STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2026-01-01T00:00:00.000"


class Queue:
    """A queue of a test."""

    def __init__(self, sqs: Any, **attributes: str) -> None:
        self.sqs = sqs
        self.url = sqs.create_queue(QueueName=f"test-{uuid.uuid4().hex[:10]}", Attributes=attributes)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.arn = found["Attributes"]["QueueArn"]

    def receive(self, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the first message, as JSON, that is wanted; delete what is received."""
        while True:
            found = self.sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=1, MessageAttributeNames=["All"])
            for message in found.get("Messages", []):
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                body = json.loads(message["Body"])
                if wanted(body):
                    return body


@pytest.fixture(scope="module")
def sqs(client: Callable[[str], Any]) -> Any:
    return client("sqs")


@pytest.fixture
def seen(sqs: Any) -> Queue:
    return Queue(sqs)


@pytest.fixture
def echo(deploy: Callable[..., str], seen: Queue, functions: Any) -> Iterator[str]:
    """The ARN of a function that sends what it receives to `seen`."""
    name = deploy(ECHO, Environment={"Variables": {"SEEN": seen.url}})
    yield functions.get_function_configuration(FunctionName=name)["FunctionArn"]
    for mapping in functions.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]:
        functions.delete_event_source_mapping(UUID=mapping["UUID"])


def test_messages_of_a_queue_are_processed_in_batches(functions: Any, echo: str, seen: Queue, sqs: Any) -> None:
    source = Queue(sqs, VisibilityTimeout="20")
    mapping = functions.create_event_source_mapping(
        EventSourceArn=source.arn, FunctionName=echo, BatchSize=4, MaximumBatchingWindowInSeconds=1
    )
    assert (mapping["State"], mapping["BatchSize"]) == ("Creating", 4)
    assert functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Enabled"
    sent = [{"Id": str(index), "MessageBody": f"{index}"} for index in range(4)]
    sqs.send_message_batch(QueueUrl=source.url, Entries=sent)
    received = seen.receive()["Records"]
    assert sorted(record["body"] for record in received) == ["0", "1", "2", "3"]
    assert {record["eventSourceARN"] for record in received} == {source.arn}
    assert {"SentTimestamp", "ApproximateReceiveCount"} <= received[0]["attributes"].keys()
    while "Messages" in sqs.receive_message(QueueUrl=source.url, VisibilityTimeout=0):
        time.sleep(0.1)
    # A disabled mapping leaves messages alone.
    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    assert functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Disabled"
    sqs.send_message(QueueUrl=source.url, MessageBody="left")
    time.sleep(0.5)
    assert sqs.receive_message(QueueUrl=source.url)["Messages"][0]["Body"] == "left"
    functions.delete_event_source_mapping(UUID=mapping["UUID"])
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        functions.get_event_source_mapping(UUID=mapping["UUID"])


def test_reported_failures_alone_are_tried_again_and_go_to_dead_letters(
    functions: Any, echo: str, seen: Queue, sqs: Any
) -> None:
    dead = Queue(sqs)
    redrive = json.dumps({"deadLetterTargetArn": dead.arn, "maxReceiveCount": 2})
    source = Queue(sqs, VisibilityTimeout="20", RedrivePolicy=redrive)
    functions.create_event_source_mapping(
        EventSourceArn=source.arn,
        FunctionName=echo,
        BatchSize=2,
        MaximumBatchingWindowInSeconds=1,
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    sqs.set_queue_attributes(QueueUrl=source.url, Attributes={"VisibilityTimeout": "2"})
    entries = [{"Id": name, "MessageBody": json.dumps(name)} for name in ("good", "fail")]
    sqs.send_message_batch(QueueUrl=source.url, Entries=entries)
    assert dead.receive() == "fail"
    found = sqs.receive_message(QueueUrl=seen.url, MaxNumberOfMessages=10)["Messages"]
    batches = [sorted(record["body"] for record in json.loads(message["Body"])["Records"]) for message in found]
    assert batches[-1] == ['"fail"']
    assert [body for batch in batches for body in batch].count('"good"') == 1


def test_a_filter_keeps_messages_from_a_function(functions: Any, echo: str, seen: Queue, sqs: Any) -> None:
    source = Queue(sqs)
    pattern = {"body": {"kind": ["wanted"]}}
    functions.create_event_source_mapping(
        EventSourceArn=source.arn, FunctionName=echo, FilterCriteria={"Filters": [{"Pattern": json.dumps(pattern)}]}
    )
    for kind in ("other", "wanted"):
        sqs.send_message(QueueUrl=source.url, MessageBody=json.dumps({"kind": kind}))
    assert json.loads(seen.receive()["Records"][0]["body"]) == {"kind": "wanted"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"EventSourceArn": "arn:aws:kafka:us-east-1:123456789012:cluster/c/1"}, "is not emulated"),
        ({"EventSourceArn": "arn:aws:kinesis:us-east-1:123456789012:stream/s"}, "Value null at 'startingPosition'"),
        ({"EventSourceArn": STREAM, "StartingPosition": "LATEST"}, "Stream not found"),
        ({"EventSourceArn": STREAM, "StartingPosition": "AT_TIMESTAMP"}, "Unsupported starting position"),
        ({"DestinationConfig": {"OnSuccess": {"Destination": STREAM}}}, "Unsupported DestinationConfig"),
        ({"FilterCriteria": {"Filters": [{"Pattern": "[]"}]}}, "Invalid filter pattern"),
        ({"BatchSize": 10_001}, "at 'batchSize' failed to satisfy constraint"),
        ({"Topics": ["topic"]}, "Kafka is not emulated"),
        ({"EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:none"}, "does not exist"),
        ({"BatchSize": 11}, "window in seconds must be greater than 0"),
        ({"StartingPosition": "LATEST"}, "Unsupported StartingPosition"),
        ({"FunctionName": "nobody"}, "Function does not exist"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(
    functions: Any, echo: str, sqs: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        functions.create_event_source_mapping(**{"FunctionName": echo, "EventSourceArn": Queue(sqs).arn, **settings})


def test_a_mapping_is_described_and_listed_as_on_aws(functions: Any, echo: str, sqs: Any) -> None:
    source, missing = Queue(sqs), "0b6e81eb-1a87-49dd-8c67-2958f30a9305"
    name = echo.rpartition(":")[2]
    functions.publish_version(FunctionName=name)
    made = [
        functions.create_event_source_mapping(EventSourceArn=source.arn, FunctionName=function, Enabled=False)
        for function in (name, f"123456789012:function:{name}:$LATEST", f"{echo}:1")
    ]
    assert [mapping["FunctionArn"] for mapping in made] == [echo, f"{echo}:$LATEST", f"{echo}:1"]
    described = functions.get_event_source_mapping(UUID=made[0]["UUID"])
    assert described["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    assert {"DestinationConfig", "ParallelizationFactor", "LastProcessingResult"}.isdisjoint(described)
    assert (described["State"], described["StateTransitionReason"]) == ("Disabled", "USER_INITIATED")
    with pytest.raises(ClientError, match=f"already exists.*UUID {made[0]['UUID']}"):
        functions.create_event_source_mapping(EventSourceArn=source.arn, FunctionName=name)
    pages = functions.get_paginator("list_event_source_mappings").paginate(
        EventSourceArn=source.arn, PaginationConfig={"PageSize": 1}
    )
    found = [mapping["UUID"] for page in pages for mapping in page["EventSourceMappings"]]
    assert found == [mapping["UUID"] for mapping in made]
    enabling = functions.update_event_source_mapping(UUID=made[0]["UUID"], Enabled=True)
    assert (enabling["State"], enabling["ResponseMetadata"]["HTTPStatusCode"]) == ("Enabling", 202)
    for call in ("get", "update", "delete"):
        with pytest.raises(ClientError, match="The resource you requested does not exist"):
            getattr(functions, f"{call}_event_source_mapping")(UUID=missing)
    for mapping in made:
        assert functions.delete_event_source_mapping(UUID=mapping["UUID"])["State"] == "Deleting"


def test_a_topic_invokes_its_subscribed_function(client: Callable[[str], Any], echo: str, seen: Queue) -> None:
    sns = client("sns")
    topic = sns.create_topic(Name=f"test-{uuid.uuid4().hex[:8]}")["TopicArn"]
    sns.subscribe(
        TopicArn=topic,
        Protocol="lambda",
        Endpoint=echo,
        Attributes={"FilterPolicy": json.dumps({"colour": ["red"]})},
    )
    for colour in ("blue", "red"):
        attributes = {"colour": {"DataType": "String", "StringValue": colour}}
        sns.publish(TopicArn=topic, Message=f"it is {colour}", Subject="s", MessageAttributes=attributes)
    record = seen.receive()["Records"][0]
    assert record["EventSource"] == "aws:sns"
    assert record["Sns"]["Message"] == "it is red"
    assert record["Sns"]["TopicArn"] == topic
    assert record["Sns"]["MessageAttributes"] == {"colour": {"Type": "String", "Value": "red"}}


def test_a_bucket_notifies_function_queue_topic_and_event_bridge(
    client: Callable[[str], Any], s3: Any, bucket: str, echo: str, seen: Queue, sqs: Any
) -> None:
    queue, from_topic, from_bus = Queue(sqs), Queue(sqs), Queue(sqs)
    sns, events = client("sns"), client("events")
    topic = sns.create_topic(Name=f"test-{uuid.uuid4().hex[:8]}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=from_topic.arn)
    events.put_rule(
        Name=bucket, EventPattern=json.dumps({"source": ["aws.s3"], "detail": {"bucket": {"name": [bucket]}}})
    )
    events.put_targets(Rule=bucket, Targets=[{"Id": "q", "Arn": from_bus.arn}])
    rules = {
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".txt"}]}}
    }
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "LambdaFunctionConfigurations": [{"LambdaFunctionArn": echo, "Events": ["s3:ObjectCreated:*"], **rules}],
            "QueueConfigurations": [{"QueueArn": queue.arn, "Events": ["s3:ObjectRemoved:Delete"]}],
            "TopicConfigurations": [{"TopicArn": topic, "Events": ["s3:ObjectCreated:Copy"]}],
            "EventBridgeConfiguration": {},
        },
    )
    s3.put_object(Bucket=bucket, Key="other.txt", Body=b"")
    s3.put_object(Bucket=bucket, Key="in/a b.txt", Body=b"12345")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "other.txt"})
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "copy"}]})
    record = seen.receive()["Records"][0]
    assert (record["eventSource"], record["eventName"]) == ("aws:s3", "ObjectCreated:Put")
    assert record["s3"]["bucket"]["name"] == bucket
    described = record["s3"]["object"]
    assert (described["key"], described["size"]) == ("in/a+b.txt", 5)
    removed = queue.receive(lambda body: "Records" in body)["Records"][0]
    assert (removed["eventName"], removed["s3"]["object"]["key"]) == ("ObjectRemoved:Delete", "copy")
    message = json.loads(from_topic.receive(lambda body: "Records" in body["Message"])["Message"])
    assert message["Records"][0]["eventName"] == "ObjectCreated:Copy"
    event = from_bus.receive(lambda body: body["detail"]["object"]["key"] == "in/a b.txt")
    assert (event["detail-type"], event["detail"]["reason"]) == ("Object Created", "PutObject")
    with pytest.raises(ClientError, match="Unable to validate the following destination configurations"):
        s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration={
                "LambdaFunctionConfigurations": [{"LambdaFunctionArn": f"{echo}none", "Events": ["s3:ObjectCreated:*"]}]
            },
        )


def test_a_rule_invokes_a_function_with_transformed_input(
    client: Callable[[str], Any], echo: str, seen: Queue, sqs: Any
) -> None:
    events, name = client("events"), f"test-{uuid.uuid4().hex[:8]}"
    events.put_rule(Name=name, EventPattern=json.dumps({"source": [name], "detail": {"size": [{"numeric": [">", 5]}]}}))
    transformer = {
        "InputPathsMap": {"size": "$.detail.size", "kind": "$.detail-type"},
        "InputTemplate": '{"size": <size>, "text": "a <kind> of <size>"}',
    }
    events.put_targets(
        Rule=name,
        Targets=[
            {"Id": "f", "Arn": echo, "InputTransformer": transformer},
            {"Id": "lost", "Arn": f"{echo}none", "DeadLetterConfig": {"Arn": seen.arn}, "InputPath": "$.detail"},
            {
                "Id": "unserved",
                "Arn": "arn:aws:batch:us-east-1:123456789012:job-queue/none",
                "DeadLetterConfig": {"Arn": seen.arn},
                "Input": '"unserved"',
            },
        ],
    )
    for size in (3, 7):
        entry = {"Source": name, "DetailType": "thing", "Detail": json.dumps({"size": size})}
        assert events.put_events(Entries=[entry])["FailedEntryCount"] == 0
    received = [seen.receive(), seen.receive(), seen.receive()]
    assert "unserved" in received
    assert {"size": 7, "text": "a thing of 7"} in received
    assert {"size": 7} in received
    events.disable_rule(Name=name)
    events.put_events(Entries=[{"Source": name, "DetailType": "t", "Detail": '{"size": 8}'}])
    time.sleep(0.5)
    assert "Messages" not in sqs.receive_message(QueueUrl=seen.url)


def test_a_schedule_invokes_a_function_at_its_time(client: Callable[[str], Any], echo: str, seen: Queue) -> None:
    scheduler, name = client("scheduler"), f"test-{uuid.uuid4().hex[:8]}"
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3))
    scheduler.create_schedule(
        Name=name,
        ScheduleExpression=f"at({moment})",
        FlexibleTimeWindow={"Mode": "OFF"},
        ActionAfterCompletion="DELETE",
        Target={
            "Arn": echo,
            "RoleArn": "arn:aws:iam::123456789012:role/test",
            "Input": '{"at": "<aws.scheduler.scheduled-time>"}',
        },
    )
    # Another cloud of this process shares moto's schedules, and has no such function.
    with LocalCloud():
        assert seen.receive() == {"at": f"{moment}Z"}
    while name in [item["Name"] for item in scheduler.list_schedules()["Schedules"]]:
        time.sleep(0.1)


def test_asynchronous_invocations_reach_destinations_and_dead_letters(
    functions: Any, deploy: Callable[..., str], sqs: Any, seen: Queue, client: Callable[[str], Any]
) -> None:
    succeeded, failed, dead = Queue(sqs), Queue(sqs), Queue(sqs)
    name = deploy(ECHO, Environment={"Variables": {"SEEN": seen.url}}, DeadLetterConfig={"TargetArn": dead.arn})
    functions.put_function_event_invoke_config(
        FunctionName=name,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnSuccess": {"Destination": succeeded.arn}, "OnFailure": {"Destination": failed.arn}},
    )
    functions.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"n": 1}')
    record = succeeded.receive()
    assert record["requestPayload"] == {"n": 1}
    assert record["responsePayload"] == {"answer": 42}
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["functionArn"].endswith(f":{name}:$LATEST")
    functions.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"fail": 1}')
    record = failed.receive()
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"}
    assert record["responsePayload"]["errorMessage"] == "asked to fail"
    assert dead.receive() == {"fail": 1}
    # A synchronous invocation goes nowhere.
    functions.invoke(FunctionName=name, Payload=b'{"fail": 1}')
    assert "Messages" not in sqs.receive_message(QueueUrl=failed.url)


def test_a_bus_and_a_bucket_are_destinations(
    functions: Any, echo: str, sqs: Any, s3: Any, bucket: str, client: Callable[[str], Any]
) -> None:
    events, from_bus = client("events"), Queue(sqs)
    pattern = {"source": ["lambda"], "detail": {"requestContext": {"functionArn": [{"prefix": echo}]}}}
    events.put_rule(Name=bucket, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=bucket, Targets=[{"Id": "q", "Arn": from_bus.arn}])
    bus = "arn:aws:events:us-east-1:123456789012:event-bus/default"
    functions.put_function_event_invoke_config(
        FunctionName=echo,
        MaximumRetryAttempts=0,
        DestinationConfig={"OnSuccess": {"Destination": bus}, "OnFailure": {"Destination": f"arn:aws:s3:::{bucket}"}},
    )
    functions.invoke(FunctionName=echo, InvocationType="Event", Payload=b"{}")
    event = from_bus.receive()
    assert event["detail-type"] == "Lambda Function Invocation Result - Success"
    assert event["detail"]["responsePayload"] == {"answer": 42}
    functions.invoke(FunctionName=echo, InvocationType="Event", Payload=b'{"fail": 1}')
    while not (found := s3.list_objects_v2(Bucket=bucket, Prefix="aws/lambda/async/").get("Contents")):
        time.sleep(0.1)
    record = json.load(s3.get_object(Bucket=bucket, Key=found[0]["Key"])["Body"])
    assert record["requestPayload"] == {"fail": 1}
