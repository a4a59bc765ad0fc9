"""Checks of a request's members against the constraints of the model, with AWS's wording.

AWS reports all violations at once: ``2 validation errors detected: Value … at 'functionName' failed to satisfy
constraint: Member must have length less than or equal to 140; Value …``.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

from emulator.errors import ApiError

# Unicode's letters, digits and separators, as near as Python has them.
_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s"}
_NUMBERS = ("integer", "long", "float", "double")
# The code of most services for a request that violates the model.
VALIDATION = "ValidationException"
# Constraints that replace those of the model, by the name of the shape and that of the constraint.
Overrides = Mapping[str, Mapping[str, Any]]
NO_OVERRIDES: Overrides = {}


def check(
    shape: StructureShape, parameters: Mapping[str, Any], overrides: Overrides = NO_OVERRIDES, code: str = VALIDATION
) -> None:
    """Check the members of a request.

    Parameters
    ----------
    shape
        The operation's input.
    parameters
        The members, by name.
    overrides
        Constraints that are not the model's: AWS's answers are stricter than some models, and laxer than others.
    code
        The service's code for invalid requests.

    Raises
    ------
    ApiError
        With all violations.
    """
    violations = list(_structure_violations(shape, parameters, "", overrides))
    if violations:
        raise validation_error(violations, code)


def validation_error(violations: list[str], code: str = VALIDATION) -> ApiError:
    """Return the error that reports violations."""
    noun = "error" if len(violations) == 1 else "errors"
    message = f"{len(violations)} validation {noun} detected: {'; '.join(violations)}"
    return ApiError(code, HTTPStatus.BAD_REQUEST, message)


def violation(name: str, value: object, constraint: str, *, is_shown: bool = True) -> str:
    """Return the sentence about one member.

    Parameters
    ----------
    name
        The path of the member as in the request: ``EphemeralStorage.Size``.
    value
        Its value; None if it is missing.
    constraint
        What it violates.
    is_shown
        Whether the value is not sensitive.
    """
    shown = "null" if value is None else f"'{java_text(value)}'"
    return (
        f"Value {f'{shown} ' if is_shown else ''}at '{_member_path(name)}' failed to satisfy constraint: {constraint}"
    )


def java_text(value: object) -> str:
    """Return a value as AWS's messages show it: lists as ``[a, b]``, maps as ``{k=v}``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(java_text(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}={java_text(item)}' for key, item in value.items())}}}"
    return str(value)


def _structure_violations(
    shape: StructureShape, value: Mapping[str, Any], prefix: str, overrides: Overrides
) -> Iterator[str]:
    required = set(shape.required_members)
    for name, member in shape.members.items():
        path = f"{prefix}{name}"
        if value.get(name) is None:
            if name in required:
                yield violation(path, None, "Member must not be null")
            continue
        yield from _violations(member, value[name], path, overrides)


def _violations(shape: Shape, value: Any, path: str, overrides: Overrides) -> Iterator[str]:
    for constraint in _broken(shape, value, overrides):
        yield violation(path, value, constraint, is_shown=not shape.metadata.get("sensitive"))
    if isinstance(shape, StructureShape):
        yield from _structure_violations(shape, value, f"{path}.", overrides)
    elif isinstance(shape, ListShape):
        if isinstance(shape.member, StructureShape):
            for number, item in enumerate(value, 1):
                yield from _structure_violations(shape.member, item, f"{path}.{number}.member.", overrides)
        elif any(item is None or any(_broken(shape.member, item, overrides)) for item in value):
            yield violation(path, value, f"Member must satisfy constraint: {_all_constraints(shape.member, overrides)}")
    elif isinstance(shape, MapShape):
        for kind, member, items in (("keys", shape.key, value.keys()), ("value", shape.value, value.values())):
            if isinstance(member, StructureShape):
                for key, item in value.items():
                    yield from _structure_violations(member, item, f"{path}.{key}.member.", overrides)
            elif any(item is None or any(_broken(member, item, overrides)) for item in items):
                constraints = _all_constraints(member, overrides)
                yield violation(path, value, f"Map {kind} must satisfy constraint: {constraints}")


def _constraints(shape: Shape, overrides: Overrides) -> Mapping[str, Any]:
    replaced = overrides.get(shape.name)
    return shape.metadata if replaced is None else {**shape.metadata, **replaced}


def _broken(shape: Shape, value: Any, overrides: Overrides) -> Iterator[str]:
    """Yield the constraints of one value, not of what it contains, that it violates."""
    constraints = _constraints(shape, overrides)
    is_number = shape.type_name in _NUMBERS
    least, most = constraints.get("min"), constraints.get("max")
    if is_number:
        if least is not None and value < least:
            yield _at_least(shape, least)
        if most is not None and value > most:
            yield _at_most(shape, most)
        return
    if shape.type_name in ("string", "list", "map", "blob"):
        if least is not None and len(value) < least:
            yield _at_least(shape, least)
        if most is not None and len(value) > most:
            yield _at_most(shape, most)
    if isinstance(shape, StringShape):
        pattern, allowed = constraints.get("pattern"), constraints.get("enum")
        if pattern and (compiled := _compiled(pattern)) is not None and not compiled.fullmatch(value):
            yield _pattern(pattern)
        if allowed and value not in allowed:
            yield _enum(allowed)


def _all_constraints(shape: Shape, overrides: Overrides) -> str:
    """Return what the items of a list or map must satisfy, in brackets."""
    constraints = _constraints(shape, overrides)
    texts = []
    if (most := constraints.get("max")) is not None:
        texts.append(_at_most(shape, most))
    if (least := constraints.get("min")) is not None:
        texts.append(_at_least(shape, least))
    if pattern := constraints.get("pattern"):
        texts.append(_pattern(pattern))
    if allowed := constraints.get("enum"):
        texts.append(_enum(allowed))
    return f"[{', '.join([*texts, 'Member must not be null'])}]"


def _at_least(shape: Shape, least: Any) -> str:
    return f"Member must have {_quantity(shape)} greater than or equal to {_limit(shape, least)}"


def _at_most(shape: Shape, most: Any) -> str:
    return f"Member must have {_quantity(shape)} less than or equal to {_limit(shape, most)}"


def _quantity(shape: Shape) -> str:
    return "value" if shape.type_name in _NUMBERS else "length"


def _limit(shape: Shape, limit: Any) -> str:
    return str(float(limit)) if shape.type_name in ("float", "double") else str(int(limit))


def _pattern(pattern: str) -> str:
    return f"Member must satisfy regular expression pattern: {pattern}"


def _enum(allowed: list[str]) -> str:
    return f"Member must satisfy enum value set: [{', '.join(allowed)}]"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Return a pattern of the model, which are Java's; None for one that Python does not understand."""
    for java, own in _CLASSES.items():
        pattern = pattern.replace(java, own)
    try:
        return re.compile(pattern)
    except re.error:
        return None


def _member_path(name: str) -> str:
    """Return a member's path as in AWS's messages: EphemeralStorage.Size as ephemeralStorage.size."""
    return ".".join(part[:1].lower() + part[1:] for part in name.split("."))
