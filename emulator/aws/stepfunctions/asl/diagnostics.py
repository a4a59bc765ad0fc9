"""Diagnostics of a definition, each with its location, and the reader of JSON fields that reports them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from emulator.aws.stepfunctions.asl.expressions import (
    Expression,
    ExpressionSyntaxError,
    Path,
    PathSyntaxError,
    ReferencePath,
    compile_expression,
    compile_path,
    compile_reference_path,
)
from emulator.aws.stepfunctions.asl.expressions import compile_template as compile_payload
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, is_number

_Value = TypeVar("_Value")

# Codes: https://docs.aws.amazon.com/step-functions/latest/apireference/API_ValidateStateMachineDefinitionDiagnostic.html
SCHEMA = "SCHEMA_VALIDATION_FAILED"
INVALID_JSON = "INVALID_JSON_DESCRIPTION"
INVALID_RESOURCE = "INVALID_RESOURCE"
DUPLICATE_STATE_NAME = "DUPLICATE_STATE_NAME"
INVALID_STATE_NAME = "INVALID_STATE_NAME"
DUPLICATE_LABEL_NAME = "DUPLICATE_LABEL_NAME"
MISSING_END_STATE = "MISSING_END_STATE"
MISSING_TRANSITION_TARGET = "MISSING_TRANSITION_TARGET"
TOO_DEEPLY_NESTED = "TOO_DEEPLY_NESTED"

_MESSAGE_CHARACTERS = 80


@dataclass(frozen=True)
class Diagnostic:
    """One mistake in a definition.

    Parameters
    ----------
    code
        AWS's code of the mistake.
    location
        The location, such as ``/States/Map/ItemProcessor/States/X/Next``.
    message
        What was expected and what was found.
    """

    code: str
    location: str
    message: str

    def __str__(self) -> str:
        """Return the diagnostic as CreateStateMachine formats it."""
        return f"{self.code}: {self.message} at {self.location or '/'}"


class DefinitionError(Exception):
    """A definition is invalid.

    Parameters
    ----------
    diagnostics
        All mistakes.
    """

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__(", ".join(map(str, diagnostics)))
        self.diagnostics = diagnostics


class Diagnostics:
    """Collects diagnostics."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def add(self, location: str, message: str, code: str = SCHEMA) -> None:
        """Add a diagnostic."""
        self._found.append(Diagnostic(code, location, message))

    def all(self) -> tuple[Diagnostic, ...]:
        """Return all diagnostics."""
        return tuple(self._found)


class Fields:
    """Reads the fields of a JSON object. An invalid field is reported to the diagnostics and read as None.

    Parameters
    ----------
    content
        The object.
    location
        The object's location in the definition.
    diagnostics
        Collects the mistakes.
    """

    def __init__(self, content: Json, location: str, diagnostics: Diagnostics) -> None:
        self.location = location
        self.diagnostics = diagnostics
        self._read: set[str] = set()
        if not isinstance(content, dict):
            self.report("", f"expected an object, got {abbreviated(content)}")
        self._content: Mapping[str, Json] = content if isinstance(content, dict) else {}

    def report(self, name: str, message: str, code: str = SCHEMA) -> None:
        """Report a mistake in a field."""
        self.diagnostics.add(f"{self.location}/{name}" if name else self.location, message, code)

    def has(self, name: str) -> bool:
        """Return whether the object has a field."""
        return name in self._content

    def names(self) -> Collection[str]:
        """Return the names of the fields."""
        return self._content.keys()

    def raw(self, name: str) -> Json:
        """Return a field's value, or None if it is absent."""
        self._read.add(name)
        return self._content.get(name)

    def reject_unknown(self, owner: str) -> None:
        """Report the fields that were not read: the language does not define them."""
        for name in sorted(self._content.keys() - self._read):
            self.report(name, f"unknown field {name!r} of {owner}")

    def require(self, name: str) -> None:
        """Report a field if it is absent."""
        if name not in self._content:
            self.report("", f"the field {name!r} is required")

    def at_most_one(self, *names: str) -> None:
        """Report fields that exclude each other."""
        present = [name for name in names if self.has(name)]
        if len(present) > 1:
            self.report(present[1], f"expected only one of {' and '.join(present)}")

    def string(self, name: str) -> str | None:
        """Read a string."""
        return self._checked(name, lambda value: value if isinstance(value, str) else None, "a string")

    def boolean(self, name: str) -> bool | None:
        """Read a boolean."""
        return self._checked(name, lambda value: value if isinstance(value, bool) else None, "true or false")

    def integer(self, name: str, allowed: range) -> int | None:
        """Read an integer."""
        return self._checked(
            name,
            lambda value: value if type(value) is int and value in allowed else None,
            f"an integer from {allowed[0]} to {allowed[-1]}",
        )

    def number(self, name: str, least: float, most: float) -> float | None:
        """Read a number."""
        return self._checked(
            name,
            lambda value: value if is_number(value) and least <= value <= most else None,
            f"a number from {least:g}" + (f" to {most:g}" if most != float("inf") else ""),
        )

    def one_of(self, name: str, allowed: Collection[str]) -> str | None:
        """Read one of several strings."""
        return self._checked(
            name,
            lambda value: value if isinstance(value, str) and value in allowed else None,
            f"one of {', '.join(allowed)}",
        )

    def integer_or_path(self, name: str, allowed: range) -> int | Path | None:
        """Read an integer, or a path to one from the field with the suffix ``Path``."""
        self.at_most_one(name, name + "Path")
        number = self.integer(name, allowed)
        return self.path(name + "Path") if self.has(name + "Path") else number

    def path(self, name: str) -> Path | None:
        """Read a path."""
        return self._compiled(name, compile_path)

    def reference_path(self, name: str) -> ReferencePath | None:
        """Read a reference path."""
        return self._compiled(name, compile_reference_path)

    def expression(self, name: str) -> Expression | None:
        """Read a path or a call of an intrinsic function."""
        return self._compiled(name, lambda text: compile_expression(text, name))

    def template(self, name: str) -> Expression | None:
        """Read a payload template."""
        if not self.has(name):
            return None
        errors: dict[str, str] = {}
        template = compile_payload(self.raw(name), f"{self.location}/{name}", errors)
        for location, message in errors.items():
            self.diagnostics.add(location, message)
        return template

    def object(self, name: str) -> "Fields | None":
        """Read an object."""
        return Fields(self.raw(name), f"{self.location}/{name}", self.diagnostics) if self.has(name) else None

    def objects(self, name: str, least: int = 1) -> list["Fields"]:
        """Read an array of objects."""
        value = self.raw(name)
        if not self.has(name):
            return []
        if not isinstance(value, list) or len(value) < least:
            self.report(name, f"expected an array of at least {least} objects, got {abbreviated(value)}")
            return []
        return [Fields(item, f"{self.location}/{name}/{index}", self.diagnostics) for index, item in enumerate(value)]

    def _checked(self, name: str, check: Callable[[Json], _Value | None], expected: str) -> _Value | None:
        if not self.has(name):
            return None
        value = check(self.raw(name))
        if value is None:
            self.report(name, f"expected {expected}, got {abbreviated(self.raw(name))}")
        return value

    def _compiled(self, name: str, compiler: Callable[[str], _Value]) -> _Value | None:
        text = self.string(name)
        if text is None:
            return None
        try:
            return compiler(text)
        except (PathSyntaxError, ExpressionSyntaxError) as error:
            self.report(name, str(error))
            return None


def abbreviated(value: Json) -> str:
    """Return a value as JSON, shortened for a message."""
    text = dumps(value)
    return text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + "…"
