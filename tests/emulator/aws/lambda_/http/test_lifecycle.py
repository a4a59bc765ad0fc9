"""Changes of functions (code, settings, versions, aliases, reservations) and retries of events."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.cloud import LocalCloud
from tests.emulator.aws.lambda_.http.test_api import invoke, refusal
from tests.emulator.conftest import archive

Deploy = Callable[..., str]


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    """A cloud that tries failed events again at once."""
    with LocalCloud(settings=LambdaSettings(retry_delays_s=(0.0, 0.0))) as running:
        yield running


def test_new_code_and_settings_apply_to_the_next_invocation(functions: Any, deploy: Deploy) -> None:
    name = deploy("import os\ndef handler(event, context): return ['first', os.environ.get('MINE')]")
    assert invoke(functions, name)[0] == ["first", None]
    before = functions.get_function(FunctionName=name)["Configuration"]
    functions.update_function_code(
        FunctionName=name, ZipFile=archive(main="import os\ndef handler(e, c): return ['second', os.environ['MINE']]")
    )
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    functions.update_function_configuration(FunctionName=name, Timeout=7, Environment={"Variables": {"MINE": "x"}})
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    answer, log, _ = invoke(functions, name)
    assert answer == ["second", "x"]
    assert "Init Duration" in log, "a changed function starts cold"
    after = functions.get_function_configuration(FunctionName=name)
    assert (after["Timeout"], after["MemorySize"], after["Handler"]) == (7, 512, "main.handler")
    assert before["CodeSha256"] != after["CodeSha256"]
    assert before["RevisionId"] != after["RevisionId"]
    assert refusal(functions.update_function_configuration, FunctionName=name, Timeout=901)[:2] == (
        "ValidationException",
        400,
    )


def test_a_published_version_does_not_change(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return ['one', context.function_version]")
    assert functions.publish_version(FunctionName=name)["Version"] == "1"
    assert functions.publish_version(FunctionName=name)["Version"] == "1", "nothing has changed"
    functions.update_function_code(
        FunctionName=name, ZipFile=archive(main="def handler(event, context): return ['two', context.function_version]")
    )
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    second = functions.publish_version(FunctionName=name)
    assert second["FunctionArn"].endswith(f":function:{name}:2")
    response = functions.invoke(FunctionName=name, Qualifier="1")
    assert response["ExecutedVersion"] == "1"
    assert json.loads(response["Payload"].read()) == ["one", "1"]
    assert invoke(functions, f"{name}:2")[0] == ["two", "2"]
    assert invoke(functions, name)[0] == ["two", "$LATEST"]
    listed = functions.list_versions_by_function(FunctionName=name)["Versions"]
    assert [version["Version"] for version in listed] == ["$LATEST", "1", "2"]


def test_an_alias_refers_to_one_version_until_it_is_updated(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return context.function_version")
    functions.publish_version(FunctionName=name)
    functions.update_function_configuration(FunctionName=name, Timeout=9)
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    functions.publish_version(FunctionName=name)
    created = functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    assert created["AliasArn"].endswith(f":function:{name}:live")
    assert invoke(functions, f"{name}:live")[0] == "1"
    functions.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    assert functions.get_alias(FunctionName=name, Name="live")["FunctionVersion"] == "2"
    assert invoke(functions, f"{name}:live")[0] == "2"
    twice = refusal(functions.create_alias, FunctionName=name, Name="live", FunctionVersion="1")
    assert twice[:2] == ("ResourceConflictException", 409)
    nowhere = refusal(functions.create_alias, FunctionName=name, Name="other", FunctionVersion="9")
    assert nowhere[:2] == ("ResourceNotFoundException", 404)
    functions.delete_alias(FunctionName=name, Name="live")
    assert refusal(functions.invoke, FunctionName=f"{name}:live")[0] == "ResourceNotFoundException"


def test_calls_above_a_reservation_are_throttled(functions: Any, s3: Any, deploy: Deploy) -> None:
    name = deploy("import time\ndef handler(event, context): time.sleep(1); return 1")
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    assert functions.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 2
    together = threading.Barrier(5)

    def call(_: int) -> str:
        together.wait()
        try:
            return str(invoke(functions, name)[0])
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            assert error.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
            return str(error.response["Error"]["Code"])

    with ThreadPoolExecutor(5) as threads:
        outcomes = sorted(threads.map(call, range(5)))
    assert outcomes == ["1", "1", *["TooManyRequestsException"] * 3]
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert refusal(functions.invoke, FunctionName=name)[:2] == ("TooManyRequestsException", 429)
    functions.delete_function_concurrency(FunctionName=name)
    assert invoke(functions, name)[0] == 1


def test_reservations_leave_at_least_a_hundred_executions(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): pass")
    code, _, message = refusal(functions.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=901)
    assert code == "InvalidParameterValueException"
    assert "below its minimum value of [100]" in message


ATTEMPTS = """
    import boto3, json
    def handler(event, context):
        s3 = boto3.client("s3")
        key = f"{event['name']}/{context.aws_request_id}"
        earlier = s3.list_objects_v2(Bucket=event["bucket"], Prefix=key).get("KeyCount", 0)
        s3.put_object(Bucket=event["bucket"], Key=f"{key}/{earlier}", Body=b"")
        if earlier < event["failures"]:
            raise RuntimeError("not yet")
"""


@pytest.mark.parametrize(("failures", "attempts"), [(0, 1), (1, 2), (2, 3), (99, 3)])
def test_an_event_is_accepted_at_once_and_retried_at_most_twice(
    functions: Any, s3: Any, log_client: Any, bucket: str, deploy: Deploy, failures: int, attempts: int
) -> None:
    name = deploy(ATTEMPTS)
    event = json.dumps({"name": name, "bucket": bucket, "failures": failures}).encode()
    response = functions.invoke(FunctionName=name, InvocationType="Event", Payload=event)
    assert response["StatusCode"] == 202
    assert response["Payload"].read() == b""
    request_id = response["ResponseMetadata"]["RequestId"]
    reports: list[str] = []
    deadline = time.monotonic() + 30
    # One more than expected would come at once, too: the last invocation below waits behind it in the same sandbox.
    while len(reports) < attempts and time.monotonic() < deadline:
        reports = reports_of(log_client, name, request_id)
    invoke(functions, name, {"name": "last", "bucket": bucket, "failures": 0})
    assert len(reports_of(log_client, name, request_id)) == attempts
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix=f"{name}/")["Contents"]]
    assert keys == [f"{name}/{request_id}/{attempt}" for attempt in range(attempts)]


def reports_of(log_client: Any, name: str, request_id: str) -> list[str]:
    """Return the REPORT lines of one request."""
    try:
        events = log_client.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    except log_client.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in events if event["message"].startswith(f"REPORT RequestId: {request_id}")]


def test_an_event_that_is_too_large_or_has_no_function_is_an_error(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): pass")
    large = json.dumps("x" * 1_100_000).encode()
    assert refusal(functions.invoke, FunctionName=name, InvocationType="Event", Payload=large)[1] == 413
    assert refusal(functions.invoke, FunctionName="nobody", InvocationType="Event")[1] == 404


def test_a_revision_id_that_is_not_the_latest_is_an_error(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return 1")
    old = functions.get_function_configuration(FunctionName=name)["RevisionId"]
    functions.update_function_configuration(FunctionName=name, RevisionId=old, Timeout=9)
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    code = archive(main="def handler(event, context): return 2")
    for call, arguments in (
        (functions.update_function_configuration, {"Timeout": 10}),
        (functions.update_function_code, {"ZipFile": code}),
        (functions.publish_version, {}),
    ):
        assert refusal(call, FunctionName=name, RevisionId=old, **arguments)[:2] == ("PreconditionFailedException", 412)
    wrong = refusal(functions.publish_version, FunctionName=name, CodeSha256="x")
    assert wrong[0] == "InvalidParameterValueException"
    dry = functions.update_function_code(FunctionName=name, ZipFile=code, DryRun=True)
    current = functions.get_function_configuration(FunctionName=name)
    assert dry["CodeSha256"] != current["CodeSha256"]
    assert invoke(functions, name)[0] == 1
    functions.publish_version(FunctionName=name, CodeSha256=current["CodeSha256"], RevisionId=current["RevisionId"])


def test_a_version_is_deleted_unless_an_alias_refers_to_it(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): return context.function_version")
    functions.publish_version(FunctionName=name)
    functions.create_alias(FunctionName=name, Name="live", FunctionVersion="1", Description="what runs")
    assert functions.list_aliases(FunctionName=name)["Aliases"][0]["Description"] == "what runs"
    assert functions.list_aliases(FunctionName=name, FunctionVersion="2")["Aliases"] == []
    assert refusal(functions.delete_function, FunctionName=name, Qualifier="1")[:2] == (
        "ResourceConflictException",
        409,
    )
    functions.delete_alias(FunctionName=name, Name="live")
    functions.delete_function(FunctionName=name, Qualifier="1")
    assert refusal(functions.invoke, FunctionName=name, Qualifier="1")[0] == "ResourceNotFoundException"
    assert invoke(functions, name)[0] == "$LATEST"
    functions.update_function_configuration(FunctionName=name, Timeout=8)
    functions.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert functions.publish_version(FunctionName=name)["Version"] == "2", "a number is given once"


def test_listings_have_pages(functions: Any, deploy: Deploy) -> None:
    names = {deploy("def handler(event, context): pass") for _ in range(3)}
    first = functions.list_functions(MaxItems=2)
    assert len(first["Functions"]) == 2
    pages = functions.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})
    assert names <= {function["FunctionName"] for page in pages for function in page["Functions"]}
    assert refusal(functions.list_functions, Marker="x")[:2] == ("InvalidParameterValueException", 400)


def test_tags_and_permissions_are_stored(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): pass", Tags={"team": "fmi"})
    arn = functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    functions.tag_resource(Resource=arn, Tags={"stage": "test"})
    assert functions.list_tags(Resource=arn)["Tags"] == {"team": "fmi", "stage": "test"}
    functions.untag_resource(Resource=arn, TagKeys=["team"])
    assert functions.get_function(FunctionName=name)["Tags"] == {"stage": "test"}
    permission = {"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    assert refusal(functions.get_policy, FunctionName=name)[:2] == ("ResourceNotFoundException", 404)
    functions.add_permission(FunctionName=name, **permission)
    assert refusal(functions.add_permission, FunctionName=name, **permission)[0] == "ResourceConflictException"
    (statement,) = json.loads(functions.get_policy(FunctionName=name)["Policy"])["Statement"]
    assert statement == {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": arn,
    }
    functions.remove_permission(FunctionName=name, StatementId="s3")
    assert functions.get_account_settings()["AccountLimit"]["ConcurrentExecutions"] == 1000


def test_an_image_is_stored_and_its_invocation_names_what_is_missing(functions: Any) -> None:
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/fmi:latest"
    role = "arn:aws:iam::123456789012:role/test"
    functions.create_function(FunctionName="image", Role=role, PackageType="Image", Code={"ImageUri": uri})
    found = functions.get_function(FunctionName="image")
    assert found["Code"] == {"RepositoryType": "ECR", "ImageUri": uri, "ResolvedImageUri": uri}
    assert found["Configuration"]["PackageType"] == "Image"
    # Where a daemon answers, it has no such image.
    code, status, message = refusal(functions.invoke, FunctionName="image")
    assert (code, status) == ("ServiceException", 500)
    assert uri in message or "container daemon" in message
    functions.update_function_code(FunctionName="image", ImageUri=f"{uri}-2")
    functions.get_waiter("function_updated_v2").wait(FunctionName="image")
    not_a_zip = refusal(functions.update_function_code, FunctionName="image", ZipFile=b"x")
    assert not_a_zip[0] == "InvalidParameterValueException"
    functions.delete_function(FunctionName="image")
