"""A run of ``fmirun``, from upload to results: initialize, one execute a rank, summarize."""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from emulator.aws.credentials import Credentials
from emulator.aws.lambda_.log_lines import Report, parse_report
from emulator.aws.limits import ACCOUNT_ID, MB_PER_VCPU, TIMEOUT_S
from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession, session_with
from emulator.fmi.bundle import CodeFolder, UploadedFile, data_files, module_files, program_files, program_name
from emulator.fmi.console import ConsoleAddress
from emulator.fmi.deploy import DeploySettings, Role, deploy
from emulator.fmi.functions.execute import ScriptExit
from emulator.fmi.log_reader import RankLine, RankOutputReader
from emulator.fmi.outcomes import (
    STOPPED_FAILURE,
    FunctionFailure,
    RankOutcome,
    RunOutcome,
    explained,
    failure_location,
    out_of_memory_failure,
    timeout_failure,
)
from emulator.fmi.rank_log import LogLine
from emulator.fmi.results import check_folder, fetch_results

if TYPE_CHECKING:
    from types_boto3_lambda.client import LambdaClient
    from types_boto3_logs.client import CloudWatchLogsClient
    from types_boto3_s3.client import S3Client

FUNCTIONS = {role: f"fmi-{role.value}" for role in Role}
DATA_PREFIX = "data/"
_RESULT_PATH = "results"
_POLL_S = 0.1
# After the first failure, the other ranks have this long to detect it and raise their own errors.
_GRACE_S = 3.0
_LOG_SETTLE_S = 5.0
_EXIT_STATUS = re.compile(r"exit(?:ed with)? status (\d+)")
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
# A function's answer, its REPORT line, and its failure.
_Invocation: TypeAlias = tuple[Any, Report, FunctionFailure | None]
_Returned: TypeAlias = "SimpleQueue[tuple[int, _Invocation | BaseException]]"


@dataclass(frozen=True)
class RunRequest:
    """A program to run as N functions.

    Parameters
    ----------
    script
        The program; its folder is uploaded with it. With `module`, a path in the folder to upload.
    world_size
        Number of ranks.
    arguments
        The script's command-line arguments.
    memory_mb
        Memory of a rank, MB; the default pays for one vCPU.
    timeout_s
        Timeout of a rank, seconds.
    data
        Folder of files to distribute to the ranks, or None.
    results
        Folder to which the results are downloaded after all ranks have succeeded, or None.
    batch_size
        BATCH_SIZE in the script's environment; None leaves it unset.
    module
        Dotted name of the module to run as ``__main__`` instead of the script, or None.
    environment
        Variables of the script's environment.
    """

    script: Path
    world_size: int
    arguments: tuple[str, ...] = ()
    memory_mb: int = MB_PER_VCPU
    timeout_s: int = TIMEOUT_S[-1]
    data: Path | None = None
    results: Path | None = None
    batch_size: int | None = None
    module: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_module(cls, module: str, world_size: int, **settings: Any) -> "RunRequest":
        """Return the request for a module in the current folder, as ``python -m`` runs it."""
        return cls(Path.cwd() / module.partition(".")[0], world_size, module=module, **settings)


@dataclass(frozen=True)
class Backend:
    """The AWS clients and resources that a run uses.

    Parameters
    ----------
    s3, functions, logs
        boto3 clients of S3, Lambda and CloudWatch Logs.
    bucket
        Bucket for code, data and results.
    role
        ARN of the functions' role.
    rendezvous
        ``host:port`` of the rendezvous server that functions can reach.
    stop_functions
        Stops running functions, where the endpoint can.
    executor_image, rank_image
        The images that the functions run in, see `DeploySettings`.
    """

    s3: "S3Client"
    functions: "LambdaClient"
    logs: "CloudWatchLogsClient"
    bucket: str
    role: str
    rendezvous: str
    stop_functions: Callable[[], None]
    executor_image: str | None = None
    rank_image: str | None = None


def local_backend(
    endpoint_url: str,
    credentials: Credentials,
    rendezvous: str,
    world_size: int,
    stop_functions: Callable[[], None],
    executor_image: str | None = None,
    rank_image: str | None = None,
) -> Backend:
    """Return the backend of a local cloud on this machine.

    Parameters
    ----------
    endpoint_url
        The cloud's endpoint.
    rendezvous
        ``host:port`` of its rendezvous server.
    world_size
        Number of ranks, which is the number of concurrent calls.
    stop_functions
        Stops the cloud's running functions.
    executor_image, rank_image
        The images that the functions run in, see `DeploySettings`; None for archives.
    """
    connection = AwsSession(session_with(credentials), endpoint_url)
    return Backend(
        s3=connection.client("s3"),
        functions=connection.client("lambda", world_size + 1),
        logs=connection.client("logs"),
        bucket="fmi",
        role=f"arn:aws:iam::{ACCOUNT_ID}:role/fmi",
        rendezvous=rendezvous,
        stop_functions=stop_functions,
        executor_image=executor_image,
        rank_image=rank_image,
    )


class RunError(EmulatorError):
    """The run failed outside of its ranks."""


def uploads(request: RunRequest) -> CodeFolder:
    """Return the files to upload, the program's folder and the data, and check the folder of the results.

    Raises
    ------
    ProgramError
        If one of them is missing or cannot be uploaded.
    ResultsError
        If results cannot be written to their folder.
    """
    check_folder(request.results)
    code = module_files(request.module, request.script.parent) if request.module else program_files(request.script)
    data = data_files(request.data, DATA_PREFIX) if request.data else []
    return replace(code, files=code.files + data)


def run(
    request: RunRequest,
    files: Sequence[UploadedFile],
    backend: Backend,
    on_line: Callable[[RankLine], None],
    console: ConsoleAddress | None = None,
    on_record: Callable[[LogLine], None] | None = None,
) -> RunOutcome:
    """Run a program and return how each rank ended.

    Parameters
    ----------
    request
        What to run.
    files
        The files to upload, see `uploads`.
    backend
        Where to run it.
    on_line
        Called with each line of the ranks' output.
    console
        Where the standard input of rank 0 comes from; None if it is empty.
    on_record
        Called with the lines that the library writes of itself; None to ignore them.

    Returns
    -------
    RunOutcome
        The outcome of every rank. Results were downloaded only if no rank failed.

    Raises
    ------
    RunError
        If *initialize* or *summarize* fails.
    """
    backend.s3.create_bucket(Bucket=backend.bucket)
    for file in files:
        backend.s3.put_object(Bucket=backend.bucket, Key=file.key, Body=file.read())
    settings = DeploySettings(
        request.memory_mb,
        request.timeout_s,
        backend.rendezvous,
        executor_image=backend.executor_image,
        rank_image=backend.rank_image,
    )
    deploy(backend.functions, FUNCTIONS, settings, backend.role)
    event = run_event(request, backend.bucket, console)
    initialized, initialize_report, failure = _invoke(backend, FUNCTIONS[Role.INITIALIZE], event)
    if failure:
        raise RunError(f"initialize failed: {failure}")
    ranks = _execute(initialized["body"], backend, on_line, on_record)
    if request.results is None or any(outcome.failure for outcome in ranks):
        return RunOutcome(tuple(ranks), (initialize_report,))
    _, summarize_report, failure = _invoke(backend, FUNCTIONS[Role.SUMMARIZE], event)
    if failure:
        raise RunError(f"summarize failed: {failure}")
    rank_results = fetch_results(backend.s3, backend.bucket, _RESULT_PATH, request.results)
    return RunOutcome(tuple(ranks), (initialize_report, summarize_report), rank_results)


def run_event(request: RunRequest, bucket: str, console: ConsoleAddress | None = None) -> dict[str, Any]:
    """Return the state machine's input for this request."""
    name = program_name(request.script)
    return {
        "bucket": bucket,
        "world_size": request.world_size,
        "object_type": "folder",
        "S3_object_name": name,
        "script": f"{name}/{request.script.name}",
        "script_arguments": list(request.arguments),
        **({"script_module": request.module} if request.module else {}),
        **({"script_environment": dict(request.environment)} if request.environment else {}),
        **({"console": console.payload()} if console else {}),
        **({"data_bucket": bucket, "data_prefix": DATA_PREFIX} if request.data else {}),
        "result_path": _RESULT_PATH,
        "batch_size": "" if request.batch_size is None else request.batch_size,
    }


def _execute(
    payloads: list[dict[str, Any]],
    backend: Backend,
    on_line: Callable[[RankLine], None],
    on_record: Callable[[LogLine], None] | None = None,
) -> list[RankOutcome]:
    """Invoke all ranks at once, pass on their output, and stop the others when one fails."""
    tail = RankOutputReader(backend.logs, f"/aws/lambda/{FUNCTIONS[Role.EXECUTE]}", on_line, on_record)
    outcomes: list[RankOutcome] = []
    deadline = float("inf")
    ended = 0
    # Ctrl-C in `concurrent.futures.wait` would leave locks of the futures held, and the threads blocked for ever.
    returned: _Returned = SimpleQueue()

    def invoke(payload: dict[str, Any]) -> None:
        rank = int(payload["RANK"])
        try:
            returned.put((rank, _invoke(backend, FUNCTIONS[Role.EXECUTE], payload)))
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            returned.put((rank, error))

    with ThreadPoolExecutor(len(payloads), thread_name_prefix="invoke") as threads:
        try:
            for payload in payloads:
                threads.submit(invoke, payload)
            pending = len(payloads)
            while pending:
                for rank, (_, report, failure) in _taken(returned):
                    stopped = failure and time.monotonic() > deadline
                    outcomes.append(RankOutcome(rank, report, STOPPED_FAILURE if stopped else failure))
                    pending -= 1
                    if failure:
                        deadline = min(deadline, time.monotonic() + _GRACE_S)
                if pending and time.monotonic() > deadline:
                    backend.stop_functions()
                ended += tail.poll()
        except BaseException:
            # Any error, Ctrl-C above all: the threads still wait for functions whose results are not needed.
            with _stopping(backend):
                threads.shutdown(cancel_futures=True)
            raise
    settled = time.monotonic() + _LOG_SETTLE_S
    while ended < len(payloads) and time.monotonic() < settled:
        ended += tail.poll()
    return outcomes


def _taken(returned: _Returned) -> Iterator[tuple[int, _Invocation]]:
    """Wait until a rank has returned, for a moment at most; yield what all have that did, or raise their error."""
    with suppress(Empty):
        rank, result = returned.get(timeout=_POLL_S)
        while True:
            if isinstance(result, BaseException):
                raise result
            yield rank, result
            rank, result = returned.get_nowait()


@contextmanager
def _stopping(backend: Backend) -> Iterator[None]:
    """Stop all functions repeatedly within a block: some of a thousand may not have reached their sandboxes yet."""
    ended = threading.Event()

    def stop() -> None:
        while not ended.is_set():
            backend.stop_functions()
            ended.wait(_POLL_S)

    # The thread continues after a second interrupt: the threads that still wait for functions need it.
    threading.Thread(target=stop, name="stop", daemon=True).start()
    yield
    ended.set()


def _invoke(backend: Backend, name: str, event: dict[str, Any]) -> _Invocation:
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


def _failure(answer: dict[str, Any], report: Report) -> FunctionFailure:
    if report.error_type == "Runtime.OutOfMemory":
        return out_of_memory_failure(report.memory_mb)
    return failure_of_answer(answer)


def failure_of_answer(answer: dict[str, Any]) -> FunctionFailure:
    """Return the failure that Lambda's answer to an Invoke describes."""
    kind, message = answer["errorType"], answer["errorMessage"]
    if kind == "Sandbox.Timedout":
        return timeout_failure(message.rpartition("Error: ")[2])
    if kind == "Runtime.ExitError":
        ended = message.rpartition("exited with error: ")[2]
        return FunctionFailure("ProcessEnded", ended, exit_status=_exit_status(ended))
    frames = _FRAME.findall("".join(answer.get("stackTrace", [])))
    exit_status = _exit_status(message) if kind == ScriptExit.__name__ else None
    return explained(FunctionFailure(kind, message, failure_location(frames), exit_status))


def _exit_status(text: str) -> int | None:
    found = _EXIT_STATUS.search(text)
    return int(found[1]) if found else None
