"""Shows each call of AWS before it is made and, in a dry run, answers those that would change something."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import boto3

_READS = ("Describe", "Filter", "Get", "Head", "List")
_LONGEST_VALUE = 80
_SECRETS = frozenset(["SecretBinary", "SecretString"])


@dataclass(frozen=True)
class AwsCall:
    """A call of AWS.

    Parameters
    ----------
    service
        boto3's name of the service.
    operation
        The operation, for example ``PutObject``.
    parameters
        Its parameters.
    """

    service: str
    operation: str
    parameters: dict[str, Any]

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing."""
        return self.operation.startswith(_READS)

    def __str__(self) -> str:
        """Return it in one line, without contents of objects."""
        shown = ", ".join(
            f"{name}={'<secret>' if name in _SECRETS else _shown(value)}"
            for name, value in sorted(self.parameters.items())
        )
        return f"{self.service} {self.operation}({shown})"


@dataclass(frozen=True)
class Answer:
    """The answer to a call that is not made.

    Parameters
    ----------
    content
        As boto3 returns it.
    status
        The HTTP status; one of an error raises it.
    """

    content: dict[str, Any]
    status: int = 200


def answer_changes(call: AwsCall) -> Answer | None:
    """Answer a call that would change something with an empty success; None for one that only reads."""
    return None if call.is_read else Answer({})


def observe_calls(
    session: boto3.Session,
    on_call: Callable[[AwsCall], None],
    answer: Callable[[AwsCall], Answer | None] | None = None,
) -> None:
    """Call a function before each call of the clients that a session makes from now on.

    Parameters
    ----------
    session
        The session.
    on_call
        Receives the call.
    answer
        Returns the answer to a call that is not to be made, or None for one that is; absent, all are made.
    """

    def before_build(params: dict[str, Any], model: Any, context: dict[str, Any], **_: object) -> None:
        call = AwsCall(model.service_model.service_name, model.name, dict(params))
        context["fmi_call"] = call
        on_call(call)

    def before_call(context: dict[str, Any], **_: object) -> tuple[Any, dict[str, Any]] | None:
        call = context.get("fmi_call")
        found = answer(call) if call is not None and answer is not None else None
        if found is None:
            return None
        metadata = {"ResponseMetadata": {"HTTPStatusCode": found.status}}
        return SimpleNamespace(status_code=found.status), {**found.content, **metadata}

    # The published types do not know handlers that answer.
    events: Any = session.events
    events.register_first("before-parameter-build.*.*", before_build)
    if answer is not None:
        events.register_first("before-call.*.*", before_call)


def _shown(value: object) -> str:
    if isinstance(value, bytes | bytearray) or hasattr(value, "read"):
        return f"<{len(value)} bytes>" if isinstance(value, bytes | bytearray) else "<file>"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
