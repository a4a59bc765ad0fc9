"""POST /moto-api/reset empties every store and stops what is running."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.cloud import LocalCloud
from tests.emulator.conftest import ROLE, archive

HANDLER = """
import time
def handler(event, context):
    print("began", flush=True)
    time.sleep(event)
    return event
"""
STACK = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}
WAIT = json.dumps({"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 60, "End": True}}})


@pytest.fixture
def clients(client: Callable[[str], Any]) -> dict[str, Any]:
    return {service: client(service) for service in ("s3", "lambda", "stepfunctions", "logs", "sqs")}


def stored(clients: dict[str, Any]) -> list[list[str]]:
    """Return the names of everything that is stored."""
    machines = clients["stepfunctions"].list_state_machines()["stateMachines"]
    return [
        [found["Name"] for found in clients["s3"].list_buckets()["Buckets"]],
        [found["FunctionName"] for found in clients["lambda"].list_functions()["Functions"]],
        [found["name"] for found in machines],
        [found["logGroupName"] for found in clients["logs"].describe_log_groups()["logGroups"]],
        [url.rpartition("/")[2] for url in clients["sqs"].list_queues().get("QueueUrls", [])],
    ]


def fill(clients: dict[str, Any]) -> str:
    """Store something in every service, under the same names each time; return the ARN of the state machine."""
    s3 = clients["s3"]
    s3.create_bucket(Bucket="bucket")
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_tagging(Bucket="bucket", Tagging={"TagSet": [{"Key": "a", "Value": "b"}]})
    for body in (b"1", bytes(100_000)):
        s3.put_object(Bucket="bucket", Key="key", Body=body)
    upload = s3.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    s3.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=1, Body=b"part")
    clients["lambda"].create_function(
        FunctionName="function",
        Runtime="python3.11",
        Handler="main.handler",
        Role=ROLE,
        Code={"ZipFile": archive(main=HANDLER)},
        Timeout=60,
    )
    clients["logs"].create_log_group(logGroupName="group")
    clients["sqs"].create_queue(QueueName="queue")
    created = clients["stepfunctions"].create_state_machine(name="machine", definition=WAIT, roleArn=ROLE)
    return str(created["stateMachineArn"])


def test_reset_empties_every_store(clients: dict[str, Any], cloud: LocalCloud) -> None:
    expected = [["bucket"], ["function"], ["machine"], ["/aws/lambda/function", "group"], ["queue"]]
    for _ in range(2):
        machine = fill(clients)
        assert clients["lambda"].invoke(FunctionName="function", Payload=b"0")["Payload"].read() == b"0"
        assert stored(clients) == expected
        cloud.reset()
        assert stored(clients) == [[], [], [], [], []]
        with pytest.raises(ClientError, match="NoSuchBucket"):
            clients["s3"].get_bucket_tagging(Bucket="bucket")
        with pytest.raises(ClientError, match="NoSuchBucket"):
            clients["s3"].list_objects_v2(Bucket="bucket")
        with pytest.raises(ClientError, match="StateMachineDoesNotExist"):
            clients["stepfunctions"].describe_state_machine(stateMachineArn=machine)
    assert cloud.executions() == []


def test_reset_ends_what_is_running(clients: dict[str, Any], cloud: LocalCloud) -> None:
    machine = fill(clients)
    execution = clients["stepfunctions"].start_execution(stateMachineArn=machine)["executionArn"]
    clients["lambda"].invoke(FunctionName="function", InvocationType="Event", Payload=b"60")
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(clients["lambda"].invoke, FunctionName="function", Payload=b"60")
        deadline = time.monotonic() + 20
        began: list[Any] = []
        while len(began) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
            try:
                found = clients["logs"].filter_log_events(logGroupName="/aws/lambda/function", filterPattern="began")
            except clients["logs"].exceptions.ResourceNotFoundException:
                continue
            began = found["events"]
        assert len(began) == 2
        cloud.reset()
        with pytest.raises(ClientError, match="the emulator was reset"):
            call.result(timeout=20)
    with pytest.raises(ClientError, match="ExecutionDoesNotExist"):
        clients["stepfunctions"].describe_execution(executionArn=execution)
    # What was running stores nothing afterwards.
    time.sleep(0.2)
    assert stored(clients) == [[], [], [], [], []]
    fill(clients)
    assert clients["lambda"].invoke(FunctionName="function", Payload=b"0")["Payload"].read() == b"0"
    cloud.reset()


def test_stacks_mappings_and_services_are_forgotten(
    cloud: LocalCloud, client: Callable[[str], Any], clients: dict[str, Any]
) -> None:
    cloudformation, functions, sqs = client("cloudformation"), clients["lambda"], clients["sqs"]
    cloudformation.create_stack(StackName="stack", TemplateBody=json.dumps(STACK))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="stack", WaiterConfig={"Delay": 1})
    url = sqs.create_queue(QueueName="source")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    functions.create_function(
        FunctionName="f",
        Role=ROLE,
        Runtime="python3.11",
        Handler="main.handler",
        Code={"ZipFile": archive(main=HANDLER)},
    )
    functions.create_event_source_mapping(FunctionName="f", EventSourceArn=arn)
    cloud.reset()
    assert cloudformation.list_stacks()["StackSummaries"] == []
    assert functions.list_event_source_mappings()["EventSourceMappings"] == []
    cloudformation.create_stack(StackName="stack", TemplateBody=json.dumps(STACK))
    cloudformation.get_waiter("stack_create_complete").wait(StackName="stack", WaiterConfig={"Delay": 1})
    cloud.reset()
