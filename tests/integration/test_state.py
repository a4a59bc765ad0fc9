"""fmi-emulator serve --state: what was acknowledged is there after a kill, and nothing else is."""

import io
import json
import random
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.commands import FMI_EMULATOR, run
from tests.integration.serving import serving

MIB = 1 << 20
WRITERS = 4
SIZES = (0, 100, 20_000, 300_000)


@dataclass
class Written:
    """What was acknowledged to a writer, by key: an object's content, None for a deleted one; and its last request."""

    acknowledged: dict[str, bytes | None] = field(default_factory=dict)
    under_way: tuple[str, bytes | None] | None = None


def write(s3: Any, writer: int, written: Written) -> None:
    """Put, overwrite and delete objects until the server is gone."""
    chance = random.Random(writer)
    try:
        while True:
            key = f"{writer}/../{chance.randrange(20)}"
            content = chance.randbytes(chance.choice(SIZES)) if chance.random() < 0.8 else None
            written.under_way = (key, content)
            if content is None:
                s3.delete_object(Bucket="bucket", Key=key)
            else:
                s3.put_object(Bucket="bucket", Key=key, Body=content, Metadata={"md5": md5(content).hexdigest()})
            written.acknowledged[key] = content
            written.under_way = None
    except (BotoCoreError, ClientError):
        return


def upload(s3: Any, upload_id: str, etags: dict[int, str]) -> None:
    """Upload parts until the server is gone."""
    try:
        for number in range(1, 10_001):
            part = bytes([number % 256]) * (5 * MIB)
            put = s3.upload_part(Bucket="bucket", Key="parts", UploadId=upload_id, PartNumber=number, Body=part)
            etags[number] = put["ETag"]
    except (BotoCoreError, ClientError):
        return


def found(s3: Any, key: str) -> bytes | None:
    try:
        got = s3.get_object(Bucket="bucket", Key=key)
    except s3.exceptions.NoSuchKey:
        return None
    content: bytes = got["Body"].read()
    digest = md5(content).hexdigest()
    assert (got["Metadata"], got["ETag"]) == ({"md5": digest}, f'"{digest}"')
    return content


def test_a_kill_amid_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    state, scratch = tmp_path / "state", tmp_path / "scratch"
    scratch.mkdir()
    written = [Written() for _ in range(WRITERS)]
    etags: dict[int, str] = {}
    with serving(scratch, "--state", state) as server:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="bucket")
        upload_id = s3.create_multipart_upload(Bucket="bucket", Key="parts", Metadata={"own": "1"})["UploadId"]
        threads = [threading.Thread(target=write, args=(s3, number, written[number])) for number in range(WRITERS)]
        threads.append(threading.Thread(target=upload, args=(s3, upload_id, etags)))
        for thread in threads:
            thread.start()
        while sum(len(one.acknowledged) for one in written) < 40 or len(etags) < 2:
            time.sleep(0.01)
        server.kill()
        for thread in threads:
            thread.join()
    with serving(scratch, "--state", state) as server:
        s3 = server.client("s3")
        expected = {}
        for one in written:
            for key, content in one.acknowledged.items():
                allowed = [content]
                if one.under_way is not None and one.under_way[0] == key:
                    allowed.append(one.under_way[1])
                expected[key] = found(s3, key)
                assert expected[key] in allowed, key
            if one.under_way is not None:
                key, content = one.under_way
                expected[key] = found(s3, key)
                assert expected[key] in (one.acknowledged.get(key), content)
        listed = {entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", [])}
        assert listed == {key for key, content in expected.items() if content is not None}
        parts = s3.list_parts(Bucket="bucket", Key="parts", UploadId=upload_id)["Parts"]
        assert etags.items() <= {part["PartNumber"]: part["ETag"] for part in parts}.items()
        chosen = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(etags.items())]
        s3.complete_multipart_upload(
            Bucket="bucket", Key="parts", UploadId=upload_id, MultipartUpload={"Parts": chosen}
        )
        whole = s3.get_object(Bucket="bucket", Key="parts")
        assert whole["Metadata"] == {"own": "1"}
        assert whole["Body"].read() == b"".join(bytes([number % 256]) * (5 * MIB) for number in sorted(etags))
        # Files are there for what is larger than lies in the database, and for the parts: no half-written ones.
        files = sum(content is not None and len(content) > 16 * 1024 for content in expected.values()) + len(chosen)
        assert len(list((state / "bodies").iterdir())) == files
    assert list(scratch.iterdir()) == []


HANDLER = """
def handler(event, context):
    print("said", event)
    return {"version": context.function_version}
"""


def archive(source: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("main.py", source)
    return buffer.getvalue()


def invoke(functions: Any, qualifier: str) -> Any:
    answer = functions.invoke(FunctionName="kept", Qualifier=qualifier, Payload=b'"once"')
    return json.loads(answer["Payload"].read())


def test_buckets_versions_functions_and_logs_are_there_after_a_kill(tmp_path: Path) -> None:
    state, scratch = tmp_path / "state", tmp_path / "scratch"
    scratch.mkdir()
    with serving(scratch, "--state", state) as server:
        s3, functions, logs = (server.client(service) for service in ("s3", "lambda", "logs"))
        s3.create_bucket(Bucket="bucket")
        s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_tagging(Bucket="bucket", Tagging={"TagSet": [{"Key": "team", "Value": "fmi"}]})
        rule = {"ID": "1", "Status": "Enabled", "Prefix": "", "Destination": {"Bucket": "arn:aws:s3:::bucket"}}
        replication = {"Role": "arn:aws:iam::123456789012:role/r", "Rules": [rule]}
        s3.put_bucket_replication(Bucket="bucket", ReplicationConfiguration=replication)
        for content in (b"first", b"second" * 10_000):
            s3.put_object(Bucket="bucket", Key="key", Body=content, ContentType="text/plain", Tagging="a=1")
        s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "key"})
        s3.delete_object(Bucket="bucket", Key="key")
        s3.create_bucket(Bucket="removed")
        s3.delete_bucket(Bucket="removed")
        functions.create_function(
            FunctionName="kept",
            Runtime="python3.11",
            Handler="main.handler",
            Role="arn:aws:iam::123456789012:role/test",
            Code={"ZipFile": archive(HANDLER)},
            Timeout=20,
            Environment={"Variables": {"LEVEL": "1"}},
            Tags={"team": "fmi"},
            Publish=True,
        )
        functions.create_alias(FunctionName="kept", Name="live", FunctionVersion="1")
        functions.put_function_concurrency(FunctionName="kept", ReservedConcurrentExecutions=7)
        functions.update_function_configuration(FunctionName="kept", Timeout=30)
        assert invoke(functions, "live") == {"version": "1"}

        def seen() -> list[Any]:
            versions = s3.list_object_versions(Bucket="bucket")
            kept = functions.get_function(FunctionName="kept")
            configuration = {name: value for name, value in kept["Configuration"].items() if name != "Code"}
            return [
                [(bucket["Name"], bucket["CreationDate"]) for bucket in s3.list_buckets()["Buckets"]],
                s3.get_bucket_tagging(Bucket="bucket")["TagSet"],
                s3.get_bucket_replication(Bucket="bucket")["ReplicationConfiguration"],
                versions["Versions"],
                versions["DeleteMarkers"],
                s3.get_object_tagging(Bucket="bucket", Key="copy")["TagSet"],
                configuration,
                kept["Tags"],
                kept["Concurrency"],
                functions.list_versions_by_function(FunctionName="kept")["Versions"],
                functions.list_aliases(FunctionName="kept")["Aliases"],
                logs.filter_log_events(logGroupName="/aws/lambda/kept")["events"],
            ]

        before = seen()
        server.kill()
    with serving(scratch, "--state", state) as server:
        s3, functions, logs = (server.client(service) for service in ("s3", "lambda", "logs"))
        assert seen() == before
        assert s3.get_object(Bucket="bucket", Key="copy")["Body"].read() == b"second" * 10_000
        assert invoke(functions, "live") == {"version": "1"}
        said = logs.filter_log_events(logGroupName="/aws/lambda/kept", filterPattern="said")["events"]
        assert [event["message"] for event in said] == ["said once\n", "said once\n"]
        functions.delete_function(FunctionName="kept")
    assert list((state / "functions").iterdir()) == []


TELLS = """
def handler(event, context):
    (record,) = event["Records"]
    print("told", record["Sns"]["Message"] if "Sns" in record else record["body"])
"""
INTERRUPTED = {"Resources": {"Own": {"Type": "Custom::Own", "Properties": {"ServiceToken": {"Ref": "Topic"}}}}}
INTERRUPTED["Resources"]["Topic"] = {"Type": "AWS::SNS::Topic", "Properties": {}}


def triggered() -> dict[str, Any]:
    """Return a template of a function that a queue and a topic trigger, and of a bucket that tells the queue."""
    arn, queue = {"Fn::GetAtt": ["Function", "Arn"]}, {"Fn::GetAtt": ["Queue", "Arn"]}
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    managed = ["arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"]
    of_types = {
        "Role": ("IAM::Role", {"AssumeRolePolicyDocument": {"Statement": [trust]}, "ManagedPolicyArns": managed}),
        "Function": (
            "Lambda::Function",
            {
                "Runtime": "python3.11",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Role", "Arn"]},
                "Code": {"ZipFile": TELLS},
            },
        ),
        "Queue": ("SQS::Queue", {}),
        "Mapping": ("Lambda::EventSourceMapping", {"FunctionName": arn, "EventSourceArn": queue}),
        "Topic": ("SNS::Topic", {}),
        "Subscription": ("SNS::Subscription", {"TopicArn": {"Ref": "Topic"}, "Protocol": "lambda", "Endpoint": arn}),
        "Secret": ("SecretsManager::Secret", {"SecretString": "star"}),
        "Parameter": ("SSM::Parameter", {"Type": "String", "Value": arn}),
        "Table": (
            "DynamoDB::Table",
            {
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            },
        ),
        "Rule": ("Events::Rule", {"ScheduleExpression": "rate(1 day)", "Targets": [{"Id": "1", "Arn": arn}]}),
        "Repository": ("ECR::Repository", {}),
        "Stream": ("Kinesis::Stream", {"ShardCount": 1}),  # by a class of moto
    }
    return {
        "Resources": {name: {"Type": f"AWS::{of}", "Properties": has} for name, (of, has) in of_types.items()},
        "Outputs": {"Queue": {"Value": {"Ref": "Queue"}, "Export": {"Name": "queue"}}},
    }


@pytest.mark.timeout(180)
def test_stacks_and_their_triggers_are_there_after_a_restart(tmp_path: Path) -> None:
    state, scratch = tmp_path / "state", tmp_path / "scratch"
    scratch.mkdir()

    def described(stacks: Any) -> list[Any]:
        return [
            [{**stack, "StackStatusReason": None} for stack in stacks.describe_stacks(StackName="sky")["Stacks"]],
            stacks.describe_stack_events(StackName="sky")["StackEvents"],
            stacks.list_stack_resources(StackName="sky")["StackResourceSummaries"],
            stacks.get_template(StackName="sky")["TemplateBody"],
            stacks.list_exports()["Exports"],
            stacks.list_change_sets(StackName="sky")["Summaries"],
        ]

    with serving(scratch, "--state", state) as server:
        stacks = server.client("cloudformation")
        stacks.create_stack(StackName="sky", TemplateBody=json.dumps(triggered()), Tags=[{"Key": "a", "Value": "b"}])
        stacks.get_waiter("stack_create_complete").wait(StackName="sky", WaiterConfig={"Delay": 1})
        stacks.create_change_set(
            StackName="sky", ChangeSetName="next", TemplateBody=json.dumps({**triggered(), "Description": "next"})
        )
        stacks.create_stack(StackName="stopped", TemplateBody=json.dumps(INTERRUPTED))
        before = described(stacks)
    with serving(scratch, "--state", state) as server:
        stacks, sqs = server.client("cloudformation"), server.client("sqs")
        assert "the operation on stack stopped was interrupted by a stop" in "".join(server.said)
        stopped = stacks.describe_stacks(StackName="stopped")["Stacks"][0]
        assert stopped["StackStatus"] == "CREATE_FAILED"
        assert described(stacks) == before
        stacks.execute_change_set(StackName="sky", ChangeSetName="next")
        stacks.get_waiter("stack_update_complete").wait(StackName="sky", WaiterConfig={"Delay": 1})
        ids = {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for resource in stacks.list_stack_resources(StackName="sky")["StackResourceSummaries"]
        }
        sqs.send_message(QueueUrl=ids["Queue"], MessageBody="by queue")
        server.client("sns").publish(TopicArn=ids["Topic"], Message="by topic")
        assert server.client("secretsmanager").get_secret_value(SecretId=ids["Secret"])["SecretString"] == "star"
        logs, group, told = server.client("logs"), f"/aws/lambda/{ids['Function']}", set()
        while told != {"told by queue\n", "told by topic\n"}:
            with suppress(logs.exceptions.ResourceNotFoundException):
                events = logs.filter_log_events(logGroupName=group, filterPattern="told")["events"]
                told = {event["message"] for event in events}
        for name in ("sky", "stopped"):
            stacks.delete_stack(StackName=name)
            stacks.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        assert stacks.describe_stacks()["Stacks"] == []
        assert sqs.list_queues().get("QueueUrls", []) == []
        assert server.client("lambda").list_event_source_mappings()["EventSourceMappings"] == []
        assert server.client("iam").list_roles()["Roles"] == []


def test_what_other_versions_of_moto_wrote_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "state" / "moto"
    with serving(tmp_path, "--state", tmp_path / "state") as server:
        server.client("sqs").create_queue(QueueName="kept")
    (written,) = kept.iterdir()
    written.rename(kept / "moto-1.0-python-3.0.pickle")
    with serving(tmp_path, "--state", tmp_path / "state") as server:
        assert "has moto-1.0-python-3.0.pickle of other versions, expected moto-" in "".join(server.said)
        assert server.client("sqs").list_queues().get("QueueUrls", []) == []


def test_a_state_that_cannot_be_used_is_one_line_and_a_status(tmp_path: Path) -> None:
    """Whatever is wrong with it: `StateFolder` tells it all alike."""
    state, scratch = tmp_path / "state", tmp_path / "scratch"
    scratch.mkdir()
    state.mkdir()
    (state / "mine").touch()
    ended = run(FMI_EMULATOR, "serve", "--port", 0, "--state", state, environment={"TMPDIR": str(scratch)})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        f"fmi-emulator: {state} is not a state folder of fmi-emulator: it contains 'mine'; give a new or empty folder"
    ]
    assert list(scratch.iterdir()) == []
