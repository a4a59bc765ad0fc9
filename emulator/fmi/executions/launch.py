"""Starts a run on a stack: its event and record go to S3, then one execution of the state machine starts."""

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import ClientError

from emulator.fmi.aws_session import AwsSession
from emulator.fmi.bundle import UploadedFile, data_files
from emulator.fmi.deployment.resources import StackResources
from emulator.fmi.executions.estimate import Estimate, estimate, read_earlier, time_limit
from emulator.fmi.executions.preflight import Preflight, Program, check
from emulator.fmi.executions.record import RESULTS, RunRecord, new_run_id, run_prefix, write_record
from emulator.fmi.executions.upload import data_prefix, upload_data, upload_program
from emulator.fmi.payload import MissingCodeError, PipelinePayload


@dataclass(frozen=True)
class LaunchRequest:
    """A program to start on a stack.

    Parameters
    ----------
    name
        What the run is called after.
    program
        Its files, at their paths in the program.
    event
        The event of *initialize* without what the stack adds: its bucket, the program's place and the results'.
    world_size
        Number of ranks; None for one rank per data file.
    data
        Files to distribute to the ranks.
    script
        Path of the script in the program; None for a module.
    merge
        Whether *summarize* merges the ranks' results.
    max_usd
        Limit of the run's cost, USD; or None.
    """

    name: str
    program: Sequence[UploadedFile]
    event: Mapping[str, Any]
    world_size: int | None
    data: Sequence[UploadedFile] = ()
    script: str | None = None
    merge: bool = True
    max_usd: float | None = None


@dataclass(frozen=True)
class Planned:
    """A run that has been checked, and can be started.

    Parameters
    ----------
    request
        What to start.
    preflight
        What the checks have found.
    expected
        The estimate of its cost.
    limit_s
        Time after which ranks stop themselves, seconds; 0 for none.
    history_key
        By which its time is compared with that of other runs.
    """

    request: LaunchRequest
    preflight: Preflight
    expected: Estimate
    limit_s: int
    history_key: str


def pipeline_request(
    payload: PipelinePayload,
    code: Sequence[UploadedFile],
    data: Path | None,
    resources: StackResources,
    max_usd: float | None,
) -> LaunchRequest:
    """Return the run that a pipeline's payload describes.

    Code, payload and results are in the stack's bucket, whatever bucket the payload names. Data is uploaded to it, too,
    unless the payload names the stack's further bucket.

    Parameters
    ----------
    payload
        The payload.
    code
        The files of the program.
    data
        Local folder of the data; None if it is in S3.
    resources
        The stack.
    max_usd
        Limit of the run's cost, USD; or None.

    Raises
    ------
    MissingCodeError
        If the data is in a bucket that the stack's functions may not read.
    """
    event = dict(payload.event)
    files = []
    if data is not None:
        files = data_files(data, "")[: int(event.get("file_limit") or 0) or None]
    elif payload.data_bucket and payload.data_bucket not in (resources.bucket, resources.data_bucket):
        raise MissingCodeError(
            f"stack {resources.stack!r} may not read the payload's data_bucket {payload.data_bucket!r}: "
            f"run `fmi-emulator deploy --data-bucket {payload.data_bucket}`, or upload the data with --data"
        )
    return LaunchRequest(
        name=PurePosixPath(payload.script).stem,
        program=code,
        event={**event, "S3_object_name": payload.folder, "script": f"{payload.folder}/{payload.script}"},
        world_size=payload.world_size,
        data=files,
        script=f"{payload.folder}/{payload.script}",
        merge=bool(payload.result_path),
        max_usd=max_usd,
    )


def plan(session: AwsSession, resources: StackResources, request: LaunchRequest) -> Planned:
    """Check a run and estimate its cost. Nothing is uploaded.

    Raises
    ------
    PreflightError
        If the run cannot succeed.
    CostLimitError
        If it would cost more than its limit.
    """
    sources = {file.key: file.read() for file in request.program if file.key.endswith(".py")}
    world_size = request.world_size if request.world_size is not None else len(request.data) or None
    found = check(session, resources, world_size, Program(sources, request.script))
    key = _history_key(request, resources)
    earlier = read_earlier(session.client("s3"), resources.bucket, key)
    expected = estimate(world_size or 1, resources.memory_mb, resources.timeout_s, earlier)
    limit_s = time_limit(world_size or 1, resources.memory_mb, resources.timeout_s, expected, request.max_usd)
    return Planned(request, found, expected, limit_s, key)


def launch(session: AwsSession, resources: StackResources, planned: Planned, note: Callable[[str], None]) -> RunRecord:
    """Upload what is missing, write the run's record and start its execution; return the record.

    The execution has the run's id as its name: Step Functions starts it once, even if the request is repeated.
    """
    request = planned.request
    s3 = session.client("s3", connections=32)
    program = upload_program(s3, resources.bucket, request.program)
    note(f"uploaded {program.count} of {len(request.program)} files of the program ({program.size / 1e6:.2f} MB)")
    data: dict[str, str] = {}
    if request.data:
        uploaded = upload_data(s3, resources.bucket, request.data)
        note(f"uploaded {uploaded.count} of {len(request.data)} files of data ({uploaded.size / 1e6:.2f} MB)")
        data = {"data_bucket": resources.bucket, "data_prefix": data_prefix(uploaded.digest)}
    now = datetime.datetime.now(datetime.UTC)
    run = new_run_id(request.name, now)
    prefix = run_prefix(run)
    variables = {
        "RUN_ID": run,
        "FMI_JOB": run,
        "FMI_RENDEZVOUS": planned.preflight.rendezvous,
        **({"TIME_LIMIT_S": planned.limit_s} if planned.limit_s else {}),
    }
    event = {
        **request.event,
        **data,
        "bucket": resources.bucket,
        "object_type": "archive",
        "result_path": f"{prefix}{RESULTS}",
        "manifest": program.digest,
        "merge": request.merge,
        "rank_variables": variables,
    }
    s3.put_object(Bucket=resources.bucket, Key=f"{prefix}event.json", Body=json.dumps(event).encode())
    record = RunRecord(
        run=run,
        program=request.name,
        world_size=request.world_size if request.world_size is not None else len(request.data),
        memory_mb=resources.memory_mb,
        timeout_s=resources.timeout_s,
        started=now.isoformat(timespec="seconds"),
        prefix=prefix,
        result_path=f"{prefix}{RESULTS}" if request.merge else "",
        low_usd=planned.expected.low_usd,
        high_usd=planned.expected.high_usd,
        max_usd=request.max_usd,
        history_key=planned.history_key,
    )
    write_record(s3, resources.bucket, record)
    start_execution(session.client("stepfunctions"), resources, record)
    return record


def start_execution(states: Any, resources: StackResources, record: RunRecord) -> None:
    """Start a run's execution unless it was started already."""
    try:
        states.start_execution(
            stateMachineArn=resources.state_machine,
            name=record.run,
            input=json.dumps({"bucket": resources.bucket, "run_prefix": record.prefix}),
        )
    except ClientError as error:
        # A retried request finds what the first one started.
        if error.response["Error"]["Code"] != "ExecutionAlreadyExists":
            raise


def _history_key(request: LaunchRequest, resources: StackResources) -> str:
    """Return what runs of equal time have in common: program, arguments, ranks, memory and number of data files."""
    parts = [
        request.name,
        request.script,
        list(request.event.get("script_arguments", [])),
        request.event.get("batch_size"),
        request.world_size,
        len(request.data),
        resources.memory_mb,
        resources.stack,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
