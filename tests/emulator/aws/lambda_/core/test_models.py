"""Validation of a function's settings, with AWS's messages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.lambda_.core.models import FunctionSpec, PackageType, architecture_of
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
        (
            {"FunctionName": "a b"},
            "Value 'a b' at 'functionName' failed to satisfy constraint: Member must satisfy reg",
        ),
        ({"FunctionName": "f" * 65}, "at 'functionName' failed to satisfy constraint: Member must have length less"),
        ({"Role": "admin"}, "Value 'admin' at 'role' failed to satisfy constraint: Member must satisfy regular expr"),
        ({"Role": None}, "Value null at 'role' failed to satisfy constraint: Member must not be null"),
        ({"Handler": "no handler"}, "Value 'no handler' at 'handler' failed to satisfy constraint"),
        ({"Handler": "h" * 129}, "at 'handler' failed to satisfy constraint: Member must have length less than or equ"),
        ({"MemorySize": 127}, "Value '127' at 'memorySize' failed to satisfy constraint: Member must have value grea"),
        ({"MemorySize": 10241}, "at 'memorySize' failed to satisfy constraint: Member must have value less than or e"),
        ({"MemorySize": True}, "Value 'True' at 'memorySize' failed to satisfy constraint: Member must be an integer"),
        ({"Timeout": 0}, "Value '0' at 'timeout' failed to satisfy constraint: Member must have value greater than"),
        ({"Timeout": 901}, "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than"),
        ({"Description": "d" * 257}, "at 'description' failed to satisfy constraint: Member must have length less th"),
        ({"EphemeralStorage": {"Size": 511}}, "Value '511' at 'ephemeralStorage.size' failed to satisfy constraint"),
        ({"EphemeralStorage": "large"}, "at 'ephemeralStorage' failed to satisfy constraint: Member must be an obje"),
        ({"PackageType": "Tar"}, "at 'packageType' failed to satisfy constraint: Member must satisfy enum value set: "),
        ({"Architectures": ["mips"]}, "at 'architectures' failed to satisfy constraint: Member must satisfy constrain"),
        ({"Architectures": ["x86_64", "arm64"]}, "Member must have length less than or equal to 1"),
        ({"Environment": {"Variables": {"a-b": "1"}}}, "Map keys must satisfy constraint: [Member must satisfy regu"),
        ({"Environment": {"Variables": {"ab": 1}}}, "Map values must be strings"),
    ],
)
def test_a_malformed_value_is_a_validation_error(changes: dict[str, Any], expected: str) -> None:
    code, message = refused(**changes)
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: ")
    assert expected in message


def test_all_violations_are_reported_at_once() -> None:
    _, message = refused(Timeout=0, MemorySize=1)
    assert message.startswith("2 validation errors detected: ")
    assert "'timeout'" in message
    assert "'memorySize'" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Runtime": "nodejs22.x"}, "Value nodejs22.x at 'runtime' failed to satisfy constraint: Member must satisfy"),
        ({"Runtime": None}, "Runtime and Handler are mandatory parameters for functions created with deployment pack"),
        ({"Handler": ""}, "Runtime and Handler are mandatory parameters"),
        ({"PackageType": "Image"}, "The Runtime and Handler parameters are not supported for functions created with"),
        ({"Layers": ["arn"]}, "Layers: layers are not emulated: put their content into the function's archive"),
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
    assert FunctionSpec.from_api({**GOOD, "Environment": {"Variables": {"AB": fits}}}).environment["AB"] == fits
    assert refused(Environment={"Variables": {"AB": f"{fits}x"}})[0] == "InvalidParameterValueException"


@pytest.mark.parametrize(
    "name", ["f", "123456789012:function:f", "function:f", "arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST"]
)
def test_the_name_may_be_an_arn(name: str) -> None:
    assert FunctionSpec.from_api({**GOOD, "FunctionName": name}).name == "f"


def test_settings_without_effect_are_kept_and_an_update_changes_only_what_it_names() -> None:
    spec = FunctionSpec.from_api({**GOOD, "VpcConfig": {"SubnetIds": ["subnet-1"]}, "Timeout": 9, "MemorySize": None})
    assert spec.to_api()["VpcConfig"] == {"SubnetIds": ["subnet-1"]}
    assert spec.to_api()["TracingConfig"] == {"Mode": "PassThrough"}
    updated = spec.updated({"MemorySize": 256, "FunctionName": "another"})
    assert (updated.name, updated.timeout_s, updated.memory_mb) == ("f", 9, 256)
    assert updated.kept["VpcConfig"] == {"SubnetIds": ["subnet-1"]}


def test_an_image_needs_neither_runtime_nor_handler() -> None:
    spec = FunctionSpec.from_api({"FunctionName": "f", "Role": ROLE, "PackageType": "Image"})
    assert spec.package_type is PackageType.IMAGE
    assert not {"Runtime", "Handler"} & spec.to_api().keys()


def test_the_architecture_of_a_request_is_checked() -> None:
    assert architecture_of({}) == "x86_64"
    assert architecture_of({"Architectures": ["arm64"]}) == "arm64"
    with pytest.raises(ApiError):
        architecture_of({"Architectures": ["mips"]})


@given(
    st.builds(
        FunctionSpec,
        name=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
        role=st.just(ROLE),
        handler=st.from_regex(r"[a-z.]{1,20}", fullmatch=True),
        runtime=st.sampled_from(["python3.12", "provided.al2023"]),
        description=st.text(max_size=256),
        timeout_s=st.integers(1, 900),
        memory_mb=st.integers(128, 10240),
        ephemeral_storage_mb=st.integers(512, 10240),
        environment=st.dictionaries(st.from_regex(r"[A-Z]{2,9}", fullmatch=True), st.text(max_size=20), max_size=3),
        architecture=st.sampled_from(["x86_64", "arm64"]),
        kept=st.just({"TracingConfig": {"Mode": "Active"}, "SnapStart": {"ApplyOn": "None"}}),
    )
)
def test_settings_are_returned_as_passed(spec: FunctionSpec) -> None:
    assert FunctionSpec.from_api(spec.to_api()) == spec
