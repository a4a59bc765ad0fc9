"""A run on a stack as the terminal shows it: started, detached, followed, interrupted, reported."""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from emulator.aws.prices import Cost
from emulator.cli.account import account_session
from emulator.cli.exit_codes import FAILED, print_status, with_rank_prefix
from emulator.cli.observation import Observation
from emulator.errors import EmulatorError
from emulator.fmi.aws_errors import explained
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.resources import StackResources, find_resources
from emulator.fmi.executions.follow import Bill, Follower
from emulator.fmi.executions.launch import LaunchRequest, launch, plan
from emulator.fmi.executions.record import RunRecord, RunStatus
from emulator.fmi.executions.run_log import RankOutput
from emulator.fmi.outcomes import RunOutcome
from emulator.fmi.report import relays_line, run_record, run_table
from emulator.fmi.results import check_folder, write_record
from fmi_shim.log_lines import RelayNotice

_INTERRUPTED = 130


def run_on_stack(
    command: str,
    options: argparse.Namespace,
    make_request: Callable[[StackResources], LaunchRequest],
    results: Path | None,
) -> int:
    """Start a run on the stack that the options name and, unless detached, follow it; return the exit status."""
    began = time.perf_counter()
    if options.report is not None:
        if options.detach or options.dry_run:
            raise EmulatorError("--report is written at the end of a run: leave it out with --detach and --dry-run")
        check_folder(options.report.absolute().parent)
    if Observation(options, has_bus=False).is_wanted and (options.detach or options.dry_run):
        raise EmulatorError("--trace and --profile show a whole run: leave them out with --detach and --dry-run")
    session = account_session(options)
    with explained():
        identity = session.client("sts").get_caller_identity()
        print_status(f"account {identity['Account']}, region {session.session.region_name}, as {identity['Arn']}")
        resources = find_resources(session, options.stack_name)
        request = make_request(resources)
        planned = plan(session, resources, request)
        for note in planned.preflight.notes:
            print_status(note)
        print_status(str(planned.expected))
        if planned.limit_s:
            print_status(f"each rank ends after {planned.limit_s} s, since more would cost above --max-cost")
        record = launch(session, resources, planned, print_status)
    if options.dry_run:
        print_status("dry run: nothing was uploaded or started")
        return 0
    print_status(f"run {record.run} of stack {resources.stack!r}")
    if options.detach:
        print(record.run)
        print_status(f"it goes on without this command: fmi-emulator attach {record.run}")
        return 0
    return follow_run(command, options, resources, record, results, began)


def check_rank_options(options: argparse.Namespace, resources: StackResources) -> None:
    """Refuse a memory or a time limit other than the stack's: they are configurations of its functions.

    Raises
    ------
    EmulatorError
        If one was given that the stack does not have.
    """
    for option, given, present in (
        ("--memory", options.memory, resources.memory_mb),
        ("--timeout", options.timeout, resources.timeout_s),
    ):
        if given is not None and given != present:
            raise EmulatorError(
                f"{option} {given}: the functions of stack {resources.stack!r} have {present}; run `fmi-emulator "
                f"deploy {option} {given}` first, or leave it out"
            )


def follow_run(
    command: str,
    options: argparse.Namespace,
    resources: StackResources,
    record: RunRecord,
    results: Path | None,
    began: float | None = None,
) -> int:
    """Follow a run to its end and report it; return the exit status.

    Parameters
    ----------
    command, options
        The command and its options.
    resources, record
        The stack and the run.
    results
        Folder for the results, or None.
    began
        Start of the command by `time.perf_counter`, if it started the run; then its option --report applies.
    """
    relayed: set[RelayNotice] = set()
    observation = Observation(options, has_bus=False)

    def on_output(line: RankOutput) -> None:
        if observation.takes_line(line.text):
            return
        print(with_rank_prefix(line.rank, record.world_size or 1, line.text), flush=True)
        if (notice := RelayNotice.parse(line.text)) is not None:
            relayed.add(notice)

    def reconnect() -> AwsSession:
        return account_session(options)

    with explained(), observation.of(None):
        follower = Follower(reconnect, resources, record, on_output, print_status)
        status = _until_end(follower, record)
        if status is None:
            return _INTERRUPTED
        outcome = follower.outcome(status)
        bill = follower.bill()
        if status.status == "SUCCEEDED":
            follower.keep_duration()
            if results is not None and record.result_path:
                outcome = replace(outcome, rank_results=follower.results(results))
    observation.finish(outcome)
    _report(outcome, bill, record)
    if began is not None and options.report is not None:
        cost = Cost(compute=bill.ranks_usd, requests=0.0, storage=0.0, orchestration=bill.fixed_usd)
        write_record(options.report, run_record(outcome, cost, time.perf_counter() - began))
    if relayed:
        print_status(relays_line(relayed))
    if status.status != "SUCCEEDED":
        _print_failure(command, outcome, status)
        return FAILED
    if results is not None and record.result_path:
        print_status(f"results in {results}, from s3://{resources.bucket}/{record.result_path}/")
    return 0


def _until_end(follower: Follower, record: RunRecord) -> RunStatus | None:
    """Follow the run until it has ended. Ctrl-C asks whether to stop it; None if it was stopped, or left running."""
    while True:
        try:
            return follower.follow()
        except KeyboardInterrupt:
            answer = _ask_what_to_stop()
            if answer == "leave":
                print_status(f"run {record.run} goes on: fmi-emulator attach {record.run}")
                return None
            if answer == "stop":
                print_status(f"run {record.run} is stopped; {follower.stop()}")
                return None


def _ask_what_to_stop() -> str:
    """Ask once. A second Ctrl-C leaves the run alone. Without a terminal it is stopped."""
    if not sys.stdin.isatty():
        return "stop"
    print(
        "\nstop the run? [y: stop it, n: leave it running, Enter: go on watching] ", end="", file=sys.stderr, flush=True
    )
    try:
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        return "leave"
    answer = line.strip().lower()
    if answer in ("y", "yes"):
        return "stop"
    return "leave" if answer in ("n", "no") or not line else "watch"


def _report(outcome: RunOutcome, bill: Bill, record: RunRecord) -> None:
    if outcome.ranks:
        print_status(run_table(outcome))
    print_status(
        f"billed: {bill.total:.6f} USD (ranks {bill.ranks_usd:.6f} for {bill.billed_s:.1f} s together, their requests "
        f"and state transitions {bill.fixed_usd:.6f}); estimated {record.low_usd:.6f} to {record.high_usd:.6f} USD"
    )
    if bill.missing:
        print_status(
            f"the REPORT lines of {bill.missing} ranks are not in CloudWatch: they are not in the bill; `fmi-emulator "
            f"attach {record.run}` reads them later"
        )


def _print_failure(command: str, outcome: RunOutcome, status: RunStatus) -> None:
    failures = outcome.failures
    if not failures:
        cause = f": {status.cause}" if status.cause else ""
        print_status(f"{command}: run {status.run} {status.status.lower()}: {status.error}{cause}")
        return
    first, *rest = failures
    for failed in rest:
        print_status(f"  then rank {failed.rank}: {failed.failure}")
    print_status(f"{command}: rank {first.rank} failed: {first.failure}")
