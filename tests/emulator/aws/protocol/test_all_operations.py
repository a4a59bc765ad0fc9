"""Every operation of the models answers as AWS does: with a result, or with an error that says which and why."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from emulator.cloud import LocalCloud
from tests.emulator.conftest import ROLE, archive

NAME = "existing-one"
_PREFIX = "arn:aws:lambda:us-east-1:123456789012:"
# Values that satisfy the patterns of the models, the more special ones first.
_TEXTS = (
    f"{_PREFIX}function:{NAME}",
    f"{_PREFIX}layer:{NAME}:1",
    f"{_PREFIX}code-signing-config:csc-0123456789abcdefg",
    f"{_PREFIX}capacity-provider:{NAME}",
    f"arn:aws:logs:us-east-1:123456789012:log-group:{NAME}",
    f"arn:aws:states:us-east-1:123456789012:stateMachine:{NAME}",
    ROLE,
    "lambda:GetLayerVersion",
    "lambda:InvokeFunction",
    NAME,
    "0b6e81eb-1a87-49dd-8c67-2958f30a9305",
    "1",
    "subnet-1",
    "sg-1",
)
_BY_NAME = {"Bucket": NAME, "FunctionName": NAME, "Key": NAME, "LayerName": NAME, "logGroupName": NAME, "name": NAME}
_NOT_EMULATED = ("NotImplementedException", "NotImplemented", "UnknownOperationException")
SERVICES = ("lambda", "stepfunctions", "logs", "s3")


def value(name: str, shape: Shape) -> Any:
    """Return the smallest value of a shape: the required members, and one item where some are required."""
    if isinstance(shape, StructureShape):
        members = shape.members
        if shape.metadata.get("union"):
            members = dict(list(members.items())[:1])
            return {member: value(member, found) for member, found in members.items()}
        return {member: value(member, members[member]) for member in shape.required_members}
    if isinstance(shape, ListShape):
        return [value(name, shape.member)] * max(1, int(shape.metadata.get("min", 1)))
    if isinstance(shape, MapShape):
        return {value("key", shape.key): value("value", shape.value)}
    if isinstance(shape, StringShape):
        return text(name, shape)
    scalars = {"blob": b"{}", "boolean": False, "timestamp": 1_800_000_000, "float": 0.5, "double": 0.5}
    return scalars.get(shape.type_name, max(1, int(shape.metadata.get("min", 1))))


def text(name: str, shape: StringShape) -> str:
    """Return a text that has the pattern of a shape, or as near as there is one."""
    if shape.enum:
        return str(shape.enum[0])
    if name in _BY_NAME:
        return _BY_NAME[name]
    pattern, least = shape.metadata.get("pattern"), int(shape.metadata.get("min", 0))
    most = int(shape.metadata.get("max", 10_000))
    fitting = [found for found in _TEXTS if least <= len(found) <= most]
    if pattern:
        # Python has no classes such as \\p{L}.
        fitting = [found for found in fitting if re.fullmatch(pattern.replace(r"\p", ""), found)]
    elif "arn" not in name.lower():
        fitting = [found for found in fitting if ":" not in found]
    return fitting[0] if fitting else "x" * max(1, least)


def parameters(operation: OperationModel) -> dict[str, Any]:
    shape = operation.input_shape
    return {} if shape is None else value(operation.name, shape)


@pytest.fixture(scope="module")
def make_client() -> Iterator[Callable[[str], Any]]:
    """Clients of a cloud with a function, a bucket, a log group and a layer of the name, which the tests may delete."""
    with LocalCloud() as cloud:
        make = client_maker(cloud)
        code = archive(main="def handler(event, context): return 1")
        settings = {"FunctionName": NAME, "Runtime": "python3.12", "Handler": "main.handler", "Role": ROLE}
        make("lambda").create_function(**settings, Code={"ZipFile": code})
        make("lambda").publish_version(FunctionName=NAME)
        make("lambda").publish_layer_version(LayerName=NAME, Content={"ZipFile": code})
        make("s3").create_bucket(Bucket=NAME)
        make("logs").create_log_group(logGroupName=NAME)
        yield make


def client_maker(cloud: LocalCloud) -> Callable[[str], Any]:
    config = Config(
        retries={"total_max_attempts": 1},
        read_timeout=20,
        inject_host_prefix=False,
        parameter_validation=False,
        s3={"addressing_style": "path"},
    )
    keys = {**cloud.credentials.for_boto3(), "region_name": "us-east-1"}
    make: Any = boto3.client
    return lambda service: make(service, endpoint_url=cloud.endpoint_url, config=config, **keys)


def complaint(client: Any, operation: str) -> str | None:
    """Return what is wrong with the answer of an operation; None if it is one of AWS's."""
    model = client.meta.service_model.operation_model(operation)
    try:
        client._make_api_call(operation, parameters(model))
    except ClientError as raised:
        error, status = raised.response["Error"], raised.response["ResponseMetadata"]["HTTPStatusCode"]
        code, message = error.get("Code", ""), error.get("Message", "")
        if operation.startswith("Head") and code == "404":
            return None  # there is no body that could say more
        if not code or code.isdigit() or code.startswith("Internal") or "<html" in message.lower():
            return f"{status} {code}: {message:.200}"
        if status >= 500 and code not in _NOT_EMULATED:
            return f"{status} {code}: {message:.200}"
        if code in _NOT_EMULATED and operation not in message:
            return f"{code} without the name of the operation: {message:.200}"
        if "Function not found" in message:
            return f"{message:.200}, but it exists"
    except BotoCoreError as failed:
        return repr(failed)[:300]
    return None


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_of_a_model_answers_as_aws_does(make_client: Callable[[str], Any], service: str) -> None:
    client = make_client(service)
    # What deletes goes last, so that the others find something.
    operations = sorted(client.meta.service_model.operation_names, key=lambda name: ("Delete" in name, name))
    operations.sort(key=lambda name: name in ("DeleteFunction", "DeleteBucket", "DeleteLogGroup"))
    found = {operation: complaint(client, operation) for operation in operations}
    assert {operation: said for operation, said in found.items() if said} == {}
    assert len(found) > 30
