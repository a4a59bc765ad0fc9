"""IAM has AWS's managed policies, which are loaded when a request needs them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from moto.iam.models import IAMBackend

from emulator.cloud import LocalCloud

READ_ONLY = "arn:aws:iam::aws:policy/ReadOnlyAccess"
GROUP = {"Resources": {"Group": {"Type": "AWS::IAM::Group", "Properties": {"ManagedPolicyArns": [READ_ONLY]}}}}


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of policies of the accounts that moto makes."""
    numbers: list[int] = []
    original = IAMBackend._init_aws_policies

    def count(backend: IAMBackend) -> list[Any]:
        policies: list[Any] = original(backend)
        numbers.append(len(policies))
        return policies

    monkeypatch.setattr(IAMBackend, "_init_aws_policies", count)
    return numbers


def test_requests_to_other_services_and_a_reset_do_not_load_them(
    cloud: LocalCloud, client: Callable[[str], Any], loads: list[int]
) -> None:
    client("iam").get_policy(PolicyArn=READ_ONLY)
    cloud.reset()
    del loads[:]
    client("s3").create_bucket(Bucket="bucket")
    client("sqs").create_queue(QueueName="queue")
    cloud.reset()
    assert not any(loads)


def test_a_user_made_after_other_requests_and_resets_has_them(cloud: LocalCloud, client: Callable[[str], Any]) -> None:
    for _ in range(2):
        client("sqs").create_queue(QueueName="queue")
        iam = client("iam")
        iam.create_user(UserName="user")
        iam.attach_user_policy(UserName="user", PolicyArn=READ_ONLY)
        (attached,) = iam.list_attached_user_policies(UserName="user")["AttachedPolicies"]
        assert attached["PolicyArn"] == READ_ONLY
        cloud.reset()


def test_a_stacks_group_has_them(client: Callable[[str], Any]) -> None:
    stacks = client("cloudformation")
    stacks.create_stack(StackName="stack", TemplateBody=json.dumps(GROUP), Capabilities=["CAPABILITY_IAM"])
    stacks.get_waiter("stack_create_complete").wait(StackName="stack", WaiterConfig={"Delay": 0.1, "MaxAttempts": 200})
    (group,) = stacks.describe_stack_resources(StackName="stack")["StackResources"]
    attached = client("iam").list_attached_group_policies(GroupName=group["PhysicalResourceId"])["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [READ_ONLY]
