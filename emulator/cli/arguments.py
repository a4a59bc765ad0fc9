"""Parsers of command-line arguments, mostly whole numbers within AWS's limits, and options of several commands."""

import argparse
import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from emulator.aws import limits
from emulator.aws.lambda_.core.cold_starts import ColdStarts
from emulator.aws.lambda_.core.settings import LambdaSettings, RuntimeClient, SandboxKind
from emulator.aws.sandboxes.containers.daemon import Daemon
from emulator.cli.network import add_network_options, link_faults
from emulator.cloud import ContainerOptions
from emulator.errors import EmulatorError
from emulator.fmi.executor.image import DEFAULT_BASE_IMAGE, ImageRequest, executor_image
from emulator.fmi.functions.initialize import rank_payload
from emulator.fmi.program_packages import Visible

# What *execute* sets from the rank's payload.
_SET_BY_RUN = frozenset(rank_payload({"bucket": "", "S3_object_name": "", "script": ""}, 0, 1))


LOCAL, DOCKER, AWS = "local", "docker", "aws"


def world_size(text: str) -> int:
    """Parse a number of ranks: as many as a state machine's Map runs at once, of which an account may run fewer."""
    return _within(text, range(1, limits.DISTRIBUTED_MAP_CONCURRENCY + 1))


def usd(text: str) -> float:
    """Parse an amount of money."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected US dollars above 0, for example 0.5, got {text!r}")
    return value


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


def account_number(text: str) -> str:
    """Parse the number of an AWS account."""
    if not re.fullmatch("[0-9]{12}", text):
        raise argparse.ArgumentTypeError(f"expected twelve digits, got {text!r}")
    return text


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
        metavar="MB",
        help=f"memory of a rank, for example 512 (default {limits.MB_PER_VCPU}: one vCPU)",
    )
    parser.add_argument(
        "--timeout",
        type=timeout_s,
        metavar="S",
        help=f"timeout of a rank in seconds, for example 30 (default {limits.TIMEOUT_S[-1]}, Lambda's maximum)",
    )


PACKAGES_OF_PROGRAM = (
    "default: aws if the program's folder has a requirements.txt, whose packages it may import, too; else all"
)


def add_packages_option(parser: argparse.ArgumentParser, default: Visible | None, default_text: str) -> None:
    """Add the option of what functions may import besides their own packages."""
    parser.add_argument(
        "--packages",
        type=Visible,
        choices=list(Visible),
        default=default,
        help="what functions may import besides their own packages: aws for boto3 and what it needs, numpy, fmi and "
        "what --preload names, so that a forgotten dependency shows here; all for everything that is installed here "
        f"({default_text})",
    )


def add_backend_option(parser: argparse.ArgumentParser, default: str, *, docker: bool = False) -> None:
    """Add ``--backend``: where functions run; with `docker`, containers are one of the places."""
    containers = "docker, each in a container of the image that --image or the build of the executor gives; "
    parser.add_argument(
        "--backend",
        choices=(LOCAL, DOCKER, AWS) if docker else (LOCAL, AWS),
        default=default,
        help=f"where functions run: local, on this machine; {containers if docker else ''}aws, on the stack that "
        "`fmi-emulator deploy` made in an AWS account (default %(default)s)",
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


def add_fault_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that slow the network and have parts of a run fail."""
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="FAULT",
        help="what fails, for example 'kill rank 2 at allreduce 3', 'stop rank 1 at 0.5s for 2s', 'cut link 0-1', "
        "'restart server at 1s' or 'kill rank any at random 20'; may be repeated; docs/testing.md has the language",
    )
    add_seed_option(parser)
    add_network_options(parser)


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that repeats what is left to chance."""
    parser.add_argument(
        "--fault-seed",
        type=_seed,
        metavar="N",
        help="decides what faults and lossy links leave to chance; the same N fails in the same way (default: random, "
        "and printed)",
    )


def faults(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the faults that the options of `add_fault_options` select: those of the network first."""
    return (*link_faults(options), *options.fault)


def _seed(text: str) -> int:
    return _within(text, range(2**31))


def add_container_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select and configure containers, besides the option that switches them on."""
    parser.add_argument(
        "--base-image",
        metavar="REF",
        help=f"image with python3 that the executor's image is built on (default {DEFAULT_BASE_IMAGE})",
    )
    parser.add_argument(
        "--requirements",
        type=Path,
        metavar="FILE",
        help="further packages of the executor's image, for example requirements.txt",
    )
    parser.add_argument(
        "--ipc",
        action="store_true",
        help="functions share /dev/shm with each other and this machine, for POSIX semaphores and FMI's shared memory; "
        "on AWS they have none",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``--backend docker``."""
    parser.add_argument(
        "--image",
        metavar="REF",
        help="with --backend docker: run the ranks in this image, in any language, by its own command; it must speak "
        "Lambda's runtime API",
    )
    add_container_options(parser)


@dataclass(frozen=True)
class Images:
    """The images that a run's functions are deployed with, and the containers' settings; all None without docker."""

    executor: str | None = None
    ranks: str | None = None
    containers: ContainerOptions | None = None


def images(options: argparse.Namespace) -> Images:
    """Return what ``--backend`` and its options select; build the executor's image if it is missing.

    Raises
    ------
    EmulatorError
        When options contradict each other, there is no daemon, or the image cannot be built.
    """
    if options.backend != DOCKER:
        return Images()
    containers = ContainerOptions(shares_memory=options.ipc)
    if options.image is not None:
        if options.base_image is not None or options.requirements is not None:
            raise EmulatorError("--image replaces the executor's image: leave out --base-image and --requirements")
        Daemon().image_id(options.image)
        return Images(ranks=options.image, containers=containers)
    _refuse_runtime_client(options)
    return Images(executor=_executor_image(options), containers=containers)


def code_containers(options: argparse.Namespace) -> ContainerOptions | None:
    """Return how ``--sandbox docker`` runs functions; build the executor's image if it is missing. None for processes.

    Raises
    ------
    EmulatorError
        As `images`.
    """
    if SandboxKind(options.sandbox) is SandboxKind.PROCESS:
        _refuse_options(options, ("base_image", "requirements"), "--sandbox docker")
        return None
    _refuse_runtime_client(options)
    return ContainerOptions(_executor_image(options), shares_memory=options.ipc)


def refuse_container_options(options: argparse.Namespace) -> None:
    """Refuse the options of `add_image_options` where no container runs."""
    if options.image is not None:
        raise EmulatorError("--image needs --backend docker")
    _refuse_options(options, ("base_image", "requirements", "ipc"), "--backend docker")


def _refuse_options(options: argparse.Namespace, names: Sequence[str], needed: str) -> None:
    for name in names:
        if getattr(options, name):
            raise EmulatorError(f"--{name.replace('_', '-')} needs {needed}")


def _refuse_runtime_client(options: argparse.Namespace) -> None:
    if getattr(options, "runtime_client", None) == RuntimeClient.FORK.value:
        raise EmulatorError("--runtime-client fork needs processes: containers run AWS's client, awslambdaric")


def _executor_image(options: argparse.Namespace) -> str:
    # Reported here, on standard error, as the output belongs to the ranks.
    request = ImageRequest(options.base_image or DEFAULT_BASE_IMAGE, options.requirements, tuple(options.preload))
    return executor_image(Daemon(), request, lambda line: print(line, file=sys.stderr, flush=True))


def add_function_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that control how functions run."""
    parser.add_argument(
        "--runtime-client",
        choices=[client.value for client in RuntimeClient],
        help="how Python handlers are called: in a fork of a warm interpreter, or by AWS's own runtime client in a new "
        "process (default: fork; in containers awslambdaric)",
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
    return LambdaSettings(
        runtime_client=RuntimeClient(options.runtime_client or RuntimeClient.FORK), cold_starts=cold_starts
    )
