"""Properties of a template as parameters of an API's operation, by the service's own model.

Both have the same names but for their first letter, and templates may write numbers and booleans as strings, maps as
lists of Key and Value, and documents as objects.
"""

import json
from collections.abc import Mapping
from typing import Any

from botocore.model import Shape, StructureShape

from emulator.aws.cloudformation.errors import ResourceFailedError

_TRUTH = {"true": True, "false": False}


def api_parameters(shape: Shape, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Convert properties.

    Parameters
    ----------
    shape
        The input of the operation.
    properties
        The evaluated properties.

    Raises
    ------
    ResourceFailedError
        When a property has no parameter, or a value has the wrong type.
    """
    converted = _convert(shape, properties, "")
    if not isinstance(converted, dict):
        raise ResourceFailedError("Properties: expected an object")
    return converted


def _convert(shape: Any, value: Any, path: str) -> Any:
    match shape.type_name:
        case "structure":
            return _structure(shape, value, path)
        case "list":
            items = value if isinstance(value, list) else [value]
            return [_convert(shape.member, item, f"{path}[{index}]") for index, item in enumerate(items)]
        case "map":
            return {str(key): _convert(shape.value, item, f"{path}.{key}") for key, item in _pairs(value, path).items()}
        case "integer" | "long":
            return _number(int, value, path)
        case "float" | "double":
            return _number(float, value, path)
        case "boolean":
            if isinstance(value, bool):
                return value
            if str(value).lower() not in _TRUTH:
                raise ResourceFailedError(f"{path}: expected true or false, got {value!r:.80}")
            return _TRUTH[str(value).lower()]
        case "string":
            return text_of(value)
        case "blob":
            return value if isinstance(value, bytes) else text_of(value).encode()
    return value


def _structure(shape: StructureShape, value: Any, path: str) -> Any:
    if getattr(shape, "is_document_type", False):
        return value
    if not isinstance(value, Mapping):
        raise ResourceFailedError(f"{path or 'Properties'}: expected an object, got {value!r:.80}")
    members = shape.members
    by_lower = {name.lower(): name for name in members}
    converted = {}
    for key, item in value.items():
        name = key if key in members else by_lower.get(key.lower())
        if name is None:
            where = f"{path}.{key}".lstrip(".")
            raise ResourceFailedError(f"Encountered unsupported property {where}: expected one of {', '.join(members)}")
        converted[name] = _convert(members[name], item, f"{path}.{name}".lstrip("."))
    return converted


def _pairs(value: Any, path: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    try:
        return {str(item["Key"]): item["Value"] for item in value}
    except (TypeError, KeyError):
        raise ResourceFailedError(f"{path}: expected an object or a list of Key and Value, got {value!r:.80}") from None


def _number(kind: type[int] | type[float], value: Any, path: str) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ResourceFailedError(f"{path}: expected a number, got {value!r:.80}") from None


def text_of(value: Any) -> str:
    """Return a value as the text of an attribute: booleans in lower case, documents as JSON."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
