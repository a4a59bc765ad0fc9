"""The options that name an AWS account, or an endpoint that stands for one, and a stack there."""

import argparse

from emulator.cli.arguments import AWS, LOCAL, usd
from emulator.cli.exit_codes import print_status
from emulator.errors import EmulatorError
from emulator.fmi.aws_calls import answer_changes, observe_calls
from emulator.fmi.aws_session import AwsSession, connect, connect_account
from emulator.fmi.deployment.stack import DEFAULT_STACK


def add_account_options(
    parser: argparse._ActionsContainer, *, with_endpoint: bool = True, profile: str = "--profile"
) -> None:
    """Add the options that name the account and the stack.

    Parameters
    ----------
    parser
        The parser, or a group of it.
    with_endpoint
        Whether an endpoint can be named, too.
    profile
        The option for the profile, as of the aws command; commands that run programs have ``--profile`` for a profile
        of the run.
    """
    parser.add_argument(
        "--region", metavar="NAME", help="AWS region, for example us-east-1 (default: as the aws command)"
    )
    names = dict.fromkeys([profile, "--aws-profile"])
    parser.add_argument(
        *names, dest="aws_profile", metavar="NAME", help="profile of ~/.aws/config (default: as the aws command)"
    )
    parser.add_argument(
        "--stack-name",
        type=stack_name,
        default=DEFAULT_STACK,
        metavar="NAME",
        help="the CloudFormation stack that `fmi-emulator deploy` makes (default %(default)s)",
    )
    if with_endpoint:
        parser.add_argument(
            "--endpoint-url",
            metavar="URL",
            help="an endpoint to use instead of AWS, for example http://127.0.0.1:4566; AWS_ENDPOINT_URL alone is "
            "refused, so that nothing runs elsewhere than you think",
        )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a run on a stack; see `check_backend`."""
    group = parser.add_argument_group("with --backend aws")
    add_account_options(group, profile="--aws-profile")
    group.add_argument(
        "--detach", action="store_true", help="print the run's id and end; `fmi-emulator attach RUN` follows it later"
    )
    group.add_argument(
        "--max-cost",
        type=usd,
        metavar="USD",
        help="refuse a run whose estimate is above this, and end ranks before they cost more",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="make the calls that only read, print every call that would follow, and change nothing",
    )


def check_backend(options: argparse.Namespace, local_only: dict[str, bool]) -> None:
    """Refuse options that the chosen backend does not have.

    Parameters
    ----------
    options
        The options.
    local_only
        The options of local runs, and whether each was given.
    """
    if options.backend == AWS:
        given = sorted(name for name, is_given in local_only.items() if is_given)
        if given:
            raise EmulatorError(f"{', '.join(given)}: only local runs have it; leave it out with --backend aws")
        return
    of_stack = {
        "--detach": options.detach,
        "--dry-run": options.dry_run,
        "--max-cost": options.max_cost is not None,
        "--aws-profile": options.aws_profile is not None,
        "--region": options.region is not None,
        "--stack-name": options.stack_name != DEFAULT_STACK,
    }
    given = sorted(name for name, is_given in of_stack.items() if is_given)
    if given:
        raise EmulatorError(f"{', '.join(given)}: only runs on a stack have it; give --backend aws, too")


def account_session(options: argparse.Namespace) -> AwsSession:
    """Return the session for the account, or the endpoint, that the options name; with --dry-run it changes nothing.

    Raises
    ------
    EmulatorError
        If credentials or region are missing, or the options contradict each other.
    """
    session = connect_session(options)
    if getattr(options, "dry_run", False):
        observe_calls(session.session, lambda call: print_status(f"  {call}"), answer_changes)
    return session


def connect_session(options: argparse.Namespace) -> AwsSession:
    """Return the session for the account, or the endpoint, that the options name, also with --dry-run.

    Raises
    ------
    EmulatorError
        If credentials or region are missing, or the options contradict each other.
    """
    if options.backend == LOCAL:
        if options.region or options.aws_profile:
            raise EmulatorError("--region and --aws-profile name an AWS account: leave them out with --backend local")
        return connect(options.endpoint_url)
    return connect_account(options.region, options.aws_profile, options.endpoint_url)


def stack_name(text: str) -> str:
    """Parse a stack's name, of which the names of its resources are made."""
    is_valid = text[:1].isalpha() and text.isascii() and text.replace("-", "").isalnum() and len(text) <= _LONGEST_NAME
    if not is_valid:
        raise argparse.ArgumentTypeError(
            f"invalid stack name {text!r}: expected a letter, then letters, digits and dashes, at most {_LONGEST_NAME}"
        )
    return text


# A function's name has at most 64 characters, and the longest suffix is "-initialize".
_LONGEST_NAME = 50
