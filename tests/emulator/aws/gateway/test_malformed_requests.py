"""Malformed requests: each is rejected with a client error, none raises an internal error."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from emulator.cloud import LocalCloud
from tests.emulator.conftest import ROLE, archive
from tests.emulator.signing import page_cookie, signed

ODD: list[Any] = [None, True, -1, 1.5, 2**70, "x", "9" * 5000, "\ud800", "\0", [[]], {"x": {"y": 1}}, float("inf")]
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:machine"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:machine:first"
DEFINITION = json.dumps({"StartAt": "a", "States": {"a": {"Type": "Pass", "End": True}}})
STREAM = {"logGroupName": "group", "logStreamName": "stream"}
TARGETS: dict[str, dict[str, Any]] = {
    "Logs_20140328.CreateLogGroup": {"logGroupName": "group"},
    "Logs_20140328.CreateLogStream": STREAM,
    "Logs_20140328.PutLogEvents": {**STREAM, "logEvents": [{"timestamp": 1, "message": "m"}]},
    "Logs_20140328.DescribeLogGroups": {
        "logGroupNamePrefix": "g",
        "logGroupNamePattern": "",
        "limit": 5,
        "nextToken": "0",
    },
    "Logs_20140328.DescribeLogStreams": {
        "logGroupName": "group",
        "logStreamNamePrefix": "s",
        "orderBy": "LastEventTime",
        "descending": True,
        "limit": 5,
        "nextToken": "0",
    },
    "Logs_20140328.FilterLogEvents": {
        "logGroupName": "group",
        "logStreamNames": ["stream"],
        "logStreamNamePrefix": "s",
        "filterPattern": "m",
        "startTime": 0,
        "endTime": 5,
        "limit": 5,
        "nextToken": "0/0/0",
    },
    "Logs_20140328.GetLogEvents": {
        **STREAM,
        "logGroupIdentifier": "group",
        "startTime": 0,
        "endTime": 9,
        "limit": 9,
        "startFromHead": True,
        "nextToken": "f/0/0/0",
    },
    "Logs_20140328.PutRetentionPolicy": {"logGroupName": "group", "retentionInDays": 3},
    "AWSStepFunctions.CreateStateMachine": {
        "name": "machine",
        "definition": DEFINITION,
        "roleArn": ROLE,
        "type": "STANDARD",
        "publish": False,
        "tags": [{"key": "a", "value": "b"}],
        "loggingConfiguration": {},
    },
    "AWSStepFunctions.UpdateStateMachine": {"stateMachineArn": MACHINE, "definition": DEFINITION, "roleArn": ROLE},
    "AWSStepFunctions.ListStateMachines": {"maxResults": 3, "nextToken": "MA=="},
    "AWSStepFunctions.ValidateStateMachineDefinition": {"definition": DEFINITION, "type": "EXPRESS", "maxResults": 2},
    "AWSStepFunctions.StartExecution": {"stateMachineArn": MACHINE, "name": "first", "input": "{}"},
    "AWSStepFunctions.StopExecution": {"executionArn": EXECUTION, "error": "x", "cause": "y"},
    "AWSStepFunctions.DescribeExecution": {"executionArn": EXECUTION},
    "AWSStepFunctions.ListExecutions": {"stateMachineArn": MACHINE, "statusFilter": "RUNNING", "maxResults": 3},
    "AWSStepFunctions.GetExecutionHistory": {"executionArn": EXECUTION, "reverseOrder": True, "maxResults": 2},
    "AWSStepFunctions.DescribeMapRun": {"mapRunArn": "x"},
    "AWSStepFunctions.SendTaskSuccess": {"taskToken": "x", "output": "{}"},
    "AWSStepFunctions.TagResource": {"resourceArn": MACHINE, "tags": [{"key": "a", "value": "b"}]},
    "AWSStepFunctions.UntagResource": {"resourceArn": MACHINE, "tagKeys": ["a"]},
}
FUNCTION: dict[str, Any] = {
    "FunctionName": "function",
    "Runtime": "python3.11",
    "Handler": "main.handler",
    "Role": ROLE,
    "Tags": {"a": "b"},
    "Code": {"ZipFile": base64.b64encode(archive(main="")).decode()},
    "Description": "d",
    "Timeout": 3,
    "MemorySize": 128,
    "Environment": {"Variables": {"NAME": "x"}},
    "EphemeralStorage": {"Size": 512},
    "Architectures": ["x86_64"],
    "PackageType": "Zip",
    "Publish": False,
    "Layers": [],
}
CODE: dict[str, Any] = {
    **FUNCTION["Code"],
    "S3Bucket": "b",
    "S3Key": "k",
    "ImageUri": "",
    "RevisionId": "",
    "DryRun": True,
}
ALIAS: dict[str, Any] = {"Name": "alias", "FunctionVersion": "$LATEST", "Description": "d", "RoutingConfig": {}}
PATHS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/2015-03-31/functions", FUNCTION),
    ("PUT", "/2015-03-31/functions/function/configuration", FUNCTION),
    ("PUT", "/2015-03-31/functions/function/configuration", {"Environment": {"Variables": None}}),
    ("PUT", "/2015-03-31/functions/function/code", CODE),
    ("POST", "/2015-03-31/functions/function/versions", {"Description": "d", "CodeSha256": "", "RevisionId": ""}),
    ("POST", "/2015-03-31/functions/function/aliases", ALIAS),
    ("PUT", "/2015-03-31/functions/function/aliases/alias", ALIAS),
    ("POST", "/2015-03-31/functions/function/policy", {"StatementId": "s", "Action": "a", "Principal": "p"}),
    ("PUT", "/2017-10-31/functions/function/concurrency", {"ReservedConcurrentExecutions": 1}),
    ("POST", "/2017-03-31/tags/function", {"Tags": {"a": "b"}}),
]
LONG = "9" * 5000


Status = Callable[..., int]


@pytest.fixture(scope="module")
def status(cloud: LocalCloud) -> Iterator[Status]:
    """Return a function that sends a signed request and returns the status of its response."""
    connection = HTTPConnection(urlsplit(cloud.endpoint_url).netloc, timeout=30)

    def send(
        method: str, path: str, body: str = "", headers: Mapping[str, str] | None = None, service: str = "other"
    ) -> int:
        content = body.encode("latin-1")
        connection.request(method, path, content, signed(cloud, method, path, headers or {}, content, service=service))
        answer = connection.getresponse()
        answer.read()
        return answer.status

    yield send
    connection.close()


def mutated(body: dict[str, Any]) -> Iterator[str]:
    """Yield requests with one member, or one nested member, of the wrong type."""
    for name, value in body.items():
        inner = value[0] if isinstance(value, list) and value else value
        for odd in ODD:
            yield json.dumps({**body, name: odd})
            if isinstance(inner, dict):
                for part in inner:
                    changed = {**inner, part: odd}
                    yield json.dumps({**body, name: [changed] if isinstance(value, list) else changed})


@pytest.mark.parametrize("service", ["Logs_20140328", "AWSStepFunctions"])
def test_json_services_accept_or_reject_members_of_the_wrong_type(status: Status, service: str) -> None:
    found = {}
    operations = {target: body for target, body in TARGETS.items() if target.startswith(service)}
    for body in (*map(json.dumps, operations.values()), "[" * 100_000, "[]", "{", "NaN"):
        for target in operations:
            found[target, body] = status("POST", "/", body, {"X-Amz-Target": target})
    for target, content in operations.items():
        for body in mutated(content):
            found[target, body] = status("POST", "/", body, {"X-Amz-Target": target})
    assert {request: code for request, code in found.items() if code not in (200, 400)} == {}


def test_lambda_accepts_or_rejects_members_of_the_wrong_type(status: Status) -> None:
    found = {}
    for method, path, content in PATHS:
        for body in (json.dumps(content), "[" * 100_000, "[]", "{", *mutated(content)):
            found[method, path, body] = status(method, path, body)
    for query in (f"MaxItems={LONG}", "MaxItems=x", f"Marker={LONG}", "Marker=%D9%A1"):
        found["GET", query, ""] = status("GET", f"/2015-03-31/functions?{query}")
    refused = {200, 201, 202, 204, 400, 404, 409, 412, 413}
    assert {request: code for request, code in found.items() if code not in refused} == {}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        *[
            ("GET", f"bucket?{query}", {}, "")
            for query in (f"max-keys={LONG}", "max-keys=x", f"uploads&max-uploads={LONG}")
        ],
        *[("GET", f"bucket?list-type=2&continuation-token={token}", {}, "") for token in ("x", "%C3%A4", "%3D")],
        *[("GET", f"bucket/key?response-expires={value}", {}, "") for value in ("a%0D%0Ab", "%00")],
        ("PUT", f"bucket/key?partNumber={LONG}&uploadId=x", {}, ""),
        ("PUT", "bucket/new", {"Content-MD5": "\xe4"}, "body"),
        ("PUT", "bucket/new", {"x-amz-decoded-content-length": LONG}, "body"),
        ("PUT", "bucket/new", {"x-amz-meta-name": "\xff"}, "body"),
        ("PUT", "bucket/new?x-amz-meta-name=a%0D%0Ab", {}, "body"),
        *[
            ("PUT", "bucket/key?tagging", {}, f"<Tagging>{inner}</Tagging>")
            for inner in (
                "<TagSet>x</TagSet>",
                "<TagSet><Tag>x</Tag></TagSet>",
                "<TagSet><Tag><Key><a>1</a></Key></Tag></TagSet>",
                "<TagSet><Tag><Key>a</Key><Key>b</Key></Tag></TagSet>",
                "<a>" * 50_000,
            )
        ],
        *[
            ("POST", "bucket?delete", {}, f"<Delete><Object><Key>key</Key></Object><Object>{inner}</Object></Delete>")
            for inner in (
                "x",
                "<Key/>",
                "<Key><a/></Key>",
                "<Key>a</Key><Key>b</Key>",
                "<Key>a</Key><VersionId><x/></VersionId>",
            )
        ],
    ],
)
def test_s3_rejects_invalid_values(
    status: Status, s3: Any, method: str, path: str, headers: Mapping[str, str], body: str
) -> None:
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"body")
    assert status(method, f"/{path}", body, headers, "s3") in (400, 404)
    assert s3.get_object(Bucket="bucket", Key="key")["Body"].read() == b"body", "nothing was deleted or changed"


@pytest.mark.parametrize("stretch", [f"bytes=0-{LONG}", f"bytes=-{LONG}", f"bytes={LONG}-", "bytes=x", "bytes=-"])
def test_an_invalid_range_returns_the_whole_object(status: Status, s3: Any, stretch: str) -> None:
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"body")
    assert status("GET", "/bucket/key", "", {"Range": stretch}, "s3") == 200


def test_a_body_larger_than_the_memory_limit_is_rejected(cloud: LocalCloud) -> None:
    connection = HTTPConnection(urlsplit(cloud.endpoint_url).netloc, timeout=30)
    connection.putrequest("POST", "/")
    headers = {"X-Amz-Target": "DynamoDB_20120810.PutItem", "Content-Length": str(2**40)}
    for name, value in signed(cloud, "POST", "/", headers, service="dynamodb").items():
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 413  # before the body is sent
    connection.close()


@pytest.mark.parametrize("path", ["buckets/%00", "buckets/B!", "objects/B!?key=x", "objects/bucket?key="])
def test_the_page_returns_not_found_for_invalid_bucket_names(cloud: LocalCloud, status: Status, path: str) -> None:
    assert status("GET", f"/_emulator/{path}", headers={"Cookie": page_cookie(cloud)}) == 404
