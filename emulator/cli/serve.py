"""``fmi-emulator serve``: runs the local cloud for other programs."""

import argparse
import ipaddress
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from emulator.aws import limits
from emulator.aws.credentials import Credentials
from emulator.aws.gateway.address import LOOPBACK
from emulator.aws.lambda_.core.settings import SandboxKind
from emulator.cli import arguments
from emulator.cli.exit_codes import print_status
from emulator.cli.network import add_nat_option, nat
from emulator.cloud import LocalCloud
from emulator.fmi.program_packages import Visible

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_DEFAULT_PORT = 4566
_RANDOM = "random"
_DESCRIPTION = """\
Serve Lambda, S3, Step Functions, CloudWatch Logs and moto's other services, and a rendezvous server, until Ctrl-C.

It prints lines to export in another terminal. Then boto3, the aws command and FMI programs use this endpoint.
"""
_EXAMPLES = """\
examples:
  fmi-emulator serve                                              then, in another terminal: aws s3 ls
  fmi-emulator serve --state build/state --preload torch          keep all data; share torch among functions
  fmi-emulator serve --sandbox docker                             each function in a container of its own
  fmi-emulator serve --cold-starts measured --cold-start-seed 1   cold starts as measured on AWS

exit status: 130 after Ctrl-C, 143 after SIGTERM, 2 if it could not start
"""


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="run an AWS endpoint until Ctrl-C",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port",
        type=arguments.port,
        default=_DEFAULT_PORT,
        help="port of the endpoint; 0 means a free one (default %(default)s)",
    )
    parser.add_argument(
        "--host",
        type=arguments.ipv4_address,
        default=LOOPBACK,
        metavar="ADDRESS",
        help="IPv4 address to listen on (default %(default)s: this machine only). Anyone who can connect to another "
        "address can run programs here as you",
    )
    parser.add_argument(
        "--credentials",
        metavar="random|FILE",
        help="answer only requests that are signed with this key: a random one, which is printed, or the one in FILE, "
        "in the format of ~/.aws/credentials (default: signatures are not checked)",
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name of this endpoint, for example emulator.internal: requests to other names are refused, "
        "since a web site may have sent them; may be repeated",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="keep all that is made, such as buckets, functions, stacks, queues and logs, in DIR between runs, for "
        "example build/state; it also survives a kill",
    )
    parser.add_argument(
        "--account",
        type=arguments.account_number,
        default=limits.ACCOUNT_ID,
        metavar="NUMBER",
        help="number of the account, twelve digits, which is part of all ARNs (default %(default)s)",
    )
    parser.add_argument(
        "--telemetry",
        action="store_true",
        help="receive the events of functions with FMI_TELEMETRY=bus in their environment, and show their calls on the "
        "page, see docs/tracing.md",
    )
    arguments.add_preload_option(parser)
    arguments.add_packages_option(parser, Visible.AWS, "default: aws")
    arguments.add_function_options(parser)
    parser.add_argument(
        "--sandbox",
        choices=[kind.value for kind in SandboxKind],
        default=SandboxKind.PROCESS.value,
        help="what functions run in: processes, or each in a container of its own; functions of images always run in "
        "containers (default %(default)s)",
    )
    arguments.add_container_options(parser)
    add_nat_option(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    settings = arguments.function_settings(options)
    credentials = None
    if options.credentials is not None:
        is_random = options.credentials == _RANDOM
        credentials = Credentials.random() if is_random else Credentials.from_file(Path(options.credentials))
    with LocalCloud(
        options.port,
        options.preload,
        settings,
        options.state,
        options.host,
        options.host_name,
        credentials,
        arguments.code_containers(options),
        nat(options),
        packages=() if options.packages is Visible.AWS else None,
        hide_shared_memory=not options.ipc,
        is_open=credentials is None,
        telemetry=options.telemetry,
        account=options.account,
    ) as cloud:
        print(f"export AWS_ENDPOINT_URL={cloud.endpoint_url}")
        print(
            "export",
            " ".join(f"{name}={shlex.quote(value)}" for name, value in cloud.credentials.environment().items()),
        )
        # StartSyncExecution would add the prefix sync- to the host, which does not resolve here.
        print(f"export AWS_DEFAULT_REGION={limits.REGION} AWS_DISABLE_HOST_PREFIX_INJECTION=true")
        print(f"export FMI_RENDEZVOUS={cloud.rendezvous}", flush=True)
        if credentials is None and not ipaddress.IPv4Address(options.host).is_loopback:
            print_status(f"listening on {options.host}: anyone who can connect to it can run programs here as you")
        for note in cloud.notes:
            print_status(note)
        if credentials is None:
            print_status(
                "open endpoint: every user of this machine, and whoever else can connect, can run programs as you; "
                "--credentials random asks for a key"
            )
        print_status(f"page: {cloud.page_url}")
        print_status("ready; press Ctrl-C to stop")
        signal.pause()
    return 0
