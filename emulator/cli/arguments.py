"""Parsers of command-line arguments, mostly whole numbers within AWS's limits, and options of several commands."""

import argparse
import ipaddress
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from emulator.aws import limits
from emulator.aws.lambda_.core.cold_starts import ColdStarts
from emulator.aws.lambda_.core.settings import LambdaSettings, RuntimeClient
from emulator.fmi.functions.initialize import rank_payload

# What *execute* sets from the rank's payload.
_SET_BY_RUN = frozenset(rank_payload({"bucket": "", "S3_object_name": "", "script": ""}, 0, 1))


def world_size(text: str) -> int:
    """Parse a number of ranks."""
    return _within(text, range(1, limits.CONCURRENT_EXECUTIONS + 1))


def rank(text: str) -> int:
    """Parse a rank."""
    return _within(text, range(limits.CONCURRENT_EXECUTIONS))


def memory_mb(text: str) -> int:
    """Parse a function's memory, MB."""
    return _within(text, limits.MEMORY_MB)


def timeout_s(text: str) -> int:
    """Parse a function's timeout, seconds."""
    return _within(text, limits.TIMEOUT_S)


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    return _within(text, range(1, 2**31))


def environment_variable(text: str) -> tuple[str, str]:
    """Parse ``NAME=VALUE``, or ``NAME`` for the variable of this process, as mpirun's ``-x``."""
    name, assigned, value = text.partition("=")
    if not name.isascii() or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"invalid variable {text!r}: expected NAME or NAME=VALUE")
    if name in _SET_BY_RUN:
        raise argparse.ArgumentTypeError(f"invalid variable {name}: the run sets it for each rank")
    if not assigned and name not in os.environ:
        raise argparse.ArgumentTypeError(f"variable {name} is not set here: set it, or give {name}=VALUE")
    return name, value if assigned else os.environ[name]


def port(text: str) -> int:
    """Parse a TCP port; 0 means a free one."""
    return _within(text, range(65536))


def ipv4_address(text: str) -> str:
    """Parse an IPv4 address."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an IPv4 address such as 127.0.0.1, got {text!r}") from None


def _within(text: str, allowed: range) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if value not in allowed:
        raise argparse.ArgumentTypeError(f"expected a whole number from {allowed[0]} to {allowed[-1]}, got {text}")
    return value


class _VersionAction(argparse.Action):
    """Prints the command's name and the version of the installed package. It is read only when asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        print(parser.prog, metadata.version("fmi-emulator"))
        parser.exit()


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``."""
    parser.add_argument("--version", action=_VersionAction, nargs=0, help="print the name and the version, and exit")


def add_rank_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that configure a rank's function."""
    parser.add_argument(
        "--memory",
        type=memory_mb,
        default=limits.MB_PER_VCPU,
        metavar="MB",
        help="memory of a rank, for example 512 (default %(default)s: one vCPU)",
    )
    parser.add_argument(
        "--timeout",
        type=timeout_s,
        default=limits.TIMEOUT_S[-1],
        metavar="S",
        help="timeout of a rank in seconds, for example 30 (default %(default)s, Lambda's maximum)",
    )


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that writes what the table at the end shows, for other programs."""
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help="write time, memory and price of the run and of each rank to this JSON file, for example report.json",
    )


def add_preload_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that lists modules to import before functions start."""
    parser.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="import MODULE once and share it among all sandboxes, for example torch; may be repeated",
    )


def add_function_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that control how functions run."""
    parser.add_argument(
        "--runtime-client",
        choices=[client.value for client in RuntimeClient],
        default=RuntimeClient.FORK.value,
        help="how Python handlers are called: in a fork of a warm interpreter, or by AWS's own runtime client in a new "
        "process (default %(default)s)",
    )
    parser.add_argument(
        "--cold-starts",
        choices=("local", "measured"),
        default="local",
        help="duration of cold starts: as on this machine, or drawn from times measured on AWS (default %(default)s)",
    )
    parser.add_argument(
        "--cold-start-seed", type=int, metavar="N", help="seed of measured cold starts: the same N gives the same times"
    )


def function_settings(options: argparse.Namespace) -> LambdaSettings:
    """Return the settings that the options of `add_function_options` select."""
    cold_starts = ColdStarts.measured(options.cold_start_seed) if options.cold_starts == "measured" else None
    return LambdaSettings(runtime_client=RuntimeClient(options.runtime_client), cold_starts=cold_starts)
