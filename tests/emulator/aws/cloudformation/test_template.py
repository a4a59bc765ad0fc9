"""Templates and their functions, without a cloud."""

import json
from typing import Any

import pytest

from emulator.aws.cloudformation.intrinsics import Evaluator
from emulator.aws.cloudformation.template import Template, referenced
from emulator.errors import ApiError


class Names:
    """References of a test: parameters, and a resource of which everything has a value."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def ref(self, name: str) -> Any:
        return self.values.get(name, f"id of {name}")

    def attribute(self, name: str, attribute: str) -> Any:
        return f"{attribute} of {name}"

    def imported(self, name: str) -> str:
        return f"import of {name}"


def evaluate(yaml: str, **values: Any) -> Any:
    template = Template.parse(f"Resources: {{R: {{Type: T, Properties: {{P: {yaml}}}}}}}")
    conditions = {"IsSo": {"Fn::Equals": ["a", "a"]}, "IsNot": {"Fn::Not": [{"Condition": "IsSo"}]}}
    mappings = {"Regions": {"us-east-1": {"Image": "ami-1"}}}
    evaluator = Evaluator(Names(**values), mappings, conditions, "us-east-1")
    return evaluator.evaluate(template.resources["R"]["Properties"])["P"]


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("!Ref Q", "id of Q"),
        ("!GetAtt Q.Arn", "Arn of Q"),
        ("!GetAtt Nested.Outputs.X", "Outputs.X of Nested"),
        ("!GetAtt [Q, Arn]", "Arn of Q"),
        ('!Sub "${Q}-${Q.Arn}-${!Literal}-$x"', "id of Q-Arn of Q-${Literal}-$x"),
        ('!Sub ["${A}${Q}", {A: !GetAtt Q.Arn}]', "Arn of Qid of Q"),
        ('!Join ["-", [a, !Ref Q, 1, true]]', "a-id of Q-1-true"),
        ('!Join [",", !Split ["|", "a|b"]]', "a,b"),
        ('!Select [1, !Split ["|", "a|b"]]', "b"),
        ('!Select ["0", !GetAZs ""]', "us-east-1a"),
        ("!If [IsSo, 1, 2]", 1),
        ("!If [IsNot, 1, [2]]", [2]),
        ("!FindInMap [Regions, us-east-1, Image]", "ami-1"),
        ("!FindInMap [Regions, mars, Image, {DefaultValue: none}]", "none"),
        ("!ImportValue shared", "import of shared"),
        ("!Base64 abc", "YWJj"),
        ('!Cidr ["10.0.0.0/16", 2, 8]', ["10.0.0.0/24", "10.0.1.0/24"]),
        ("{Fn::Length: [a, b]}", 2),
        ("{Fn::ToJsonString: {a: [1, !Ref Q]}}", '{"a": [1, "id of Q"]}'),
        (
            "{Version: 2012-10-17, Condition: {Bool: {x: true}}}",
            {"Version": "2012-10-17", "Condition": {"Bool": {"x": True}}},
        ),
        ("!Ref List", ["a", "b"]),
    ],
)
def test_a_function_has_its_value(yaml: str, value: Any) -> None:
    assert evaluate(yaml, List=["a", "b"]) == value


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("{Fn::Frobnicate: 1}", "Fn::Frobnicate is not emulated"),
        ("!Select [2, [a, b]]", "nonexistent value at index 2"),
        ("!Select [a, [a, b]]", "invalid arguments of Fn::Select"),
        ("!FindInMap [Regions, mars, Image]", "Unable to get mapping for Regions::mars::Image"),
        ("!If [Unknown, 1, 2]", "Unresolved condition Unknown"),
        ("!Join [a]", "invalid arguments of Fn::Join"),
        ("!Cidr [here, 1, 2]", "invalid arguments of Fn::Cidr"),
    ],
)
def test_a_wrong_function_is_refused(yaml: str, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        evaluate(yaml)


def test_no_value_leaves_no_property() -> None:
    from emulator.aws.cloudformation.intrinsics import NO_VALUE

    evaluator = Evaluator(Names(**{"AWS::NoValue": NO_VALUE}), {}, {"No": {"Fn::Equals": [1, 2]}}, "us-east-1")
    nothing = {"Ref": "AWS::NoValue"}
    value = {"a": {"Fn::If": ["No", 1, nothing]}, "b": [1, nothing], "c": {"d": nothing}}
    assert evaluator.evaluate(value) == {"b": [1], "c": {}}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{}", "At least one Resources member"),
        ("- a", "unsupported structure"),
        ("{", "not well-formed"),
        ("a: [", "not well-formed"),
        (
            '{"Resources": {"Q": {"Type": "A"}}, "Resource": {}}',
            r"Invalid template property or properties \[Resource\]",
        ),
        ('{"Resources": {"Q": {}}}', r"\[/Resources/Q\] Every Resources object must contain a Type"),
        ('{"Resources": {"Q-1": {"Type": "A"}}}', "non alphanumeric"),
        (
            '{"Resources": {"Q": {"Type": "A", "Properties": {"P": {"Ref": "X"}}}}}',
            r"dependencies \[X\] in the Resources",
        ),
        ('{"Resources": {"Q": {"Type": "A", "Properties": {"P": {"Fn::Sub": "${X.Arn}"}}}}}', r"dependencies \[X\]"),
        ('{"Resources": {"Q": {"Type": "A", "DependsOn": "X"}}}', r"dependencies \[X\]"),
        ('{"Resources": {"Q": {"Type": "A"}}, "Outputs": {"O": {"Value": {"Ref": "X"}}}}', r"\[X\] in the Outputs"),
        ('{"Resources": {"Q": {"Type": "A", "Condition": "C"}}}', "Unresolved condition C"),
        (
            '{"Resources": {"A": {"Type": "T", "DependsOn": "B"}, "B": {"Type": "T", "DependsOn": "A"}}}',
            r"Circular dependency between resources: \[A, B\]",
        ),
    ],
)
def test_a_wrong_template_is_refused(template: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        Template.parse(template).check()
    assert raised.value.code == "ValidationError"


def test_python_objects_are_not_made() -> None:
    with pytest.raises(ApiError, match="not well-formed"):
        Template.parse("a: !!python/object/apply:os.getcwd []")


PARAMETERS = {
    "Name": {"Type": "String", "AllowedPattern": "[a-z]+", "MaxLength": 5, "Default": "abc"},
    "Size": {"Type": "Number", "MinValue": 1, "MaxValue": 9, "Default": 3},
    "Kind": {"Type": "String", "AllowedValues": ["x", "y"], "Default": "x"},
    "List": {"Type": "CommaDelimitedList", "Default": "a, b"},
    "Key": {"Type": "String", "NoEcho": True},
}


def parameters(**given: str) -> Any:
    template = Template.parse(json.dumps({"Parameters": PARAMETERS, "Resources": {"Q": {"Type": "A"}}}))
    return template.parameter_values({"Key": "k", **given})


def test_parameters_have_given_values_or_defaults() -> None:
    values = parameters(Name="xyz")
    assert {name: value.value for name, value in values.items()} == {
        "Name": "xyz",
        "Size": "3",
        "Kind": "x",
        "List": ["a", "b"],
        "Key": "k",
    }
    assert values["Key"].no_echo


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Name": "A1"}, "must match pattern"),
        ({"Name": "abcdef"}, "must contain 0 to 5 characters"),
        ({"Size": "10"}, "must be a number from 1 to 9"),
        ({"Size": "many"}, "must be a number"),
        ({"Kind": "z"}, "one of AllowedValues"),
        ({"Other": "z"}, r"Parameters: \[Other\] do not exist"),
    ],
)
def test_a_wrong_parameter_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        parameters(**given)


def test_a_parameter_without_a_value_is_refused() -> None:
    template = Template.parse(json.dumps({"Parameters": PARAMETERS, "Resources": {"Q": {"Type": "A"}}}))
    with pytest.raises(ApiError, match=r"Parameters: \[Key\] must have values"):
        template.parameter_values({})


def test_references_are_found_everywhere() -> None:
    value = {"a": [{"Ref": "A"}], "b": {"Fn::Sub": ["${B} ${C.d} ${own} ${!no}", {"own": {"Fn::GetAtt": "D.e"}}]}}
    assert set(referenced(value)) == {"A", "B", "C", "D"}
