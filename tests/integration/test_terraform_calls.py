"""The calls that Terraform's aws provider makes to create, read and delete resources, in its order."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.emulator.conftest import ROLE, archive


def absent(call: Callable[..., Any], *codes: str, **parameters: Any) -> None:
    """Make a call that must fail with one of the codes for a configuration that does not exist."""
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    assert raised.value.response["Error"]["Code"] in codes


def test_a_function_with_its_event_source(client: Callable[[str], Any]) -> None:
    functions, sqs = client("lambda"), client("sqs")
    name = f"test-{uuid.uuid4().hex[:8]}"
    code = archive(main="def handler(event, context): return 1")
    made = functions.create_function(
        FunctionName=name, Role=ROLE, Runtime="python3.11", Handler="main.handler", Code={"ZipFile": code}
    )
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    found = functions.get_function(FunctionName=name)
    assert found["Configuration"]["CodeSha256"] == made["CodeSha256"]
    assert functions.list_versions_by_function(FunctionName=name)["Versions"][0]["Version"] == "$LATEST"
    assert "CodeSigningConfigArn" not in functions.get_function_code_signing_config(FunctionName=name)
    assert functions.list_tags(Resource=made["FunctionArn"])["Tags"] == {}
    absent(functions.get_policy, "ResourceNotFoundException", FunctionName=name)
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]["QueueArn"]
    assert sqs.list_queue_tags(QueueUrl=url).get("Tags", {}) == {}
    mapping = functions.create_event_source_mapping(FunctionName=name, EventSourceArn=arn, Tags={"a": "b"})
    mapping = functions.get_event_source_mapping(UUID=mapping["UUID"])
    assert mapping["State"] == "Enabled"
    mapping_arn = mapping["EventSourceMappingArn"]
    assert functions.list_tags(Resource=mapping_arn)["Tags"] == {"a": "b"}
    functions.tag_resource(Resource=mapping_arn, Tags={"c": "d"})
    functions.untag_resource(Resource=mapping_arn, TagKeys=["a"])
    assert functions.list_tags(Resource=mapping_arn)["Tags"] == {"c": "d"}
    functions.delete_event_source_mapping(UUID=mapping["UUID"])
    absent(functions.get_event_source_mapping, "ResourceNotFoundException", UUID=mapping["UUID"])
    functions.delete_function(FunctionName=name)
    absent(functions.get_function, "ResourceNotFoundException", FunctionName=name)


def test_a_bucket_is_read_with_all_its_configurations(s3: Any) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)
    assert s3.get_bucket_versioning(Bucket=name).get("Status") is None
    assert s3.get_bucket_acl(Bucket=name)["Grants"]
    assert s3.get_bucket_request_payment(Bucket=name)["Payer"] == "BucketOwner"
    assert s3.get_bucket_accelerate_configuration(Bucket=name).get("Status") is None
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=name)
    assert s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    absent(s3.get_bucket_policy, "NoSuchBucketPolicy", Bucket=name)
    absent(s3.get_bucket_cors, "NoSuchCORSConfiguration", Bucket=name)
    absent(s3.get_bucket_website, "NoSuchWebsiteConfiguration", Bucket=name)
    absent(s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration", Bucket=name)
    absent(s3.get_bucket_replication, "ReplicationConfigurationNotFoundError", Bucket=name)
    absent(s3.get_object_lock_configuration, "ObjectLockConfigurationNotFoundError", Bucket=name)
    absent(s3.get_bucket_tagging, "NoSuchTagSet", Bucket=name)
    s3.delete_bucket(Bucket=name)


def test_a_state_machine_and_a_log_group(client: Callable[[str], Any]) -> None:
    machines, logs = client("stepfunctions"), client("logs")
    name = f"test-{uuid.uuid4().hex[:8]}"
    definition = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}})
    assert machines.validate_state_machine_definition(definition=definition)["result"] == "OK"
    arn = machines.create_state_machine(name=name, definition=definition, roleArn=ROLE)["stateMachineArn"]
    assert machines.describe_state_machine(stateMachineArn=arn)["status"] == "ACTIVE"
    assert machines.list_tags_for_resource(resourceArn=arn)["tags"] == []
    machines.delete_state_machine(stateMachineArn=arn)
    absent(machines.describe_state_machine, "StateMachineDoesNotExist", stateMachineArn=arn)
    logs.create_log_group(logGroupName=name, tags={"a": "b"})
    logs.put_retention_policy(logGroupName=name, retentionInDays=7)
    group = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]
    assert group["retentionInDays"] == 7
    assert logs.list_tags_for_resource(resourceArn=group["logGroupArn"])["tags"] == {"a": "b"}
    logs.delete_log_group(logGroupName=name)
