"""The items of a distributed Map: read from documents, grouped into batches, and how many of them may fail."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emulator.aws.stepfunctions.asl.definition import ItemReader
from emulator.aws.stepfunctions.asl.json_values import Json, dumps, loads


class ItemsError(ValueError):
    """A document has no items, or is not what it should be."""


def read_items(document: bytes, reader: ItemReader) -> list[Json]:
    """Return the items of a document that a reader has fetched.

    Raises
    ------
    ItemsError
        When it is not of the reader's InputType, or has no array where one is expected.
    """
    try:
        text = document.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ItemsError(f"expected UTF-8: {error}") from None
    if reader.input_type == "CSV":
        return _read_csv(text, reader.headers, reader.delimiter)
    if reader.input_type == "JSONL":
        return [_parsed(line, f"line {number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    found = _resolve_pointer(_parsed(text, "the document"), reader.items_pointer)
    if not isinstance(found, list):
        raise ItemsError(
            f"Attempting to map over non-iterable node: expected an array at {reader.items_pointer or 'the top'!r}, "
            f"got {_type_name(found)}{_arrays_within(found, reader.items_pointer)}"
        )
    return found


def _arrays_within(found: Json, pointer: str) -> str:
    """Return a hint at the arrays that an ItemsPointer could name."""
    named = found.items() if isinstance(found, dict) else ()
    arrays = [f"{pointer}/{name}" for name, value in named if isinstance(value, list)]
    return f"; ReaderConfig may name one by ItemsPointer: {', '.join(arrays)}" if arrays else ""


def _read_csv(text: str, headers: Sequence[str] | None, delimiter: str) -> list[Json]:
    """Return one object a row, all values texts; a short row is filled up, what is too much is dropped."""
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if headers is None:
        if not rows:
            raise ItemsError("expected a CSV whose first row has the columns' names, got an empty file")
        headers, rows = rows[0], rows[1:]
    filled = [[*row, *[""] * (len(headers) - len(row))] for row in rows]
    return [dict(zip(headers, row, strict=False)) for row in filled]


def _resolve_pointer(document: Json, pointer: str) -> Json:
    """Return what a JSON pointer (RFC 6901) points to."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            raise ItemsError(
                f"nothing lies at ItemsPointer {pointer!r}: there is no {name!r} in {_type_name(document)}"
            )
    return document


def _parsed(text: str, what: str) -> Json:
    try:
        return loads(text)
    except ValueError as error:
        raise ItemsError(f"{what} is no JSON: {error}") from None


def _type_name(value: Json) -> str:
    return {dict: "an object", list: "an array", str: "a text", type(None): "null"}.get(type(value), "a plain value")


def batches(items: Sequence[Json], most: int | None, most_bytes: int | None, batch_input: Json) -> Iterator[Json]:
    """Put items together: each batch is the input of one child execution.

    Parameters
    ----------
    items
        The items.
    most, most_bytes
        The most items of a batch, and its largest size as JSON, bytes; None for no limit.
    batch_input
        What every batch has besides its items, or None.

    Raises
    ------
    ItemsError
        When one item alone is larger than a batch may be.
    """
    base = {} if batch_input is None else {"BatchInput": batch_input}
    empty_bytes = len(dumps({**base, "Items": []}).encode())
    batch: list[Json] = []
    size = empty_bytes
    for item in items:
        item_bytes = len(dumps(item).encode()) if most_bytes is not None else 0
        if most_bytes is not None and empty_bytes + item_bytes > most_bytes:
            raise ItemsError(f"an item of {item_bytes} bytes does not fit into a batch of {most_bytes} bytes")
        # One comma between two items.
        full = len(batch) == most or (most_bytes is not None and batch and size + 1 + item_bytes > most_bytes)
        if full:
            yield {**base, "Items": batch}
            batch, size = [], empty_bytes
        size += item_bytes + (1 if batch else 0)
        batch.append(item)
    if batch:
        yield {**base, "Items": batch}


@dataclass(frozen=True)
class Tolerance:
    """What a Map tolerates; where both are given, both hold. Where nothing is said, nothing is tolerated.

    Source: https://docs.aws.amazon.com/step-functions/latest/dg/state-map-distributed.html#maprun-fail-threshold

    Parameters
    ----------
    count
        How many items may fail, or None.
    percentage
        How many of a hundred, or None.
    """

    count: int | None = None
    percentage: float | None = None

    def exceeded(self, failed: int, total: int) -> bool:
        """Tell whether more have failed than is tolerated."""
        if self.count is None and self.percentage is None:
            return failed > 0
        if self.count is not None and failed > self.count:
            return True
        return self.percentage is not None and 100 * failed > self.percentage * total
