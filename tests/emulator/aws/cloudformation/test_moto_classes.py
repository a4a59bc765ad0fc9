"""What stacks use of moto's private classes is as this project needs it."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import Resource, ResourceRequest, StackIdentity
from emulator.aws.cloudformation.types.moto import MotoResource, moto_class, moto_classes
from tests.emulator.aws.cloudformation.conftest import StackTools


def test_the_methods_have_the_arguments_that_are_passed() -> None:
    assert moto_class("AWS::Kinesis::Stream") is not None
    wanted = {
        "create_from_cloudformation_json": ["resource_name", "cloudformation_json", "account_id", "region_name"],
        "update_from_cloudformation_json": [
            "original_resource",
            "new_resource_name",
            "cloudformation_json",
            "account_id",
            "region_name",
        ],
        "delete_from_cloudformation_json": ["resource_name", "cloudformation_json", "account_id", "region_name"],
    }
    for kind in moto_classes().values():
        for name, arguments in wanted.items():
            given = list(inspect.signature(getattr(kind, name)).parameters)
            assert given[: len(arguments)] == arguments or given[:1] == ["args"], (kind, name)


def test_its_own_map_has_the_same_classes() -> None:
    from moto.cloudformation.parsing import get_model_map

    own = get_model_map()
    for name in ("AWS::Kinesis::Stream", "AWS::EFS::FileSystem", "AWS::AutoScaling::AutoScalingGroup"):
        assert moto_class(name) is own[name]


def test_a_type_of_no_service_has_no_class() -> None:
    assert moto_class("AWS::GroundStation::Config") is None
    assert moto_class("Nonsense") is None


def test_a_stored_resource_whose_object_is_not_known_is_not_changed() -> None:
    model = moto_class("AWS::Kinesis::Stream")
    assert model is not None
    stack = StackIdentity(
        "sky", "arn:aws:cloudformation:us-east-1:123456789012:stack/sky/1", "us-east-1", "123456789012"
    )
    request = ResourceRequest(
        stack, "Stream", "AWS::Kinesis::Stream", {"ShardCount": 2}, Resource("s"), {"ShardCount": 1}
    )
    with pytest.raises(
        ResourceFailedError, match=r"s \(AWS::Kinesis::Stream\) cannot be changed by its stack since the"
    ):
        asyncio.run(MotoResource(model).update(request))


@pytest.mark.timeout(120)
def test_a_stack_has_resources_of_moto(stacks: StackTools, client: Callable[[str], Any]) -> None:
    def template(shards: int) -> dict[str, Any]:
        stream = {"Type": "AWS::Kinesis::Stream", "Properties": {"ShardCount": shards}}
        return {"Resources": {"Stream": stream}, "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["Stream", "Arn"]}}}}

    kinesis = client("kinesis")
    stack = stacks.create(template(1))
    assert stack["StackStatus"] == "CREATE_COMPLETE", stacks.reasons(stack["StackId"])
    assert stack["Values"]["Arn"].startswith("arn:aws:kinesis:us-east-1:123456789012:stream/")
    name = stacks.physical_ids(stack["StackId"])["Stream"]
    stack = stacks.update(stack["StackId"], template(2))
    assert stack["StackStatus"] == "UPDATE_COMPLETE", stacks.reasons(stack["StackId"])
    summary = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 2
    stacks.delete(stack["StackId"])
    assert kinesis.list_streams()["StreamNames"] == []
