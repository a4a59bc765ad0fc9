"""Fields that states of several types have, from their JSON."""

from abc import ABC, abstractmethod
from typing import Any

from emulator.aws.stepfunctions.asl.definition import ROOT, DataFlow, MachineType, Program
from emulator.aws.stepfunctions.asl.diagnostics import Fields, shown
from emulator.aws.stepfunctions.asl.expressions import Expression
from emulator.aws.stepfunctions.asl.failures import ALL, NAMES
from emulator.aws.stepfunctions.asl.paths import ReferencePath
from emulator.aws.stepfunctions.asl.retrying import (
    DEFAULT_BACKOFF_RATE,
    DEFAULT_INTERVAL_S,
    DEFAULT_MAX_ATTEMPTS,
    Catcher,
    Retrier,
)

_SECONDS = range(100_000_000)
_POSITIVE_SECONDS = range(1, 100_000_000)
_MAX_DELAY_S = range(1, 31_622_400)


class Nested(ABC):
    """What a state's parser needs of the whole: the programs within it, and what is unique over them."""

    machine_type: MachineType

    @abstractmethod
    def program(self, fields: Fields) -> Program:
        """Read StartAt and States."""

    @abstractmethod
    def label(self, name: str, fields: Fields) -> str:
        """Return a distributed Map's label."""


def refuse_jsonata(fields: Fields) -> bool:
    """Read QueryLanguage; tell whether it is the one that is emulated."""
    language = fields.raw("QueryLanguage")
    if language in (None, "JSONPath"):
        return True
    fields.wrong("QueryLanguage", f"only JSONPath is emulated, got {shown(language)}; rewrite it with JSONPath")
    return False


def parse_flow(fields: Fields, *names: str) -> DataFlow:
    """Read the fields that say what a state does with its data, of those that it may have."""
    found: dict[str, Any] = {}
    if "Parameters" in names:
        found["parameters"] = fields.template("Parameters")
    if "ResultSelector" in names:
        found["result_selector"] = fields.template("ResultSelector")
    if "Assign" in names:
        found["assign"] = parse_assign(fields)
    if "ResultPath" in names:
        found["result_path"] = parse_result_path(fields)
    for name, key in (("InputPath", "input_path"), ("OutputPath", "output_path")):
        if fields.has(name):
            found[key] = None if fields.raw(name) is None else fields.path(name)
    return DataFlow(**found)


def parse_result_path(fields: Fields) -> ReferencePath | None:
    """Read ResultPath; None when the result is to be dropped."""
    if not fields.has("ResultPath"):
        return ROOT
    return None if fields.raw("ResultPath") is None else fields.reference_path("ResultPath")


def parse_assign(fields: Fields) -> Expression | None:
    """Read Assign."""
    if fields.has("Assign") and not isinstance(fields.raw("Assign"), dict):
        fields.wrong("Assign", f"expected an object, got {shown(fields.raw('Assign'))}")
    return fields.template("Assign")


def parse_next(fields: Fields) -> str | None:
    """Read Next or End: exactly one of them."""
    following = fields.text("Next")
    end = fields.flag("End")
    if fields.has("Next") == (end is True):
        fields.wrong("", "expected either Next, or End with true" + (", not both" if end else ""))
    return following


def parse_retriers(fields: Fields) -> tuple[Retrier, ...]:
    """Read Retry."""
    entries = fields.objects("Retry")
    return tuple(_parse_retrier(entry, last=entry is entries[-1]) for entry in entries)


def _parse_retrier(entry: Fields, *, last: bool) -> Retrier:
    entry.text("Comment")
    errors = _parse_errors(entry, last=last)
    interval_s = entry.whole("IntervalSeconds", _POSITIVE_SECONDS) or DEFAULT_INTERVAL_S
    attempts = entry.whole("MaxAttempts", _SECONDS)
    rate = entry.number("BackoffRate", 1.0, float("inf"))
    max_delay_s = entry.whole("MaxDelaySeconds", _MAX_DELAY_S)
    if max_delay_s is not None and max_delay_s <= interval_s:
        entry.wrong("MaxDelaySeconds", f"expected more than IntervalSeconds ({interval_s}), got {max_delay_s}")
    jitter = entry.one_of("JitterStrategy", ("FULL", "NONE"))
    entry.end("a retrier")
    return Retrier(
        errors,
        interval_s,
        DEFAULT_MAX_ATTEMPTS if attempts is None else attempts,
        DEFAULT_BACKOFF_RATE if rate is None else rate,
        max_delay_s,
        jitter == "FULL",
    )


def parse_catchers(fields: Fields) -> tuple[Catcher, ...]:
    """Read Catch."""
    entries = fields.objects("Catch")
    return tuple(_parse_catcher(entry, last=entry is entries[-1]) for entry in entries)


def _parse_catcher(entry: Fields, *, last: bool) -> Catcher:
    entry.text("Comment")
    errors = _parse_errors(entry, last=last)
    entry.require("Next")
    following = entry.text("Next") or ""
    result_path, assign = parse_result_path(entry), parse_assign(entry)
    entry.end("a catcher")
    return Catcher(errors, following, result_path, assign)


def _parse_errors(entry: Fields, *, last: bool) -> tuple[str, ...]:
    entry.require("ErrorEquals")
    names = entry.raw("ErrorEquals")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        if entry.has("ErrorEquals"):
            entry.wrong("ErrorEquals", f"expected an array of error names, got {shown(names)}")
        return ()
    if ALL in names and (len(names) > 1 or not last):
        entry.wrong("ErrorEquals", f"{ALL} must stand alone, and in the last entry")
    for name in names:
        if name.startswith("States.") and name not in NAMES:
            entry.wrong("ErrorEquals", f"there is no error {name!r}; names that start with States. are the language's")
    return tuple(names)
