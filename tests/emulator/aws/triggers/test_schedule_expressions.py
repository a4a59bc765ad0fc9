"""When schedules are due."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.aws.triggers.schedule_expressions import parse_expression

START = datetime(2026, 11, 28, 10, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "following"),
    [
        ("rate(1 minute)", ["2026-11-28T10:21:30", "2026-11-28T10:22:30"]),
        ("rate(2 hours)", ["2026-11-28T12:20:30"]),
        ("at(2026-12-01T00:00:00)", ["2026-12-01T00:00:00", None]),
        ("cron(0/15 * * * ? *)", ["2026-11-28T10:30:00", "2026-11-28T10:45:00", "2026-11-28T11:00:00"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-11-30T18:00:00", "2026-12-01T18:00:00"]),
        ("cron(5 0 1 * ? *)", ["2026-12-01T00:05:00", "2027-01-01T00:05:00"]),
        ("cron(0 0 L * ? *)", ["2026-11-30T00:00:00", "2026-12-31T00:00:00"]),
        ("cron(0 0 ? * 6#3 *)", ["2026-12-18T00:00:00"]),
        ("cron(0 0 ? * FRIL *)", ["2026-12-25T00:00:00"]),
        ("cron(0 0 29W * ? *)", ["2026-11-30T00:00:00"]),
        ("cron(0 0 29 FEB ? *)", ["2028-02-29T00:00:00"]),
        ("cron(0 0 1 1 ? 2026)", [None]),
    ],
)
def test_an_expression_is_due(expression: str, following: list[str | None]) -> None:
    parsed, moment = parse_expression(expression), START
    for wanted in following:
        found = parsed.next_after(moment, START)
        assert (None if found is None else found.strftime("%Y-%m-%dT%H:%M:%S")) == wanted
        moment = found or moment


def test_a_time_zone_moves_with_the_season() -> None:
    parsed = parse_expression("cron(0 12 * * ? *)", ZoneInfo("Europe/Berlin"))
    winter = parsed.next_after(datetime(2026, 1, 1, tzinfo=UTC), START)
    summer = parsed.next_after(datetime(2026, 7, 1, tzinfo=UTC), START)
    assert (winter and winter.hour, summer and summer.hour) == (11, 10)


@pytest.mark.parametrize(
    "expression",
    [
        "rate(0 minutes)",
        "rate(5)",
        "cron(* * * * * *)",
        "cron(* * ? * ? *)",
        "cron(60 * * * ? *)",
        "cron(* * * * ?)",
        "every day",
        "cron(a * * * ? *)",
        "cron(* * 32 * ? *)",
    ],
)
def test_a_wrong_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_expression(expression)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(0, 10**7))
def test_a_daily_time_is_within_a_day_and_on_the_minute(minute: int, hour: int, offset: int) -> None:
    moment = START + timedelta(seconds=offset)
    found = parse_expression(f"cron({minute} {hour} * * ? *)").next_after(moment, START)
    assert found is not None
    assert timedelta() < found - moment <= timedelta(days=1)
    assert (found.minute, found.hour, found.second) == (minute, hour, 0)
