"""Queries: JSONPaths that may match several locations, compiled and evaluated by the python-jsonpath library.

A query counts the values that it visits, its filters included, so that it can be limited and stopped. The library is
imported on demand: the import is slow, and few definitions need it.
"""

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from emulator.aws.stepfunctions.asl.evaluation import Evaluation, present_evaluation
from emulator.aws.stepfunctions.asl.json_values import Json

if TYPE_CHECKING:
    import jsonpath
    from jsonpath.segments import JSONPathSegment

# More values do not fit into the data of a state: each takes two bytes.
MOST_MATCHES = 128 * 1024
_WITH_PATTERNS = ("match", "search")


class QuerySyntaxError(ValueError):
    """A query is invalid, or not emulated."""


class TooDeepError(Exception):
    """The values in which a query descends are nested too deeply."""


class TooManyMatchesError(Exception):
    """A query matches more values than the data of a state can have."""


class Query:
    """A compiled query.

    Parameters
    ----------
    text
        The query, which starts with ``$``.

    Raises
    ------
    QuerySyntaxError
        If it is invalid, or not emulated.
    """

    def __init__(self, text: str) -> None:
        import jsonpath

        try:
            compiled = jsonpath.compile(text)
        except jsonpath.JSONPathError as error:
            raise QuerySyntaxError(str(error).splitlines()[0]) from None
        if not isinstance(compiled, jsonpath.JSONPath):
            raise QuerySyntaxError("expected one path, got several, joined by | or &")
        _count_visits(compiled)
        self._segments = compiled.segments

    def find(self, value: Json) -> list[Json]:
        """Return all matches.

        Raises
        ------
        TooManyMatchesError
            If there are more than `MOST_MATCHES`.
        TooDeepError
            If the value is nested too deeply for a descent.
        TooManyVisitsError, EvaluationTooLongError, EvaluationStoppedError
            As `Evaluation`.
        """
        from jsonpath.exceptions import JSONPathRecursionError
        from jsonpath.match import JSONPathMatch

        if isinstance(value, str):
            # A string has no members.
            return []
        present_evaluation().begin(value)
        matches: Iterable[JSONPathMatch] = [
            JSONPathMatch(filter_context={}, obj=value, parent=None, path="$", parts=(), root=value)
        ]
        for segment in self._segments:
            matches = segment.resolve(matches)
        found: list[Json] = []
        try:
            for match in matches:
                if len(found) == MOST_MATCHES:
                    raise TooManyMatchesError
                found.append(match.obj)
        except JSONPathRecursionError:
            raise TooDeepError from None
        return found


class _CountingSegment:
    """A segment of a query that counts the values that it visits."""

    __slots__ = ("_segment", "selectors")

    def __init__(self, segment: "JSONPathSegment") -> None:
        self._segment = segment
        self.selectors = segment.selectors

    def __str__(self) -> str:
        return str(self._segment)

    def resolve(self, nodes: Iterable[Any]) -> Iterable[Any]:
        evaluation = present_evaluation()
        match_class = _counting_match()
        return self._segment.resolve(
            node if isinstance(node, match_class) else match_class.of(node, evaluation) for node in nodes
        )


@cache
def _counting_match() -> Any:
    """Return the class of values that count those which are selected in them or visited by a descent."""
    from jsonpath.match import JSONPathMatch

    class CountingMatch(JSONPathMatch):
        __slots__ = ("evaluation",)
        evaluation: Evaluation

        @classmethod
        def of(cls, node: JSONPathMatch, evaluation: Evaluation) -> "CountingMatch":
            found = cls(
                filter_context=node.filter_context(),
                obj=node.obj,
                parent=node.parent,
                path=node.path,
                parts=node.parts,
                root=node.root,
            )
            found.evaluation = evaluation
            evaluation.visit(node.obj)
            return found

        def new_child(self, obj: object, key: int | str) -> JSONPathMatch:
            self.evaluation.visit(obj)
            child = super().new_child(obj, key)
            assert isinstance(child, CountingMatch)  # noqa: S101 - it makes objects of its own class
            child.evaluation = self.evaluation
            return child

    return CountingMatch


def _count_visits(path: "jsonpath.JSONPath") -> None:
    """Have a path and those in its filters count.

    Raises
    ------
    QuerySyntaxError
        If a filter has a regular expression.
    """
    for segment in path.segments:
        for selector in segment.selectors:
            if (expression := getattr(selector, "expression", None)) is not None:
                _count_visits_of_filter(expression)
            if (query := getattr(selector, "query", None)) is not None:
                _count_visits(query)
    segments: Any = tuple(map(_CountingSegment, path.segments))
    path.segments = segments


def _count_visits_of_filter(expression: Any) -> None:
    from jsonpath import filter as filters

    if isinstance(expression, filters.RegexLiteral) or getattr(expression, "name", "") in _WITH_PATTERNS:
        # Python's cannot be stopped, and no other thread runs meanwhile.
        raise QuerySyntaxError("regular expressions in filters are not emulated: compare the values in a Choice state")
    if isinstance(expression, filters.FilterQuery):
        _count_visits(expression.path)
        return
    for child in expression.children():
        _count_visits_of_filter(child)
