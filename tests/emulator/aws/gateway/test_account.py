"""The number of the account is part of every ARN, and of what moto makes."""

import io
import json
import zipfile
from collections.abc import Iterator

import boto3
import pytest

from emulator.cloud import LocalCloud

NUMBER = "210987654321"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(account=NUMBER) as running:
        yield running


def test_all_arns_have_the_number_of_the_account(cloud: LocalCloud) -> None:
    role = f"arn:aws:iam::{NUMBER}:role/r"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("main.py", "def handler(event, context):\n    return context.invoked_function_arn\n")
    functions = cloud.client("lambda")
    made = functions.create_function(
        FunctionName="f", Runtime="python3.11", Handler="main.handler", Role=role, Code={"ZipFile": archive.getvalue()}
    )["FunctionArn"]
    answer = json.load(functions.invoke(FunctionName="f")["Payload"])
    task = {"Type": "Task", "Resource": made, "End": True}
    definition = json.dumps({"StartAt": "T", "States": {"T": task}})
    machine = cloud.client("stepfunctions").create_state_machine(name="m", definition=definition, roleArn=role)
    cloud.client("logs").create_log_group(logGroupName="g")
    (group,) = cloud.client("logs").describe_log_groups(logGroupNamePrefix="g")["logGroups"]
    queue = cloud.client("sqs").create_queue(QueueName="q")["QueueUrl"]
    arns = [
        made,
        answer,
        machine["stateMachineArn"],
        group["arn"],
        cloud.client("sns").create_topic(Name="t")["TopicArn"],
        cloud.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]["QueueArn"],
        cloud.client("sts").get_caller_identity()["Arn"],
        cloud.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")["Role"]["Arn"],
    ]
    assert {arn.split(":")[4] for arn in arns} == {NUMBER}


def test_a_role_of_another_account_has_the_resources_of_that_account(cloud: LocalCloud) -> None:
    role = "arn:aws:iam::111111111111:role/other"
    key = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="session")["Credentials"]
    other = boto3.client(
        "sqs",
        endpoint_url=cloud.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key["SessionToken"],
    )
    assert "/111111111111/" in other.create_queue(QueueName="theirs")["QueueUrl"]
    assert f"/{NUMBER}/" in cloud.client("sqs").create_queue(QueueName="ours")["QueueUrl"]


def test_a_bucket_belongs_to_the_account(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="owned")
    s3.put_object(Bucket="owned", Key="k", ExpectedBucketOwner=NUMBER)
    with pytest.raises(s3.exceptions.ClientError, match=f"the owner is {NUMBER}"):
        s3.put_object(Bucket="owned", Key="k", ExpectedBucketOwner="123456789012")
