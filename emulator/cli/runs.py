"""``fmi-emulator runs``, ``attach`` and ``cancel``: runs on a stack, from any machine."""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.cli import arguments
from emulator.cli.account import account_session, add_account_options
from emulator.cli.exit_codes import print_status
from emulator.cli.stack_run import follow_run
from emulator.fmi.aws_errors import explained
from emulator.fmi.deployment.resources import find_resources
from emulator.fmi.executions.follow import Follower
from emulator.fmi.executions.record import UnknownRunError, list_runs, read_record
from emulator.fmi.report import align

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_SHOWN = 20


def add_parsers(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the three commands."""
    parser = commands.add_parser("runs", help="list the runs of a deployed stack")
    arguments.add_backend_option(parser, arguments.AWS)
    add_account_options(parser)
    parser.add_argument(
        "--last",
        type=arguments.positive,
        default=_SHOWN,
        metavar="N",
        help="show the last N runs (default %(default)s)",
    )
    parser.set_defaults(run=_runs)
    parser = commands.add_parser("attach", help="follow a run of a deployed stack to its end, and report it")
    arguments.add_backend_option(parser, arguments.AWS)
    add_account_options(parser)
    parser.add_argument("run_id", metavar="RUN", help="the run's id, as `fmi-emulator runs` lists it")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for the results (default: not downloaded)")
    parser.set_defaults(run=_attach)
    parser = commands.add_parser("cancel", help="stop a run of a deployed stack")
    arguments.add_backend_option(parser, arguments.AWS)
    add_account_options(parser)
    parser.add_argument("run_id", metavar="RUN", help="the run's id, as `fmi-emulator runs` lists it")
    parser.set_defaults(run=_cancel)


def _runs(options: argparse.Namespace) -> int:
    session = account_session(options)
    with explained():
        resources = find_resources(session, options.stack_name)
        s3 = session.client("s3")
        rows = [["run", "ranks", "started", "seconds", "estimate USD", "status"]]
        for status in itertools.islice(list_runs(session, resources), options.last):
            try:
                record = read_record(s3, resources.bucket, status.run)
                ranks = str(record.world_size or "by data")
                expected = f"{record.low_usd:.4f}-{record.high_usd:.4f}"
            except UnknownRunError:
                ranks, expected = "-", "-"
            seconds = f"{(status.ended - status.began).total_seconds():.1f}" if status.ended else "-"
            began = status.began.astimezone().isoformat(sep=" ", timespec="seconds")
            rows.append([status.run, ranks, began, seconds, expected, status.status])
    if len(rows) == 1:
        print_status(f"stack {resources.stack!r} has no runs: start one with fmirun --backend aws")
        return 0
    print(align(rows))
    return 0


def _attach(options: argparse.Namespace) -> int:
    session = account_session(options)
    with explained():
        resources = find_resources(session, options.stack_name)
        record = read_record(session.client("s3"), resources.bucket, options.run_id)
    return follow_run("fmi-emulator", options, resources, record, options.results)


def _cancel(options: argparse.Namespace) -> int:
    session = account_session(options)
    with explained():
        resources = find_resources(session, options.stack_name)
        record = read_record(session.client("s3"), resources.bucket, options.run_id)
        follower = Follower(lambda: account_session(options), resources, record, lambda _: None, print_status)
        status = follower.status()
        if not status.is_running:
            print_status(f"run {record.run} has ended already: {status.status}")
            return 0
        print_status(f"run {record.run} is stopped; {follower.stop()}")
    return 0
