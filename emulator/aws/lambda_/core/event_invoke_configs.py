"""The settings of asynchronous invocations: retries, the age of events, destinations."""

import re
import time
from collections.abc import Mapping
from typing import Any

from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.references import LATEST, Reference, account_of, invalid_parameter, resource_not_found
from emulator.errors import ApiError

_SETTINGS = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
_DESTINATION = re.compile(r"arn:aws[a-zA-Z-]*:(lambda|sqs|sns|events|s3):.*")


class EventInvokeConfigs:
    """The operations on the settings of asynchronous invocations.

    Parameters
    ----------
    functions
        The functions.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions

    def put(self, reference: Reference, request: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the settings of a function, version or alias; return them.

        Raises
        ------
        ApiError
            When it does not exist, or the settings are invalid.
        """
        return self._change(reference, request, {})

    def update(self, reference: Reference, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change single settings; return all.

        Raises
        ------
        ApiError
            As `put`, and when there are none.
        """
        _check_given(request)
        self._check_exists(reference)
        return self._change(reference, request, self._stored(reference))

    def get(self, reference: Reference) -> dict[str, Any]:
        """Return the settings.

        Raises
        ------
        ApiError
            When there are none.
        """
        return _answer(reference, self._stored(reference))

    def find(self, reference: Reference) -> Mapping[str, Any]:
        """Return the settings as they were passed; an empty mapping if there are none."""
        if not self._functions.exists(reference):
            return {}
        return self._functions.record(reference).event_invoke_configs.get(reference.qualifier or LATEST, {})

    def delete(self, reference: Reference) -> None:
        """Delete the settings.

        Raises
        ------
        ApiError
            When there are none.
        """
        self._stored(reference)
        del self._functions.record(reference).event_invoke_configs[reference.qualifier or LATEST]
        self._functions.save(reference)

    def list(self, reference: Reference) -> list[dict[str, Any]]:
        """Return the settings of a function and of its versions and aliases.

        Raises
        ------
        ApiError
            When the function does not exist.
        """
        self._check_exists(reference.unqualified())
        stored = self._functions.record(reference).event_invoke_configs
        return [_answer(Reference(reference.account, reference.name, key), stored[key]) for key in sorted(stored)]

    def _change(self, reference: Reference, request: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        _check_given(request)
        self._check_exists(reference)
        self._check_destinations(reference, request.get("DestinationConfig", {}))
        changes = {name: request[name] for name in _SETTINGS if name in request}
        configs = self._functions.record(reference).event_invoke_configs
        key = reference.qualifier or LATEST
        configs[key] = {**before, **changes, "LastModified": round(time.time(), 3)}
        self._functions.save(reference)
        return _answer(reference, configs[key])

    def _check_exists(self, reference: Reference) -> None:
        try:
            self._functions.get(reference)
        except ApiError:
            raise resource_not_found("The function doesn't exist.") from None

    def _check_destinations(self, reference: Reference, config: Mapping[str, Any]) -> None:
        for name in ("OnSuccess", "OnFailure"):
            arn = config.get(name, {}).get("Destination")
            if not arn:
                continue
            if not _DESTINATION.fullmatch(arn):
                raise invalid_parameter(f"The provided destination config {_java_config(config)} is invalid.")
            if arn.split(":")[2] == "lambda":
                target = Reference.parse(arn, account=account_of(arn, reference.account))
                if target.key == reference.key:
                    raise invalid_parameter("You can't specify the function as a destination for itself.")
                if not self._functions.exists(target):
                    raise invalid_parameter(f"The destination ARN {arn} is invalid.")

    def _stored(self, reference: Reference) -> dict[str, Any]:
        qualified = Reference(reference.account, reference.name, reference.qualifier or LATEST)
        configs = self._functions.record(reference).event_invoke_configs if self._functions.exists(reference) else {}
        if (stored := configs.get(str(qualified.qualifier))) is None:
            raise resource_not_found(f"The function {qualified.qualified_arn} doesn't have an EventInvokeConfig")
        return stored


def _check_given(request: Mapping[str, Any]) -> None:
    if not any(name in request for name in _SETTINGS):
        raise invalid_parameter("You must specify at least one of error handling or destination setting.")


def _answer(reference: Reference, stored: Mapping[str, Any]) -> dict[str, Any]:
    destinations = {"OnSuccess": {}, "OnFailure": {}, **stored.get("DestinationConfig", {})}
    arn = f"{reference.arn}:{reference.qualifier or LATEST}"
    return {**stored, "DestinationConfig": destinations, "FunctionArn": arn}


def _java_config(config: Mapping[str, Any]) -> str:
    parts = []
    for name, kind in (("onSuccess", "OnSuccess"), ("onFailure", "OnFailure")):
        arn = config.get(kind, {}).get("Destination")
        parts.append(f"{name}={'null' if arn is None else f'{kind}(destination={arn})'}")
    return f"DestinationConfig({', '.join(parts)})"
