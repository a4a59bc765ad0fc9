"""Whether a bucket's policy allows everybody to read: then a request needs no signature.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
"""

import json
import re
from typing import Any


def allows_everyone(policy: bytes, action: str, resource: str) -> bool:
    """Return whether a policy allows an action to everybody.

    Parameters
    ----------
    policy
        The document. A statement with a condition, NotAction or NotResource allows nothing here.
    action
        Such as ``s3:GetObject``.
    resource
        The ARN of the bucket or object.
    """
    try:
        statements = json.loads(policy)["Statement"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    allowed = False
    for statement in statements if isinstance(statements, list) else [statements]:
        if not isinstance(statement, dict):
            return False
        if statement.get("Effect") == "Deny":
            # A statement that may deny it is taken to do so.
            if _applies(statement, action, resource) or "NotAction" in statement or "NotResource" in statement:
                return False
        elif _is_everyone(statement.get("Principal")) and not statement.get("Condition"):
            allowed = allowed or _applies(statement, action, resource)
    return allowed


def _applies(statement: dict[str, Any], action: str, resource: str) -> bool:
    actions = any(_matches(pattern.lower(), action.lower()) for pattern in _texts(statement.get("Action")))
    return actions and any(_matches(pattern, resource) for pattern in _texts(statement.get("Resource")))


def _is_everyone(principal: object) -> bool:
    return principal == "*" or (isinstance(principal, dict) and "*" in _texts(principal.get("AWS")))


def _texts(value: object) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _matches(pattern: str, text: str) -> bool:
    parts = re.split(r"([*?])", pattern)
    regex = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(regex, text, re.DOTALL) is not None
