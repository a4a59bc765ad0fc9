"""``fmi-emulator logs``: prints the log of a function, or of an execution of a state machine."""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from emulator.cli import arguments
from emulator.cli.account import account_session, add_account_options
from emulator.cli.exit_codes import print_status, with_rank_prefix
from emulator.fmi.aws_errors import explained
from emulator.fmi.aws_session import AWS, connect
from emulator.fmi.deployment.resources import find_resources
from emulator.fmi.executions.follow import Follower
from emulator.fmi.executions.record import is_run_id, read_record
from emulator.fmi.executions.run_log import RankOutput
from emulator.fmi.log_reader import find_source
from emulator.fmi.rank_log import LineKind, LogLine

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_POLL_S = 0.3
# On AWS a line can be read some seconds after it was written.
_HOLD_MS = 3000
# START and END lines, and the lines that name the rank, contain nothing that is not shown otherwise.
_SHOWN = {LineKind.OUTPUT, LineKind.REPORT}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DESCRIPTION = """\
Print the log of a Lambda function, or of all functions of a state machine's execution.

Each line has the prefix [rank] if the log names the rank: the execute function names it in its first line, here and on
AWS. START and END lines are left out; a REPORT line ends each invocation.
"""
_EXAMPLES = """\
examples:
  fmi-emulator logs fmi-execute                                            the whole log of a function
  fmi-emulator logs fmi-execute --follow --rank 3                          new lines of rank 3, until Ctrl-C
  fmi-emulator logs arn:aws:states:us-east-1:123456789012:execution:pipeline:first
  fmi-emulator logs reduce-20260102-030405-a1b2c3 --rank 3                 a run on a stack, see fmi-emulator deploy
  fmi-emulator logs cosmic-executor --since 5m --endpoint-url aws          the last five minutes, on AWS

`aws logs tail /aws/lambda/fmi-execute --follow` reads the same log.
"""


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "logs",
        help="print the log of a function or of an execution",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        help="a function, a log group (/aws/lambda/NAME), the ARN of an execution, or a run that `fmi-emulator runs` "
        "lists; for example fmi-execute",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="continue with new lines until Ctrl-C, or until the execution ends"
    )
    parser.add_argument(
        "--rank", type=arguments.rank, metavar="R", help="print only the lines of rank R, for example 3"
    )
    parser.add_argument(
        "--since", type=_ago, metavar="AGO", help="print only lines that are not older, for example 30s, 5m, 2h or 1d"
    )
    parser.add_argument(
        "--endpoint-url",
        metavar="URL",
        help=f"the endpoint; `{AWS}` means AWS itself (default: AWS_ENDPOINT_URL, or else http://127.0.0.1:4566)",
    )
    add_account_options(parser, with_endpoint=False)
    arguments.add_backend_option(parser, arguments.AWS)
    parser.set_defaults(run=_logs)


def _logs(options: argparse.Namespace) -> int:
    since_ms = 0 if options.since is None else int((datetime.now(UTC) - options.since).timestamp() * 1000)
    if is_run_id(options.name):
        return _log_of_run(options, since_ms)
    source = find_source(connect(options.endpoint_url), options.name, since_ms)
    _print(source.fetch(), options.rank)
    while options.follow:
        # Lines written before the end are fetched once more.
        has_ended = source.has_ended()
        _print(source.fetch(), options.rank)
        _print(source.flush(time.time() * 1000 - _HOLD_MS), options.rank)
        if has_ended:
            break
        time.sleep(_POLL_S)
    _print(source.flush(), options.rank)
    return 0


def _log_of_run(options: argparse.Namespace, since_ms: int) -> int:
    """Print the output of a run on a stack, from any machine."""
    options.endpoint_url = None if options.endpoint_url == AWS else options.endpoint_url
    session = account_session(options)
    with explained():
        resources = find_resources(session, options.stack_name)
        record = read_record(session.client("s3"), resources.bucket, options.name)

        def print_line(line: RankOutput) -> None:
            if line.timestamp_ms >= since_ms and options.rank in (None, line.rank):
                print(with_rank_prefix(line.rank, record.world_size or 1, line.text), flush=True)

        follower = Follower(lambda: account_session(options), resources, record, print_line, print_status)
        if options.follow:
            follower.follow()
        follower.read_log()
    return 0


def _print(lines: Sequence[LogLine], rank: int | None) -> None:
    for line in lines:
        if line.kind in _SHOWN and rank in (None, line.rank):
            print(line.text if line.rank is None else with_rank_prefix(line.rank, line.world_size or 1, line.text))
    sys.stdout.flush()


def _ago(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a number with s, m, h or d, for example 5m, got {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
