"""JSONPath: compiled once, evaluated often.

Nearly all paths name one place, such as ``$.a.b[0]``: those are walked directly. The others (wildcards, slices,
filters, descent) are left to the python-jsonpath library and give a list of what they find.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from emulator.aws.stepfunctions.asl.json_values import Json

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
    """Take a path that names one place apart; None for any other."""
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
    """A path that names one place of the state's data, where a value can be put.

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
        raise PathSyntaxError(f"expected a reference path, which means one place of the state's data, got {text!r}")
    return ReferencePath(text, path.steps)


WHOLE = compile_path("$")
