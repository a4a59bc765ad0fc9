"""Validation of a function's settings, with AWS's messages."""

from pathlib import Path
from typing import Any

import pytest

from emulator.aws.lambda_.core.models import FunctionSpec, LayerUse, PackageType
from emulator.errors import ApiError
from tests.emulator.conftest import ROLE

GOOD: dict[str, Any] = {"FunctionName": "f", "Runtime": "python3.11", "Handler": "main.handler", "Role": ROLE}


def refused(**changes: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as raised:
        FunctionSpec.from_api({**GOOD, **changes})
    return raised.value.code, raised.value.message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Runtime": "cobol85"}, "Value cobol85 at 'runtime' failed to satisfy constraint: Member must satisfy enum"),
        (
            {"Runtime": "python3.7"},
            "The runtime parameter of python3.7 is no longer supported for creating or updating",
        ),
        ({"Runtime": ""}, "Runtime and Handler are mandatory parameters for functions created with deployment pack"),
        ({"Handler": ""}, "Runtime and Handler are mandatory parameters"),
        ({"PackageType": "Image"}, "The Runtime and Handler parameters are not supported for functions created with"),
        (
            {"SnapStart": {"ApplyOn": "PublishedVersions"}},
            "python3.11 is not supported for SnapStart enabled functions",
        ),
        ({"LoggingConfig": {"SystemLogLevel": "WARN"}}, "choose JSON as the LogFormat"),
        ({"FileSystemConfigs": [{}]}, "FileSystemConfigs: EFS is not emulated"),
        ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "Reserved keys used in this request: AWS_REGION"),
        ({"Environment": {"Variables": {"AB": "x" * 4096}}}, 'exceeded the 4KB limit. String measured: {"AB":"xxx'),
    ],
)
def test_an_unsupported_value_is_an_invalid_parameter(changes: dict[str, Any], expected: str) -> None:
    code, message = refused(**changes)
    assert code == "InvalidParameterValueException"
    assert expected in message


def test_four_kilobytes_of_variables_are_allowed_as_json() -> None:
    fits = "x" * (4096 - len('{"AB":""}'))
    assert FunctionSpec.from_api({**GOOD, "Environment": {"Variables": {"AB": fits}}}).environment == {"AB": fits}
    assert refused(Environment={"Variables": {"AB": f"{fits}x"}})[0] == "InvalidParameterValueException"


def test_settings_without_effect_are_kept_and_an_update_changes_only_what_it_names() -> None:
    spec = FunctionSpec.from_api({**GOOD, "VpcConfig": {"SubnetIds": ["subnet-1"]}, "Timeout": 9})
    assert spec.to_api()["VpcConfig"]["SubnetIds"] == ["subnet-1"]
    assert spec.to_api()["TracingConfig"] == {"Mode": "PassThrough"}
    updated = spec.updated({"MemorySize": 256, "FunctionName": "another"})
    assert (updated.name, updated.timeout_s, updated.memory_mb) == ("f", 9, 256)
    assert updated.vpc == spec.vpc


def test_variables_that_were_given_are_returned_even_if_there_are_none() -> None:
    assert "Environment" not in FunctionSpec.from_api(GOOD).to_api()
    spec = FunctionSpec.from_api({**GOOD, "Environment": {"Variables": {}}})
    assert spec.to_api()["Environment"] == {"Variables": {}}


def test_levels_of_a_log_belong_to_its_json_format() -> None:
    spec = FunctionSpec.from_api(GOOD)
    assert spec.to_api()["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}
    as_json = spec.updated({"LoggingConfig": {"LogFormat": "JSON", "ApplicationLogLevel": "WARN"}})
    levels = {"ApplicationLogLevel": "WARN", "SystemLogLevel": "INFO"}
    assert as_json.to_api()["LoggingConfig"] == {"LogFormat": "JSON", "LogGroup": "/aws/lambda/f", **levels}
    back = as_json.updated({"LoggingConfig": {"LogFormat": "Text"}})
    assert back.to_api()["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"}


def test_five_layers_are_allowed_and_one_version_of_each() -> None:
    def use(name: str, version: int) -> LayerUse:
        return LayerUse(f"arn:aws:lambda:us-east-1:123456789012:layer:{name}:{version}", 1, Path("/"))

    five = [use(name, 1) for name in "abcde"]
    assert FunctionSpec.from_api(GOOD, layers=five).layers == tuple(five)
    with pytest.raises(ApiError, match="Cannot reference more than 5 layers"):
        FunctionSpec.from_api(GOOD, layers=[*five, use("f", 1)])
    with pytest.raises(ApiError, match="Two different versions of the same layer"):
        FunctionSpec.from_api(GOOD, layers=[use("a", 1), use("a", 2)])


def test_an_image_needs_neither_runtime_nor_handler() -> None:
    spec = FunctionSpec.from_api({"FunctionName": "f", "Role": ROLE, "PackageType": "Image"})
    assert spec.package_type is PackageType.IMAGE
    assert not {"Runtime", "Handler"} & spec.to_api().keys()
