"""Schedule expressions of EventBridge: rate, cron and at; when they are due next.

Source: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_RATE = re.compile(r"rate\(\s*(\d+)\s+(minute|hour|day)s?\s*\)")
_AT = re.compile(r"at\(\s*(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})\s*\)")
_CRON = re.compile(r"cron\((.*)\)")
_MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
# AWS numbers days from Sunday, 1.
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
_YEARS = range(1970, 2200)
# A day that a cron expression can reach lies within a leap year's cycle, and centuries.
_MOST_DAYS = 366 * 12


@dataclass(frozen=True)
class Rate:
    """Every so many seconds, from the time of its creation."""

    seconds: int

    def next_after(self, moment: datetime, created: datetime) -> datetime | None:
        """Return the first time after a moment."""
        passed = (moment - created).total_seconds()
        count = max(1, int(passed // self.seconds) + 1)
        return created + timedelta(seconds=count * self.seconds)


@dataclass(frozen=True)
class At:
    """Once."""

    moment: datetime

    def next_after(self, moment: datetime, created: datetime) -> datetime | None:
        """Return the time, if it is after a moment."""
        return self.moment if self.moment > moment else None


@dataclass(frozen=True)
class Cron:
    """At the minutes that all fields contain."""

    minutes: frozenset[int]
    hours: frozenset[int]
    day: str
    months: frozenset[int]
    weekday: str
    years: frozenset[int]
    zone: tzinfo

    def next_after(self, moment: datetime, created: datetime) -> datetime | None:
        """Return the first time after a moment; None if there is none any more."""
        local = moment.astimezone(self.zone)
        for date in _days_from(local):
            if date.year not in self.years or date.month not in self.months or not self._has_day(date):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    found = date.replace(hour=hour, minute=minute)
                    if found > local:
                        return found.astimezone(UTC)
        return None

    def _has_day(self, date: datetime) -> bool:
        if self.day != "?":
            return date.day in _days_of_month(self.day, date.year, date.month)
        return date.day in _weekdays_of_month(self.weekday, date.year, date.month)


Expression = Rate | At | Cron


def parse_expression(text: str, zone: tzinfo = UTC) -> Expression:
    """Parse an expression.

    Parameters
    ----------
    text
        Such as ``rate(5 minutes)``.
    zone
        The time zone of cron and at.

    Raises
    ------
    ValueError
        When it is not valid.
    """
    if match := _RATE.fullmatch(text):
        count = int(match[1])
        if not count:
            raise ValueError(f"invalid rate {text!r}: expected a number from 1")
        return Rate(count * _SECONDS[match[2]])
    if match := _AT.fullmatch(text):
        return At(datetime.fromisoformat(match[1]).replace(tzinfo=zone).astimezone(UTC))
    match = _CRON.fullmatch(text)
    fields = match[1].split() if match else []
    if len(fields) != 6:
        raise ValueError(f"invalid schedule {text!r}: expected rate(N minutes), at(TIME) or cron with six fields")
    minutes, hours, day, months, weekday, years = fields
    if (day == "?") == (weekday == "?"):
        raise ValueError(f"invalid cron {text!r}: expected ? as day of the month or as day of the week")
    cron = Cron(
        _numbers(minutes, range(60)),
        _numbers(hours, range(24)),
        day,
        _numbers(months, range(1, 13), _MONTHS),
        weekday,
        _numbers(years, _YEARS),
        zone,
    )
    # Checks both.
    _days_of_month("*" if day == "?" else day, 2024, 1)
    _weekdays_of_month("*" if weekday == "?" else weekday, 2024, 1)
    return cron


def _days_from(local: datetime) -> Iterator[datetime]:
    start = local.replace(hour=0, minute=0, second=0, microsecond=0)
    for offset in range(_MOST_DAYS):
        yield start + timedelta(days=offset)


def _numbers(field: str, allowed: range, names: dict[str, int] | None = None) -> frozenset[int]:
    """Return the numbers of a field: a list of numbers, ranges and steps."""
    found: set[int] = set()
    for part in field.upper().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            low, high = allowed[0], allowed[-1]
        else:
            low = _number(first, names)
            high = _number(last, names) if dash else (allowed[-1] if step else low)
        if low not in allowed or high not in allowed:
            raise ValueError(f"invalid field {field!r}: expected {allowed[0]} to {allowed[-1]}")
        found.update(range(low, high + 1, int(step) if step else 1))
    return frozenset(found)


def _number(text: str, names: dict[str, int] | None) -> int:
    if names and text in names:
        return names[text]
    if not text.isdecimal():
        raise ValueError(f"invalid number {text!r} in a cron expression")
    return int(text)


def _days_of_month(field: str, year: int, month: int) -> frozenset[int]:
    """Return the days of a month that a field names: numbers, L for the last, 15W for the weekday nearest to it."""
    last = calendar.monthrange(year, month)[1]
    days: set[int] = set()
    for part in field.upper().split(","):
        if part == "L":
            days.add(last)
        elif part == "LW":
            days.add(_nearest_weekday(year, month, last, last))
        elif part.endswith("W"):
            days.add(_nearest_weekday(year, month, min(int(part[:-1]), last), last))
        else:
            days |= {day for day in _numbers(part, range(1, 32)) if day <= last}
    return frozenset(days)


def _weekdays_of_month(field: str, year: int, month: int) -> frozenset[int]:
    """Return the days of a month that a field names: days of the week, 6#3 for the third Friday, 6L for the last."""
    last = calendar.monthrange(year, month)[1]
    by_weekday: dict[int, list[int]] = {}
    for day in range(1, last + 1):
        by_weekday.setdefault((calendar.weekday(year, month, day) + 1) % 7 + 1, []).append(day)
    days: set[int] = set()
    for part in field.upper().split(","):
        weekday, hash_sign, which = part.partition("#")
        if hash_sign:
            days.update(by_weekday[_number(weekday, _DAYS)][int(which) - 1 : int(which)])
        elif part == "L":
            days.update(by_weekday[7])
        elif part.endswith("L") and len(part) > 1:
            days.add(by_weekday[_number(part[:-1], _DAYS)][-1])
        else:
            for number in _numbers(part, range(1, 8), _DAYS):
                days.update(by_weekday[number])
    return frozenset(days)


def _nearest_weekday(year: int, month: int, day: int, last: int) -> int:
    weekday = calendar.weekday(year, month, day)
    if weekday == calendar.SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == calendar.SUNDAY:
        return day + 1 if day < last else day - 2
    return day
