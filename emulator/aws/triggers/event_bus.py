"""EventBridge: rules of moto's event buses whose pattern matches deliver to their targets.

moto keeps buses, rules and archives, and matches patterns; its own delivery reaches neither functions nor topics.
"""

import asyncio
import copy
import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jsonpath import JSONPathError
from jsonpath import compile as compile_path

from emulator.aws.triggers.targets import Delivery, Targets

if TYPE_CHECKING:
    from moto.events.models import Rule

_PLACEHOLDER = re.compile(r"<([A-Za-z0-9_.-]+)>")
_Event = Mapping[str, Any]


class EventBus:
    """Delivers the events of EventBridge.

    Parameters
    ----------
    targets
        Delivers to a rule's targets.
    account
        The account.
    """

    def __init__(self, targets: Targets, account: str) -> None:
        self._targets = targets
        self._account = account
        self._loop: asyncio.AbstractEventLoop | None = None
        self._replaced: Callable[..., None] | None = None

    def open(self) -> None:
        """Take moto's place in the delivery of events, before its first rule is made. Runs in the event loop.

        moto's module is imported here: the endpoint starts faster without it.
        """
        from moto.events.models import Rule

        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        original = Rule.send_to_targets
        self._replaced = original
        bus = self

        def send_to_targets(rule: "Rule", original_event: Any, transform_input: bool = True) -> None:
            if any(_is_archive(target["Arn"]) for target in rule.targets):
                original(rule, original_event, transform_input)
            else:
                bus.match(rule, original_event)

        Rule.send_to_targets = send_to_targets  # type: ignore[method-assign,assignment]

    def close(self) -> None:
        """Give moto its place back."""
        if self._replaced is not None:
            from moto.events.models import Rule

            Rule.send_to_targets = self._replaced  # type: ignore[method-assign]
            self._replaced = None
        self._loop = None

    def emit(self, region: str, source: str, detail_type: str, resources: list[str], detail: Mapping[str, Any]) -> None:
        """Put an event of an AWS service on the default bus.

        Parameters
        ----------
        region
            The region.
        source
            The service, such as ``aws.ecs``.
        detail_type, resources, detail
            The event's members.
        """
        if self._loop is None:
            # There is no rule yet.
            return
        from moto.events.models import events_backends

        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": self._account,
            "time": datetime.now(UTC).timestamp(),
            "region": region,
            "resources": resources,
            "detail": json.loads(json.dumps(detail)),
        }
        bus = events_backends[self._account][region].event_buses["default"]
        for rule in list(bus.rules.values()):
            self.match(rule, copy.deepcopy(event))

    def match(self, rule: "Rule", event: _Event) -> None:
        """Deliver an event to the targets of a rule, if it is enabled and its pattern matches. From any thread."""
        is_scheduled = rule.scheduled_expression and not rule.event_pattern.get_pattern()
        if rule.state == "DISABLED" or is_scheduled:
            return
        shown = formatted(event)
        if rule.event_pattern.matches_event(shown):  # type: ignore[arg-type]
            self.deliver(rule, shown)

    def deliver(self, rule: "Rule", event: _Event) -> None:
        """Deliver an event to all targets of a rule. From any thread."""
        loop = self._loop
        if loop is None:
            return
        for target in copy.deepcopy(rule.targets):
            if _is_archive(target["Arn"]):
                continue
            delivery = Delivery(
                target["Arn"],
                rule.region_name,
                target_input(target, event, rule.arn),
                target,
                (target.get("DeadLetterConfig") or {}).get("Arn"),
                rule.arn,
            )
            loop.call_soon_threadsafe(self._targets.deliver, delivery)


def formatted(event: _Event) -> dict[str, Any]:
    """Return an event in EventBridge's form: with its time as text, and without moto's own members."""
    shown = {name: value for name, value in event.items() if name not in ("ingestion-time", "event-bus-name")}
    moment = shown.get("time")
    if isinstance(moment, (int, float)) or (isinstance(moment, str) and re.fullmatch(r"\d+(\.\d+)?", moment)):
        shown["time"] = datetime.fromtimestamp(float(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return shown


def target_input(target: Mapping[str, Any], event: _Event, rule_arn: str = "") -> str:
    """Return what a target receives of an event: a fixed input, a part of the event, a template, or all of it.

    Source: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
    """
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return json.dumps(_select(str(target["InputPath"]), event))
    transformer = target.get("InputTransformer")
    if transformer is None:
        return json.dumps(event)
    paths = transformer.get("InputPathsMap") or {}
    values = {name: _select(str(path), event) for name, path in paths.items()}
    reserved = {
        "aws.events.event": event,
        "aws.events.event.json": event,
        "aws.events.event.ingestion-time": event.get("time"),
        "aws.events.rule-arn": rule_arn,
        "aws.events.rule-name": rule_arn.rpartition("/")[2],
    }
    return _fill(str(transformer.get("InputTemplate", "")), {**reserved, **values})


def _fill(template: str, values: Mapping[str, Any]) -> str:
    """Replace the placeholders of a template: inside of a string by their text, elsewhere by JSON."""
    filled, position, is_string = [], 0, False
    for match in _PLACEHOLDER.finditer(template):
        before = template[position : match.start()]
        # A quote that is not escaped begins or ends a string.
        is_string ^= len(re.findall(r'(?<!\\)"', before)) % 2 == 1
        filled.append(before)
        position = match.end()
        if match[1] not in values:
            filled.append(match[0])
            continue
        value = values[match[1]]
        text = value if isinstance(value, str) else json.dumps(value)
        filled.append(json.dumps(text)[1:-1] if is_string else json.dumps(value))
    return "".join(filled) + template[position:]


def _select(path: str, event: _Event) -> Any:
    try:
        found = compile_path(path).findall(event)
    except JSONPathError:
        return None
    return found[0] if found else None


def _is_archive(arn: str) -> bool:
    """Return whether a target is the archive that a rule of moto's own writes to."""
    return re.fullmatch(r"arn:aws[a-z-]*:events:[a-z0-9-]*:(\d*):?", arn) is not None
