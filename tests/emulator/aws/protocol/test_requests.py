"""Requests read and checked by AWS's models."""

import base64
import json
from datetime import datetime
from typing import Any

import pytest
from botocore.model import StructureShape
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from emulator.aws.protocol.answers import error_answer, json_answer
from emulator.aws.protocol.constraints import check, java_text
from emulator.aws.protocol.requests import read_rest_json, read_value
from emulator.aws.protocol.service_models import RestRoutes, service_model
from emulator.errors import ApiError
from tests.emulator.conftest import ROLE

LAMBDA = service_model("lambda")
GOOD: dict[str, Any] = {
    "FunctionName": "f",
    "Runtime": "python3.11",
    "Handler": "main.handler",
    "Role": ROLE,
    "Code": {"ZipFile": b"zip"},
}


def input_of(operation: str) -> StructureShape:
    shape = LAMBDA.operation_model(operation).input_shape
    assert shape is not None
    return shape


def refused(operation: str, parameters: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as raised:
        check(input_of(operation), parameters)
    assert raised.value.code == "ValidationException"
    return raised.value.message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"FunctionName": "a b"},
            "Value 'a b' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression patt",
        ),
        ({"FunctionName": "f" * 141}, "at 'functionName' failed to satisfy constraint: Member must have length less"),
        ({"Role": None}, "Value null at 'role' failed to satisfy constraint: Member must not be null"),
        ({"MemorySize": 127}, "Value '127' at 'memorySize' failed to satisfy constraint: Member must have value grea"),
        ({"EphemeralStorage": {"Size": 1}}, "Value '1' at 'ephemeralStorage.size' failed to satisfy constraint"),
        ({"PackageType": "Tar"}, "at 'packageType' failed to satisfy constraint: Member must satisfy enum value set: "),
        (
            {"Architectures": ["mips"]},
            "Value '[mips]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member "
            "must satisfy enum value set: [x86_64, arm64], Member must not be null]",
        ),
        ({"Architectures": ["x86_64", "arm64"]}, "Value '[x86_64, arm64]' at 'architectures' failed to satisfy cons"),
        ({"Environment": {"Variables": {"a-b": "1"}}}, "Map keys must satisfy constraint: [Member must satisfy regu"),
    ],
)
def test_a_value_that_violates_a_constraint_is_reported_in_awss_words(changes: dict[str, Any], expected: str) -> None:
    message = refused("CreateFunction", {**GOOD, **changes})
    assert message.startswith("1 validation error detected: ")
    assert expected in message


def test_the_values_of_a_map_are_checked() -> None:
    alias = {"FunctionName": "f", "Name": "a", "FunctionVersion": "1"}
    message = refused("CreateAlias", {**alias, "RoutingConfig": {"AdditionalVersionWeights": {"2": 2.0}}})
    assert message == (
        "1 validation error detected: Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy "
        "constraint: Map value must satisfy constraint: [Member must have value less than or equal to 1.0, Member "
        "must have value greater than or equal to 0.0, Member must not be null]"
    )


def test_all_violations_are_reported_at_once() -> None:
    message = refused("CreateFunction", {**GOOD, "Timeout": 0, "MemorySize": 1})
    assert message.startswith("2 validation errors detected: ")
    assert "'timeout'" in message
    assert "'memorySize'" in message


def test_an_override_replaces_a_constraint_of_the_model() -> None:
    with pytest.raises(ApiError, match="Member must have value less than or equal to 7"):
        check(input_of("CreateFunction"), {**GOOD, "Timeout": 8}, {"Timeout": {"max": 7}})


def test_a_request_is_read_from_path_query_headers_and_body() -> None:
    path, query = {"FunctionName": "f"}, MultiDict({"Qualifier": "1"})
    parameters = read_rest_json(LAMBDA.operation_model("Invoke"), path, query, {"X-Amz-Invocation-Type": "Event"}, b"{")
    assert parameters == {"FunctionName": "f", "Qualifier": "1", "InvocationType": "Event", "Payload": b"{"}
    keys = MultiDict([("tagKeys", "a"), ("tagKeys", "b")])
    untag = read_rest_json(LAMBDA.operation_model("UntagResource"), {"Resource": "arn"}, keys, {}, b"")
    assert untag == {"Resource": "arn", "TagKeys": ["a", "b"]}
    body = json.dumps({"Code": {"ZipFile": base64.b64encode(b"zip").decode()}, "Timeout": None, "Unknown": 1}).encode()
    created = read_rest_json(LAMBDA.operation_model("CreateFunction"), {}, MultiDict(), {}, body)
    assert created == {"Code": {"ZipFile": b"zip"}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Timeout": "5"}, "STRING_VALUE can not be converted to an Integer"),
        ({"Timeout": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"FunctionName": 5}, "NUMBER_VALUE can not be converted to a String"),
        ({"Environment": "x"}, "Unexpected field type"),
        ({"Environment": []}, "Start of list found where not expected"),
        ({"Code": {"ZipFile": "?"}}, "Unable to decode a blob"),
    ],
)
def test_a_value_of_another_type_is_a_serialization_exception(body: dict[str, Any], expected: str) -> None:
    with pytest.raises(ApiError, match=expected) as raised:
        read_value(input_of("CreateFunction"), body)
    assert raised.value.code == "SerializationException"


@pytest.mark.parametrize(
    ("method", "path", "query", "operation"),
    [
        ("POST", "/2015-03-31/functions/arn%3Aaws%3Alambda/invocations", {}, "Invoke"),
        ("GET", "/2015-03-31/functions/", {}, "ListFunctions"),
        ("GET", "/2018-10-31/layers", {"find": "LayerVersion"}, "GetLayerVersionByArn"),
        ("GET", "/2018-10-31/layers", {}, "ListLayers"),
        ("PATCH", "/2015-03-31/functions", {}, None),
    ],
)
def test_the_operation_is_found_by_method_path_and_query(
    method: str, path: str, query: dict[str, str], operation: str | None
) -> None:
    found = RestRoutes("lambda").find(method, path, query)
    assert (found and found[0].name) == operation
    if operation == "Invoke":
        assert found is not None
        assert found[1] == {"FunctionName": "arn:aws:lambda"}


def test_every_operation_of_the_model_has_a_route() -> None:
    routes = RestRoutes("lambda")
    for name in LAMBDA.operation_names:
        model = LAMBDA.operation_model(name)
        path, _, query = model.http["requestUri"].partition("?")
        found = routes.find(model.http["method"], path, dict([query.split("=")]) if query else {})
        assert found is not None
        assert found[0].name == name


def test_an_answer_has_what_the_model_has() -> None:
    answer = json_answer(
        LAMBDA.operation_model("GetFunctionEventInvokeConfig"),
        {
            "FunctionArn": "arn",
            "MaximumRetryAttempts": None,
            "LastModified": datetime.fromisoformat("2026-01-01T00:00Z"),
        },
    )
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {"FunctionArn": "arn", "LastModified": 1767225600.0}
    assert answer.headers["x-amzn-RequestId"]


def test_an_error_names_its_message_as_its_model_does() -> None:
    def body(code: str) -> dict[str, Any]:
        answer = error_answer("lambda", ApiError(code, 400, "why"))  # type: ignore[arg-type]
        assert answer.headers["x-amzn-ErrorType"] == code
        assert answer.text is not None
        found: dict[str, Any] = json.loads(answer.text)
        return found

    assert body("ResourceNotFoundException") == {"Message": "why", "Type": "User"}
    assert body("InvalidParameterValueException") == {"message": "why", "Type": "User"}
    assert body("ValidationException") == {"message": "why"}


@given(st.recursive(st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_lists_are_shown_in_brackets(value: Any) -> None:
    assert java_text(value) == (value if isinstance(value, str) else f"[{', '.join(map(java_text, value))}]")
