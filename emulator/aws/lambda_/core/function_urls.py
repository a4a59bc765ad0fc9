"""The settings of function URLs."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.references import Reference, conflict, resource_not_found
from emulator.errors import ApiError

# The first segment of the path of a function URL. No bucket can have this name.
URL_PREFIX = "_lambda-url"
_SETTINGS = ("AuthType", "Cors", "InvokeMode")


class FunctionUrls:
    """The operations on function URLs.

    Parameters
    ----------
    functions
        The functions.
    endpoint_url
        The URL of the endpoint, which serves the function URLs.
    """

    def __init__(self, functions: FunctionRegistry, endpoint_url: str) -> None:
        self._functions = functions
        self._endpoint_url = endpoint_url
        # The functions by the id in their URLs, filled at the first use.
        self._by_id: dict[str, Reference] = {}

    def create(self, reference: Reference, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create the URL of a function or an alias; return its settings.

        Raises
        ------
        ApiError
            When the function does not exist, or has a URL.
        """
        self._check_exists(reference)
        urls = self._functions.record(reference).urls
        key = reference.qualifier or ""
        if key in urls:
            raise conflict(
                f"Failed to create function url config for [functionArn = {reference.qualified_arn}]. "
                f"Error message:  FunctionUrlConfig exists for this Lambda function"
            )
        now = _now()
        # AWS's ids have 32 letters and digits.
        url_id = secrets.token_hex(16)
        urls[key] = {
            "Id": url_id,
            "CreationTime": now,
            "LastModifiedTime": now,
            **{name: request[name] for name in _SETTINGS if name in request},
        }
        self._functions.save(reference)
        answer = self._answer(reference, urls[key])
        # As recorded on AWS, the answer has no mode unless the request has one.
        return {name: value for name, value in answer.items() if name != "InvokeMode" or "InvokeMode" in request}

    def get(self, reference: Reference) -> dict[str, Any]:
        """Return the settings of a URL.

        Raises
        ------
        ApiError
            When there is none.
        """
        return self._answer(reference, self._stored(reference))

    def update(self, reference: Reference, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change the settings of a URL; return them.

        Raises
        ------
        ApiError
            When the function or the URL does not exist.
        """
        self._check_exists(reference)
        stored = self._stored(reference)
        stored |= {name: request[name] for name in _SETTINGS if name in request}
        stored["LastModifiedTime"] = _now()
        self._functions.save(reference)
        return self._answer(reference, stored)

    def delete(self, reference: Reference) -> None:
        """Delete a URL.

        Raises
        ------
        ApiError
            When there is none.
        """
        self._stored(reference)
        del self._functions.record(reference).urls[reference.qualifier or ""]
        self._functions.save(reference)

    def list(self, reference: Reference) -> list[dict[str, Any]]:
        """Return the settings of a function's URLs.

        Raises
        ------
        ApiError
            When the function does not exist.
        """
        if not self._functions.exists(reference):
            raise _no_function()
        urls = self._functions.record(reference).urls
        return [
            self._answer(Reference(reference.account, reference.name, key or None), urls[key]) for key in sorted(urls)
        ]

    def find(self, url_id: str) -> tuple[Reference, dict[str, Any]] | None:
        """Return the function that a URL invokes, and the URL's settings; None if there is no such URL."""
        reference = self._by_id.get(url_id)
        settings = None if reference is None else self._settings_of(reference, url_id)
        if reference is None or settings is None:
            self._by_id = {
                stored["Id"]: Reference(function.spec.account, function.spec.name, key or None)
                for function in self._functions.all()
                for key, stored in self._functions.record(
                    Reference(function.spec.account, function.spec.name)
                ).urls.items()
            }
            reference = self._by_id.get(url_id)
            settings = None if reference is None else self._settings_of(reference, url_id)
        return None if reference is None or settings is None else (reference, settings)

    def _settings_of(self, reference: Reference, url_id: str) -> dict[str, Any] | None:
        if not self._functions.exists(reference):
            return None
        stored = self._functions.record(reference).urls.get(reference.qualifier or "")
        return stored if stored is not None and stored["Id"] == url_id else None

    def _stored(self, reference: Reference) -> dict[str, Any]:
        urls = self._functions.record(reference).urls if self._functions.exists(reference) else {}
        if (stored := urls.get(reference.qualifier or "")) is None:
            raise resource_not_found("The resource you requested does not exist.")
        return stored

    def _check_exists(self, reference: Reference) -> None:
        exists = self._functions.exists(reference)
        if not exists or reference.qualifier not in (None, *self._functions.record(reference).aliases):
            raise _no_function()

    def _answer(self, reference: Reference, stored: Mapping[str, Any]) -> dict[str, Any]:
        settings = {name: value for name, value in stored.items() if name != "Id"}
        return {
            "InvokeMode": "BUFFERED",
            **settings,
            "FunctionArn": reference.qualified_arn,
            "FunctionUrl": f"{self._endpoint_url}/{URL_PREFIX}/{stored['Id']}/",
        }


def _no_function() -> ApiError:
    return resource_not_found("Function does not exist")


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
