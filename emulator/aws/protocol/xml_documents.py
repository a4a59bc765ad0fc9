"""Reading the XML document in a request's body by AWS's model: S3's requests.

The protocol: https://smithy.io/2.0/aws/protocols/aws-restxml-protocol.html
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from xml.parsers.expat import ExpatError

import xmltodict
from botocore.model import ListShape, OperationModel, Shape, StringShape, StructureShape

from emulator.aws.json_requests import whole_number
from emulator.errors import ApiError

_SCHEMA = "The XML you provided was not well-formed or did not validate against our published schema"
_CONSTANTS = {"true": True, "false": False}


def document_shape(operation: OperationModel) -> StructureShape | None:
    """Return the shape of the document in the body of an operation's requests; None if they have none."""
    request = operation.input_shape
    if not isinstance(request, StructureShape) or "payload" not in request.serialization:
        return None
    shape = request.members[request.serialization["payload"]]
    return shape if isinstance(shape, StructureShape) else None


def read_document(shape: StructureShape, body: bytes) -> dict[str, Any]:
    """Return the members of a document; those that it does not have are left out.

    Parameters
    ----------
    shape
        The shape of the document.
    body
        The document.

    Raises
    ------
    ApiError
        MissingRequestBodyError when it is empty; MalformedXML when it is not XML, has another root, lacks a required
        element, or has a value that the model does not allow.
    """
    if not body:
        raise ApiError("MissingRequestBodyError", HTTPStatus.BAD_REQUEST, "Request Body is empty")
    root = shape.serialization["name"]
    try:
        found = xmltodict.parse(body, strip_whitespace=False)
    except (ExpatError, ValueError) as error:
        raise _malformed(str(error)) from None
    if root not in found:
        raise _malformed(f"expected {root}")
    members: dict[str, Any] = _value(shape, found[root], root)
    return members


def _value(shape: Shape, found: Any, path: str) -> Any:
    if isinstance(shape, StructureShape):
        return _structure(shape, found, path)
    if isinstance(shape, ListShape):
        inner = shape.member.serialization.get("name", "member")
        return _items(shape, _elements(found, path).get(inner), f"{path}/{inner}")
    text = found or ""
    if not isinstance(text, str):
        raise _malformed(f"expected one {path} with text")
    if shape.type_name == "boolean":
        if text.strip().lower() not in _CONSTANTS:
            raise _malformed(f"expected true or false in {path}, got {text!r:.80}")
        return _CONSTANTS[text.strip().lower()]
    if shape.type_name in ("integer", "long"):
        if (number := whole_number(text.strip())) is None:
            raise _malformed(f"expected a whole number in {path}, got {text!r:.80}")
        return number
    if isinstance(shape, StringShape) and shape.enum and text not in shape.enum:
        raise _malformed(f"expected one of {', '.join(shape.enum)} in {path}, got {text!r:.80}")
    return text


def _structure(shape: StructureShape, found: Any, path: str) -> dict[str, Any]:
    elements = _elements(found, path)
    members: dict[str, Any] = {}
    for name, member in shape.members.items():
        element = member.serialization.get("name", name)
        inner = f"{path}/{element}"
        if member.serialization.get("xmlAttribute"):
            element = f"@{element}"
        elif isinstance(member, ListShape) and member.serialization.get("flattened"):
            if element in elements:
                members[name] = _items(member, elements[element], inner)
            continue
        if element in elements:
            members[name] = _value(member, elements[element], inner)
    missing = [name for name in shape.required_members if name not in members]
    if missing:
        names = ", ".join(shape.members[name].serialization.get("name", name) for name in missing)
        raise _malformed(f"expected {names} in {path}")
    return members


def _elements(found: Any, path: str) -> Mapping[str, Any]:
    """Return the elements in an element; an element with nothing but white space has none."""
    if isinstance(found, Mapping):
        return found
    if found is not None and (not isinstance(found, str) or found.strip()):
        raise _malformed(f"expected one {path} with elements")
    return {}


def _items(shape: ListShape, found: Any, path: str) -> list[Any]:
    items = found if isinstance(found, list) else [] if found is None else [found]
    return [_value(shape.member, item, path) for item in items]


def _malformed(reason: str) -> ApiError:
    return ApiError("MalformedXML", HTTPStatus.BAD_REQUEST, f"{_SCHEMA}: {reason}")
