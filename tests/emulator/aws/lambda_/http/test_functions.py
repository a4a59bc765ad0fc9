"""Creating functions with boto3: errors, conflicts, and code in S3."""

import json
from typing import Any

from emulator.aws.lambda_.core.interpreters import OWN_RUNTIME
from tests.emulator.aws.lambda_.http.test_api import Deploy, invoke, refusal
from tests.emulator.conftest import ROLE, archive


def test_errors_have_the_codes_of_aws(functions: Any, deploy: Deploy) -> None:
    name = deploy("def handler(event, context): pass")
    assert refusal(functions.invoke, FunctionName="nobody")[:2] == ("ResourceNotFoundException", 404)
    assert refusal(functions.invoke, FunctionName=name, Qualifier="7")[:2] == ("ResourceNotFoundException", 404)
    assert refusal(functions.invoke, FunctionName=name, Payload=b"{")[:2] == ("InvalidRequestContentException", 400)
    too_large = json.dumps("x" * 7_000_000).encode()
    assert refusal(functions.invoke, FunctionName=name, Payload=too_large)[:2] == ("RequestTooLargeException", 413)
    assert functions.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
    assert refusal(functions.delete_function, FunctionName="nobody")[:2] == ("ResourceNotFoundException", 404)


def test_an_invalid_setting_is_an_error_that_names_it(deploy: Deploy) -> None:
    """One of each kind; all of them are in test_models."""
    source = "def handler(event, context): pass"
    code, status, message = refusal(lambda: deploy(source, Timeout=901))
    assert (code, status) == ("ValidationException", 400)
    assert message.endswith(
        "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900"
    )
    for setting, expected in (
        ({"Runtime": "cobol85"}, "Value cobol85 at 'runtime'"),
        ({"Code": {"ZipFile": b"no zip"}}, "Could not unzip uploaded file"),
        ({"Code": {"S3Bucket": "none", "S3Key": "none"}}, "S3 Error Code: NoSuchBucket"),
        ({"Code": {}}, "Please provide a source for function code."),
    ):
        code, status, message = refusal(lambda setting=setting: deploy(source, **setting))
        assert (code, status) == ("InvalidParameterValueException", 400)
        assert expected in message


def test_a_second_function_of_the_same_name_is_a_conflict(functions: Any) -> None:
    settings: dict[str, Any] = {
        "FunctionName": "once",
        "Runtime": OWN_RUNTIME,
        "Handler": "main.handler",
        "Role": ROLE,
        "Code": {"ZipFile": archive(main="def handler(event, context): return 1")},
    }
    assert functions.create_function(**settings)["State"] == "Pending"
    assert functions.get_function_configuration(FunctionName="once")["State"] == "Active"
    assert refusal(functions.create_function, **settings)[:2] == ("ResourceConflictException", 409)
    functions.delete_function(FunctionName="once")
    functions.create_function(**settings)
    functions.delete_function(FunctionName="once")


def test_code_is_read_from_s3(functions: Any, s3: Any, bucket: str, deploy: Deploy) -> None:
    s3.put_object(Bucket=bucket, Key="code.zip", Body=archive(main="def handler(event, context): return 'from s3'"))
    name = deploy("", Code={"S3Bucket": bucket, "S3Key": "code.zip"})
    assert invoke(functions, name)[0] == "from s3"
