"""Destinations and dead-letter queues of asynchronous invocations.

Source: https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

import json
from datetime import UTC, datetime
from typing import Any

from emulator.aws.lambda_.core.event_outcomes import EventCondition, EventOutcome
from emulator.aws.triggers.targets import Delivery, Targets

# AWS sends the first kilobyte of an error.
_ERROR_BYTES = 1024


class Destinations:
    """Delivers records of asynchronous invocations that have ended.

    Parameters
    ----------
    targets
        Delivers to queues, topics, functions, buses and buckets.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def ended(self, outcome: EventOutcome) -> None:
        """Deliver the record of an invocation to its destination, and a failed event to the dead letters."""
        is_success = outcome.condition is EventCondition.SUCCESS
        kind = "OnSuccess" if is_success else "OnFailure"
        arn = (outcome.destinations.get(kind) or {}).get("Destination")
        if arn:
            record = invocation_record(outcome)
            text = json.dumps(record)
            if ":events:" in arn:
                status = "Success" if is_success else "Failure"
                text = json.dumps(
                    {
                        "source": "lambda",
                        "detail-type": f"Lambda Function Invocation Result - {status}",
                        "resources": [arn, outcome.function_arn],
                        "detail": record,
                    }
                )
            settings = {"S3Parameters": {"Key": _object_key(outcome)}} if ":s3:" in arn else {}
            self._targets.deliver(Delivery(arn, outcome.region, text, settings, origin=outcome.function_arn))
        if outcome.dead_letters and not is_success:
            attributes = {
                "RequestID": outcome.request_id,
                "ErrorCode": "200" if outcome.response is not None else "429",
                "ErrorMessage": _error_message(outcome.response)[:_ERROR_BYTES],
            }
            settings = {"MessageAttributes": attributes}
            event = outcome.event.decode(errors="replace")
            delivery = Delivery(outcome.dead_letters, outcome.region, event, settings, origin=outcome.function_arn)
            self._targets.deliver(delivery)


def invocation_record(outcome: EventOutcome) -> dict[str, Any]:
    """Return the record of an invocation."""
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": outcome.request_id,
            "functionArn": outcome.function_arn,
            "condition": str(outcome.condition),
            "approximateInvokeCount": outcome.attempts,
        },
        "requestPayload": _json(outcome.event),
    }
    if outcome.response is not None:
        context: dict[str, Any] = {"statusCode": 200, "executedVersion": outcome.version}
        if outcome.condition is not EventCondition.SUCCESS:
            context["functionError"] = "Unhandled"
        record |= {"responseContext": context, "responsePayload": _json(outcome.response)}
    return record


def _object_key(outcome: EventOutcome) -> str:
    now = datetime.now(UTC)
    function = outcome.function_arn.split(":")[6]
    return f"aws/lambda/async/{function}/{now:%Y/%m/%d}/{now:%Y-%m-%dT%H.%M.%S}-{outcome.request_id}"


def _error_message(response: bytes | None) -> str:
    found = _json(response or b"null")
    return str(found.get("errorMessage", "")) if isinstance(found, dict) else ""


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode(errors="replace")
