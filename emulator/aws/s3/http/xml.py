"""S3's XML: builds responses and parses requests."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

from emulator.aws.protocol.service_models import service_model
from emulator.aws.protocol.xml_documents import document_shape, read_document
from emulator.aws.s3.core.checksums import Checksum

# The owner of everything.
OWNER = {"ID": "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a", "DisplayName": "local"}

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# XML parsers convert a plain carriage return to a line feed.
_ENTITIES = {"\r": "&#13;"}
_DOCUMENT = '<?xml version="1.0" encoding="UTF-8"?>\n'

# None: no element. A list: one element each.
Content = Mapping[str, Any] | list[Any] | str | int | bool | None


def document(root: str, content: Content, *, namespace: bool = True) -> bytes:
    """Build a document.

    Parameters
    ----------
    root
        The name of the root element.
    content
        Nested mappings from element names to their content.
    namespace
        Whether the root declares S3's namespace.
    """
    attribute = f' xmlns="{_NAMESPACE}"' if namespace else ""
    return f"{_DOCUMENT}<{root}{attribute}>{_inner(content)}</{root}>".encode()


def response(root: str, content: Content, headers: Mapping[str, str] | None = None) -> web.Response:
    """Build a response with a document."""
    return web.Response(body=document(root, content), headers=headers, content_type="application/xml")


def access_control() -> bytes:
    """Build the access control list of every object: the owner has full control."""
    grant = (
        '<Grant><Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
        f"<ID>{OWNER['ID']}</ID></Grantee><Permission>FULL_CONTROL</Permission></Grant>"
    )
    empty = document("AccessControlPolicy", {"Owner": OWNER, "AccessControlList": ""})
    return empty.replace(b"<AccessControlList>", f"<AccessControlList>{grant}".encode())


def checksum_fields(checksum: Checksum | None) -> dict[str, str]:
    """Return the XML elements of a checksum."""
    return {} if checksum is None else {checksum.algorithm.field: checksum.value}


def timestamp(seconds: float) -> str:
    """Format a time as in S3's XML."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(operation: str, body: bytes) -> dict[str, Any]:
    """Return the members of the document in a request, by the model of an operation.

    Raises
    ------
    ApiError
        MalformedXML.
    """
    shape = document_shape(service_model("s3").operation_model(operation))
    if shape is None:
        raise ValueError(f"{operation}: expected an operation with a document")
    return read_document(shape, body)


def _inner(content: Content) -> str:
    match content:
        case Mapping():
            return "".join(_element(name, inner) for name, inner in content.items())
        case bool():
            return "true" if content else "false"
        case _:
            return escape(str(content), _ENTITIES)


def _element(name: str, content: Content) -> str:
    match content:
        case None:
            return ""
        case list():
            return "".join(_element(name, one) for one in content)
        case _:
            return f"<{name}>{_inner(content)}</{name}>"
