"""Subscription filters of log groups: their events for functions.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html
"""

import base64
import gzip
import json
import uuid

from emulator.aws.logs.core import SubscribedEvents
from emulator.aws.triggers.targets import Delivery, Targets

# The ids of events have so many digits.
_ID_DIGITS = 56


class LogSubscriptions:
    """Delivers log events to functions.

    Parameters
    ----------
    targets
        Invokes the functions.
    account
        The number of the account.
    """

    def __init__(self, targets: Targets, account: str) -> None:
        self._targets = targets
        self._account = account

    def publish(self, found: SubscribedEvents) -> None:
        """Invoke the function of a filter with the events that matched."""
        message = {
            "messageType": "DATA_MESSAGE",
            "owner": self._account,
            "logGroup": found.group,
            "logStream": found.stream,
            "subscriptionFilters": [found.filter.name],
            "logEvents": [
                {"id": _new_id(), "timestamp": timestamp, "message": message} for timestamp, message in found.events
            ],
        }
        data = base64.b64encode(gzip.compress(json.dumps(message).encode())).decode()
        event = json.dumps({"awslogs": {"data": data}})
        origin = f"arn:aws:logs:{found.region}:{self._account}:log-group:{found.group}"
        self._targets.deliver(Delivery(found.filter.destination, found.region, event, origin=origin))


def _new_id() -> str:
    return f"{uuid.uuid4().int:0{_ID_DIGITS}d}"
