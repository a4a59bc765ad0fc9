"""The items of a distributed Map: their reader, their batches and the tolerance of failed ones."""

import csv
import io
import json
import json.scanner
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emulator.aws.stepfunctions.asl.definition import ItemReader
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, loads, reject_constant

# Python's own parser takes 10 ms for it, in which no other thread runs.
_AT_ONCE_CHARACTERS = 1024 * 1024


class _PiecesDecoder(json.JSONDecoder):
    """Parses large JSON value by value, between which other threads run; five times as slow."""

    def __init__(self) -> None:
        super().__init__(parse_constant=reject_constant)
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


_PIECES = _PiecesDecoder()


class ItemsError(ValueError):
    """The items cannot be read from a document, or do not fit into batches."""


def read_items(document: bytes, reader: ItemReader) -> list[Json]:
    """Parse a document and return its items.

    Raises
    ------
    ItemsError
        If the document is not of the reader's InputType, or has no array at its ItemsPointer.
    """
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ItemsError(f"expected UTF-8: {error}") from None
    if reader.input_type == "CSV":
        return _read_csv(text, reader.headers, reader.delimiter)
    if reader.input_type == "JSONL":
        return [_parse(line, f"line {number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    found = _resolve_pointer(_parse(text, "the document"), reader.items_pointer)
    if not isinstance(found, list):
        raise ItemsError(
            f"Attempting to map over non-iterable node: expected an array at {reader.items_pointer or 'the root'!r}, "
            f"got {_type_name(found)}{_arrays_within(found, reader.items_pointer)}"
        )
    return found


def _arrays_within(found: Json, pointer: str) -> str:
    """Return a hint that lists the arrays to which an ItemsPointer could point."""
    named = found.items() if isinstance(found, dict) else ()
    arrays = [f"{pointer}/{name}" for name, value in named if isinstance(value, list)]
    return f"; set ItemsPointer in ReaderConfig to an array: {', '.join(arrays)}" if arrays else ""


def _read_csv(text: str, headers: Sequence[str] | None, delimiter: str) -> list[Json]:
    """Return an object for each row, with string values. Missing cells are empty strings, extra cells are dropped."""
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if headers is None:
        if not rows:
            raise ItemsError("expected a CSV whose first row has the column names, got an empty file")
        headers, rows = rows[0], rows[1:]
    filled = [[*row, *[""] * (len(headers) - len(row))] for row in rows]
    return [dict(zip(headers, row, strict=False)) for row in filled]


def _resolve_pointer(document: Json, pointer: str) -> Json:
    """Return the value at a JSON pointer (RFC 6901)."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            raise ItemsError(f"ItemsPointer {pointer!r} matches nothing: {name!r} not found in {_type_name(document)}")
    return document


def _parse(text: str, source: str) -> Json:
    try:
        return loads(text) if len(text) <= _AT_ONCE_CHARACTERS else _PIECES.decode(text)
    except RecursionError:
        raise ItemsError(f"{source} is nested too deeply") from None
    except ValueError as error:
        raise ItemsError(f"{source} is invalid JSON: {error}") from None


def _type_name(value: Json) -> str:
    return {dict: "an object", list: "an array", str: "a string", type(None): "null"}.get(
        type(value), "a number or boolean"
    )


def batches(items: Sequence[Json], max_items: int | None, max_bytes: int | None, batch_input: Json) -> Iterator[Json]:
    """Group items into batches, each the input of one child execution.

    Parameters
    ----------
    items
        The items.
    max_items, max_bytes
        Maximum number of items in a batch, and maximum size of a batch as JSON in bytes; None for no limit.
    batch_input
        The BatchInput of each batch, or None.

    Raises
    ------
    ItemsError
        If one item alone exceeds the maximum size.
    """
    base = {} if batch_input is None else {"BatchInput": batch_input}
    empty_bytes = len(dumps({**base, "Items": []}).encode())
    batch: list[Json] = []
    size = empty_bytes
    for item in items:
        item_bytes = len(dumps(item).encode()) if max_bytes is not None else 0
        if max_bytes is not None and empty_bytes + item_bytes > max_bytes:
            raise ItemsError(f"an item of {item_bytes} bytes exceeds the batch limit of {max_bytes} bytes")
        # One comma between two items.
        full = len(batch) == max_items or (max_bytes is not None and batch and size + 1 + item_bytes > max_bytes)
        if full:
            yield {**base, "Items": batch}
            batch, size = [], empty_bytes
        size += item_bytes + (1 if batch else 0)
        batch.append(item)
    if batch:
        yield {**base, "Items": batch}


@dataclass(frozen=True)
class Tolerance:
    """The number of failures that a Map tolerates. If both limits are set, both apply; if none is set, it is zero.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html#maprun-fail-threshold

    Parameters
    ----------
    count
        Maximum number of failed items, or None.
    percentage
        Maximum percentage of failed items, or None.
    """

    count: int | None = None
    percentage: float | None = None

    def exceeded(self, failed: int, total: int) -> bool:
        """Return whether more items have failed than are tolerated."""
        if self.count is None and self.percentage is None:
            return failed > 0
        if self.count is not None and failed > self.count:
            return True
        return self.percentage is not None and 100 * failed > self.percentage * total
