"""``fmi-emulator serve``: the local cloud for other programs."""

import argparse
import ipaddress
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.aws import limits
from emulator.aws.gateway.address import LOOPBACK
from emulator.cli import arguments
from emulator.cli.exit_codes import print_status
from emulator.cloud import LocalCloud

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_DEFAULT_PORT = 4566
_DESCRIPTION = """\
Serve Lambda, S3, Step Functions, CloudWatch Logs and what else moto has, with a rendezvous server, until Ctrl-C.

The lines that it prints, exported in another terminal, point boto3, the aws command and FMI programs at it.
"""
_EXAMPLES = """\
examples:
  fmi-emulator serve
  fmi-emulator serve --state build/state --preload torch
  fmi-emulator serve --cold-starts measured --cold-start-seed 1

exit status: 130 after Ctrl-C, 143 after SIGTERM, 2 if it could not begin
"""


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="keep an endpoint running until Ctrl-C",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=arguments.port,
        default=_DEFAULT_PORT,
        help="port of the endpoint (default %(default)s; 0: a free one)",
    )
    parser.add_argument(
        "--host",
        type=arguments.ipv4_address,
        default=LOOPBACK,
        metavar="ADDRESS",
        help="address to listen on (default %(default)s: this machine alone). Whoever reaches another one can run "
        "programs here as you",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep buckets, functions, state machines and logs in DIR, from one run to the next, even after a kill",
    )
    arguments.add_preload_option(parser)
    arguments.add_function_options(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    settings = arguments.function_settings(options)
    with LocalCloud(options.port, options.preload, settings, options.state, options.host) as cloud:
        print(f"export AWS_ENDPOINT_URL={cloud.endpoint_url}")
        print("export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local")
        # StartSyncExecution's host would get the prefix sync-, which no resolver knows here.
        print(f"export AWS_DEFAULT_REGION={limits.REGION} AWS_DISABLE_HOST_PREFIX_INJECTION=true")
        print(f"export FMI_RENDEZVOUS={cloud.rendezvous}", flush=True)
        if not ipaddress.IPv4Address(options.host).is_loopback:
            print_status(f"listening on {options.host}: whoever reaches it can run programs here as you")
        for note in cloud.notes:
            print_status(note)
        print_status(f"look at {cloud.endpoint_url}/_emulator/")
        print_status("ready; Ctrl-C ends it")
        signal.pause()
    return 0
