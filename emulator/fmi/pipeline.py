"""A run of the published state machine from upload to results, written against boto3 alone."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.lambda_.log_lines import Report
from emulator.aws.limits import ACCOUNT_ID
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.bundle import UploadedFile
from emulator.fmi.deploy import DeploySettings, Role, deploy
from emulator.fmi.functions.initialize import PAYLOAD_KEY, RANKS_KEY
from emulator.fmi.log_reader import LogGroupReader
from emulator.fmi.outcomes import STOPPED, FunctionFailure, RankOutcome, RunOutcome
from emulator.fmi.payload import GIVE_FOLDER, MissingCodeError, PipelinePayload
from emulator.fmi.rank_log import LogLine, RankLineParser, RankLog
from emulator.fmi.results import fetch_results, fetch_written
from emulator.fmi.state_machine import StateMachine

_MACHINE_NAME = "fmi-pipeline"
_ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/fmi"
_POLL_S = 0.15
_LOG_SETTLE_S = 5.0


_FAILURES = {
    "TaskFailed",
    "TaskTimedOut",
    "LambdaFunctionFailed",
    "LambdaFunctionTimedOut",
    "MapRunFailed",
    "FailStateEntered",
    "EvaluationFailed",
}


@dataclass
class Progress:
    """Progress of a pipeline.

    Attributes
    ----------
    logs
        State of each function, from its log, by role.
    began
        Start time, seconds since 1970.
    """

    logs: dict[Role, RankLog] = field(default_factory=lambda: {role: RankLog() for role in Role})
    began: float = field(default_factory=time.time)


@dataclass(frozen=True)
class PipelineOutcome:
    """How a pipeline ended.

    Parameters
    ----------
    run
        The ranks, and the reports of the other functions.
    reports
        The reports of all invocations, failed attempts included.
    status
        The execution's status, by AWS's name.
    failed_state
        The state that failed, or empty.
    failure
        Why it failed, if not because of a rank; or None.
    transitions
        State transitions, as AWS counts them.
    express_ms
        The durations of the EXPRESS executions, ms; a retry counts as one more.
    written
        Number of files downloaded although the payload has no result path.
    """

    run: RunOutcome
    reports: tuple[Report, ...]
    status: str
    failed_state: str
    failure: FunctionFailure | None
    transitions: int
    express_ms: tuple[float, ...]
    written: int = 0


class Pipeline:
    """One run of a state machine.

    Parameters
    ----------
    connection
        The endpoint.
    machine, payload
        The definition and its input.
    environment
        Variables of the program's environment.
    """

    def __init__(
        self,
        connection: AwsSession,
        machine: StateMachine,
        payload: PipelinePayload,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = environment or {}
        self._machine = machine
        self._payload = payload
        self._s3 = connection.client("s3")
        self._functions = connection.client("lambda")
        self._states = connection.client("stepfunctions")
        logs = connection.client("logs")
        names = {Role.INITIALIZE: machine.initialize, Role.EXECUTE: machine.execute, Role.SUMMARIZE: machine.summarize}
        self._names = {role: name for role, name in names.items() if name}
        now_ms = int(time.time() * 1000)
        self._logs = {
            role: (LogGroupReader(logs, f"/aws/lambda/{name}", now_ms), RankLineParser())
            for role, name in self._names.items()
        }
        self.progress = Progress()

    def prepare(self, files: dict[str, list[UploadedFile]], settings: DeploySettings) -> None:
        """Create the buckets and functions, and upload the files.

        Raises
        ------
        MissingCodeError
            If the code is neither among the files nor in S3.
        """
        for bucket in dict.fromkeys([self._payload.bucket, *filter(None, [self._payload.data_bucket])]):
            with contextlib.suppress(self._s3.exceptions.BucketAlreadyOwnedByYou):
                self._s3.create_bucket(Bucket=bucket)
            for file in files.get(bucket, []):
                self._s3.put_object(Bucket=bucket, Key=file.key, Body=file.read())
        key = f"{self._payload.folder}/{self._payload.script}"
        if self._s3.list_objects_v2(Bucket=self._payload.bucket, Prefix=key, MaxKeys=1)["KeyCount"] == 0:
            raise MissingCodeError(
                f"the script is neither at s3://{self._payload.bucket}/{key} nor in a local folder: {GIVE_FOLDER}"
            )
        deploy(self._functions, self._names, settings, _ROLE)

    def start(self) -> str:
        """Create or update the state machine, and start it; return the execution's ARN."""
        machine = {"definition": self._machine.definition, "roleArn": _ROLE}
        listed = self._states.get_paginator("list_state_machines").paginate()
        known = {found["name"]: found["stateMachineArn"] for page in listed for found in page["stateMachines"]}
        if (arn := known.get(_MACHINE_NAME)) is not None:
            self._states.update_state_machine(stateMachineArn=arn, **machine)
        else:
            arn = self._states.create_state_machine(name=_MACHINE_NAME, **machine)["stateMachineArn"]
        event = dict(self._payload.event)
        if self._environment:
            event["script_environment"] = {**event.get("script_environment", {}), **self._environment}
        started = self._states.start_execution(stateMachineArn=arn, input=json.dumps(event))
        return str(started["executionArn"])

    def watch(self, arn: str, on_lines: Callable[[Role, Sequence[LogLine]], None]) -> dict[str, Any]:
        """Wait for an execution to end; return its description. If the wait is interrupted, the execution is stopped.

        Parameters
        ----------
        arn
            The execution.
        on_lines
            Called at every poll, for each function, with the new lines of its log, of which there may be none.
        """
        try:
            while True:
                execution: dict[str, Any] = self._states.describe_execution(executionArn=arn)
                self._read_logs(on_lines)
                if execution["status"] != "RUNNING":
                    break
                time.sleep(_POLL_S)
        except BaseException:
            # Ctrl-C above all: the ranks are not needed any more. An endpoint that has ended has stopped them already.
            with contextlib.suppress(BotoCoreError, ClientError):
                self._states.stop_execution(
                    executionArn=arn, error="Interrupted", cause="fmi-emulator pipeline was ended"
                )
            raise
        # On AWS, the last lines of a log appear some seconds later; those of stopped ranks never do.
        settled = time.monotonic() + (_LOG_SETTLE_S if execution["status"] == "SUCCEEDED" else 2 * _POLL_S)
        while not all(log.is_complete() for log in self.progress.logs.values()) and time.monotonic() < settled:
            time.sleep(_POLL_S)
            self._read_logs(on_lines)
        return execution

    def outcome(self, arn: str, execution: dict[str, Any], results: Path | None) -> PipelineOutcome:
        """Return the outcome of an execution that has ended, and download its results.

        Parameters
        ----------
        arn, execution
            The execution and its description.
        results
            Folder for the results of a successful execution, or None.
        """
        logs = self.progress.logs
        ranks = logs[Role.EXECUTE].outcomes()
        others = (*logs[Role.INITIALIZE].reports, *logs[Role.SUMMARIZE].reports)
        rank_results: dict[int, dict[str, object]] = {}
        succeeded = execution["status"] == "SUCCEEDED"
        written = 0
        if succeeded and results is not None and self._payload.result_path:
            rank_results = fetch_results(self._s3, self._payload.bucket, self._payload.result_path, results)
        elif succeeded and results is not None:
            own_places = [f"{self._payload.folder}/", PAYLOAD_KEY, RANKS_KEY]
            if self._payload.data_bucket == self._payload.bucket and self._payload.data_prefix:
                own_places.append(self._payload.data_prefix.rstrip("/") + "/")
            # S3 states times in whole seconds.
            since = execution["startDate"].replace(microsecond=0)
            written, rank_results = fetch_written(self._s3, self._payload.bucket, since, own_places, results)
        events = self._history(arn)
        tries = logs[Role.EXECUTE].reports if self._machine.is_express else []
        express = [report.duration_ms + (report.init_ms or 0.0) for report in tries]
        return PipelineOutcome(
            RunOutcome(ranks, others, rank_results),
            (*others, *logs[Role.EXECUTE].reports),
            execution["status"],
            "" if succeeded else failed_state(events),
            None if succeeded or any(_has_failed(rank) for rank in ranks) else self._failure(execution),
            transitions(events) + (0 if self._machine.is_express else self._child_transitions(arn)),
            tuple(express),
            written,
        )

    def _failure(self, execution: dict[str, Any]) -> FunctionFailure:
        """Return why an execution failed although no rank did, from a function's log or from Step Functions."""
        failures = [
            log.unranked.failure for log in self.progress.logs.values() if log.unranked and log.unranked.failure
        ]
        return (
            failures[-1]
            if failures
            else FunctionFailure(execution.get("error", execution["status"]), execution.get("cause", ""))
        )

    def _read_logs(self, on_lines: Callable[[Role, Sequence[LogLine]], None]) -> None:
        for role, (events, reader) in self._logs.items():
            lines = [
                line
                for event in events.fetch()
                for line in reader.feed(event.stream, event.timestamp_ms, event.message)
            ]
            for line in lines:
                self.progress.logs[role].add(line)
            on_lines(role, lines)

    def _child_transitions(self, arn: str) -> int:
        """Return the transitions of the STANDARD executions that a distributed Map started."""
        runs = self._states.list_map_runs(executionArn=arn)["mapRuns"]
        children = [
            child["executionArn"]
            for run in runs
            for page in self._states.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"])
            for child in page["executions"]
        ]
        return sum(transitions(self._history(child)) for child in children)

    def _history(self, arn: str) -> list[dict[str, Any]]:
        pages = self._states.get_paginator("get_execution_history").paginate(
            executionArn=arn, includeExecutionData=False
        )
        return [event for page in pages for event in page["events"]]


def _has_failed(rank: RankOutcome) -> bool:
    """Return whether a rank failed by itself, not because the execution ended, for example at a time limit."""
    return rank.failure is not None and rank.failure.error_type != STOPPED


def transitions(events: Sequence[dict[str, Any]]) -> int:
    """Return the number of state transitions that AWS charges for a STANDARD execution: states entered, and retries.

    Parameters
    ----------
    events
        Its history. Source: https://aws.amazon.com/step-functions/pricing/
    """
    kinds = [event["type"] for event in events]
    entered = sum(str(kind).endswith("StateEntered") for kind in kinds)
    # Each attempt of a task is scheduled again, in a state that was entered once.
    tries = sum(kind in ("TaskScheduled", "LambdaFunctionScheduled") for kind in kinds)
    return int(entered + max(0, tries - kinds.count("TaskStateEntered")))


def failed_state(events: Sequence[dict[str, Any]]) -> str:
    """Return the state whose failure ended an execution, from its history; empty if there is none.

    Parameters
    ----------
    events
        The history, in order.
    """
    by_id = {event["id"]: event for event in events}
    failed = [event for event in events if event["type"] in _FAILURES]
    event = failed[-1] if failed else None
    while event is not None:
        if event["type"].endswith("StateEntered"):
            return str(event["stateEnteredEventDetails"]["name"])
        event = by_id.get(event["previousEventId"])
    return ""
