"""Follows a run from any machine: its output, its end, its outcome and its bill; and stops it."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from emulator.aws.lambda_.log_lines import Report
from emulator.aws.prices import invocation_usd
from emulator.fmi.aws_errors import AwsError, explain, is_expired, is_transient
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deploy import EXECUTE_TMP_MB
from emulator.fmi.deployment.resources import StackResources
from emulator.fmi.executions.estimate import fixed_usd, run_usd, write_earlier
from emulator.fmi.executions.log_window import LogWindow
from emulator.fmi.executions.record import RunRecord, RunStatus, execution_arn, read_status
from emulator.fmi.executions.run_log import RankOutput, RunLog
from emulator.fmi.functions.execute import CLAIMS, COMMON_KEY, DONE, FAILURES
from emulator.fmi.outcomes import STOPPED_FAILURE, FunctionFailure, RankOutcome, RunOutcome
from emulator.fmi.results import fetch_results
from emulator.fmi.run import failure_of_answer

_POLL_S = 1.0
# After the end, the last lines and the REPORT lines are still on their way to CloudWatch.
_SETTLE_S = 60.0
_MOST_FAILURES_READ = 50
# A machine that slept, or lost its network, goes on; expired credentials are read anew this often.
_RETRY_S = 5.0
_Result = TypeVar("_Result")
_NUMBER = re.compile(r"\d{1,9}")


class CredentialsExpiredError(AwsError):
    """The credentials expired while the run was followed. The run goes on."""


@dataclass(frozen=True)
class Bill:
    """What a run has cost, by the REPORT lines of its ranks.

    Parameters
    ----------
    ranks_usd, fixed_usd
        The ranks' billed time; and their requests, state transitions and S3 requests, USD.
    billed_s
        The billed time, seconds, of all ranks together.
    missing
        Number of ranks that were started and have no REPORT line yet.
    """

    ranks_usd: float
    fixed_usd: float
    billed_s: float
    missing: int

    @property
    def total(self) -> float:
        """The sum, USD."""
        return self.ranks_usd + self.fixed_usd


class Follower:
    """Follows one run.

    Parameters
    ----------
    connect
        Returns a session; called again when the credentials have expired, to find renewed ones.
    resources, record
        The stack and the run.
    on_output
        Called with each line of the ranks' output, or None if it is not read.
    note
        Prints a line about the run.
    """

    def __init__(
        self,
        connect: Callable[[], AwsSession],
        resources: StackResources,
        record: RunRecord,
        on_output: Callable[[RankOutput], None],
        note: Callable[[str], None],
    ) -> None:
        self._connect = connect
        self._resources = resources
        self._record = record
        self._on_output = on_output
        self._note = note
        self._log = RunLog(record.run)
        self._arn = execution_arn(resources, record.run)
        self._window: LogWindow | None = None
        self._set_session(connect())

    def status(self) -> RunStatus:
        """Return the run's status."""
        return self._patiently(lambda: read_status(self._states, self._arn))

    def follow(self) -> RunStatus:
        """Pass on the run's output until it has ended; return its status.

        Raises
        ------
        CredentialsExpiredError
            If the credentials have expired and no renewed ones were found.
        """
        status = self.status()
        self.read_log()
        while status.is_running:
            time.sleep(_POLL_S)
            status = self.status()
            self.read_log()
        return status

    def read_log(self) -> None:
        """Pass on the output that has arrived since the last call."""
        if self._window is None:
            since_ms = int(self.status().began.timestamp() * 1000) - 1000
            self._window = LogWindow(self._logs, f"/aws/lambda/{self._resources.execute}", since_ms)
        self._patiently(self._read_log)

    def outcome(self, status: RunStatus) -> RunOutcome:
        """Return the outcome of a run that has ended, after its last lines have arrived."""
        return self._patiently(lambda: self._outcome(status))

    def bill(self) -> Bill:
        """Return what the run has cost, as far as its REPORT lines have arrived."""
        reports = self._log.reports.values()
        started = self._recorded(CLAIMS)
        return Bill(
            sum(_usd(report) for report in reports),
            fixed_usd(self.world_size()),
            sum(report.billed_ms for report in reports) / 1000,
            len(started.keys() - self._log.reports.keys()),
        )

    def results(self, folder: Path) -> Mapping[int, Mapping[str, object]]:
        """Download the results; see `emulator.fmi.results.fetch_results`."""
        return self._patiently(
            lambda: fetch_results(self._s3, self._resources.bucket, self._record.result_path, folder)
        )

    def keep_duration(self) -> None:
        """Record the mean time of the ranks for the estimates of later runs."""
        reports = self._log.reports.values()
        if reports and self._record.history_key:
            seconds = sum(report.billed_ms for report in reports) / 1000 / len(reports)
            write_earlier(self._s3, self._resources.bucket, self._record.history_key, seconds)

    def world_size(self) -> int:
        """Return the number of ranks; 0 if it depends on the data and *initialize* has not ended."""
        if not self._record.world_size:
            key = self._record.prefix + COMMON_KEY
            try:
                content = self._s3.get_object(Bucket=self._resources.bucket, Key=key)["Body"].read()
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchKey":
                    raise
                return 0
            return int(json.loads(content)["WORLD_SIZE"])
        return self._record.world_size

    def _set_session(self, session: AwsSession) -> None:
        self._s3 = session.client("s3")
        self._states = session.client("stepfunctions")
        self._logs = session.client("logs")
        if self._window is not None:
            self._window.use(self._logs)

    def _read_log(self) -> None:
        if self._window is not None:
            for line in self._log.add(self._window.fetch()):
                self._on_output(line)

    def _patiently(self, call: Callable[[], _Result]) -> _Result:
        """Call again after errors of the network or of the credentials: the run does not depend on this machine."""
        has_noted = False
        has_renewed = False
        while True:
            try:
                found = call()
            except (BotoCoreError, ClientError) as error:
                if is_expired(error):
                    if has_renewed:
                        raise CredentialsExpiredError(
                            f"{explain(error)}; run {self._record.run} goes on: then `fmi-emulator attach "
                            f"{self._record.run}`"
                        ) from error
                    has_renewed = True
                    self._set_session(self._connect())
                    continue
                if not is_transient(error):
                    raise AwsError(explain(error)) from error
                if not has_noted:
                    self._note(f"AWS does not answer: {explain(error)}; the run goes on there, trying again")
                    has_noted = True
                time.sleep(_RETRY_S)
            else:
                if has_noted:
                    self._note("AWS answers again")
                return found

    def _outcome(self, status: RunStatus) -> RunOutcome:
        bucket = self._resources.bucket
        done, failed, started = self._recorded(DONE), self._recorded(FAILURES), self._recorded(CLAIMS)
        self._settle(started.keys() & (done.keys() | failed.keys()))
        in_order = sorted(failed.keys() - done.keys(), key=lambda rank: (failed[rank], rank))
        failures = {}
        for number, rank in enumerate(in_order):
            if number < _MOST_FAILURES_READ:
                key = f"{self._record.prefix}{FAILURES}{rank}.json"
                failures[rank] = parse_failure(self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
            else:
                failures[rank] = FunctionFailure(
                    "Failed", f"see s3://{bucket}/{self._record.prefix}{FAILURES}{rank}.json"
                )
        others = sorted((done.keys() | started.keys()) - failures.keys())
        ranks = [RankOutcome(rank, self._log.reports.get(rank), failures[rank]) for rank in in_order]
        ranks += [
            RankOutcome(rank, self._log.reports.get(rank), None if rank in done else STOPPED_FAILURE) for rank in others
        ]
        return RunOutcome(tuple(ranks), ())

    def _settle(self, ended: set[int]) -> None:
        """Read the log until each rank that has ended has its REPORT line, or for a minute."""
        ends = time.monotonic() + _SETTLE_S
        self._read_log()
        while not ended <= self._log.reports.keys() and time.monotonic() < ends:
            time.sleep(_POLL_S)
            if self._window is not None:
                self._window.read_again()
            self._read_log()

    def _recorded(self, kind: str) -> dict[int, Any]:
        """Return the ranks that are recorded below a prefix of the run, with the times of their records."""
        prefix = self._record.prefix + kind
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._resources.bucket, Prefix=prefix)
        found = {}
        for page in pages:
            for entry in page.get("Contents", []):
                name = entry["Key"].removeprefix(prefix).removesuffix(".json")
                if _NUMBER.fullmatch(name):
                    found[int(name)] = entry["LastModified"]
        return found

    def stop(self) -> str:
        """Stop the run's execution; return what goes on costing, in one sentence."""
        self._patiently(lambda: stop_execution(self._states, self._arn))
        started, done, failed = self._recorded(CLAIMS), self._recorded(DONE), self._recorded(FAILURES)
        running = len(started.keys() - done.keys() - failed.keys())
        if not running:
            return "no rank is running: nothing goes on costing"
        most = run_usd(running, self._record.memory_mb, self._record.timeout_s) - fixed_usd(running)
        return (
            f"{running} ranks were started and cannot be stopped from outside: each is billed until it ends by itself, "
            f"after {self._record.timeout_s} s at the latest, at most {most:.4f} USD in total"
        )


def stop_execution(states: Any, arn: str) -> None:
    """Stop an execution. One that has ended stays as it is."""
    states.stop_execution(executionArn=arn, error="Cancelled", cause="stopped by its user with fmi-emulator")


def parse_failure(content: bytes) -> FunctionFailure:
    """Return the failure of a rank from what the state machine recorded: Error, and Cause with Lambda's answer."""
    try:
        recorded = json.loads(content)
        # A string body may have been written as a JSON string.
        recorded = json.loads(recorded) if isinstance(recorded, str) else recorded
        error, cause = str(recorded["Error"]), str(recorded.get("Cause", ""))
    except (ValueError, TypeError, KeyError):
        return FunctionFailure("Failed", f"unreadable record: {content[:200]!r}")
    try:
        answer = json.loads(cause)
        return failure_of_answer({"errorType": error, "errorMessage": cause, **answer})
    except (ValueError, TypeError, KeyError):
        return FunctionFailure(error, cause)


def _usd(report: Report) -> float:
    return invocation_usd(report.memory_mb, report.billed_ms, EXECUTE_TMP_MB)
