"""Fixtures for state machines on the module's local cloud."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from emulator.cloud import LocalCloud
from tests.emulator.conftest import ROLE


@pytest.fixture(scope="module")
def sfn(cloud: LocalCloud) -> Any:
    # Without the option, StartSyncExecution's host would be sync-127.0.0.1.
    return boto3.client(
        "stepfunctions",
        endpoint_url=cloud.endpoint_url,
        region_name="us-east-1",
        **cloud.credentials.for_boto3(),
        config=Config(retries={"total_max_attempts": 1}, inject_host_prefix=False),
    )


@pytest.fixture
def machine(sfn: Any) -> Iterator[Callable[..., str]]:
    """Return a function that creates a state machine from its states, the first one first; deleted at the end."""
    arns: list[str] = []

    def create(states: dict[str, Any] | str, kind: str = "STANDARD", **more: Any) -> str:
        text = (
            states if isinstance(states, str) else json.dumps({"StartAt": next(iter(states)), "States": states, **more})
        )
        name = f"test-{uuid.uuid4().hex[:12]}"
        created = sfn.create_state_machine(name=name, definition=text, roleArn=ROLE, type=kind)
        arns.append(created["stateMachineArn"])
        return arns[-1]

    yield create
    for arn in arns:
        sfn.delete_state_machine(stateMachineArn=arn)


@pytest.fixture
def execute(sfn: Any, machine: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Return a function that runs states to their end and returns the execution's description."""

    def run(states: dict[str, Any] | str, value: Any = None, **more: Any) -> dict[str, Any]:
        started = sfn.start_execution(stateMachineArn=machine(states, **more), input=json.dumps(value or {}))
        return wait_for_end(sfn, started["executionArn"])

    return run


def wait_for_end(sfn: Any, arn: str) -> dict[str, Any]:
    """Wait for an execution's end; return its description, with its output parsed."""
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline:
        described: dict[str, Any] = sfn.describe_execution(executionArn=arn)
        if described["status"] != "RUNNING":
            if "output" in described:
                described["output"] = json.loads(described["output"])
            return described
        time.sleep(0.01)
    raise AssertionError(f"{arn} did not end within 50 s")


def events(sfn: Any, arn: str) -> list[dict[str, Any]]:
    """Return all events of an execution."""
    pages = sfn.get_paginator("get_execution_history").paginate(executionArn=arn)
    return [event for page in pages for event in page["events"]]


def kinds(sfn: Any, arn: str) -> list[str]:
    """Return the types of all events of an execution."""
    return [event["type"] for event in events(sfn, arn)]


def invoke(function: str, **more: Any) -> dict[str, Any]:
    """Return a Task state that invokes a function with its input."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function, "Payload.$": "$"},
        "OutputPath": "$.Payload",
        "End": True,
        **more,
    }


def distributed(states: dict[str, Any], kind: str = "EXPRESS", **more: Any) -> dict[str, Any]:
    """Return a distributed Map state."""
    processor = {
        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": kind},
        "StartAt": next(iter(states)),
        "States": states,
    }
    return {"Type": "Map", "ItemProcessor": processor, "End": True, **more}


def inline(states: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an inline Map state."""
    return {"Type": "Map", "ItemProcessor": {"StartAt": next(iter(states)), "States": states}, "End": True, **more}
