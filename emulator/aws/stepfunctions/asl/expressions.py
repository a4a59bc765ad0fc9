"""Expressions of the language: JSONPath, payload templates and calls of intrinsic functions.

Most paths name one location, such as ``$.a.b[0]``, and are walked directly. The others (wildcards, slices, filters,
descent) are queries and return a list of all matches.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from emulator.aws.stepfunctions.asl.evaluation import MOST_VISITED, TooManyVisitsError, present_evaluation
from emulator.aws.stepfunctions.asl.failures import INTRINSIC_FAILURE, RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.intrinsics import INTRINSICS, Intrinsic, IntrinsicError
from emulator.aws.stepfunctions.asl.json_values import Json, dumps
from emulator.aws.stepfunctions.asl.queries import (
    MOST_MATCHES,
    Query,
    QuerySyntaxError,
    TooDeepError,
    TooManyMatchesError,
)

_ROOT = re.compile(r"\$\$|\$(?P<variable>[A-Za-z_][A-Za-z0-9_]*)?")
_STEP = re.compile(
    r"""\.(?P<name>[^\s.\[\]()*?@,:'"$&|=<>!]+)"""
    r"""|\[(?P<index>-?\d+)\]"""
    r"""|\['(?P<single>(?:[^'\\]|\\.)*)'\]"""
    r"""|\["(?P<double>(?:[^"\\]|\\.)*)"\]"""
)
_ESCAPE = re.compile(r"\\(.)")
_NAME = re.compile(r"States\.[A-Za-z0-9]+")
_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'")
_WORD = re.compile(r"[^\s,()]+")
_SPACE = re.compile(r"\s*")
_MESSAGE_CHARACTERS = 500
# AWS's limit on nested calls.
_MAX_DEPTH = 10


class PathSyntaxError(ValueError):
    """A path is invalid."""


class NoMatchError(LookupError):
    """A path matches nothing in a value."""


@dataclass(frozen=True)
class Scope:
    """The values that expressions can use in addition to the state's data.

    Parameters
    ----------
    context
        The context object, ``$$``.
    variables
        The variables set by Assign, ``$name``.
    """

    context: Mapping[str, Json]
    variables: Mapping[str, Json]


@dataclass(frozen=True)
class Path:
    """A compiled path.

    Parameters
    ----------
    text
        The path as written in the definition.
    root
        ``$`` for the state's data, ``$$`` for the context object, or the name of a variable.
    steps
        The names and indices of a path to one location, otherwise None.
    query
        The query for any other path.
    """

    text: str
    root: str
    steps: tuple[str | int, ...] | None
    query: Query | None = None

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the value at the path. A path that may match several locations returns a list of all matches.

        Raises
        ------
        NoMatchError
            If a path to one location matches nothing.
        StateFailure
            If a query matches or visits too many values.
        """
        value = self._start(data, scope)
        if self.query is not None:
            try:
                return self.query.find(value)
            except TooManyMatchesError:
                raise self._too_much(f"matches more than {MOST_MATCHES}") from None
            except TooDeepError:
                raise StateFailure(
                    RUNTIME, f"The JSONPath '{self.text}' is applied to values that are nested too deeply for .."
                ) from None
            except TooManyVisitsError:
                raise self._too_much(f"visits more than {MOST_VISITED}") from None
        for step in self.steps or ():
            value = self._child(value, step)
        return value

    def _too_much(self, what: str) -> StateFailure:
        return StateFailure(RUNTIME, f"The JSONPath '{self.text}' {what} values: use a path with fewer wildcards or ..")

    def _child(self, value: Json, step: str | int) -> Json:
        if isinstance(value, dict) and isinstance(step, str) and step in value:
            return value[step]
        if isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
            return value[step]
        raise NoMatchError(self.text)

    def _start(self, data: Json, scope: Scope) -> Json:
        if self.root == "$":
            return data
        if self.root == "$$":
            return scope.context
        if self.root not in scope.variables:
            raise NoMatchError(self.text)
        return scope.variables[self.root]


def compile_path(text: str) -> Path:
    """Compile a path.

    Raises
    ------
    PathSyntaxError
        If the path is invalid.
    """
    root = _ROOT.match(text)
    if root is None:
        raise PathSyntaxError(f"expected a JSONPath that starts with $, got {text!r}")
    start = root["variable"] or root[0]
    steps = _steps(text[root.end() :])
    if steps is not None:
        return Path(text, start, steps)
    try:
        return Path(text, start, None, Query("$" + text[root.end() :]))
    except QuerySyntaxError as error:
        raise PathSyntaxError(f"invalid JSONPath {text!r}: {error}") from None


def _steps(text: str) -> tuple[str | int, ...] | None:
    """Return the steps of a path to one location, or None for any other path."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            return None
        if step["index"] is not None:
            steps.append(int(step["index"]))
        elif step["name"] is not None:
            steps.append(step["name"])
        else:
            steps.append(_ESCAPE.sub(r"\1", step["single"] if step["single"] is not None else step["double"]))
        position = step.end()
    return tuple(steps)


@dataclass(frozen=True)
class ReferencePath:
    """A path to one location of the state's data, at which a value can be inserted.

    Parameters
    ----------
    text
        The path as written in the definition.
    steps
        The names and indices of the path.
    """

    text: str
    steps: tuple[str | int, ...]

    def put(self, document: Json, value: Json) -> Json:
        """Return a copy of a document with a value at the path. Missing objects on the path are created.

        Raises
        ------
        NoMatchError
            If a name is applied to a value that is not an object, or an index is outside an array.
        """
        return self._put(document, self.steps, value)

    def _put(self, document: Json, steps: tuple[str | int, ...], value: Json) -> Json:
        if not steps:
            return value
        step, rest = steps[0], steps[1:]
        if isinstance(step, str) and isinstance(document, dict):
            return {**document, step: self._put(document.get(step, {}), rest, value)}
        if isinstance(step, int) and isinstance(document, list) and -len(document) <= step < len(document):
            changed = list(document)
            changed[step] = self._put(document[step], rest, value)
            return changed
        raise NoMatchError(self.text)


def compile_reference_path(text: str) -> ReferencePath:
    """Compile a reference path.

    Raises
    ------
    PathSyntaxError
        If the path is invalid or may match several locations.
    """
    path = compile_path(text)
    if path.root != "$" or path.steps is None:
        raise PathSyntaxError(f"expected a reference path, which names one location of the state's data, got {text!r}")
    return ReferencePath(text, path.steps)


ROOT_PATH = compile_path("$")
ROOT_REFERENCE = ReferencePath("$", ())


class ExpressionSyntaxError(ValueError):
    """A string is neither a valid path nor a valid call of an intrinsic function."""


class Expression(Protocol):
    """An expression, evaluated on a state's data."""

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the value.

        Raises
        ------
        StateFailure
            If a path matches nothing, or the arguments of a function are invalid.
        """


@dataclass(frozen=True)
class Constant:
    """A literal value."""

    value: Json

    def evaluate(self, _: Json, __: Scope) -> Json:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class PathExpression:
    """The value at a path.

    Parameters
    ----------
    path
        The path.
    field
        The field that contains the path, for the error message.
    """

    path: Path
    field: str

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the value at the path."""
        try:
            return self.path.evaluate(data, scope)
        except NoMatchError:
            shown = dumps(dict(scope.context) if self.path.root == "$$" else data)
            shown = shown if len(shown) <= _MESSAGE_CHARACTERS else shown[:_MESSAGE_CHARACTERS] + "…"
            raise StateFailure(
                RUNTIME,
                f"The JSONPath '{self.path.text}' specified for the field '{self.field}' could not be found "
                f"in the input '{shown}'",
            ) from None


@dataclass(frozen=True)
class IntrinsicCall:
    """A call of an intrinsic function."""

    function: Intrinsic
    arguments: tuple[Expression, ...]

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the function's value."""
        values = [argument.evaluate(data, scope) for argument in self.arguments]
        present_evaluation().begin(values)
        try:
            return self.function(*values)
        except IntrinsicError as error:
            raise StateFailure(INTRINSIC_FAILURE, str(error)) from None


@dataclass(frozen=True)
class ObjectTemplate:
    """An object with expressions in its fields."""

    fields: tuple[tuple[str, Expression], ...]

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the object with its expressions evaluated."""
        return {name: field.evaluate(data, scope) for name, field in self.fields}


@dataclass(frozen=True)
class ArrayTemplate:
    """An array with expressions in its items."""

    items: tuple[Expression, ...]

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the array with its expressions evaluated."""
        return [item.evaluate(data, scope) for item in self.items]


def compile_expression(text: str, field: str) -> Expression:
    """Compile a path or a call of an intrinsic function.

    Parameters
    ----------
    text
        The expression as written in the definition.
    field
        The field that contains it, for error messages.

    Raises
    ------
    ExpressionSyntaxError
        If the text is neither a valid path nor a valid call.
    """
    if text.startswith("$"):
        return _compile_path_expression(text, field)
    parser = _CallParser(text, field)
    call = parser.call(1)
    if parser.position != len(text):
        raise ExpressionSyntaxError(f"unexpected {text[parser.position :]!r} after the call in {text!r}")
    return call


def _compile_path_expression(text: str, field: str) -> PathExpression:
    try:
        return PathExpression(compile_path(text), field)
    except PathSyntaxError as error:
        raise ExpressionSyntaxError(str(error)) from None


class _CallParser:
    """Parses ``States.Name(argument, …)`` from left to right."""

    def __init__(self, text: str, field: str) -> None:
        self._text = text
        self._field = field
        self.position = 0

    def call(self, depth: int) -> IntrinsicCall:
        name = _NAME.match(self._text, self.position)
        if name is None:
            raise self._syntax_error(
                "a JSONPath that starts with $, or a call of an intrinsic function such as States.Format"
            )
        function = INTRINSICS.get(name[0])
        if function is None:
            raise ExpressionSyntaxError(
                f"unknown intrinsic function {name[0]}: expected one of {', '.join(INTRINSICS)}"
            )
        if depth > _MAX_DEPTH:
            raise ExpressionSyntaxError(f"expected at most {_MAX_DEPTH} nested calls in {self._text!r}")
        self.position = name.end()
        arguments = tuple(self._arguments(function, depth))
        if len(arguments) not in function.arguments:
            raise ExpressionSyntaxError(
                f"{function.name}: expected {_count(function.arguments)} arguments, got {len(arguments)} "
                f"in {self._text!r}"
            )
        return IntrinsicCall(function, arguments)

    def _arguments(self, function: Intrinsic, depth: int) -> list[Expression]:
        self._expect("(")
        arguments: list[Expression] = []
        if self._peek() == ")":
            self.position += 1
            return arguments
        while True:
            arguments.append(self._argument(function, depth))
            self._skip_space()
            if self._peek() == ")":
                self.position += 1
                return arguments
            self._expect(",")

    def _argument(self, function: Intrinsic, depth: int) -> Expression:
        self._skip_space()
        following = self._peek()
        if following == "'":
            return Constant(self._literal(keep_escapes=function.name == "States.Format"))
        if following == "$":
            return _compile_path_expression(self._path(), self._field)
        if _NAME.match(self._text, self.position):
            return self.call(depth + 1)
        word = _WORD.match(self._text, self.position)
        try:
            value = json.loads(word[0] if word else "")
        except ValueError:
            value = ""
        if word is None or isinstance(value, str | list | dict):
            raise self._syntax_error("an argument: a 'string', a number, true, false, null, a JSONPath or a call")
        self.position = word.end()
        return Constant(value)

    def _literal(self, *, keep_escapes: bool) -> str:
        literal = _LITERAL.match(self._text, self.position)
        if literal is None:
            raise self._syntax_error("the closing ' of a string")
        wrong = next((found[0] for found in _ESCAPE.finditer(literal[1]) if found[1] not in "'{}\\"), None)
        if wrong is not None:
            raise ExpressionSyntaxError(rf"expected \', \{{, \}} or \\ in a string, got {wrong} in {self._text!r}")
        self.position = literal.end()
        # States.Format resolves the escapes itself: it distinguishes {} from escaped braces.
        return literal[1] if keep_escapes else _ESCAPE.sub(r"\1", literal[1])

    def _path(self) -> str:
        """Return the path at the current position, up to a comma or closing parenthesis outside of it."""
        start, depth, quote = self.position, 0, ""
        while self.position < len(self._text):
            character = self._text[self.position]
            if quote:
                quote = "" if character == quote else quote
            elif character in "'\"":
                quote = character
            elif depth == 0 and character in ",)":
                break
            elif character in "[(":
                depth += 1
            elif character in "])":
                depth -= 1
            self.position += 1
        return self._text[start : self.position].rstrip()

    def _peek(self) -> str:
        self._skip_space()
        return self._text[self.position : self.position + 1]

    def _expect(self, character: str) -> None:
        if self._peek() != character:
            raise self._syntax_error(repr(character))
        self.position += 1

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self.position)
        self.position = space.end() if space else self.position

    def _syntax_error(self, expected: str) -> ExpressionSyntaxError:
        found = self._text[self.position : self.position + 20] or "the end"
        return ExpressionSyntaxError(f"expected {expected} at {found!r} in {self._text!r}")


def _count(allowed: range) -> str:
    if len(allowed) == 1:
        return str(allowed[0])
    return f"{allowed[0]} or {allowed[-1]}" if len(allowed) == 2 else f"at least {allowed[0]}"


def compile_template(value: Json, location: str, errors: dict[str, str]) -> Expression:
    """Compile a payload template.

    Parameters
    ----------
    value
        The template.
    location
        The template's location in the definition.
    errors
        Collects the errors: location to message.

    Returns
    -------
    Expression
        Parts without expressions are constants, shared by all evaluations.
    """
    if isinstance(value, list):
        items = tuple(compile_template(item, f"{location}/{index}", errors) for index, item in enumerate(value))
        return Constant(value) if all(isinstance(item, Constant) for item in items) else ArrayTemplate(items)
    if not isinstance(value, dict):
        return Constant(value)
    fields: list[tuple[str, Expression]] = []
    for name, part in value.items():
        inner = f"{location}/{name}"
        if not name.endswith(".$"):
            fields.append((name, compile_template(part, inner, errors)))
        elif not isinstance(part, str):
            errors[inner] = f"expected a JSONPath or a call of an intrinsic function, got {dumps(part)}"
        else:
            try:
                fields.append((name[:-2], compile_expression(part, name)))
            except ExpressionSyntaxError as error:
                errors[inner] = str(error)
    static = not any(name.endswith(".$") for name in value) and all(isinstance(part, Constant) for _, part in fields)
    return Constant(value) if static else ObjectTemplate(tuple(fields))
