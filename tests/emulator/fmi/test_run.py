"""A run that is interrupted, on a fake Lambda service."""

import base64
import io
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from emulator.aws.lambda_.log_lines import Report
from emulator.fmi import run
from emulator.fmi.run import Backend


class SlowLambda:
    """Functions that run until they are stopped twice: at the first stop they have not reached their sandboxes."""

    def __init__(self) -> None:
        self.stops = 0
        self._changed = threading.Condition()

    def invoke(self, **_: Any) -> dict[str, Any]:
        with self._changed:
            self._changed.wait_for(lambda: self.stops >= 2)
        log = base64.b64encode(Report("id", 1.0, 128, 1, status="error").line().encode())
        answer = io.BytesIO(b'{"errorType": "Runtime.ExitError", "errorMessage": "killed"}')
        return {"Payload": answer, "LogResult": log, "FunctionError": "Unhandled"}

    def stop(self) -> None:
        with self._changed:
            self.stops += 1
            self._changed.notify_all()


def test_an_interrupt_also_stops_ranks_that_reach_their_sandboxes_later() -> None:
    functions = SlowLambda()

    def paginate(**_: Any) -> Any:
        raise KeyboardInterrupt

    logs: Any = SimpleNamespace(
        get_paginator=lambda _: SimpleNamespace(paginate=paginate),
        exceptions=SimpleNamespace(ResourceNotFoundException=LookupError),
    )
    s3: Any = None
    lambda_client: Any = functions
    backend = Backend(s3, lambda_client, logs, "bucket", "role", "127.0.0.1:1", functions.stop)
    with pytest.raises(KeyboardInterrupt):
        run._execute([{"RANK": str(rank)} for rank in range(3)], backend, lambda _: None)
    assert functions.stops >= 2
