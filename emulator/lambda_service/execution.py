"""One invocation in one environment: an event goes in, an outcome comes out."""

import json
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from emulator.lambda_service.runtime_api import Answer, Invocation, error_payload
from emulator.lambda_service.warm_pool import ExecutionEnvironment, first_of
from emulator.sandboxes.base import SandboxExit


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended.

    Parameters
    ----------
    answer
        For the caller.
    status, error_type
        For the REPORT line, when the platform had to step in.
    log_line
        For the log, then.
    """

    answer: Answer
    status: str | None = None
    error_type: str | None = None
    log_line: str | None = None


async def execute(environment: ExecutionEnvironment, request_id: str, event: bytes) -> Outcome:
    """Give the sandbox the event and wait for its answer, its end or the timeout."""
    runtime, sandbox, timeout = environment.runtime, environment.sandbox, environment.function.spec.timeout_s
    if not runtime.ready.done() or runtime.ready.result() is None:
        deadline_ms = int((time.time() + timeout) * 1000)
        answer = runtime.send(Invocation(request_id, event, environment.function.arn, deadline_ms))
        await first_of(answer, sandbox.exited, timeout)
        if answer.done():
            return Outcome(answer.result())
    if runtime.ready.done() and (failed_init := runtime.ready.result()) is not None:
        await sandbox.exited
        return Outcome(_with_request_id(failed_init, request_id), "error", "Runtime.InitError")
    if sandbox.exited.done():
        return _exit_outcome(request_id, sandbox.exited.result())
    sandbox.kill()
    await sandbox.exited
    message = f"Task timed out after {timeout:.2f} seconds"
    return Outcome(
        Answer(error_payload("", "Sandbox.Timedout", f"RequestId: {request_id} Error: {message}"), is_error=True),
        "timeout",
        log_line=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {request_id} {message}",
    )


def _exit_outcome(request_id: str, end: SandboxExit) -> Outcome:
    if end.signal is not None:
        reason = f"signal: {(signal.strsignal(end.signal) or str(end.signal)).lower()}"
    else:
        reason = f"exit status {end.exit_status}"
    message = f"RequestId: {request_id} Error: Runtime exited with error: {reason}"
    kind = "Runtime.OutOfMemory" if end.out_of_memory else "Runtime.ExitError"
    return Outcome(
        Answer(error_payload("", "Runtime.ExitError", message), is_error=True),
        "error",
        kind,
        f"{message}\nRuntime.ExitError",
    )


def _with_request_id(answer: Answer, request_id: str) -> Answer:
    body = json.loads(answer.payload)
    return Answer(json.dumps({**body, "requestId": request_id}).encode(), answer.is_error)
