"""Failed changes of a stack: what CloudFormation says, and the message with what mends it."""

import datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from emulator.fmi.deployment.stack import StackError, StackOperations

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def failure(reason: str, resource: str = "Execute", kind: str = "AWS::Lambda::Function") -> StackError:
    """Return the error of a change set in which a resource failed for a reason."""
    client: Any = boto3.client(
        "cloudformation", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    event = {
        "StackId": "arn",
        "EventId": "1",
        "StackName": "fmi",
        "Timestamp": NOW,
        "LogicalResourceId": resource,
        "ResourceType": kind,
        "ResourceStatus": "CREATE_FAILED",
        "ResourceStatusReason": reason,
    }
    stack = {"StackName": "fmi", "CreationTime": NOW, "StackStatus": "UPDATE_ROLLBACK_COMPLETE"}
    with Stubber(client) as stub:
        stub.add_response("describe_stack_events", {"StackEvents": []})
        stub.add_response("execute_change_set", {})
        stub.add_response("describe_stacks", {"Stacks": [stack]})
        for _ in range(2):
            stub.add_response("describe_stack_events", {"StackEvents": [event]})
        with pytest.raises(StackError) as raised:
            StackOperations(client, "fmi").apply("change")
        stub.assert_no_pending_responses()
    return raised.value


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("fmi-bucket-1a2b already exists", "deploy under another name with --stack-name"),
        ("BucketAlreadyExists: The requested bucket name is not available.", "delete the other one, or deploy under"),
        ("User: arn:aws:iam::1:user/u is not authorized to perform: ecs:CreateCluster", "`fmi-emulator deploy --print"),
        ('Resource handler returned message: "Limit Exceeded" (HandlerErrorCode: ServiceLimitExceeded)', "`aws serv"),
        ("The maximum number of VPCs has been reached.", "`aws service-quotas request-service-quota-increase`"),
        (
            "Source image 1.dkr.ecr.us-east-1.amazonaws.com/x:1 does not exist.",
            "push an image of this machine with --im",
        ),
        ("The image architecture arm64 does not match the function's x86_64", "give --architecture of the image"),
        ("something new", "mend the cause and run the command again"),
    ],
)
def test_a_failed_resource_is_named_with_the_reason_and_what_mends_it(reason: str, remedy: str) -> None:
    error = failure(reason)
    start, _, advice = str(error).partition("; the stack was rolled back: ")
    assert start == f"Execute (AWS::Lambda::Function) failed: {reason}"
    assert remedy in advice
    assert not error.is_early


@pytest.mark.parametrize(
    "reason",
    [
        "The role defined for the function cannot be assumed by Lambda. (Service: Lambda, Status Code: 400)",
        "Neither the global service principal states.amazonaws.com, nor the regional one is authorized to assume the "
        "provided role.",
        "The operation cannot be performed at this time. An update is in progress for resource: arn:aws:lambda:x",
        "The operation cannot be performed at this time. The function is currently in the following state: Pending",
        "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
    ],
)
def test_what_succeeds_some_seconds_later_is_known(reason: str) -> None:
    assert failure(reason).is_early
