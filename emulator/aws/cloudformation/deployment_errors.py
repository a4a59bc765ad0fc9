"""What the error of a call means for a resource: its reason, and whether the resource is gone already."""

import logging
import re

from botocore.exceptions import BotoCoreError, ClientError

from emulator.errors import EmulatorError

_log = logging.getLogger(__name__)
_GONE = re.compile(r"NotFound|NoSuch|NonExistent|DoesNotExist|ClusterNotActive", re.IGNORECASE)


def is_gone(error: Exception) -> bool:
    """Return whether an error says that what was to be deleted does not exist."""
    if isinstance(error, ClientError):
        return _GONE.search(str(error.response["Error"].get("Code", ""))) is not None
    code = getattr(error, "code", None) or getattr(error, "error_type", None)
    return isinstance(code, str) and _GONE.search(code) is not None


def failure_reason(error: Exception) -> str:
    """Return the reason that the event of a failed resource states."""
    if isinstance(error, ClientError):
        found, metadata = error.response["Error"], error.response.get("ResponseMetadata", {})
        return (
            f"{found.get('Message') or found.get('Code')} (Operation: {error.operation_name}, Status Code: "
            f"{metadata.get('HTTPStatusCode')}, Request ID: {metadata.get('RequestId', '')})"
        )
    if isinstance(error, (EmulatorError, BotoCoreError)):
        return str(error)
    if isinstance(error, KeyError):
        return f"missing property {error.args[0]}"
    message = getattr(error, "message", None) or str(error)
    if not message:
        _log.warning("a resource failed without a message", exc_info=error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
