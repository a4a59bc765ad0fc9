"""What the operations of Lambda read from requests, and the pages of listings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from emulator.aws.account import Account
from emulator.aws.json_requests import whole_number
from emulator.aws.lambda_.core.models import Function
from emulator.aws.lambda_.core.references import Reference, invalid_parameter

_PAGE = 50

Parameters = Mapping[str, Any]
Operation = Callable[[Parameters, Account], Any]


def reference_of(parameters: Parameters, account: Account) -> Reference:
    """Return the function, version or alias that a request names."""
    return Reference.parse(parameters["FunctionName"], parameters.get("Qualifier"), account)


def summary_of(function: Function) -> dict[str, Any]:
    """Return a function as listings of versions show it."""
    return function.summary(f"{function.spec.arn}:{function.version}")


def page_of(parameters: Parameters, name: str, items: Sequence[Any], most: int = _PAGE) -> dict[str, Any]:
    """Return the page of a listing that MaxItems and Marker select, with the NextMarker if more follow.

    Parameters
    ----------
    parameters
        The request.
    name
        The member of the answer that has the items.
    items
        All items.
    most
        How many items a page has at most, whatever MaxItems is.

    Raises
    ------
    ApiError
        When Marker is invalid.
    """
    size = min(most, parameters.get("MaxItems", most))
    begin = whole_number(parameters.get("Marker") or "0")
    if begin is None:
        marker = parameters["Marker"]
        raise invalid_parameter(f"invalid Marker {marker!r:.80}: expected the NextMarker of a previous page")
    page: dict[str, Any] = {name: items[begin : begin + size]}
    if begin + size < len(items):
        page["NextMarker"] = str(begin + size)
    return page
