"""Expressions of the language: JSONPath, payload templates and calls of intrinsic functions.

Most paths name one location, such as ``$.a.b[0]``, and are walked directly. The others (wildcards, slices, filters,
descent) are evaluated by the python-jsonpath library and return a list of all matches.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from emulator.aws.stepfunctions.asl.failures import INTRINSIC_FAILURE, RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.intrinsics import INTRINSICS, Intrinsic, IntrinsicError
from emulator.aws.stepfunctions.asl.json_values import Json, dumps

if TYPE_CHECKING:
    import jsonpath

    _Query: TypeAlias = jsonpath.JSONPath | jsonpath.CompoundJSONPath

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
_LONGEST_SHOWN = 500
# AWS's limit on calls within calls.
_DEEPEST = 10


class PathSyntaxError(ValueError):
    """A text is no path."""


class NoMatchError(LookupError):
    """A path leads nowhere in the value it was evaluated on."""


@dataclass(frozen=True)
class Scope:
    """What expressions can reach besides the state's data.

    Parameters
    ----------
    context
        The context object, ``$$``.
    variables
        What Assign has set, ``$name``.
    """

    context: Mapping[str, Json]
    variables: Mapping[str, Json]


@dataclass(frozen=True)
class Path:
    """A path, compiled.

    Parameters
    ----------
    text
        As it is written.
    root
        ``$`` for the state's data, ``$$`` for the context object, or the name of a variable.
    steps
        Names and indices on the way, or None when the path is not of that kind.
    query
        The library's form of it then.
    """

    text: str
    root: str
    steps: tuple[str | int, ...] | None
    query: "_Query | None" = None

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return what lies at the path; a list of all there is when the path may mean several places.

        Raises
        ------
        NoMatchError
            When nothing lies there.
        """
        value = self._start(data, scope)
        if self.query is not None:
            # Nothing lies in a text; the library would take it for JSON.
            return [] if isinstance(value, str) else self.query.findall(value)
        for step in self.steps or ():
            value = self._child(value, step)
        return value

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
        When the text is none; its message says why.
    """
    root = _ROOT.match(text)
    if root is None:
        raise PathSyntaxError(f"expected a JSONPath that starts with $, got {text!r}")
    start = root["variable"] or root[0]
    steps = _steps(text[root.end() :])
    if steps is not None:
        return Path(text, start, steps)
    # Importing it takes as long as an endpoint's start has left over, and few definitions need it.
    import jsonpath

    try:
        query = jsonpath.compile("$" + text[root.end() :])
    except jsonpath.JSONPathError as error:
        raise PathSyntaxError(f"{text!r} is no valid JSONPath: {str(error).splitlines()[0]}") from None
    return Path(text, start, None, query)


def _steps(text: str) -> tuple[str | int, ...] | None:
    """Take a path that names one location apart; None for any other."""
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
    """A path that names one location of the state's data, where a value can be put.

    Parameters
    ----------
    text
        As it is written.
    steps
        Names and indices on the way.
    """

    text: str
    steps: tuple[str | int, ...]

    def put(self, document: Json, value: Json) -> Json:
        """Return the document with a value at the path; objects that are missing on the way are made.

        The document itself stays as it is.

        Raises
        ------
        NoMatchError
            When the way leads through something that is no object, or past the end of an array.
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
        When the text is no path, or one that may mean several places.
    """
    path = compile_path(text)
    if path.root != "$" or path.steps is None:
        raise PathSyntaxError(f"expected a reference path, which means one location of the state's data, got {text!r}")
    return ReferencePath(text, path.steps)


ROOT_PATH = compile_path("$")
ROOT_REFERENCE = ReferencePath("$", ())


class ExpressionSyntaxError(ValueError):
    """A text is neither a path nor a call of an intrinsic function."""


class Expression(Protocol):
    """Something that has a value once the state's data are known."""

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the value.

        Raises
        ------
        StateFailure
            When a path leads nowhere or a function cannot be applied.
        """


@dataclass(frozen=True)
class Constant:
    """A value that is written out."""

    value: Json

    def evaluate(self, _: Json, __: Scope) -> Json:
        """Return the value."""
        return self.value


@dataclass(frozen=True)
class PathExpression:
    """What lies at a path.

    Parameters
    ----------
    path
        The path.
    field
        The field it stands in, for the message when nothing lies there.
    """

    path: Path
    field: str

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return what lies there."""
        try:
            return self.path.evaluate(data, scope)
        except NoMatchError:
            shown = dumps(dict(scope.context) if self.path.root == "$$" else data)
            shown = shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"
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
        try:
            return self.function(*values)
        except IntrinsicError as error:
            raise StateFailure(INTRINSIC_FAILURE, str(error)) from None


@dataclass(frozen=True)
class ObjectTemplate:
    """An object with fields to fill."""

    fields: tuple[tuple[str, Expression], ...]

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the filled object."""
        return {name: field.evaluate(data, scope) for name, field in self.fields}


@dataclass(frozen=True)
class ArrayTemplate:
    """An array with objects to fill."""

    items: tuple[Expression, ...]

    def evaluate(self, data: Json, scope: Scope) -> Json:
        """Return the filled array."""
        return [item.evaluate(data, scope) for item in self.items]


def compile_expression(text: str, field: str) -> Expression:
    """Compile a path or a call.

    Parameters
    ----------
    text
        As it is written.
    field
        The field it stands in.

    Raises
    ------
    ExpressionSyntaxError
        When the text is neither; its message says why.
    """
    if text.startswith("$"):
        return _at(text, field)
    reader = _CallParser(text, field)
    call = reader.call(1)
    if reader.position != len(text):
        raise ExpressionSyntaxError(f"unexpected {text[reader.position :]!r} after the call in {text!r}")
    return call


def _at(text: str, field: str) -> PathExpression:
    try:
        return PathExpression(compile_path(text), field)
    except PathSyntaxError as error:
        raise ExpressionSyntaxError(str(error)) from None


class _CallParser:
    """Reads ``States.Name(argument, …)`` from left to right."""

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
            raise ExpressionSyntaxError(f"there is no intrinsic function {name[0]}; there are {', '.join(INTRINSICS)}")
        if depth > _DEEPEST:
            raise ExpressionSyntaxError(f"calls within calls: at most {_DEEPEST}, in {self._text!r}")
        self.position = name.end()
        arguments = tuple(self._arguments(function, depth))
        if len(arguments) not in function.arguments:
            raise ExpressionSyntaxError(
                f"{function.name} takes {_count(function.arguments)} arguments, got {len(arguments)} in {self._text!r}"
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
            return _at(self._path(), self._field)
        if _NAME.match(self._text, self.position):
            return self.call(depth + 1)
        word = _WORD.match(self._text, self.position)
        try:
            value = json.loads(word[0] if word else "")
        except ValueError:
            value = ""
        if word is None or isinstance(value, str | list | dict):
            raise self._syntax_error("an argument: a 'text', a number, true, false, null, a JSONPath or a call")
        self.position = word.end()
        return Constant(value)

    def _literal(self, *, keep_escapes: bool) -> str:
        literal = _LITERAL.match(self._text, self.position)
        if literal is None:
            raise self._syntax_error("the ' that ends a text")
        wrong = next((found[0] for found in _ESCAPE.finditer(literal[1]) if found[1] not in "'{}\\"), None)
        if wrong is not None:
            raise ExpressionSyntaxError(rf"expected \', \{{, \}} or \\ in a text, got {wrong} in {self._text!r}")
        self.position = literal.end()
        # Format tells its own {} from those that are meant as such.
        return literal[1] if keep_escapes else _ESCAPE.sub(r"\1", literal[1])

    def _path(self) -> str:
        """Return the path that begins here: it ends before a comma or bracket that is not inside it."""
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
        found = self._text[self.position : self.position + 20] or "its end"
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
        Where it stands in the definition.
    wrong
        Gets the mistakes: location to message.

    Returns
    -------
    Expression
        Parts without a field to fill are constants, shared by all evaluations.
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
