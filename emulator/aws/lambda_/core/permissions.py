"""Resource policies: who may invoke a function, a version, an alias or use a layer. They are stored, not checked."""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emulator.aws.lambda_.core.function_records import FunctionRecord
from emulator.aws.lambda_.core.function_registry import FunctionRegistry, alias_not_found, check_revision, not_found
from emulator.aws.lambda_.core.references import (
    ALIAS,
    LATEST,
    Reference,
    conflict,
    invalid_parameter,
    resource_not_found,
)
from emulator.errors import ApiError

_ACCOUNT = re.compile(r"\d{12}")
_SERVICE = re.compile(r"[a-z0-9.-]+\.(amazonaws\.com(\.cn)?|alexa-appkit\.amazon\.com|amazon\.com)")
# The keys of conditions: https://docs.aws.amazon.com/lambda/latest/api/API_AddPermission.html
_EQUAL = {
    "SourceAccount": "AWS:SourceAccount",
    "FunctionUrlAuthType": "lambda:FunctionUrlAuthType",
    "PrincipalOrgID": "aws:PrincipalOrgID",
    "EventSourceToken": "lambda:EventSourceToken",
}
NO_POLICY = "The resource you requested does not exist."


class Permissions:
    """The operations on the policies of functions.

    Parameters
    ----------
    functions
        The functions.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions

    def add(self, reference: Reference, request: Mapping[str, Any]) -> dict[str, Any]:
        """Add a statement; return it.

        Raises
        ------
        ApiError
            When the version or alias does not exist, or the statement exists or is invalid.
        """
        if reference.qualifier == LATEST:
            raise invalid_parameter("We currently do not support adding policies for $LATEST.")
        principal = principal_of(request["Principal"])
        self._check_exists(reference)
        entry = self._functions.record(reference)
        check_revision(_revision(entry, reference), request.get("RevisionId"), "GetPolicy")
        policy = entry.policies.setdefault(_key(reference), {})
        statement_id = request["StatementId"]
        if statement_id in policy:
            raise duplicate_statement(statement_id)
        statement = {
            "Sid": statement_id,
            "Effect": "Allow",
            "Principal": principal,
            "Action": request["Action"],
            "Resource": reference.qualified_arn,
        }
        condition: dict[str, dict[str, str]] = {}
        if equal := {key: request[name] for name, key in _EQUAL.items() if name in request}:
            condition["StringEquals"] = equal
        if "SourceArn" in request:
            condition["ArnLike"] = {"AWS:SourceArn": request["SourceArn"]}
        if condition:
            statement["Condition"] = condition
        policy[statement_id] = statement
        _revise(entry, reference)
        self._functions.save(reference)
        return statement

    def get(self, reference: Reference) -> tuple[dict[str, Any], str]:
        """Return the policy of a function, version or alias, and its revision id.

        Raises
        ------
        ApiError
            When there is none.
        """
        entry = self._functions.record(reference) if self._functions.exists(reference) else None
        policy = None if entry is None else entry.policies.get(_key(reference))
        if entry is None or not policy:
            raise resource_not_found(NO_POLICY)
        return policy_document(policy), _revision(entry, reference)

    def remove(self, reference: Reference, statement_id: str, revision_id: str | None) -> None:
        """Remove a statement.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        if not self._functions.exists(reference):
            raise resource_not_found(f"No policy found for: {reference.arn}")
        self._check_exists(reference)
        entry = self._functions.record(reference)
        policy = entry.policies.get(_key(reference))
        if not policy:
            raise resource_not_found("No policy is associated with the given resource.")
        if statement_id not in policy:
            raise no_statement(statement_id)
        check_revision(_revision(entry, reference), revision_id, "GetPolicy")
        del policy[statement_id]
        _revise(entry, reference)
        self._functions.save(reference)

    def _check_exists(self, reference: Reference) -> None:
        entry = self._functions.record(reference)
        qualifier = reference.qualifier
        if qualifier in (None, LATEST) or qualifier in entry.versions or qualifier in entry.aliases:
            return
        # What cannot be the name of an alias is looked up as a version.
        is_alias = ALIAS.fullmatch(str(qualifier)) is not None
        raise alias_not_found(reference, str(qualifier)) if is_alias else not_found(reference.qualified_arn)


def principal_of(text: str) -> Any:
    """Return the principal of a statement.

    Raises
    ------
    ApiError
        When the text is no account, ARN, service or ``*``.
    """
    if text == "*":
        return "*"
    if _ACCOUNT.fullmatch(text):
        return {"AWS": f"arn:aws:iam::{text}:root"}
    if text.startswith("arn:"):
        return {"AWS": text}
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    raise invalid_parameter("The provided principal was invalid. Please check the principal and try again.")


def policy_document(policy: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the policy with the given statements, by statement id."""
    return {"Version": "2012-10-17", "Id": "default", "Statement": list(policy.values())}


def compact_json(value: object) -> str:
    """Return JSON as Lambda writes policies."""
    return json.dumps(value, separators=(",", ":"))


def duplicate_statement(statement_id: str) -> ApiError:
    """Return the error for a statement id that is in use."""
    return conflict(
        f"The statement id ({statement_id}) provided already exists. "
        "Please provide a new statement id, or remove the existing statement."
    )


def no_statement(statement_id: str) -> ApiError:
    """Return the error for a statement that does not exist."""
    return resource_not_found(f"Statement {statement_id} is not found in resource policy.")


def _key(reference: Reference) -> str:
    return "" if reference.qualifier in (None, LATEST) else str(reference.qualifier)


def _revision(entry: FunctionRecord, reference: Reference) -> str:
    """Return the revision id of a policy; before there is one, that of the function, version or alias."""
    if entry.policies.get(_key(reference)):
        return entry.policy_revisions[_key(reference)]
    qualifier = reference.qualifier
    if qualifier in (None, LATEST):
        return entry.latest.revision_id
    holder = entry.versions.get(str(qualifier)) or entry.aliases[str(qualifier)]
    return holder.revision_id


def _revise(entry: FunctionRecord, reference: Reference) -> None:
    """Give the function, version or alias that a policy belongs to, and the policy, a new revision id."""
    qualifier = reference.qualifier or LATEST
    if qualifier == LATEST:
        entry.latest = entry.latest.revised()
        revision_id = entry.latest.revision_id
    elif qualifier in entry.versions:
        entry.versions[qualifier] = entry.versions[qualifier].revised()
        revision_id = entry.versions[qualifier].revision_id
    else:
        revision_id = str(uuid.uuid4())
        entry.aliases[qualifier] = replace(entry.aliases[qualifier], revision_id=revision_id)
    entry.policy_revisions[_key(reference)] = revision_id
