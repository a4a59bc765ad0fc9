"""The intrinsic functions, ``States.*``.

Their arguments and limits: https://docs.aws.amazon.com/step-functions/latest/dg/intrinsic-functions.html
"""

import base64
import hashlib
import json
import math
import random
import re
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from emulator.aws.stepfunctions.asl.json_values import Json, dumps, exceeds, is_number, json_equal, loads

_TEXT_CHARACTERS = 10_000
_RANGE_ITEMS = 1000
# As much as a state may pass on.
_RESULT_BYTES = 256 * 1024
_INT32 = range(-(2**31), 2**31)
_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_PLACE = re.compile(r"\\(.)|(\{\})")


class IntrinsicError(ValueError):
    """An argument of an intrinsic function is invalid."""


@dataclass(frozen=True)
class Intrinsic:
    """An intrinsic function.

    Parameters
    ----------
    name
        Such as ``States.Format``.
    apply
        The implementation, called with the values of the arguments.
    arguments
        The allowed numbers of arguments.
    """

    name: str
    apply: Callable[..., Json]
    arguments: range

    def __call__(self, *arguments: Json) -> Json:
        """Call the function.

        Raises
        ------
        IntrinsicError
            If an argument is invalid.
        """
        try:
            result = self.apply(*arguments)
        except IntrinsicError as error:
            raise IntrinsicError(f"{self.name}: {error}") from None
        if exceeds(result, _RESULT_BYTES):
            raise IntrinsicError(f"{self.name}: expected a result of at most {_RESULT_BYTES} bytes as JSON, got more")
        return result


def format_string(template: Json, *values: Json) -> str:
    r"""Replace each ``{}`` of a template with a value; ``\{``, ``\}``, ``\'`` and ``\\`` are escapes."""
    if exceeds(list(values), _RESULT_BYTES):
        raise IntrinsicError(f"values: expected at most {_RESULT_BYTES} bytes as JSON, got more")
    remaining = deque(values)

    def fill(place: re.Match[str]) -> str:
        if place[1] is not None:
            return place[1]
        if not remaining:
            raise IntrinsicError(
                f"template {template!r}: expected at most {len(values)} {{}}, one for each value, got more"
            )
        value = remaining.popleft()
        return value if isinstance(value, str) else dumps(value)

    filled = _PLACE.sub(fill, _string(template, "template"))
    if remaining:
        raise IntrinsicError(f"template {template!r}: expected {len(values)} {{}}, one for each value, got fewer")
    return filled


def _string_to_json(text: Json) -> Json:
    try:
        return loads(_string(text, "string")) if text != "" else None
    except ValueError as error:
        raise IntrinsicError(f"expected JSON, got {text!r}: {error}") from None


def _array(*values: Json) -> Json:
    return list(values)


def _partition(array: Json, size: Json) -> Json:
    items, length = _array_of(array), _integer(size, "chunk size")
    if length < 1:
        raise IntrinsicError(f"chunk size: expected at least 1, got {size}")
    return [items[start : start + length] for start in range(0, len(items), length)]


def _contains(array: Json, value: Json) -> Json:
    return any(json_equal(item, value) for item in _array_of(array))


def _range(first: Json, last: Json, step: Json) -> Json:
    start, stop, stride = _integer(first, "first"), _integer(last, "last"), _integer(step, "step")
    if stride == 0:
        raise IntrinsicError("step: expected a number other than 0")
    numbers = range(start, stop + (1 if stride > 0 else -1), stride)
    if len(numbers) > _RANGE_ITEMS:
        raise IntrinsicError(f"expected at most {_RANGE_ITEMS} numbers, got {len(numbers)}")
    return list(numbers)


def _get_item(array: Json, index: Json) -> Json:
    items, position = _array_of(array), _integer(index, "index")
    if not 0 <= position < len(items):
        raise IntrinsicError(f"index: expected 0 to {len(items) - 1}, got {position}")
    return items[position]


def _unique(array: Json) -> Json:
    kept: list[Json] = []
    seen: set[str] = set()
    for item in _array_of(array):
        text = json.dumps(_normalized(item), sort_keys=True)
        if text not in seen:
            seen.add(text)
            kept.append(item)
    return kept


def _normalized(value: Json) -> Json:
    """Return a value with integral floats as integers, so that equal values have equal JSON."""
    if isinstance(value, dict):
        return {name: _normalized(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_normalized(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _base64_encode(text: Json) -> Json:
    return base64.b64encode(_encoded(text)).decode()


def _base64_decode(text: Json) -> Json:
    try:
        return base64.b64decode(_limited(text), validate=True).decode()
    except ValueError as error:
        raise IntrinsicError(f"expected a string in base64: {error}") from None


def _hash(data: Json, algorithm: Json) -> Json:
    if not isinstance(algorithm, str) or algorithm not in _HASHES:
        raise IntrinsicError(f"algorithm: expected one of {', '.join(_HASHES)}, got {algorithm!r}")
    content = _encoded(data if isinstance(data, str) else dumps(data))
    return hashlib.new(_HASHES[algorithm], content, usedforsecurity=False).hexdigest()


def _merge(one: Json, other: Json, deep: Json) -> Json:
    if deep is not False:
        raise IntrinsicError(f"deep merge: expected false, the only value that AWS supports, got {deep!r}")
    if not isinstance(one, dict) or not isinstance(other, dict):
        raise IntrinsicError("expected two objects")
    return {**one, **other}


def _random(start: Json, end: Json, seed: Json = None) -> Json:
    first, last = _integer(start, "start"), _integer(end, "end")
    if first >= last:
        raise IntrinsicError(f"start: expected a number below end, got {first} and {last}")
    generator = random.Random(None if seed is None else _integer(seed, "seed"))  # noqa: S311 - a seed must repeat it
    return generator.randrange(first, last)


def _add(one: Json, other: Json) -> Json:
    return _integer(one, "first number") + _integer(other, "second number")


def _split(text: Json, delimiters: Json) -> Json:
    characters = _string(delimiters, "delimiters")
    parts = (
        re.split("[" + re.escape(characters) + "]", _string(text, "string"))
        if characters
        else [_string(text, "string")]
    )
    return [part for part in parts if part]


def _string(value: Json, what: str) -> str:
    if not isinstance(value, str):
        raise IntrinsicError(f"{what}: expected a string, got {dumps(value)}")
    return value


def _limited(value: Json) -> str:
    if len(_string(value, "string")) > _TEXT_CHARACTERS:
        raise IntrinsicError(f"string: expected at most {_TEXT_CHARACTERS} characters, got {len(value)}")
    return str(value)


def _encoded(value: Json) -> bytes:
    try:
        return _limited(value).encode()
    except UnicodeEncodeError as error:
        raise IntrinsicError(f"string: expected Unicode, got an unpaired surrogate at index {error.start}") from None


def _array_of(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise IntrinsicError(f"array: expected an array, got {dumps(value)}")
    return value


def _integer(value: Json, what: str) -> int:
    """Return a number rounded to an integer of 32 bits as AWS does: halves are rounded up, -1.5 to -1."""
    # 1e999 is valid JSON, but not finite.
    if not is_number(value) or not math.isfinite(value):
        raise IntrinsicError(f"{what}: expected a number, got {dumps(value)}")
    below: int = math.floor(value)
    number = below + 1 if value - below >= 0.5 else below
    if number not in _INT32:
        raise IntrinsicError(f"{what}: expected a number within 32 bits, got {value}")
    return number


_ANY_NUMBER = range(1, 2**31)
INTRINSICS = {
    function.name: function
    for function in (
        Intrinsic("States.Format", format_string, _ANY_NUMBER),
        Intrinsic("States.StringToJson", _string_to_json, range(1, 2)),
        Intrinsic("States.JsonToString", dumps, range(1, 2)),
        Intrinsic("States.Array", _array, range(2**31)),
        Intrinsic("States.ArrayPartition", _partition, range(2, 3)),
        Intrinsic("States.ArrayContains", _contains, range(2, 3)),
        Intrinsic("States.ArrayRange", _range, range(3, 4)),
        Intrinsic("States.ArrayGetItem", _get_item, range(2, 3)),
        Intrinsic("States.ArrayLength", lambda array: len(_array_of(array)), range(1, 2)),
        Intrinsic("States.ArrayUnique", _unique, range(1, 2)),
        Intrinsic("States.Base64Encode", _base64_encode, range(1, 2)),
        Intrinsic("States.Base64Decode", _base64_decode, range(1, 2)),
        Intrinsic("States.Hash", _hash, range(2, 3)),
        Intrinsic("States.JsonMerge", _merge, range(3, 4)),
        Intrinsic("States.MathRandom", _random, range(2, 4)),
        Intrinsic("States.MathAdd", _add, range(2, 3)),
        Intrinsic("States.StringSplit", _split, range(2, 3)),
        Intrinsic("States.UUID", lambda: str(uuid.uuid4()), range(1)),
    )
}
