"""Code signing configurations. They are stored; signatures of archives are not checked."""

import json
import secrets
import string
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from emulator.aws.account import Account
from emulator.aws.lambda_.core.references import resource_not_found
from emulator.aws.state import StateDatabase
from emulator.errors import ApiError

_SCHEMA = "CREATE TABLE IF NOT EXISTS code_signing (arn TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
_SETTINGS = ("Description", "AllowedPublishers", "CodeSigningPolicies")
_LETTERS = string.ascii_lowercase + string.digits


class CodeSigningConfigs:
    """The code signing configurations of all regions.

    Parameters
    ----------
    database
        Stores them.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database
        database.execute(_SCHEMA)

    def create(self, account: Account, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create a configuration; return it."""
        config_id = "csc-" + "".join(secrets.choice(_LETTERS) for _ in range(17))
        config = {
            "CodeSigningConfigId": config_id,
            "CodeSigningConfigArn": account.arn("lambda", f"code-signing-config:{config_id}"),
            "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Warn"},
            **{name: request[name] for name in _SETTINGS if name in request},
            "Tags": request.get("Tags") or {},
        }
        return self._store(config)

    def get(self, arn: str) -> dict[str, Any]:
        """Return a configuration.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        row = self._database.execute("SELECT record FROM code_signing WHERE arn = ?", (arn,)).fetchone()
        if row is None:
            raise resource_not_found(f"The Lambda code signing configuration {arn} can not be found.")
        found: dict[str, Any] = json.loads(row[0])
        return found

    def check_usable(self, arn: str) -> None:
        """Check that a function can use a configuration.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        if self._database.execute("SELECT 1 FROM code_signing WHERE arn = ?", (arn,)).fetchone() is None:
            raise ApiError(
                "CodeSigningConfigNotFoundException",
                HTTPStatus.NOT_FOUND,
                f"The code signing configuration cannot be found. Check that the provided configuration is not "
                f"deleted: {arn}.",
            )

    def update(self, arn: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change a configuration; return it.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        return self._store({**self.get(arn), **{name: request[name] for name in _SETTINGS if name in request}})

    def delete(self, arn: str) -> None:
        """Delete a configuration.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        self.get(arn)
        self._database.write("DELETE FROM code_signing WHERE arn = ?", (arn,))

    def tags(self, arn: str, _: Account) -> Mapping[str, str] | None:
        """Return the tags of a configuration; None if it does not exist."""
        row = self._database.execute("SELECT record FROM code_signing WHERE arn = ?", (arn,)).fetchone()
        return None if row is None else json.loads(row[0])["Tags"]

    def set_tags(self, arn: str, _: Account, tags: Mapping[str, str]) -> None:
        """Replace the tags of a configuration."""
        self._store({**self.get(arn), "Tags": dict(tags)})

    def all(self, account: Account) -> list[dict[str, Any]]:
        """Return the configurations of a region."""
        prefix = account.arn("lambda", "code-signing-config:")
        rows = self._database.execute("SELECT arn, record FROM code_signing ORDER BY arn").fetchall()
        return [json.loads(record) for arn, record in rows if arn.startswith(prefix)]

    def clear(self) -> None:
        """Delete all configurations."""
        self._database.write("DELETE FROM code_signing")

    def _store(self, config: dict[str, Any]) -> dict[str, Any]:
        config["LastModified"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
        row = (config["CodeSigningConfigArn"], json.dumps(config))
        self._database.write("INSERT OR REPLACE INTO code_signing VALUES (?, ?)", row)
        return config
