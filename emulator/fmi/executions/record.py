"""A run's record in S3, its id, and its status in Step Functions."""

import datetime
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import ClientError

from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.resources import StackResources

RUNS = "runs/"
RESULTS = "results"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,70}")
_NEW_ID = re.compile(r"[a-z0-9-]+-\d{8}-\d{6}-[0-9a-f]{6}")
_NAME_LENGTH = 30
_NO_SUCH = frozenset(["NoSuchKey", "404"])


class UnknownRunError(EmulatorError):
    """No run has this id."""


@dataclass(frozen=True)
class RunRecord:
    """What was started, as any machine can read it.

    Parameters
    ----------
    run
        The run's id, also the name of its execution.
    program
        The script or the module.
    world_size
        Number of ranks; 0 if *initialize* decides it by the number of data files.
    memory_mb, timeout_s
        Memory (MB) and time limit (s) of a rank.
    started
        When it was started, in UTC and ISO 8601.
    prefix
        Prefix of the run in the bucket.
    result_path
        Prefix of its results.
    low_usd, high_usd
        The estimate of its cost, USD.
    max_usd
        The limit of its cost, USD; None if there is none.
    history_key
        The key under which the time of its ranks is kept, for the estimates of later runs.
    """

    run: str
    program: str
    world_size: int
    memory_mb: int
    timeout_s: int
    started: str
    prefix: str
    result_path: str
    low_usd: float
    high_usd: float
    max_usd: float | None = None
    history_key: str = ""


@dataclass(frozen=True)
class RunStatus:
    """A run as Step Functions knows it.

    Parameters
    ----------
    run
        The id.
    arn
        ARN of the execution.
    status
        RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED.
    began, ended
        Times; the end is None while it runs.
    error, cause
        Why it failed; or empty.
    """

    run: str
    arn: str
    status: str
    began: datetime.datetime
    ended: datetime.datetime | None
    error: str = ""
    cause: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.status == "RUNNING"


def new_run_id(name: str, now: datetime.datetime) -> str:
    """Return a run id: the program's name, the time, and a random part.

    Parameters
    ----------
    name
        The program's name.
    now
        The time, in UTC.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAME_LENGTH] or "run"
    return f"{plain}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def is_run_id(text: str) -> bool:
    """Return whether a text has the form that `new_run_id` gives."""
    return _NEW_ID.fullmatch(text) is not None


def run_prefix(run: str) -> str:
    """Return the prefix of a run in the bucket."""
    return f"{RUNS}{run}/"


def write_record(s3: Any, bucket: str, record: RunRecord) -> None:
    """Write a run's record."""
    s3.put_object(Bucket=bucket, Key=f"{record.prefix}run.json", Body=json.dumps(asdict(record)).encode())


def read_record(s3: Any, bucket: str, run: str) -> RunRecord:
    """Return a run's record.

    Raises
    ------
    UnknownRunError
        If there is none.
    """
    if not _ID.fullmatch(run):
        raise UnknownRunError(f"invalid run id {run!r}: expected one that `fmi-emulator runs` lists")
    try:
        content = s3.get_object(Bucket=bucket, Key=f"{run_prefix(run)}run.json")["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NO_SUCH:
            raise
        raise UnknownRunError(f"unknown run {run!r}: expected one that `fmi-emulator runs` lists") from None
    return RunRecord(**json.loads(content))


def execution_arn(resources: StackResources, run: str) -> str:
    """Return the ARN of a run's execution."""
    return f"{resources.state_machine.replace(':stateMachine:', ':execution:')}:{run}"


def read_status(states: Any, arn: str) -> RunStatus:
    """Return the status of an execution.

    Raises
    ------
    UnknownRunError
        If Step Functions does not know it: it was never started, or ended more than 90 days ago.
    """
    try:
        found = states.describe_execution(executionArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ExecutionDoesNotExist":
            raise
        name = arn.rpartition(":")[2]
        raise UnknownRunError(
            f"run {name!r} has no execution: it was not started, or ended over 90 days ago; see `fmi-emulator runs`"
        ) from None
    return RunStatus(
        found["name"],
        arn,
        found["status"],
        found["startDate"],
        found.get("stopDate"),
        found.get("error", ""),
        found.get("cause", ""),
    )


def list_runs(session: AwsSession, resources: StackResources) -> Iterator[RunStatus]:
    """Yield the runs of a stack, newest first; of the last 90 days."""
    pages = session.client("stepfunctions").get_paginator("list_executions")
    for page in pages.paginate(stateMachineArn=resources.state_machine):
        for found in page["executions"]:
            yield RunStatus(
                found["name"], found["executionArn"], found["status"], found["startDate"], found.get("stopDate")
            )
