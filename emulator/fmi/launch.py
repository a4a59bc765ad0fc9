"""A run from upload to results: initialize, one execute a rank, summarize."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from emulator.aws.lambda_.log_lines import Report, parse_report
from emulator.errors import EmulatorError
from emulator.fmi.backend import Backend
from emulator.fmi.bundle import UploadedFile, data_files, program_files, program_name
from emulator.fmi.deploy import Role, Settings, deploy
from emulator.fmi.job import Failure, Job, RankOutcome, RunOutcome
from emulator.fmi.log_tail import LogTail, RankLine
from emulator.fmi.rank_failures import STOPPED, place_of
from emulator.fmi.results import check_folder, fetch_results

FUNCTIONS = {role: f"fmi-{role.value}" for role in Role}
_DATA_PREFIX = "data/"
_RESULT_PATH = "results"
_POLL_S = 0.1
# After the first failure, the other ranks have this long to notice and say so themselves.
_GRACE_S = 3.0
_LOG_SETTLE_S = 5.0
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


class RunError(EmulatorError):
    """A run that failed outside of its ranks."""


def uploads(job: Job) -> list[UploadedFile]:
    """Return what a job brings along, its program's folder and its data, and see that its results have a place.

    Raises
    ------
    ProgramError
        When one of them is missing or cannot be uploaded.
    ResultsError
        When results cannot go where they are to.
    """
    check_folder(job.results)
    return program_files(job.script) + (data_files(job.data, _DATA_PREFIX) if job.data else [])


def run(job: Job, files: Sequence[UploadedFile], backend: Backend, on_line: Callable[[RankLine], None]) -> RunOutcome:
    """Run a job.

    Parameters
    ----------
    job
        What to run.
    files
        What it brings along, see `uploads`.
    backend
        Where to run it.
    on_line
        Gets the ranks' output as it appears.

    Returns
    -------
    RunOutcome
        What came of every rank. Results have been fetched only when none of them failed.

    Raises
    ------
    RunError
        When *initialize* or *summarize* fails.
    """
    backend.s3.create_bucket(Bucket=backend.bucket)
    for file in files:
        backend.s3.put_object(Bucket=backend.bucket, Key=file.key, Body=file.read())
    settings = Settings(job.memory_mb, job.timeout_s, backend.rendezvous)
    deploy(backend.functions, FUNCTIONS, settings, backend.role)
    event = _event(job, backend.bucket)
    initialized, initialize_report, failure = _invoke(backend, FUNCTIONS[Role.INITIALIZE], event)
    if failure:
        raise RunError(f"initialize failed: {failure}")
    ranks = _execute(initialized["body"], backend, on_line)
    if job.results is None or any(outcome.failure for outcome in ranks):
        return RunOutcome(tuple(ranks), (initialize_report,))
    _, summarize_report, failure = _invoke(backend, FUNCTIONS[Role.SUMMARIZE], event)
    if failure:
        raise RunError(f"summarize failed: {failure}")
    rank_results = fetch_results(backend.s3, backend.bucket, _RESULT_PATH, job.results)
    return RunOutcome(tuple(ranks), (initialize_report, summarize_report), rank_results)


def _event(job: Job, bucket: str) -> dict[str, Any]:
    """Return the state machine's input for this job."""
    name = program_name(job.script)
    return {
        "bucket": bucket,
        "world_size": job.world_size,
        "object_type": "folder",
        "S3_object_name": name,
        "script": f"{name}/{job.script.name}",
        "script_arguments": list(job.arguments),
        **({"data_bucket": bucket, "data_prefix": _DATA_PREFIX} if job.data else {}),
        "result_path": _RESULT_PATH,
        "batch_size": "" if job.batch_size is None else job.batch_size,
    }


def _execute(
    payloads: list[dict[str, Any]], backend: Backend, on_line: Callable[[RankLine], None]
) -> list[RankOutcome]:
    """Invoke all ranks at once, pass their output on, and stop what still runs when one of them fails."""
    tail = LogTail(backend.logs, f"/aws/lambda/{FUNCTIONS[Role.EXECUTE]}", on_line)
    outcomes: list[RankOutcome] = []
    deadline = float("inf")
    ended = 0
    with ThreadPoolExecutor(len(payloads), thread_name_prefix="invoke") as threads:
        try:
            pending: dict[Future[tuple[Any, Report, Failure | None]], int] = {
                threads.submit(_invoke, backend, FUNCTIONS[Role.EXECUTE], payload): int(payload["RANK"])
                for payload in payloads
            }
            while pending:
                done, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    _, report, failure = future.result()
                    if failure and time.monotonic() > deadline:
                        failure = Failure(STOPPED, "it was still running after another rank had failed")
                    outcomes.append(RankOutcome(pending.pop(future), report, failure))
                    if failure:
                        deadline = min(deadline, time.monotonic() + _GRACE_S)
                if pending and time.monotonic() > deadline:
                    backend.stop_functions()
                ended += tail.poll()
        except BaseException:
            # Whatever it is, Ctrl-C above all: the threads wait for functions that nobody wants any more.
            with _stopping(backend):
                threads.shutdown(cancel_futures=True)
            raise
    settled = time.monotonic() + _LOG_SETTLE_S
    while ended < len(payloads) and time.monotonic() < settled:
        ended += tail.poll()
    return outcomes


@contextmanager
def _stopping(backend: Backend) -> Iterator[None]:
    """Stop all functions again and again: some of a thousand may only be on their way to their sandboxes."""
    ended = threading.Event()

    def stop() -> None:
        while not ended.is_set():
            backend.stop_functions()
            ended.wait(_POLL_S)

    # A second interrupt leaves it at work: whoever still waits for functions needs it.
    threading.Thread(target=stop, name="stop", daemon=True).start()
    yield
    ended.set()


def _invoke(backend: Backend, name: str, event: dict[str, Any]) -> tuple[Any, Report, Failure | None]:
    response = backend.functions.invoke(
        FunctionName=name,
        InvocationType="RequestResponse",
        LogType="Tail",
        Payload=json.dumps(event).encode(),
    )
    answer = json.loads(response["Payload"].read())
    log = base64.b64decode(response["LogResult"]).decode(errors="replace")
    report = parse_report(next(line for line in reversed(log.splitlines()) if line.startswith("REPORT ")))
    return answer, report, _failure(answer, report) if "FunctionError" in response else None


def _failure(answer: dict[str, Any], report: Report) -> Failure:
    kind, message = answer["errorType"], answer["errorMessage"]
    if kind == "Sandbox.Timedout":
        return Failure("Timeout", f"{message.rpartition('Error: ')[2]}; raise --timeout or look for a deadlock")
    if report.error_type == "Runtime.OutOfMemory":
        return Failure("OutOfMemory", f"it used more than its {report.memory_mb} MB; raise --memory")
    if kind == "Runtime.ExitError":
        return Failure("ProcessEnded", message.rpartition("exited with error: ")[2])
    frames = _FRAME.findall("".join(answer.get("stackTrace", [])))
    return Failure(kind, message, place_of(frames))
