"""Queries: what is refused, and that the values that they visit are counted, in filters, too."""

import pytest

from emulator.aws.stepfunctions.asl.evaluation import Evaluation, EvaluationStoppedError, EvaluationTooLongError
from emulator.aws.stepfunctions.asl.expressions import PathSyntaxError, Scope, compile_path
from emulator.aws.stepfunctions.asl.queries import Query

DOCUMENT = {"a": [{"b": 1, "c": [5]}, {"b": 2}], "d": {"b": 3}}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("$[?(@.a =~ /(x+)+y/)]", "regular expressions in filters are not emulated"),
        ("$[?match(@.a, '(x+)+y')]", "regular expressions in filters are not emulated"),
        ("$.a[?(@.b && !search(@.c, 'x'))]", "regular expressions in filters are not emulated"),
        ("$.a[?(@.c[?(@ =~ /x/)])]", "regular expressions in filters are not emulated"),
        ("$.a.* | $.d", "expected one path"),
    ],
)
def test_what_cannot_be_stopped_is_refused(path: str, words: str) -> None:
    with pytest.raises(PathSyntaxError, match=words):
        compile_path(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$..b", [3, 1, 2]),
        ("$.a[?(@.c[?(@ > 4)])].b", [1]),
        ("$.a[?(@.b == $.d.b || @.b == 2)].b", [2]),
        ("$.a[0:1].b", [1]),
        ("$.*.b", [3]),
    ],
)
def test_counting_changes_no_result(text: str, found: list[int]) -> None:
    assert sorted(Query(text).find(DOCUMENT)) == sorted(found)
    assert Query(text).find("a text") == []


def test_work_in_the_event_loop_is_limited_and_in_a_thread_it_can_be_stopped() -> None:
    path, scope = compile_path("$[?(@..*)]"), Scope({}, {})
    large = [[1]] * 6_000
    with pytest.raises(EvaluationTooLongError):
        Evaluation(inline=True).call(path.evaluate, large, scope)
    evaluation = Evaluation(inline=False)
    assert len(evaluation.call(path.evaluate, large, scope)) == len(large)
    evaluation.stop()
    with pytest.raises(EvaluationStoppedError):
        evaluation.call(path.evaluate, large, scope)
    assert Evaluation(inline=True).call(path.evaluate, large[:3], scope) == large[:3]
