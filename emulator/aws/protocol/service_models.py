"""The service models of botocore, and which operation a REST request asks for.

What the models contain: https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html
"""

import functools
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import botocore.session
from botocore.model import OperationModel, ServiceModel, StructureShape


@functools.cache
def service_model(name: str) -> ServiceModel:
    """Return the model of a service, by botocore's name of it, such as ``lambda``."""
    return botocore.session.get_session().get_service_model(name)


@functools.cache
def error_members(service: str, code: str) -> frozenset[str]:
    """Return the names of the members of an error in a service's model; an empty set if the model lacks the error."""
    for shape in service_model(service).error_shapes:
        if shape.name == code and isinstance(shape, StructureShape):
            return frozenset(shape.members)
    return frozenset()


_MOST_FOUND = 1000


class _Node:
    """The operations below one prefix of a path, by the next segment."""

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.parameter: tuple[str, _Node] | None = None
        # By method; each with the query that selects it.
        self.operations: dict[str, list[tuple[Mapping[str, str], OperationModel]]] = {}


class RestRoutes:
    """Finds the operation of a REST request: a tree of the model's paths.

    Parameters
    ----------
    service
        botocore's name of a service with a REST protocol.
    """

    def __init__(self, service: str) -> None:
        self._root = _Node()
        # Requests repeat: most invoke the same functions.
        self._found: dict[
            tuple[str, str, tuple[tuple[str, str], ...]], tuple[OperationModel, dict[str, str]] | None
        ] = {}
        model = service_model(service)
        for name in model.operation_names:
            self._add(model.operation_model(name))

    @property
    def prefixes(self) -> frozenset[str]:
        """The first two segments of all paths, such as ``/2015-03-31/functions``."""
        return frozenset(
            f"/{version}/{resource}" for version, node in self._root.literal.items() for resource in node.literal
        )

    def find(
        self, method: str, raw_path: str, query: Mapping[str, str]
    ) -> tuple[OperationModel, dict[str, str]] | None:
        """Return a request's operation and the parameters in its path, decoded; None if there is no such operation.

        Parameters
        ----------
        method
            The HTTP method.
        raw_path
            The path as received, without the query. A slash at its end is ignored.
        query
            Selects between operations with the same path.
        """
        key = (method, raw_path, tuple(query.items()))
        if key in self._found:
            return self._found[key]
        found = self._search(method, raw_path, query)
        if len(self._found) >= _MOST_FOUND:
            self._found.clear()
        self._found[key] = found
        return found

    def _search(
        self, method: str, raw_path: str, query: Mapping[str, str]
    ) -> tuple[OperationModel, dict[str, str]] | None:
        segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
        for node, parameters in _matches(self._root, segments, {}):
            for wanted, operation in node.operations.get(method, ()):
                if all(query.get(name) == value for name, value in wanted.items()):
                    return operation, parameters
        return None

    def _add(self, operation: OperationModel) -> None:
        path, _, query = operation.http["requestUri"].partition("?")
        node = self._root
        for segment in path.strip("/").split("/"):
            if segment.startswith("{"):
                name = segment[1:-1].removesuffix("+")
                if node.parameter is None:
                    node.parameter = (name, _Node())
                node = node.parameter[1]
            else:
                node = node.literal.setdefault(segment, _Node())
        wanted = dict(part.split("=", 1) for part in query.split("&") if part)
        choices = node.operations.setdefault(operation.http["method"], [])
        choices.append((wanted, operation))
        # The operation with a query goes first: the other one would match its requests, too.
        choices.sort(key=lambda choice: -len(choice[0]))


def _matches(node: _Node, segments: list[str], parameters: dict[str, str]) -> Iterator[tuple[_Node, dict[str, str]]]:
    if not segments:
        yield node, parameters
        return
    first, *rest = segments
    if (literal := node.literal.get(first)) is not None:
        yield from _matches(literal, rest, parameters)
    if node.parameter is not None and first:
        name, following = node.parameter
        yield from _matches(following, rest, {**parameters, name: first})
