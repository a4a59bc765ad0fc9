"""JSON values, paths, templates, intrinsic functions and items at their limits."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.definition import ItemReader
from emulator.aws.stepfunctions.asl.expressions import (
    Constant,
    ExpressionSyntaxError,
    NoMatchError,
    Scope,
    compile_expression,
    compile_path,
    compile_reference_path,
    compile_template,
)
from emulator.aws.stepfunctions.asl.failures import RUNTIME, StateFailure
from emulator.aws.stepfunctions.asl.intrinsics import INTRINSICS, IntrinsicError
from emulator.aws.stepfunctions.asl.items import ItemsError, Tolerance, batches, read_items
from emulator.aws.stepfunctions.asl.json_values import Json, exceeds, is_number, json_equal, loads, parse_timestamp

few = settings(max_examples=40)
NOWHERE = Scope({}, {})


def call(text: str, data: Any = None) -> Any:
    return compile_expression(text, "x.$").evaluate(data, NOWHERE)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        (False, True, False),
        (None, None, True),
        (None, False, False),
        ("1", 1, False),
        ([1, 2], [1, 2.0], True),
        ([1, 2], [1], False),
        ([True], [1], False),
        ([], {}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": [True]}, {"a": [1]}, False),
    ],
)
def test_json_values_are_equal_by_type_and_value(one: Any, other: Any, equal: bool) -> None:
    assert json_equal(one, other) is equal
    assert json_equal(other, one) is equal


@pytest.mark.parametrize(("value", "number"), [(1, True), (1.5, True), (True, False), ("1", False), (None, False)])
def test_integers_and_floats_are_numbers(value: Any, number: bool) -> None:
    assert is_number(value) is number


@pytest.mark.parametrize("text", ["NaN", "Infinity", "[-Infinity]", "{", "[" * 100_000, ""])
def test_what_is_not_json_raises_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+02:00", datetime(2026, 1, 31, 12, 0, 0, 500_000, timezone(timedelta(hours=2)))),
        ("2026-02-30T12:00:00Z", None),
        ("2026-01-31T12:00:00", None),
        ("2026-01-31t12:00:00Z", None),
        ("2026-01-31T12:00:00Z ", None),
        (20260131, None),
    ],
)
def test_a_timestamp_is_of_rfc_3339(text: Any, expected: datetime | None) -> None:
    assert parse_timestamp(text) == expected


def test_negative_indices_count_from_the_end() -> None:
    data = [1, 2, 3]
    assert [compile_path(f"$[{index}]").evaluate(data, NOWHERE) for index in (-3, -1, 0, 2)] == [1, 3, 1, 3]
    for index in (-4, 3):
        with pytest.raises(NoMatchError):
            compile_path(f"$[{index}]").evaluate(data, NOWHERE)
        with pytest.raises(NoMatchError):
            compile_reference_path(f"$[{index}]").put(data, 9)
    assert compile_reference_path("$[-3]").put(data, 9) == [9, 2, 3]
    assert compile_reference_path("$[2].a").put([1, 2, {}], 9) == [1, 2, {"a": 9}]
    assert data == [1, 2, 3]


def test_a_path_keeps_its_text_root_and_steps() -> None:
    path = compile_path("$.a[0]['b\\'c'][\"d\"]")
    assert (path.text, path.root, path.steps, path.query) == ("$.a[0]['b\\'c'][\"d\"]", "$", ("a", 0, "b'c", "d"), None)
    assert (compile_path("$$.a").root, compile_path("$v.a").root) == ("$$", "v")
    several = compile_path("$.a[*]")
    assert (several.steps, several.query is None) == (None, False)
    assert compile_path("$$.a[*]").evaluate({}, Scope({"a": [1, 2]}, {})) == [1, 2]
    reference = compile_reference_path("$.a.b")
    assert (reference.text, reference.steps) == ("$.a.b", ("a", "b"))


def test_a_missing_value_fails_with_the_input_in_the_message() -> None:
    with pytest.raises(StateFailure) as raised:
        call("$.b", {"a": "x" * 492})  # 500 characters as JSON
    assert raised.value.error == RUNTIME
    assert raised.value.cause == (
        "The JSONPath '$.b' specified for the field 'x.$' could not be found in the input "
        f"'{json.dumps({'a': 'x' * 492}, separators=(',', ':'))}'"
    )
    with pytest.raises(StateFailure) as raised:
        call("$.b", {"a": "x" * 493})
    assert (raised.value.cause or "").endswith("x" * 493 + '"…' + "'")
    with pytest.raises(StateFailure, match=r"in the input '\{\"c\":1\}'"):
        compile_expression("$$.b", "x.$").evaluate({"d": 2}, Scope({"c": 1}, {}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("States.Array(1,-2.5,true,false,null)", [1, -2.5, True, False, None]),
        ("States.Array( 1 , 'a' )", [1, "a"]),
        ("States.Array($.l[0],$.o['x,)y'])", [7, 8]),
        ('States.Array($.o["x,)y"] , 1)', [8, 1]),
        ("States.Array($.l[?(@ == 7)], 1)", [[7], 1]),
        ("States.Array($ , $.l)", [{"l": [7], "o": {"x,)y": 8}}, [7]]),
        ("States.Array(States.Array(), States.Array(1))", [[], [1]]),
        ("States.Array('')", [""]),
        ("States.Array( )", []),
        ("States.Array('it\\'s')", ["it's"]),
    ],
)
def test_arguments_of_a_call_are_literals_paths_and_calls(text: str, expected: list[Any]) -> None:
    assert json_equal(call(text, {"l": [7], "o": {"x,)y": 8}}), expected)


def test_calls_may_be_nested_ten_deep() -> None:
    result = call("States.Array(" * 10 + ")" * 10)
    for _ in range(9):
        (result,) = result
    assert result == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("States.Array 1", "expected '(' at '1' in 'States.Array 1'"),
        ("States.Array(1 2)", "expected ',' at '2)' in"),
        ("States.Array(1", "at 'the end' in"),
        ('States.Array("a")', "an argument: a 'string'"),
        ("States.Array([1])", "an argument: a 'string'"),
        ("States.Array(1, abcdefghijklmnopqrstuvwxyz)", "at 'abcdefghijklmnopqrst' in"),
        ("States.MathAdd(1)", "States.MathAdd: expected 2 arguments, got 1"),
        ("States.Array('\\x')", r"expected \', \{, \} or \\ in a string, got \x in"),
        ("x", "a JSONPath that starts with $"),
    ],
)
def test_a_syntax_error_shows_what_was_expected_and_where(text: str, message: str) -> None:
    with pytest.raises(ExpressionSyntaxError) as raised:
        compile_expression(text, "x.$")
    assert message in str(raised.value)


def test_a_template_has_its_expressions_replaced() -> None:
    errors: dict[str, str] = {}
    template = compile_template({"a.$": "$.x", "b": [1, {"c.$": "$.y"}], "d": {"e": 2}}, "/P", errors)
    assert template.evaluate({"x": 5, "y": 6}, NOWHERE) == {"a": 5, "b": [1, {"c": 6}], "d": {"e": 2}}
    assert errors == {}
    static = {"b": [1, {"c": "$.y"}]}
    constant = compile_template(static, "/P", errors)
    assert isinstance(constant, Constant)
    assert constant.value is static
    compile_template({"l": [0, {"x.$": 5}], "y.$": "States.No()"}, "/P", errors)
    assert sorted(errors) == ["/P/l/1/x.$", "/P/y.$"]
    assert errors["/P/l/1/x.$"] == "expected a JSONPath or a call of an intrinsic function, got 5"


# The numbers of arguments of each function: https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html
COUNTS = {
    "Format": (1, None),
    "StringToJson": (1, 1),
    "JsonToString": (1, 1),
    "Array": (0, None),
    "ArrayPartition": (2, 2),
    "ArrayContains": (2, 2),
    "ArrayRange": (3, 3),
    "ArrayGetItem": (2, 2),
    "ArrayLength": (1, 1),
    "ArrayUnique": (1, 1),
    "Base64Encode": (1, 1),
    "Base64Decode": (1, 1),
    "Hash": (2, 2),
    "JsonMerge": (3, 3),
    "MathRandom": (2, 3),
    "MathAdd": (2, 2),
    "StringSplit": (2, 2),
    "UUID": (0, 0),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_each_function_has_its_number_of_arguments(name: str) -> None:
    least, most = COUNTS[name]
    for count in range(6):
        text = f"States.{name}({', '.join(['$'] * count)})"
        if least <= count and (most is None or count <= most):
            compile_expression(text, "x.$")
        else:
            with pytest.raises(ExpressionSyntaxError, match=f"arguments, got {count} "):
                compile_expression(text, "x.$")
    assert set(INTRINSICS) == {f"States.{each}" for each in COUNTS}


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("States.MathAdd($, 0)", 2**31 - 1, 2**31 - 1),
        ("States.MathAdd($, 0)", -(2**31), -(2**31)),
        ("States.MathAdd(1.4, 2.6)", None, 4),
        ("States.MathAdd(2, 3)", None, 5),
        ("States.ArrayRange(1, 1000, 1)", None, list(range(1, 1001))),
        ("States.ArrayRange(1, 2, 3)", None, [1]),
        ("States.ArrayRange(1, 4, 3)", None, [1, 4]),
        ("States.ArrayRange(4, 1, -3)", None, [4, 1]),
        ("States.ArrayRange(2, 1, 1)", None, []),
        ("States.ArrayPartition($, 1)", [1, 2], [[1], [2]]),
        ("States.ArrayPartition($, 5)", [], []),
        ("States.ArrayContains($, 1)", [True, "1"], False),
        ("States.ArrayContains($, 1)", [2, 1.0], True),
        ("States.ArrayGetItem($, 0)", [7, 8], 7),
        (
            "States.ArrayUnique($)",
            [[1.0], [1], [True], {"a": 2.0}, {"a": 2}, 1.5, 1.5],
            [[1.0], [True], {"a": 2.0}, 1.5],
        ),
        ("States.Hash($, 'MD5')", {"a": 1}, "bb6cb5c68df4652941caf652a366f2d8"),
        ("States.Hash('', 'SHA-256')", None, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("States.StringToJson('')", None, None),
        ("States.StringSplit($, '')", "a b", ["a b"]),
        ("States.StringSplit($, '')", "", []),
        ("States.StringSplit('^a]b-c', '^]-')", None, ["a", "b", "c"]),
        ("States.JsonMerge($, $, false)", {"a": 1}, {"a": 1}),
        ("States.Format('no place')", None, "no place"),
        ("States.Format('{}{}', 'a', 'b')", None, "ab"),
        ("States.MathRandom(3, 4)", None, 3),
        ("States.MathRandom(3, 4, 5)", None, 3),
    ],
)
def test_functions_are_exact_at_their_limits(text: str, data: Any, expected: Any) -> None:
    assert json_equal(call(text, data), expected)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("States.MathAdd($, 0)", 2**31),
        ("States.MathAdd($, 0)", -(2**31) - 1),
        ("States.MathAdd($, 0)", True),
        ("States.ArrayRange(1, 1001, 1)", None),
        ("States.ArrayGetItem($, -1)", [7]),
        ("States.ArrayGetItem($, 0)", []),
        ("States.ArrayGetItem($, 0)", {"0": 1}),
        ("States.ArrayContains($, 1)", "1"),
        ("States.ArrayPartition($, -1)", [1]),
        ("States.JsonMerge($, $, 0)", {}),
        ("States.JsonMerge(1, $, false)", {}),
        ("States.MathRandom(6, 5)", None),
        ("States.StringSplit(1, ',')", None),
        ("States.StringSplit('a', 1)", None),
        ("States.Format($)", 5),
        ("States.StringToJson($)", 5),
        ("States.Base64Decode($)", "QUJD" * 2501),
        ("States.Hash($, 'MD5')", "x" * 10_001),
    ],
)
def test_arguments_beyond_the_limits_raise_a_failure(text: str, data: Any) -> None:
    with pytest.raises(StateFailure, match=text.partition("(")[0]):
        call(text, data)


def test_strings_of_10000_characters_are_encoded_and_decoded() -> None:
    text = "x" * 10_000
    assert len(call("States.Base64Encode($)", text)) == 13_336
    assert call("States.Base64Decode($)", "QUJD" * 2500) == "ABC" * 2500


def test_random_numbers_cover_the_range_and_uuids_differ() -> None:
    numbers = {INTRINSICS["States.MathRandom"](0, 3, seed) for seed in range(100)}
    assert numbers == {0, 1, 2}
    assert len({INTRINSICS["States.MathRandom"](0, 2**30) for _ in range(5)}) > 1
    uuids = {call("States.UUID()") for _ in range(3)}
    assert len(uuids) == 3
    assert all(len(each) == 36 for each in uuids)
    with pytest.raises(IntrinsicError, match="seed: expected a number"):
        INTRINSICS["States.MathRandom"](0, 2, "x")


def reader(input_type: str = "JSON", **more: Any) -> ItemReader:
    return ItemReader("getObject", Constant({}), input_type, **more)


def test_blank_lines_of_json_lines_are_skipped() -> None:
    assert read_items(b"1\n\n  \n2\n", reader("JSONL")) == [1, 2]
    with pytest.raises(ItemsError, match="line 3 is invalid JSON"):
        read_items(b"1\n\n{", reader("JSONL"))


def test_a_csv_has_its_header_row_or_given_headers() -> None:
    assert read_items(b"a;b\n1;2\n", reader("CSV", delimiter=";")) == [{"a": "1", "b": "2"}]
    assert read_items(b"a,b\n", reader("CSV")) == []
    assert read_items(b"", reader("CSV", headers=("a",))) == []


@pytest.mark.parametrize(
    ("pointer", "document", "found"),
    [
        ("/0", [[1]], "an array"),
        ("/1", [1, "x"], "a string"),
        ("/a", {"a": None}, "null"),
        ("/a", {"a": {}}, "an object"),
    ],
)
def test_an_items_pointer_names_an_array(pointer: str, document: Any, found: str) -> None:
    content = json.dumps(document).encode()
    if found == "an array":
        assert read_items(content, reader(items_pointer=pointer)) == [1]
    else:
        with pytest.raises(ItemsError, match=f"got {found}"):
            read_items(content, reader(items_pointer=pointer))


@pytest.mark.parametrize(
    ("pointer", "document"), [("/1", [[]]), ("/-1", [[]]), ("/x", [[]]), ("/a/b", {"a": 1}), ("/", {})]
)
def test_an_items_pointer_without_a_match_raises_an_error(pointer: str, document: Any) -> None:
    with pytest.raises(ItemsError, match="matches nothing"):
        read_items(json.dumps(document).encode(), reader(items_pointer=pointer))


def test_an_error_lists_the_arrays_of_the_document() -> None:
    with pytest.raises(ItemsError) as raised:
        read_items(b'{"x": {"a": [], "b": 1, "c": []}}', reader(items_pointer="/x"))
    assert str(raised.value).endswith("; set ItemsPointer in ReaderConfig to an array: /x/a, /x/c")
    with pytest.raises(ItemsError) as raised:
        read_items(b'{"a": 1}', reader())
    assert str(raised.value).endswith("got an object")


@few
@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(1, 6))
def test_batches_have_the_maximum_number_of_items_but_the_last(items: list[int], most: int) -> None:
    expected = [{"Items": items[start : start + most]} for start in range(0, len(items), most)]
    assert list(batches(items, most, None, None)) == expected
    assert list(batches(items, None, None, None)) == ([{"Items": items}] if items else [])


def test_batches_are_exact_in_bytes() -> None:
    # {"Items":[1,1]} has 15 bytes.
    assert [len(batch["Items"]) for batch in batches([1] * 5, None, 15, None)] == [2, 2, 1]
    assert [len(batch["Items"]) for batch in batches([1] * 5, None, 14, None)] == [1] * 5
    assert [len(batch["Items"]) for batch in batches([1] * 5, None, 17, None)] == [3, 2]
    assert [len(batch["Items"]) for batch in batches([1] * 2, None, 13, None)] == [1, 1]
    with pytest.raises(ItemsError, match="an item of 1 bytes exceeds the batch limit of 12 bytes"):
        list(batches([1], None, 12, None))
    assert [len(batch["Items"]) for batch in batches([1] * 5, 2, 17, None)] == [2, 2, 1]


@pytest.mark.parametrize(
    ("tolerance", "failed", "total", "exceeded"),
    [
        (Tolerance(), 0, 0, False),
        (Tolerance(count=0), 1, 5, True),
        (Tolerance(percentage=0), 1, 200, True),
        (Tolerance(percentage=33.4), 1, 3, False),
        (Tolerance(percentage=33.3), 1, 3, True),
        (Tolerance(count=5, percentage=50), 5, 10, False),
        (Tolerance(count=5, percentage=50), 5, 9, True),
    ],
)
def test_a_tolerance_is_exceeded_beyond_its_limits(
    tolerance: Tolerance, failed: int, total: int, exceeded: bool
) -> None:
    assert tolerance.exceeded(failed, total) is exceeded


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def least_bytes(value: Json) -> int:
    """A byte for each value, each character and each comma."""
    if isinstance(value, str):
        return 1 + len(value)
    if isinstance(value, list):
        return 1 + len(value) + sum(map(least_bytes, value))
    if isinstance(value, dict):
        return 1 + sum(len(name) + least_bytes(entry) for name, entry in value.items())
    return 1


@few
@given(JSON_VALUES, st.integers(-2, 2))
def test_a_value_exceeds_what_its_text_has_at_the_least(value: Json, more: int) -> None:
    least = least_bytes(value)
    assert exceeds(value, least + more) == (more < 0)
    assert least <= len(json.dumps(value, ensure_ascii=False).encode())


def test_a_value_that_shares_its_parts_is_not_walked_through() -> None:
    value: Json = "x"
    for _ in range(200):
        value = [value, value]
    assert exceeds(value, 1000)


def test_what_is_formatted_must_not_exceed_a_states_data() -> None:
    shared: Json = ["x" * 1000] * 1000
    with pytest.raises(IntrinsicError, match=r"States.Format: values: expected at most \d+ bytes as JSON, got more"):
        INTRINSICS["States.Format"]("{}", shared)
