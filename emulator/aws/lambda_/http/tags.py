"""Lambda's operations on tags: of functions, code signing configurations, event source mappings."""

from collections.abc import Mapping
from typing import Any, Protocol

from emulator.aws.account import Account
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.references import Reference, invalid_parameter, resource_not_found
from emulator.aws.lambda_.http.requests import Operation, Parameters

# The kinds of resources in AWS's model that have tags, with the words of its errors.
_KINDS = {
    "capacity-provider": "Capacity provider",
    "code-signing-config": "Code signing config",
    "event-source-mapping": "Event source mapping",
    "layer": "Layer",
    "network-connector": "Network connector",
}


class TaggedResources(Protocol):
    """Resources of one kind that have tags."""

    def tags(self, arn: str, account: Account) -> Mapping[str, str] | None:
        """Return the tags of a resource; None if it does not exist."""

    def set_tags(self, arn: str, account: Account, tags: Mapping[str, str]) -> None:
        """Replace the tags of a resource that exists."""


class TagOperations:
    """Tags.

    Parameters
    ----------
    functions
        The functions.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._resources: dict[str, TaggedResources] = {"function": _TaggedFunctions(functions)}

    def add(self, kind: str, resources: TaggedResources) -> None:
        """Add resources, by the word that their ARNs have in the place of ``function``."""
        self._resources[kind] = resources

    def operations(self) -> dict[str, Operation]:
        """Return the operations by their names in the model."""
        return {"ListTags": self._list, "TagResource": self._tag, "UntagResource": self._untag}

    def _list(self, parameters: Parameters, account: Account) -> Mapping[str, Any]:
        return {"Tags": self._found(parameters, account)[1]}

    def _tag(self, parameters: Parameters, account: Account) -> None:
        resources, tags = self._found(parameters, account)
        if not parameters["Tags"]:
            raise invalid_parameter("An error occurred and the request cannot be processed.")
        resources.set_tags(parameters["Resource"], account, {**tags, **parameters["Tags"]})

    def _untag(self, parameters: Parameters, account: Account) -> None:
        resources, tags = self._found(parameters, account)
        kept = {key: value for key, value in tags.items() if key not in parameters["TagKeys"]}
        resources.set_tags(parameters["Resource"], account, kept)

    def _found(self, parameters: Parameters, account: Account) -> tuple[TaggedResources, Mapping[str, str]]:
        arn = parameters["Resource"]
        kind = arn.split(":")[5]
        resources = self._resources.get(kind)
        tags = None if resources is None else resources.tags(arn, account)
        if resources is None or tags is None:
            raise resource_not_found(f"{_KINDS[kind]} not found: {arn}")
        return resources, tags


class _TaggedFunctions:
    """The functions: versions and aliases have no tags."""

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions

    def tags(self, arn: str, account: Account) -> Mapping[str, str]:
        """Return the tags of a function.

        Raises
        ------
        ApiError
            When it does not exist, or the ARN has a qualifier.
        """
        reference = Reference.parse(arn, account=account)
        if reference.qualifier is not None:
            raise invalid_parameter(
                "Tags on function aliases and versions are not supported. Please specify a function ARN."
            )
        return self._functions.record(reference).tags

    def set_tags(self, arn: str, account: Account, tags: Mapping[str, str]) -> None:
        """Replace the tags of a function, which gets a new revision id."""
        self._functions.set_tags(Reference.parse(arn, account=account), tags)
