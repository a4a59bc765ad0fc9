"""Templates: JSON or YAML with the short forms of functions, checked, and the parameters' values.

Anatomy: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-anatomy.html
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import yaml

from emulator.aws.cloudformation.errors import bad_template, invalid

PSEUDO_PARAMETERS = frozenset(
    f"AWS::{name}"
    for name in (
        "AccountId",
        "NotificationARNs",
        "NoValue",
        "Partition",
        "Region",
        "StackId",
        "StackName",
        "URLSuffix",
    )
)
_SECTIONS = frozenset(
    [
        "AWSTemplateFormatVersion",
        "Conditions",
        "Description",
        "Globals",
        "Hooks",
        "Mappings",
        "Metadata",
        "Outputs",
        "Parameters",
        "Resources",
        "Rules",
        "Transform",
    ]
)
_REFERENCE_IN_TEXT = re.compile(r"\$\{([^!}][^}]*)\}")
_LOGICAL_ID = re.compile(r"[A-Za-z0-9]{1,255}")
# The values of an instruction of the system's own parameters are lists.
_LISTS = re.compile(r"CommaDelimitedList|List<.*>|AWS::SSM::Parameter::Value<(List<.*>|CommaDelimitedList)>")
SSM_PARAMETER = "AWS::SSM::Parameter::Value<"


class _Loader(yaml.SafeLoader):
    """YAML as CloudFormation reads it: dates are strings, and functions have short forms."""


# A policy's Version, 2012-10-17, is a string.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    """Convert the short form of a function, such as ``!Sub``, into the long one."""
    value: Any
    if isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    else:
        value = loader.construct_scalar(node)  # type: ignore[arg-type]
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


@dataclass(frozen=True)
class ParameterValue:
    """A parameter's value.

    Parameters
    ----------
    value
        A string, or a list of strings.
    text
        The value as the caller gave it.
    no_echo
        Whether descriptions of the stack must hide it.
    """

    value: Any
    text: str
    no_echo: bool = False


@dataclass(frozen=True)
class Template:
    """A checked template.

    Parameters
    ----------
    text
        The template as sent.
    body
        Its content.
    """

    text: str
    body: Mapping[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Parse and check a template; its transforms are not applied.

        Raises
        ------
        ApiError
            ValidationError when it is neither JSON nor YAML, or its form is wrong.
        """
        try:
            body = json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
        except json.JSONDecodeError:
            # YAML's flow style also begins with a brace.
            body = _parse_yaml(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise bad_template(f"YAML not well-formed. {_line(error)}") from None
        if not isinstance(body, dict):
            raise bad_template("unsupported structure.")
        unknown = [str(name) for name in body if name not in _SECTIONS]
        if unknown:
            raise invalid(f"Invalid template property or properties [{', '.join(unknown)}]")
        return cls(text, body)

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        """The resources by logical id."""
        return dict(self.body.get("Resources") or {})

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """The parameters by name."""
        return dict(self.body.get("Parameters") or {})

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """The outputs by name."""
        return dict(self.body.get("Outputs") or {})

    @property
    def transforms(self) -> list[str]:
        """The names of the transforms to apply."""
        named = self.body.get("Transform") or []
        return [
            str(transform.get("Name") if isinstance(transform, dict) else transform)
            for transform in (named if isinstance(named, list) else [named])
        ]

    @property
    def description(self) -> str | None:
        """The template's description."""
        return self.body.get("Description")

    def check(self) -> None:
        """Check resources, references and dependencies.

        Raises
        ------
        ApiError
            ValidationError, with AWS's words.
        """
        resources = self.body.get("Resources")
        if not isinstance(resources, dict) or not resources:
            raise bad_template("At least one Resources member must be defined.")
        for name, resource in resources.items():
            if not _LOGICAL_ID.fullmatch(str(name)):
                raise bad_template(f"Resource name {name} is non alphanumeric.")
            if not isinstance(resource, dict) or not isinstance(resource.get("Type"), str):
                raise bad_template(f"[/Resources/{name}] Every Resources object must contain a Type member.")
            if not isinstance(resource.get("Properties", {}), dict):
                raise bad_template(f"[/Resources/{name}/Properties] expected an object")
        known = resources.keys() | self.parameters.keys() | PSEUDO_PARAMETERS
        for section in ("Resources", "Outputs"):
            content = self.body.get(section) or {}
            missing = sorted({name for name in referenced(content) if name not in known})
            if missing:
                raise bad_template(
                    f"Unresolved resource dependencies [{', '.join(missing)}] in the {section} block of the template"
                )
        conditions = self.body.get("Conditions") or {}
        for name, resource in (resources | self.outputs).items():
            if isinstance(resource, dict) and resource.get("Condition") not in (None, *conditions):
                raise bad_template(f"Unresolved condition {resource['Condition']} in {name}")
        try:
            TopologicalSorter({name: self.dependencies(name) for name in resources}).prepare()
        except CycleError as error:
            circle = ", ".join(sorted(set(error.args[1])))
            raise invalid(f"Circular dependency between resources: [{circle}]") from None

    def dependencies(self, name: str) -> set[str]:
        """Return the logical ids of the resources that a resource needs."""
        resources = self.body["Resources"]
        resource = resources[name]
        depends = resource.get("DependsOn") or []
        needed = {*referenced(resource.get("Properties", {})), *([depends] if isinstance(depends, str) else depends)}
        unknown = [other for other in needed if other not in resources and other in depends]
        if unknown:
            raise bad_template(
                f"Unresolved resource dependencies [{', '.join(unknown)}] in the Resources block of the template"
            )
        return {other for other in needed if other in resources}

    def parameter_values(self, given: Mapping[str, str]) -> dict[str, ParameterValue]:
        """Return the parameters' values: the given ones, else the defaults.

        Raises
        ------
        ApiError
            ValidationError when a value is missing, unknown or not allowed.
        """
        unknown = [name for name in given if name not in self.parameters]
        if unknown:
            raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
        missing = [name for name, slot in self.parameters.items() if name not in given and "Default" not in slot]
        if missing:
            raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
        return {
            name: _parameter_value(name, slot, _text(given[name] if name in given else slot["Default"]))
            for name, slot in self.parameters.items()
        }


def referenced(value: Any) -> Iterator[str]:
    """Yield the names that a value refers to by Ref, Fn::GetAtt or Fn::Sub."""
    if isinstance(value, list):
        for item in value:
            yield from referenced(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key == "Ref" and len(value) == 1:
                yield str(item)
            elif key == "Fn::GetAtt" and len(value) == 1:
                yield str(item).split(".")[0] if isinstance(item, str) else str(item[0])
                yield from referenced(item)
            elif key == "Fn::Sub" and len(value) == 1:
                text, own = item if isinstance(item, list) else (item, {})
                yield from (name for name in names_in_text(text) if name not in own)
                yield from referenced(own)
            else:
                yield from referenced(item)


def names_in_text(text: object) -> list[str]:
    """Return the names in the text of Fn::Sub, without attributes."""
    return [match.strip().split(".")[0] for match in _REFERENCE_IN_TEXT.findall(str(text))]


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise bad_template(f"JSON not well-formed. {_line(error)}") from None


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return "" if mark is None else f"(line {mark.line + 1}, column {mark.column + 1})"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _parameter_value(name: str, slot: Mapping[str, Any], text: str) -> ParameterValue:
    kind = str(slot.get("Type", "String"))
    is_list = _LISTS.fullmatch(kind) is not None
    values = [item.strip() for item in text.split(",")] if is_list else [text]
    if not kind.startswith(SSM_PARAMETER):
        for value in values:
            _check_parameter(name, slot, kind, value)
    return ParameterValue(values if is_list else text, text, str(slot.get("NoEcho", "")).lower() == "true")


def _check_parameter(name: str, slot: Mapping[str, Any], kind: str, value: str) -> None:
    described = slot.get("ConstraintDescription")
    allowed = slot.get("AllowedValues")
    if allowed is not None and value not in map(_text, allowed):
        raise invalid(described or f"Parameter '{name}' must be one of AllowedValues")
    pattern = slot.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        raise invalid(f"Parameter {name} failed to satisfy constraint: {described or f'must match pattern {pattern}'}")
    shortest, longest = int(slot.get("MinLength", 0)), int(slot.get("MaxLength", len(value)))
    if not shortest <= len(value) <= longest:
        raise invalid(described or f"Parameter '{name}' must contain {shortest} to {longest} characters")
    if kind in ("Number", "List<Number>"):
        try:
            number = float(value)
        except ValueError:
            raise invalid(f"Parameter '{name}' must be a number.") from None
        if number < float(slot.get("MinValue", number)) or number > float(slot.get("MaxValue", number)):
            bounds = f"from {slot.get('MinValue', '-inf')} to {slot.get('MaxValue', 'inf')}"
            raise invalid(described or f"Parameter '{name}' must be a number {bounds}")
