"""Resource policies of CloudWatch Logs: which services may write to it. They are stored, not checked."""

import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from emulator.aws.account import Account
from emulator.aws.state import StateDatabase
from emulator.errors import ApiError

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS log_resource_policies"
    " (region TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL, updated INTEGER NOT NULL,"
    " PRIMARY KEY (region, name)) WITHOUT ROWID"
)
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutResourcePolicy.html
_MOST = 10


class ResourcePolicies:
    """The operations on the policies of all regions.

    Parameters
    ----------
    database
        Stores them.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database
        database.execute(_SCHEMA)

    def put(self, request: Mapping[str, Any], account: Account) -> Mapping[str, Any]:
        """Store a policy, or replace it; return it.

        Raises
        ------
        ApiError
            When its document is not JSON, the region has ten others, or it belongs to a single log group.
        """
        if request.get("resourceArn"):
            raise _invalid("resourceArn: policies of single log groups are not emulated, only those of the account")
        name, document = request.get("policyName"), request.get("policyDocument")
        if not name or not document:
            raise _invalid("policyName and policyDocument are required for a policy of the account")
        try:
            is_object = isinstance(json.loads(document), dict)
        except ValueError:
            is_object = False
        if not is_object:
            raise _invalid(f"policyDocument: expected a policy in JSON, got {document:.80}")
        others = [policy for policy in self._all(account) if policy["policyName"] != name]
        if len(others) >= _MOST:
            raise ApiError("LimitExceededException", HTTPStatus.BAD_REQUEST, "Resource limit exceeded.")
        row = (account.region, name, document, int(time.time() * 1000))
        self._database.write("INSERT OR REPLACE INTO log_resource_policies VALUES (?, ?, ?, ?)", row)
        return {"resourcePolicy": next(policy for policy in self._all(account) if policy["policyName"] == name)}

    def describe(self, _: Mapping[str, Any], account: Account) -> Mapping[str, Any]:
        """Return all policies of a region, which fit on one page."""
        return {"resourcePolicies": self._all(account)}

    def delete(self, request: Mapping[str, Any], account: Account) -> None:
        """Delete a policy.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        name = request.get("policyName", "")
        if all(policy["policyName"] != name for policy in self._all(account)):
            message = f"Policy with name [{name}] does not exist."
            raise ApiError("ResourceNotFoundException", HTTPStatus.BAD_REQUEST, message)
        where = "DELETE FROM log_resource_policies WHERE region = ? AND name = ?"
        self._database.write(where, (account.region, name))

    def clear(self) -> None:
        """Delete all policies."""
        self._database.write("DELETE FROM log_resource_policies")

    def _all(self, account: Account) -> list[dict[str, Any]]:
        query = "SELECT name, document, updated FROM log_resource_policies WHERE region = ? ORDER BY name"
        rows = self._database.execute(query, (account.region,)).fetchall()
        return [
            {"policyName": name, "policyDocument": document, "lastUpdatedTime": updated, "policyScope": "ACCOUNT"}
            for name, document, updated in rows
        ]


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterException", HTTPStatus.BAD_REQUEST, message)
