"""Validation of request parameters with the error messages of AWS.

Patterns and ranges: https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
"""

import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

from emulator.errors import ApiError

_NOTHING: Mapping[str, Any] = {}


def invalid_parameter(message: str) -> ApiError:
    """Return AWS's error for a well-formed value that Lambda does not accept."""
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message)


class Constraints:
    """Reads values from a request and collects the violated constraints, to report all of them at once.

    Every method returns the value, or the default where the request has none. For a value that violates its constraint
    it returns the default, and `check` raises later.

    Parameters
    ----------
    request
        The members of a JSON object, by name.
    """

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._request = request
        self._violations: list[str] = []

    def check(self) -> None:
        """Raise if a value has violated its constraint.

        Raises
        ------
        ApiError
            ValidationException with all violations.
        """
        count = len(self._violations)
        if count:
            noun = "error" if count == 1 else "errors"
            message = f"{count} validation {noun} detected: {'; '.join(self._violations)}"
            raise ApiError("ValidationException", HTTPStatus.BAD_REQUEST, message)

    def text(self, name: str, default: str | None = None, *, pattern: str | None = None, longest: int = 0) -> str:
        """Return a string; without a default it is mandatory."""
        value = self._request.get(name, default)
        if value is None:
            self.add_violation(name, None, "Member must not be null")
        elif not isinstance(value, str):
            self.add_violation(name, value, "Member must be a string")
        elif longest and len(value) > longest:
            self.add_violation(name, value, f"Member must have length less than or equal to {longest}")
        elif pattern is not None and not re.fullmatch(pattern, value):
            self.add_violation(name, value, f"Member must satisfy regular expression pattern: {pattern}")
        else:
            return value
        return default or ""

    def number(self, name: str, default: int, allowed: range) -> int:
        """Return an integer within a range."""
        value = self._request.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self.add_violation(name, value, "Member must be an integer")
        elif value < allowed[0]:
            self.add_violation(name, value, f"Member must have value greater than or equal to {allowed[0]}")
        elif value > allowed[-1]:
            self.add_violation(name, value, f"Member must have value less than or equal to {allowed[-1]}")
        else:
            return value
        return default

    def one_of(self, name: str, default: str, allowed: Collection[str]) -> str:
        """Return one of several strings."""
        value = self._request.get(name, default)
        if isinstance(value, str) and value in allowed:
            return value
        self.add_violation(name, value, f"Member must satisfy enum value set: [{', '.join(allowed)}]")
        return default

    def members(self, name: str) -> Mapping[str, Any]:
        """Return a JSON object; an empty one where the request has none."""
        value = self._request.get(name)
        if value is None or isinstance(value, dict):
            return value or _NOTHING
        self.add_violation(name, value, "Member must be an object")
        return _NOTHING

    def items(self, name: str) -> list[Any]:
        """Return a JSON array; an empty one where the request has none."""
        value = self._request.get(name)
        if value is None or isinstance(value, list):
            return value or []
        self.add_violation(name, value, "Member must be a list")
        return []

    def add_violation(self, name: str, value: object, constraint: str) -> None:
        """Add a violation to those that `check` reports."""
        shown = "null" if value is None else f"'{value}'"
        self._violations.append(f"Value {shown} at '{_member_path(name)}' failed to satisfy constraint: {constraint}")


def _member_path(name: str) -> str:
    """Return a member's name as in AWS's messages: FunctionName as functionName."""
    return ".".join(part[:1].lower() + part[1:] for part in name.split("."))
