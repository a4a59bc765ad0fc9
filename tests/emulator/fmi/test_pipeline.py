"""What the pipeline command reads from an execution's history."""

from typing import Any

from emulator.fmi.pipeline import failed_state, transitions


def history(*entries: tuple[str, int, str]) -> list[dict[str, Any]]:
    return [
        {"id": number, "previousEventId": previous, "type": kind, "stateEnteredEventDetails": {"name": name}}
        for number, (kind, previous, name) in enumerate(entries, 1)
    ]


RETRIED = history(
    ("ExecutionStarted", 0, ""),
    ("TaskStateEntered", 1, "First"),
    ("TaskScheduled", 2, ""),
    ("TaskFailed", 3, ""),
    ("TaskScheduled", 4, ""),
    ("TaskSucceeded", 5, ""),
    ("MapStateEntered", 6, "Ranks"),
    ("TaskStateEntered", 7, "One"),
    ("TaskScheduled", 8, ""),
    ("TaskStateEntered", 7, "Two"),
    ("TaskScheduled", 10, ""),
    ("TaskFailed", 9, ""),
    ("TaskStateAborted", 11, ""),
    ("ExecutionFailed", 12, ""),
)


def test_states_entered_and_retries_are_what_is_charged() -> None:
    assert transitions(RETRIED) == 4 + 1
    assert transitions([]) == 0


def test_the_state_that_failed_last_ended_the_execution() -> None:
    assert failed_state(RETRIED) == "One"
    assert failed_state(RETRIED[:7]) == "First"
    assert failed_state(history(("ExecutionStarted", 0, ""), ("ExecutionAborted", 1, ""))) == ""
    assert failed_state(history(("MapStateEntered", 0, "Ranks"), ("MapRunFailed", 1, ""))) == "Ranks"
