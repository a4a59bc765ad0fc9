"""The intrinsic functions: AWS's examples and algebraic properties."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.expressions import ExpressionSyntaxError, Scope, compile_expression
from emulator.aws.stepfunctions.asl.failures import INTRINSIC_FAILURE, StateFailure
from emulator.aws.stepfunctions.asl.intrinsics import INTRINSICS
from emulator.aws.stepfunctions.asl.json_values import dumps, json_equal

few = settings(max_examples=50)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def call(text: str, data: Any = None) -> Any:
    return compile_expression(text, "x.$").evaluate(data, Scope({}, {}))


# https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html
@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("States.Array($.Id)", {"Id": 123456}, [123456]),
        ("States.Array()", {}, []),
        ("States.ArrayPartition($.a, 4)", {"a": [1, 2, 3, 4, 5, 6, 7, 8, 9]}, [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        ("States.ArrayContains($.a, $.b)", {"a": [1, 2, 3], "b": 2}, True),
        ("States.ArrayContains($.a, true)", {"a": [1, 2, 3]}, False),
        ("States.ArrayRange(1, 9, 2)", {}, [1, 3, 5, 7, 9]),
        ("States.ArrayRange(3, 1, -1)", {}, [3, 2, 1]),
        ("States.ArrayGetItem($.a, $.i)", {"a": [1, 2, 3], "i": 2}, 3),
        ("States.ArrayLength($.a)", {"a": [1, 2]}, 2),
        (
            "States.ArrayUnique($.a)",
            {"a": [1, 2, 3, 3, 1.0, True, "1", {"x": 1}, {"x": 1}]},
            [1, 2, 3, True, "1", {"x": 1}],
        ),
        ("States.Base64Encode($.d)", {"d": "Data to encode"}, "RGF0YSB0byBlbmNvZGU="),
        ("States.Base64Decode($.d)", {"d": "RGVjb2RlZCBkYXRh"}, "Decoded data"),
        ("States.Hash('input data', 'SHA-1')", {}, "aaff4a450a104cd177d28d18d74485e8cae074b7"),
        (
            "States.JsonMerge($.a, $.b, false)",
            {"a": {"x": {"p": 1}, "y": 2}, "b": {"x": {"q": 3}}},
            {"x": {"q": 3}, "y": 2},
        ),
        ("States.StringToJson($.s)", {"s": '{"foo": "bar"}'}, {"foo": "bar"}),
        ("States.JsonToString($)", {"foo": ["bar", 1]}, '{"foo":["bar",1]}'),
        ("States.MathAdd($.a, -1)", {"a": 111}, 110),
        ("States.MathAdd(0.5, 2.5)", {}, 4),
        ("States.MathAdd(-0.5, -3.5)", {}, -3),
        ("States.MathAdd(-1.51, 1.49)", {}, -1),
        ("States.MathAdd(0.49999999999999994, 0)", {}, 0),
        ("States.ArrayRange(0.5, 2.5, 1)", {}, [1, 2, 3]),
        ("States.StringSplit('1,2,3,4,5', ',')", {}, ["1", "2", "3", "4", "5"]),
        (
            "States.StringSplit($.s, $.d)",
            {"s": "This.is+a,test=string", "d": ".+,="},
            ["This", "is", "a", "test", "string"],
        ),
        ("States.Format('Hello, my name is {}.', $.name)", {"name": "Arnav"}, "Hello, my name is Arnav."),
        (r"States.Format('\{{}\} it\'s {} \\', 1.5, null)", {}, r"{1.5} it's null " + "\\"),
        ("States.Format($.t, $.o)", {"t": "<{}>", "o": {"a": [1]}}, '<{"a":[1]}>'),
        ("States.ArrayGetItem( States.StringSplit('a b' , ' ') , 1 )", {}, "b"),
        ("States.Array('a, (b)', $.x[?(@.n == ')')].n)", {"x": [{"n": ")"}, {"n": 1}]}, ["a, (b)", [")"]]),
    ],
)
def test_functions_return_what_awss_examples_show(text: str, data: Any, expected: Any) -> None:
    assert json_equal(call(text, data), expected)


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("States.ArrayGetItem($, 3)", [1, 2, 3], "States.ArrayGetItem: index: expected 0 to 2, got 3"),
        ("States.ArrayPartition($, 0)", [1], "chunk size: expected at least 1"),
        ("States.ArrayRange(1, 2000, 1)", None, "expected at most 1000 numbers, got 2000"),
        ("States.ArrayRange(1, 2, 0)", None, "other than 0"),
        ("States.ArrayLength($)", {}, "array: expected an array, got {}"),
        ("States.StringToJson('{')", None, "expected JSON"),
        ("States.JsonMerge($, $, true)", {}, "expected false, the only value that AWS supports"),
        ("States.JsonMerge($, 1, false)", {}, "expected two objects"),
        ("States.Hash('x', 'CRC')", None, "MD5, SHA-1, SHA-256, SHA-384, SHA-512"),
        ("States.Base64Decode('%')", None, "expected a string in base64"),
        ("States.Base64Decode('\u00e4')", None, "expected a string in base64"),
        ("States.Base64Encode($)", "\ud800", "an unpaired surrogate at index 0"),
        ("States.Hash($, 'MD5')", "\ud800", "an unpaired surrogate at index 0"),
        ("States.Hash('x', $)", ["MD5"], "MD5, SHA-1, SHA-256, SHA-384, SHA-512"),
        ("States.MathAdd($, 1)", float("inf"), "first number: expected a number"),
        ("States.MathAdd(1, 'x')", None, 'expected a number, got "x"'),
        ("States.MathAdd(3000000000, 1)", None, "within 32 bits"),
        ("States.MathRandom(5, 5)", None, "below end"),
        ("States.Format('{} {}', 1)", None, "expected at most 1 {}, one for each value, got more"),
        ("States.Format('{}', 1, 2)", None, "expected 2 {}, one for each value, got fewer"),
        ("States.Base64Encode($)", "x" * 10_001, "at most 10000 characters"),
    ],
)
def test_an_invalid_argument_raises_an_intrinsic_failure_with_the_functions_name(
    text: str, data: Any, message: str
) -> None:
    with pytest.raises(StateFailure) as raised:
        call(text, data)
    assert raised.value.error == INTRINSIC_FAILURE
    assert message in (raised.value.cause or "")
    assert (raised.value.cause or "").startswith(text.partition("(")[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("States.Nothing()", "unknown intrinsic function States.Nothing: expected one of States.Format,"),
        ("States.UUID(1)", "States.UUID: expected 0 arguments, got 1"),
        ("States.MathRandom(1)", "States.MathRandom: expected 2 or 3 arguments, got 1"),
        ("States.Format()", "States.Format: expected at least 1 arguments, got 0"),
        ("States.Format('a", "the closing ' of a string"),
        (r"States.Format('\n')", r"got \n"),
        ("States.UUID() x", "unexpected ' x' after the call"),
        ("States.Array(1, )", "an argument"),
        ("States.Array(1", "','"),
        ("States.Array(abc)", "an argument"),
        ("States.Array($.a[)", "invalid JSONPath '$.a[)'"),
        ("Format('x')", "a JSONPath that starts with $, or a call"),
        ("States.Array(" * 11 + ")" * 11, "expected at most 10 nested calls"),
    ],
)
def test_an_invalid_call_does_not_compile(text: str, message: str) -> None:
    with pytest.raises(ExpressionSyntaxError) as raised:
        compile_expression(text, "x.$")
    assert message in str(raised.value)


@few
@given(st.lists(values, max_size=20), st.integers(1, 7))
def test_the_chunks_of_a_partition_concatenate_to_the_array(array: list[Any], size: int) -> None:
    chunks = INTRINSICS["States.ArrayPartition"](array, size)
    assert [item for chunk in chunks for item in chunk] == array
    assert all(len(chunk) == size for chunk in chunks[:-1])


@few
@given(values)
def test_json_to_string_and_string_to_json_are_inverse(value: Any) -> None:
    text = INTRINSICS["States.JsonToString"](value)
    assert json_equal(INTRINSICS["States.StringToJson"](text), value)
    assert json.loads(dumps(value)) == value


@few
@given(st.text(max_size=50))
def test_base64_encode_and_decode_are_inverse(text: str) -> None:
    encoded = INTRINSICS["States.Base64Encode"](text)
    assert base64.b64decode(encoded).decode() == text
    assert INTRINSICS["States.Base64Decode"](encoded) == text


@few
@given(st.lists(values, max_size=12))
def test_unique_keeps_the_first_of_equal_values(array: list[Any]) -> None:
    kept = INTRINSICS["States.ArrayUnique"](array)
    assert all(any(json_equal(item, other) for other in kept) for item in array)
    assert not any(json_equal(one, other) for index, one in enumerate(kept) for other in kept[:index])


@few
@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(0, 99))
def test_random_numbers_are_in_the_range_and_repeat_with_their_seed(start: int, width: int, seed: int) -> None:
    function = INTRINSICS["States.MathRandom"]
    assert start <= function(start, start + width) < start + width
    assert function(start, start + width, seed) == function(start, start + width, seed)


@few
@given(st.text(max_size=20), st.text(max_size=20))
def test_an_escaped_string_literal_evaluates_to_the_string(one: str, other: str) -> None:
    escaped = one.translate({ord(character): "\\" + character for character in "\\'{}"})
    assert call(f"States.Array('{escaped}')") == [one]
    assert call(f"States.Format('{escaped}')") == one
    assert call("States.Format('{}', $)", other) == other
