"""What arguments may be, whole numbers within AWS's limits above all, and the options that several commands have."""

import argparse
import ipaddress

from emulator.aws import limits
from emulator.aws.lambda_.core.cold_starts import ColdStarts
from emulator.aws.lambda_.core.settings import LambdaSettings, RuntimeClient


def world_size(text: str) -> int:
    """Read a number of ranks."""
    return _within(text, range(1, limits.CONCURRENT_EXECUTIONS + 1))


def rank(text: str) -> int:
    """Read a rank."""
    return _within(text, range(limits.CONCURRENT_EXECUTIONS))


def memory_mb(text: str) -> int:
    """Read a function's memory, MB."""
    return _within(text, limits.MEMORY_MB)


def timeout_s(text: str) -> int:
    """Read a function's longest time, seconds."""
    return _within(text, limits.TIMEOUT_S)


def positive(text: str) -> int:
    """Read a whole number from 1."""
    return _within(text, range(1, 2**31))


def port(text: str) -> int:
    """Read a TCP port; 0 means a free one."""
    return _within(text, range(65536))


def ipv4_address(text: str) -> str:
    """Read an IPv4 address."""
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


def add_rank_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a rank's function is configured with."""
    parser.add_argument(
        "--memory",
        type=memory_mb,
        default=limits.MB_PER_VCPU,
        metavar="MB",
        help="memory of a rank (default %(default)s: one vCPU)",
    )
    parser.add_argument(
        "--timeout",
        type=timeout_s,
        default=limits.TIMEOUT_S[-1],
        metavar="S",
        help="longest time of a rank, seconds (default %(default)s, Lambda's longest)",
    )


def add_preload_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names what sandboxes find imported."""
    parser.add_argument(
        "--preload",
        action="append",
        default=[],
        metavar="MODULE",
        help="module that sandboxes share instead of importing it each, such as torch; may be repeated",
    )


def add_function_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how functions are run."""
    parser.add_argument(
        "--runtime-client",
        choices=[client.value for client in RuntimeClient],
        default=RuntimeClient.FORK.value,
        help="what calls Python handlers: a fork of a warm interpreter, or AWS's own client in a new process (default "
        "%(default)s)",
    )
    parser.add_argument(
        "--cold-starts",
        choices=("local", "measured"),
        default="local",
        help="how long cold starts take: as long as here, or as long as was measured on AWS (default %(default)s)",
    )
    parser.add_argument(
        "--cold-start-seed", type=int, metavar="N", help="draw the same times of cold starts again with the same N"
    )


def function_settings(options: argparse.Namespace) -> LambdaSettings:
    """Return what the options of `add_function_options` say."""
    cold_starts = ColdStarts.measured(options.cold_start_seed) if options.cold_starts == "measured" else None
    return LambdaSettings(runtime_client=RuntimeClient(options.runtime_client), cold_starts=cold_starts)
