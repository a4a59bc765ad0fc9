"""IAM policies as AWS evaluates them, as far as the stack's have it: allowing statements without conditions."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from emulator.fmi.aws_calls import AwsCall
from tests.integration.account import Account, permissions


class RolePolicy:
    """What a role of a stack allows.

    Attributes
    ----------
    actions
        The actions, by name.
    """

    def __init__(self, account: Account, role: str) -> None:
        iam = account.client("iam")
        self._statements = [
            statement
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
            for statement in iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
        ]
        self.actions = {action for statement in self._statements for action in _list(statement["Action"])}

    def allows(self, action: str, resource: str) -> bool:
        """Return whether an action on a resource is allowed."""
        return any(
            statement["Effect"] == "Allow"
            and action in _list(statement["Action"])
            and any(fnmatchcase(resource, pattern) for pattern in _list(statement["Resource"]))
            for statement in self._statements
        )

    def check(self, calls: list[AwsCall], besides: set[str]) -> None:
        """Check that each call is allowed, and that no action is allowed that neither a call nor `besides` needs."""
        used = set(besides)
        for call in calls:
            for action in permissions(call):
                assert self.allows(action, _resource(action, call.parameters)), f"{action} of {call}"
                used.add(action)
        assert self.actions == used


def tasks(definition: Any) -> Iterator[Mapping[str, Any]]:
    """Yield each state, reader and processor of a state machine that names a resource or a mode."""
    if isinstance(definition, dict):
        if "Resource" in definition or "Mode" in definition:
            yield definition
        for value in definition.values():
            yield from tasks(value)


def _list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _resource(action: str, parameters: Mapping[str, Any]) -> str:
    if action.startswith("s3:"):
        key = f"/{parameters['Key']}" if "Object" in action else ""
        return f"arn:aws:s3:::{parameters['Bucket']}{key}"
    if action.startswith("secretsmanager:"):
        return str(parameters["SecretId"])
    if action.startswith("route53:"):
        return f"arn:aws:route53:::hostedzone/{parameters['HostedZoneId']}"
    return "*"
