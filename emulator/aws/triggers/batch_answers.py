"""What a function answers to a batch: the items that have failed, if its mapping asks for them."""

import json

# The FunctionResponseType of a mapping whose function reports failed items.
PARTIAL = "ReportBatchItemFailures"


def failed_items(payload: bytes, sent: set[str]) -> frozenset[str] | None:
    """Return the ids of the items that a function reports as failed; None if the whole batch failed.

    Source: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    try:
        response = json.loads(payload or b"null")
    except ValueError:
        return None
    if not isinstance(response, dict):
        return frozenset()
    items = response.get("batchItemFailures")
    if not items:
        return frozenset()
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    found = [item.get("itemIdentifier") for item in items]
    if any(not isinstance(item, str) or item not in sent for item in found):
        return None
    return frozenset(str(item) for item in found)
