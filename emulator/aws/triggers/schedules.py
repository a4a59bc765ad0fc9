"""Schedules: rules of EventBridge with a schedule, and those of EventBridge Scheduler, deliver when they are due.

moto keeps both; nothing in moto ever runs them.
"""

import asyncio
import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from emulator.aws.triggers.event_bus import EventBus
from emulator.aws.triggers.schedule_expressions import At, parse_expression
from emulator.aws.triggers.targets import Delivery, Targets

_log = logging.getLogger(__name__)
# How often schedules are looked at: new ones are noticed, and due ones run, that much late at most.
_TICK_S = 0.5


@dataclass(frozen=True)
class _Scheduled:
    """A rule or a schedule.

    Parameters
    ----------
    key
        Its ARN and expression: another expression begins anew.
    fire
        Delivers to its targets; called with the time it was due.
    """

    key: tuple[str, str]
    expression: str
    zone: tzinfo
    fire: Callable[[datetime], None]
    starts: datetime | None = None
    ends: datetime | None = None


class Schedules:
    """Runs everything that is scheduled.

    Parameters
    ----------
    bus
        Delivers to the targets of rules.
    targets
        Delivers to the targets of schedules.
    account
        The account.
    clock
        Returns the time, UTC.
    """

    def __init__(
        self,
        bus: EventBus,
        targets: Targets,
        account: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bus = bus
        self._targets = targets
        self._account = account
        self._clock = clock
        # When each began, and when it is due.
        self._due: dict[tuple[str, str], tuple[datetime, datetime | None]] = {}
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to run what is due, before the first schedule is made here.

        moto's schedules are common to all clouds of a process: one that has never made any must not run them.
        """
        if self._task is not None:
            return
        self._task = asyncio.get_running_loop().create_task(self._run(), name="schedules")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def tick(self) -> None:
        """Deliver everything that is due."""
        now = self._clock()
        present: set[tuple[str, str]] = set()
        for scheduled in [*self._rules(), *self._schedules()]:
            present.add(scheduled.key)
            try:
                self._look(scheduled, now)
            except ValueError as error:
                # The API has checked it less strictly.
                _log.warning("%s never runs: %s", scheduled.key[0], error)
                self._due[scheduled.key] = now, None
        for gone in self._due.keys() - present:
            del self._due[gone]

    def _look(self, scheduled: _Scheduled, now: datetime) -> None:
        """Deliver if it is due, and note when it is due next."""
        if scheduled.key not in self._due:
            expression = parse_expression(scheduled.expression, scheduled.zone)
            # A time in the past runs at once, as on AWS.
            first = expression.moment if isinstance(expression, At) else expression.next_after(now, now)
            self._due[scheduled.key] = now, first
        began, due = self._due[scheduled.key]
        if due is None or due > now:
            return
        expression = parse_expression(scheduled.expression, scheduled.zone)
        following = None if isinstance(expression, At) else expression.next_after(now, began)
        self._due[scheduled.key] = began, following
        is_early = scheduled.starts is not None and due < scheduled.starts
        is_late = scheduled.ends is not None and due > scheduled.ends
        if not is_early and not is_late:
            scheduled.fire(due)

    async def _run(self) -> None:
        while True:
            try:
                self.tick()
            except Exception:  # noqa: BLE001 - an error in the emulator must not end all schedules
                _log.exception("schedules")
            await asyncio.sleep(_TICK_S)

    def _rules(self) -> Iterator[_Scheduled]:
        # No rule exists before moto has imported the module.
        events = sys.modules.get("moto.events.models")
        backends = {} if events is None else events.events_backends[self._account]
        for region, backend in list(backends.items()):
            for bus in list(backend.event_buses.values()):
                for rule in list(bus.rules.values()):
                    if rule.scheduled_expression and rule.state != "DISABLED":
                        fire = self._fire_rule(rule, region)
                        key = (rule.arn, rule.scheduled_expression)
                        yield _Scheduled(key, rule.scheduled_expression, UTC, fire)

    def _fire_rule(self, rule: Any, region: str) -> Callable[[datetime], None]:
        def fire(due: datetime) -> None:
            event = {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "Scheduled Event",
                "source": "aws.events",
                "account": self._account,
                "time": due.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "region": region,
                "resources": [rule.arn],
                "detail": {},
            }
            self._bus.deliver(rule, event)

        return fire

    def _schedules(self) -> Iterator[_Scheduled]:
        scheduler = sys.modules.get("moto.scheduler.models")
        backends = {} if scheduler is None else scheduler.scheduler_backends[self._account]
        for region, backend in list(backends.items()):
            for group in list(backend.schedule_groups.values()):
                for schedule in list(group.schedules.values()):
                    if schedule.state == "DISABLED":
                        continue
                    yield _Scheduled(
                        (schedule.arn, f"{schedule.schedule_expression} {schedule.last_modified_date}"),
                        schedule.schedule_expression,
                        _zone(schedule.schedule_expression_timezone),
                        self._fire_schedule(group, schedule, region),
                        _moment(schedule.start_date),
                        _moment(schedule.end_date),
                    )

    def _fire_schedule(self, group: Any, schedule: Any, region: str) -> Callable[[datetime], None]:
        def fire(due: datetime) -> None:
            target = schedule.target
            text = str(target.get("Input") or "{}")
            for name, value in {
                "<aws.scheduler.schedule-arn>": schedule.arn,
                "<aws.scheduler.scheduled-time>": due.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "<aws.scheduler.execution-id>": str(uuid.uuid4()),
                "<aws.scheduler.attempt-number>": "1",
            }.items():
                text = text.replace(name, value)
            dead_letters = (target.get("DeadLetterConfig") or {}).get("Arn")
            self._targets.deliver(Delivery(target["Arn"], region, text, target, dead_letters, schedule.arn))
            is_once = schedule.schedule_expression.startswith("at(")
            if is_once and schedule.action_after_completion == "DELETE":
                group.schedules.pop(schedule.name, None)

        return fire


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def _moment(value: Any) -> datetime | None:
    """Return a date of moto's, which keeps what the request had: seconds since 1970, or text."""
    if value is None:
        return None
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    found = datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=UTC)
