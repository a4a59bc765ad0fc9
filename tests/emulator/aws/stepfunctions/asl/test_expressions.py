"""JSONPath: paths to one location or several, and reference paths."""

import copy
from typing import Any

import jsonpath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.expressions import (
    NoMatchError,
    PathSyntaxError,
    Scope,
    compile_path,
    compile_reference_path,
)
from emulator.aws.stepfunctions.asl.json_values import json_equal

few = settings(max_examples=50)

NOWHERE = Scope({}, {})
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
names = st.text(st.characters(categories=["Ll", "Nd"], include_characters="_-"), min_size=1, max_size=4)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)


def test_a_path_returns_the_value_at_one_location() -> None:
    data = {"a": {"b c": [10, {"d": None}]}, "x-y": 1, "ü": 2, "it's": 3}
    assert compile_path("$").evaluate(data, NOWHERE) is data
    assert compile_path("$.a['b c'][0]").evaluate(data, NOWHERE) == 10
    assert compile_path('$["a"]["b c"][-1].d').evaluate(data, NOWHERE) is None
    assert compile_path("$.x-y").evaluate(data, NOWHERE) == 1
    assert compile_path("$.ü").evaluate(data, NOWHERE) == 2
    assert compile_path(r"$['it\'s']").evaluate(data, NOWHERE) == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$.a[*].n", [1, 2, 3]),
        ("$..n", [1, 2, 3]),
        ("$.a[0:2].n", [1, 2]),
        ("$.a[0,2].n", [1, 3]),
        ("$.a[?(@.n > 1)].n", [2, 3]),
        ("$.a[?(@.s == 'x')].n", [1]),
        ("$.a[?(@.n > 7)]", []),
    ],
)
def test_a_path_to_several_locations_returns_a_list(text: str, found: list[int]) -> None:
    data = {"a": [{"n": 1, "s": "x"}, {"n": 2}, {"n": 3}]}
    assert compile_path(text).evaluate(data, NOWHERE) == found


def test_the_context_object_and_variables_have_their_own_roots() -> None:
    scope = Scope({"Map": {"Item": {"Index": 3}}}, {"kept": [1, 2]})
    assert compile_path("$$.Map.Item.Index").evaluate({}, scope) == 3
    assert compile_path("$kept[1]").evaluate({}, scope) == 2
    with pytest.raises(NoMatchError):
        compile_path("$other").evaluate({"other": 1}, scope)


@pytest.mark.parametrize("text", ["$.a.x", "$.l[2]", "$.l.a", "$.a[0]", "$.s[0]", "$.l['0']"])
def test_a_path_without_a_match_raises_an_error(text: str) -> None:
    with pytest.raises(NoMatchError):
        compile_path(text).evaluate({"a": {"b": 1}, "l": [1, 2], "s": "text"}, NOWHERE)


@pytest.mark.parametrize("text", ["", "a", "a.b", "$.", "$.a[", "$.a[?", "$.a b", "$a.", "$['a"])
def test_an_invalid_path_does_not_compile(text: str) -> None:
    with pytest.raises(PathSyntaxError):
        compile_path(text)


@pytest.mark.parametrize("text", ["$.a[*]", "$..a", "$$.a", "$a", "$.a[?(@.b)]"])
def test_a_reference_path_names_one_location_of_the_data(text: str) -> None:
    with pytest.raises(PathSyntaxError, match="expected a reference path"):
        compile_reference_path(text)


def places(document: Any, path: str = "$") -> list[str]:
    """Return the paths of all values in a document."""
    found = [path]
    if isinstance(document, dict):
        for name, value in document.items():
            found += places(value, f"{path}.{name}")
    if isinstance(document, list):
        for index, value in enumerate(document):
            found += places(value, f"{path}[{index}]")
    return found


@pytest.mark.parametrize("path", ["$[*]", "$..a", "$[?(@.a)]"])
@pytest.mark.parametrize("document", ["[", '{"a": 1}', "[1]", ""])
def test_a_path_into_a_string_matches_nothing_even_if_it_is_json(path: str, document: str) -> None:
    assert compile_path(path).evaluate(document, NOWHERE) == []


@few
@given(documents.filter(lambda document: not isinstance(document, str)), st.data())
def test_a_direct_walk_returns_what_the_library_returns(document: Any, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(places(document)))
    bracketed = "$" + "".join(
        f"[{step!r}]" if isinstance(step, str) else f"[{step}]" for step in compile_path(path).steps or ()
    )
    assert json_equal(compile_path(path).evaluate(document, NOWHERE), jsonpath.findall(bracketed, document)[0])


@few
@given(documents, st.lists(names, min_size=1, max_size=4), leaves)
def test_put_inserts_the_value_and_changes_nothing_else(document: Any, steps: list[str], value: Any) -> None:
    path = "$." + ".".join(steps)
    before = copy.deepcopy(document)
    try:
        after = compile_reference_path(path).put(document, value)
    except NoMatchError:
        after = None
    assert json_equal(document, before), "documents are never modified in place"
    if after is not None:
        assert json_equal(compile_path(path).evaluate(after, NOWHERE), value)
        assert json_equal({**after, steps[0]: 0}, {**document, steps[0]: 0})


def test_put_creates_missing_objects_but_no_arrays() -> None:
    assert compile_reference_path("$.a.b").put({}, 1) == {"a": {"b": 1}}
    assert compile_reference_path("$.a[1]").put({"a": [1, 2]}, 9) == {"a": [1, 9]}
    for path, document in (("$.a[2]", {"a": [1, 2]}), ("$.a.b", {"a": 1}), ("$.a", [1]), ("$.a[0]", {})):
        with pytest.raises(NoMatchError):
            compile_reference_path(path).put(document, 9)
