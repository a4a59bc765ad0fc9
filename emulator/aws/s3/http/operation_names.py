"""S3's operations in AWS's model: which one a request asks for, and whether it has the document of that operation."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from botocore.model import OperationModel, StructureShape

from emulator.aws.protocol.service_models import service_model
from emulator.aws.protocol.xml_documents import document_shape, read_document


@dataclass(frozen=True)
class _Address:
    """What requests for an operation have: method, bucket or bucket and key, and names in the query."""

    method: str
    labels: int
    selectors: frozenset[str]
    required: frozenset[str]

    @classmethod
    def of(cls, operation: OperationModel) -> "_Address":
        path, _, query = operation.http["requestUri"].partition("?")
        selectors = frozenset(part.partition("=")[0] for part in query.split("&") if part)
        shape = operation.input_shape
        members = [shape.members[name] for name in shape.required_members] if isinstance(shape, StructureShape) else []
        required = {
            member.serialization["name"] for member in members if member.serialization.get("location") == "querystring"
        }
        return cls(operation.http["method"], path.count("{"), selectors, selectors | required)


@functools.cache
def _addresses() -> dict[str, _Address]:
    """Return the addresses of all operations by name, those first that require most."""
    model = service_model("s3")
    operations = [model.operation_model(name) for name in model.operation_names]
    # A deprecated operation shares its address with the one that replaces it.
    found = {operation.name: _Address.of(operation) for operation in operations if not operation.deprecated}
    return dict(sorted(found.items(), key=lambda item: -len(item[1].required)))


def operation_name(method: str, bucket: str, key: str, query: Iterable[str]) -> str:
    """Return the name of the operation that a request asks for; method and address for one that AWS has not either.

    Parameters
    ----------
    method
        The HTTP method.
    bucket, key
        What the request addresses; empty if none.
    query
        The names of the query's parameters.
    """
    given, labels = frozenset(query), bool(bucket) + bool(key)
    for name, address in _addresses().items():
        if (address.method, address.labels) == (method, labels) and address.required <= given:
            return name
    return f"{method} /{bucket}" + (f"/{key}" if key else "")


@functools.cache
def subresources() -> frozenset[str]:
    """Return the names in a query that select another operation than the one on the bucket or the object itself."""
    selectors = (address.selectors for address in _addresses().values())
    return frozenset[str]().union(*selectors) - {"list-type", "x-id"}


def check_document(name: str, body: bytes) -> None:
    """Check the document of a request, where its operation has one.

    Raises
    ------
    ApiError
        MissingRequestBodyError, or MalformedXML.
    """
    model = service_model("s3")
    shape = document_shape(model.operation_model(name)) if name in model.operation_names else None
    # An access control list can be in the headers.
    if shape is not None and (body or name != "PutBucketAcl"):
        read_document(shape, body)
