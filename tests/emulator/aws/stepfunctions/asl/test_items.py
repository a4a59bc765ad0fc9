"""The items of a distributed Map."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.definition import ItemReader
from emulator.aws.stepfunctions.asl.expressions import Constant
from emulator.aws.stepfunctions.asl.items import ItemsError, Tolerance, batches, read_items
from emulator.aws.stepfunctions.asl.json_values import dumps

few = settings(max_examples=50)

values = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.integers(), max_size=3)
cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)


def reader(input_type: str, **more: Any) -> ItemReader:
    return ItemReader("getObject", Constant({}), input_type, **more)


@few
@given(st.lists(values))
def test_json_and_json_lines_are_read(items: list[Any]) -> None:
    assert read_items(json.dumps(items).encode(), reader("JSON")) == items
    assert read_items("\n".join(map(json.dumps, items)).encode(), reader("JSONL")) == items
    nested = {"a/b": [{"~": items}]}
    assert read_items(json.dumps(nested).encode(), reader("JSON", items_pointer="/a~1b/0/~0")) == items


@few
@given(st.lists(st.tuples(cells, cells.filter(bool)), min_size=1))
def test_a_csv_has_an_object_for_each_row(rows: list[tuple[str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("one", "two"), *rows])
    expected = [{"one": one, "two": two} for one, two in rows]
    assert read_items(text.getvalue().encode(), reader("CSV")) == expected


def test_a_csv_with_given_headers_a_delimiter_and_rows_of_other_lengths() -> None:
    document = b"\xef\xbb\xbf1|2|3\n4\n\n5|6|7|8\n"
    assert read_items(document, reader("CSV", headers=("a", "b", "c"), delimiter="|")) == [
        {"a": "1", "b": "2", "c": "3"},
        {"a": "4", "b": "", "c": ""},
        {"a": "5", "b": "6", "c": "7"},
    ]


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        (b"{}", reader("JSON"), "non-iterable node: expected an array at 'the root', got an object"),
        (b'{"a": 1, "b": []}', reader("JSON"), "got an object; set ItemsPointer in ReaderConfig to an array: /b"),
        (b'{"a": 1}', reader("JSON", items_pointer="/a"), "expected an array at '/a', got a number or boolean"),
        (
            b'{"a": []}',
            reader("JSON", items_pointer="/b"),
            "ItemsPointer '/b' matches nothing: 'b' not found in an object",
        ),
        (b"[1", reader("JSON"), "the document is invalid JSON"),
        (b"1\n{", reader("JSONL"), "line 2 is invalid JSON"),
        (b"", reader("CSV"), "got an empty file"),
        (b"\xff\xfe", reader("JSON"), "expected UTF-8"),
    ],
)
def test_a_document_without_items_raises_an_error(document: bytes, kind: ItemReader, message: str) -> None:
    with pytest.raises(ItemsError) as raised:
        read_items(document, kind)
    assert message in str(raised.value)


@few
@given(st.lists(values, max_size=30), st.none() | st.integers(1, 5), st.none() | st.integers(150, 300))
def test_batches_contain_every_item_once_in_order_within_the_limits(
    items: list[Any], most: int | None, most_bytes: int | None
) -> None:
    made = list(batches(items, most, most_bytes, {"x": "ü"}))
    assert [item for batch in made for item in batch["Items"]] == items
    for index, batch in enumerate(made):
        following = made[index + 1] if index + 1 < len(made) else None
        assert batch["BatchInput"] == {"x": "ü"}
        assert most is None or len(batch["Items"]) <= most
        assert most_bytes is None or len(dumps(batch).encode()) <= most_bytes
        if following is not None and most is None:
            larger = {**batch, "Items": [*batch["Items"], following["Items"][0]]}
            assert most_bytes is not None and len(dumps(larger).encode()) > most_bytes, (
                "batches are as large as the limit allows"
            )


def test_an_item_larger_than_a_batch_raises_an_error() -> None:
    with pytest.raises(ItemsError, match="an item of 102 bytes exceeds the batch limit of 50 bytes"):
        list(batches(["x" * 100], None, 50, None))


@pytest.mark.parametrize(
    ("tolerance", "failed", "exceeded"),
    [
        (Tolerance(), 1, True),
        (Tolerance(count=1), 1, False),
        (Tolerance(count=1), 2, True),
        (Tolerance(percentage=50), 5, False),
        (Tolerance(percentage=50), 6, True),
        (Tolerance(count=9, percentage=10), 2, True),
        (Tolerance(count=0, percentage=100), 1, True),
        (Tolerance(percentage=100), 10, False),
    ],
)
def test_failures_among_ten_items_are_tolerated_up_to_the_count_and_the_percentage(
    tolerance: Tolerance, failed: int, exceeded: bool
) -> None:
    assert tolerance.exceeded(failed, 10) is exceeded
    assert not tolerance.exceeded(0, 10)


def test_a_large_document_is_parsed_in_pieces_to_the_same_items() -> None:
    items = [{"a": [1, 2.5, None, True, "ü\n"], "b": {"c": str(number)}} for number in range(20_000)]
    text = json.dumps({"first": "x", "found": items})
    assert len(text) > 1024 * 1024
    found = reader("JSON", items_pointer="/found")
    assert read_items(text.encode(), found) == items
    with pytest.raises(ItemsError, match="NaN is not allowed"):
        read_items(text.replace("2.5", "NaN", 1).encode(), found)
