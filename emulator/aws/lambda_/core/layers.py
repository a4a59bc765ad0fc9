"""Layers: numbered versions of an archive whose files functions find in /opt."""

import asyncio
import hashlib
import json
import re
import shutil
import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emulator.aws.account import Account
from emulator.aws.lambda_.core.code_store import CodeStore, sha256_base64
from emulator.aws.lambda_.core.function_registry import check_revision
from emulator.aws.lambda_.core.models import LayerUse
from emulator.aws.lambda_.core.permissions import duplicate_statement, no_statement, policy_document, principal_of
from emulator.aws.lambda_.core.references import invalid_parameter, resource_not_found
from emulator.aws.state import StateFolder

_SCHEMA = "CREATE TABLE IF NOT EXISTS layers (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
_VERSION_ARN = re.compile(r"(arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:\d{12}:layer:([a-zA-Z0-9-_]+)):([0-9]+)")
_SHOWN = ("CompatibleRuntimes", "CompatibleArchitectures", "Description", "LicenseInfo")


@dataclass
class LayerVersion:
    """One version of a layer.

    Parameters
    ----------
    number
        Its number, from 1.
    settings
        Description, runtimes, architectures and licence, as passed.
    sha256, size
        Of the archive: SHA-256 in base64, and bytes.
    folder
        The name of the folder with its files.
    created
        When it was published, as in the API.
    policy
        The statements of its policy, by statement id.
    policy_revision
        Changes with the policy.
    """

    number: int
    settings: dict[str, Any]
    sha256: str
    size: int
    folder: str
    created: str
    policy: dict[str, dict[str, Any]] = field(default_factory=dict)
    policy_revision: str = ""


@dataclass
class _Layer:
    """The versions of a layer, by number, and the number of the latest one, which may be deleted."""

    latest: int = 0
    versions: dict[int, LayerVersion] = field(default_factory=dict)


class Layers:
    """The layers of all regions.

    Parameters
    ----------
    state
        The state folder.
    used
        The layer versions that functions use: their files are kept.

    Raises
    ------
    StateError
        When the stored layers are damaged.
    """

    def __init__(self, state: StateFolder, used: Iterable[LayerUse]) -> None:
        self._database = state.database
        self._folder = state.folder("layers")
        self.code_store = CodeStore(self._folder, state.reserve)
        self._layers: dict[str, _Layer] = {}
        try:
            self._database.execute(_SCHEMA)
            for key, text in self._database.execute("SELECT name, record FROM layers").fetchall():
                stored = json.loads(text)
                versions = (LayerVersion(**version) for version in stored["versions"])
                self._layers[key] = _Layer(stored["latest"], {version.number: version for version in versions})
        except (sqlite3.DatabaseError, LookupError, TypeError, ValueError) as error:
            raise state.damaged(f"layers: {error!r}") from error
        published = (version for layer in self._layers.values() for version in layer.versions.values())
        self.code_store.keep_folders(
            [*(self._folder / version.folder for version in published), *(use.root for use in used)]
        )

    async def publish(self, account: Account, name: str, archive: bytes, request: Mapping[str, Any]) -> dict[str, Any]:
        """Publish the next version of a layer; return it.

        Raises
        ------
        ApiError
            When the archive is invalid.
        """
        root = await asyncio.to_thread(self.code_store.unpack_new, name, archive)
        sha256 = await asyncio.to_thread(sha256_base64, archive)
        layer = self._layers.setdefault(_key(account, name), _Layer())
        layer.latest += 1
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        settings = {key: request[key] for key in _SHOWN if key in request}
        version = LayerVersion(layer.latest, settings, sha256, len(archive), root.name, created)
        layer.versions[version.number] = version
        self._store(account, name)
        return self._shown(account, name, version)

    def get(self, account: Account, name: str, number: int) -> dict[str, Any]:
        """Return a version, with its content's size and hash.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        return self._shown(account, name, self._version(account, name, number))

    def get_by_arn(self, account: Account, arn: str) -> dict[str, Any]:
        """Return a version by its ARN.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        match = _VERSION_ARN.fullmatch(arn)
        if match is None:
            raise resource_not_found("The resource you requested does not exist.")
        return self.get(account, match[2], int(match[3]))

    def root(self, account: Account, name: str, number: int) -> Path:
        """Return the folder with a version's files.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        return self._folder / self._version(account, name, number).folder

    def versions(self, account: Account, name: str) -> list[dict[str, Any]]:
        """Return the versions of a layer, the newest first."""
        layer = self._layers.get(_key(account, name), _Layer())
        newest_first = sorted(layer.versions.values(), key=lambda version: -version.number)
        return [_summary(account, name, version) for version in newest_first]

    def all(self, account: Account) -> list[dict[str, Any]]:
        """Return the layers of a region with their latest versions."""
        found = []
        for key in sorted(self._layers):
            region, _, name = key.partition("/")
            if region == account.region and (versions := self.versions(account, name)):
                arn = account.arn("lambda", f"layer:{name}")
                found.append({"LayerName": name, "LayerArn": arn, "LatestMatchingVersion": versions[0]})
        return found

    def delete(self, account: Account, name: str, number: int) -> None:
        """Delete a version, if it exists. Functions that use it keep its files."""
        _check_number(number)
        layer = self._layers.get(_key(account, name))
        if layer is not None and layer.versions.pop(number, None) is not None:
            self._store(account, name)

    def uses(self, account: Account, arns: Sequence[str]) -> list[LayerUse]:
        """Return the layer versions with the given ARNs.

        Raises
        ------
        ApiError
            When one does not exist, or is in another region.
        """
        found = []
        for arn in arns:
            match = _VERSION_ARN.fullmatch(arn)
            is_own = arn.split(":")[4:5] == [account.number]
            layer = self._layers.get(_key(account, match[2])) if match is not None and is_own else None
            if match is not None and arn.split(":")[3] != account.region:
                raise invalid_parameter(
                    "Layers are not in the same region as the function. "
                    f"Layers are expected to be in region {account.region}."
                )
            if match is None or layer is None or int(match[3]) not in layer.versions:
                raise invalid_parameter(f"Layer version {arn} does not exist.")
            version = layer.versions[int(match[3])]
            found.append(LayerUse(arn, version.size, self._folder / version.folder))
        return found

    def add_permission(
        self, account: Account, name: str, number: int, request: Mapping[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """Add a statement to the policy of a version; return it and the policy's revision id.

        Raises
        ------
        ApiError
            When the version does not exist, or has the statement.
        """
        version = self._with_policy(account, name, number)
        statement_id = request["StatementId"]
        if statement_id in version.policy:
            raise duplicate_statement(statement_id)
        check_revision(version.policy_revision, request.get("RevisionId"), "GetLayerPolicy")
        statement: dict[str, Any] = {
            "Sid": statement_id,
            "Effect": "Allow",
            "Principal": principal_of(request["Principal"]),
            "Action": request["Action"],
            "Resource": _version_arn(account, name, number),
        }
        if "OrganizationId" in request:
            statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": request["OrganizationId"]}}
        version.policy[statement_id] = statement
        version.policy_revision = str(uuid.uuid4())
        self._store(account, name)
        return statement, version.policy_revision

    def policy(self, account: Account, name: str, number: int) -> tuple[dict[str, Any], str]:
        """Return the policy of a version and its revision id.

        Raises
        ------
        ApiError
            When the version does not exist or has none.
        """
        version = self._with_policy(account, name, number)
        if not version.policy:
            raise resource_not_found("No policy is associated with the given resource.")
        return policy_document(version.policy), version.policy_revision

    def remove_permission(
        self, account: Account, name: str, number: int, statement_id: str, revision_id: str | None
    ) -> None:
        """Remove a statement from the policy of a version.

        Raises
        ------
        ApiError
            When it does not exist.
        """
        version = self._with_policy(account, name, number)
        check_revision(version.policy_revision, revision_id, "GetLayerPolicy")
        if version.policy.pop(statement_id, None) is None:
            raise no_statement(statement_id)
        version.policy_revision = str(uuid.uuid4())
        self._store(account, name)

    def total_size(self, region: str) -> int:
        """Return the size of all archives of a region, bytes."""
        layers = (layer for key, layer in self._layers.items() if key.startswith(f"{region}/"))
        return sum(version.size for layer in layers for version in layer.versions.values())

    def clear(self) -> None:
        """Delete all layers."""
        self._database.write("DELETE FROM layers")
        self._layers.clear()
        self.code_store.keep_folders([])

    def _version(self, account: Account, name: str, number: int) -> LayerVersion:
        _check_number(number)
        layer = self._layers.get(_key(account, name))
        if layer is None or number not in layer.versions:
            raise resource_not_found("The resource you requested does not exist.")
        return layer.versions[number]

    def _with_policy(self, account: Account, name: str, number: int) -> LayerVersion:
        layer = self._layers.get(_key(account, name))
        if layer is None or number not in layer.versions:
            raise resource_not_found(f"Layer version {_version_arn(account, name, number)} does not exist.")
        return layer.versions[number]

    def _shown(self, account: Account, name: str, version: LayerVersion) -> dict[str, Any]:
        content = {"CodeSha256": version.sha256, "CodeSize": version.size}
        return {
            **_summary(account, name, version),
            "LayerArn": account.arn("lambda", f"layer:{name}"),
            "Content": content,
        }

    def _store(self, account: Account, name: str) -> None:
        layer = self._layers[_key(account, name)]
        stored = {"latest": layer.latest, "versions": [vars(version) for version in layer.versions.values()]}
        self._database.write("INSERT OR REPLACE INTO layers VALUES (?, ?)", (_key(account, name), json.dumps(stored)))


def _summary(account: Account, name: str, version: LayerVersion) -> dict[str, Any]:
    return {
        "Description": "",
        **version.settings,
        "LayerVersionArn": _version_arn(account, name, version.number),
        "Version": version.number,
        "CreatedDate": version.created,
    }


def _version_arn(account: Account, name: str, number: int) -> str:
    return f"{account.arn('lambda', f'layer:{name}')}:{number}"


def _key(account: Account, name: str) -> str:
    return f"{account.region}/{name}"


def _check_number(number: int) -> None:
    if number < 1:
        raise invalid_parameter("Layer Version Cannot be less than 1")


def merged_layers(uses: Sequence[LayerUse]) -> Path | None:
    """Return a folder with the files of layers, of which a later one replaces those of an earlier one.

    Parameters
    ----------
    uses
        The layers, in their order.

    Returns
    -------
    Path or None
        The folder of the only layer, or a new one with links to the files of all; None if there are none.
    """
    if not uses:
        return None
    if len(uses) == 1:
        return uses[0].root
    digest = hashlib.sha256("/".join(use.root.name for use in uses).encode()).hexdigest()[:16]
    merged = uses[0].root.parent / f"merged-{digest}"
    if not merged.exists():
        draft = merged.with_name(f"{merged.name}-{uuid.uuid4().hex[:8]}")
        for use in uses:
            shutil.copytree(use.root, draft, copy_function=_replace_by_link, dirs_exist_ok=True)
        draft.rename(merged)
    return merged


def _replace_by_link(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    Path(target).hardlink_to(source)
