"""The rank that an event names."""

import pytest

from emulator.aws.lambda_.core.history import InvocationRecord
from emulator.fmi.event_rank import EventRank, event_rank, rank_of


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"RANK": "3", "WORLD_SIZE": 8}, EventRank(3, 8)),
        ({"RANK": "x", "WORLD_SIZE": True}, EventRank()),
        ({"RANK": "9" * 5000}, EventRank()),
        ([{"RANK": 1}], EventRank()),
        (None, EventRank()),
    ],
)
def test_the_rank_is_read_from_numbers_and_digits_only(event: object, expected: EventRank) -> None:
    assert event_rank(event) == expected


@pytest.mark.parametrize(
    ("annotation", "expected"), [(EventRank(1, 2), EventRank(1, 2)), (None, EventRank()), ("other", EventRank())]
)
def test_the_rank_of_an_invocation_is_its_annotation(annotation: object, expected: EventRank) -> None:
    record = InvocationRecord("id", "function", "$LATEST", 128, received=0.0, annotation=annotation)
    assert rank_of(record) == expected
