"""The commands: fmirun runs a program as N functions, fmi-emulator serves the local cloud to other programs."""

import argparse
import gc
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from botocore.exceptions import BotoCoreError, ClientError

from emulator import limits
from emulator.cloud import LocalCloud
from emulator.errors import EmulatorError
from emulator.orchestration.backend import local_backend
from emulator.orchestration.job import Job, RunOutcome
from emulator.orchestration.launch import EXECUTE_TMP_MB, run, uploads
from emulator.orchestration.log_tail import RankLine
from emulator.report.relays import relayed_pair, relays_line
from emulator.report.run_summary import cost_line, run_cost, run_table

# What shells and mpirun use: 1 a failed rank, 2 a command that cannot be, 128 + n ended by signal n.
_FAILED, _UNUSABLE = 1, 2

_FMIRUN_HELP = """\
Run a program that uses FMI as N emulated AWS Lambda functions on this machine.

The script's folder is uploaded to an S3 bucket of a local AWS endpoint, and one Lambda a rank downloads and
runs it. A rank finds RANK and WORLD_SIZE in its environment; `import fmi` and `boto3.client("s3")` work as on AWS.
"""
_FMIRUN_EXAMPLES = """\
examples:
  fmirun -n 4 examples/reduce.py
  fmirun -n 4 --timeout 30 --memory 512 my_program.py --steps 10
  fmirun -n 4 --preload torch --data partitions --results results examples/cosmic_ai.py

exit status: 0 if every rank succeeded, 1 if one failed, 2 if the run could not begin, 130 after Ctrl-C
"""


def fmirun(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the ``fmirun`` command and exit with its status."""
    options = _fmirun_parser().parse_args(arguments)
    job = Job(
        script=options.script,
        world_size=options.ranks,
        arguments=tuple(options.arguments),
        memory_mb=options.memory,
        timeout_s=options.timeout,
        data=options.data,
        results=options.results,
        batch_size=options.batch_size,
    )
    sys.exit(_guarded("fmirun", lambda: _run_job(job, options.preload)))


def fmi_emulator(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    parser = argparse.ArgumentParser(
        prog="fmi-emulator", description="The local cloud: an AWS endpoint for FMI programs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="keep an endpoint running until Ctrl-C",
        description="Serve Lambda, S3, CloudWatch Logs and what else moto has, with a rendezvous server, until Ctrl-C.",
    )
    serve.add_argument(
        "--port", type=_port, default=4566, help="port on 127.0.0.1 (default %(default)s; 0: a free one)"
    )
    serve.add_argument("--preload", action="append", default=[], metavar="MODULE", help=_PRELOAD_HELP)
    options = parser.parse_args(arguments)
    sys.exit(_guarded("fmi-emulator", lambda: _serve(options.port, options.preload)))


_PRELOAD_HELP = "module that sandboxes share instead of importing it each, such as torch; may be repeated"


def _fmirun_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmirun",
        description=_FMIRUN_HELP,
        epilog=_FMIRUN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", "--ranks", type=_world_size, required=True, help="number of ranks (world size)")
    parser.add_argument(
        "--memory",
        type=_memory,
        default=1769,
        metavar="MB",
        help="memory of a rank (default %(default)s: one vCPU)",
    )
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=900,
        metavar="S",
        help="longest time of a rank (default %(default)s)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of files to deal out to the ranks through S3")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for what the ranks leave in RESULT_PATH")
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="BATCH_SIZE in the ranks' environment")
    parser.add_argument("--preload", action="append", default=[], metavar="MODULE", help=_PRELOAD_HELP)
    parser.add_argument("script", type=Path, help="the program; its folder is uploaded with it")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")
    return parser


def _run_job(job: Job, preload: Sequence[str]) -> int:
    began = time.perf_counter()
    # What is missing is said before anything is started.
    files = uploads(job)
    with LocalCloud(preload=preload) as cloud:
        backend = local_backend(cloud.endpoint_url, cloud.rendezvous, job.world_size, cloud.stop_functions)
        width = len(str(job.world_size - 1))
        relayed: set[tuple[int, int]] = set()

        def on_line(line: RankLine) -> None:
            _print_line(line, width)
            if (pair := relayed_pair(line.text)) is not None:
                relayed.add(pair)

        outcome = run(job, files, backend, on_line)
        s3_requests = cloud.s3_requests()
    _say(run_table(outcome))
    reports = [*(rank.report for rank in outcome.ranks), *outcome.others]
    _say(cost_line(run_cost(reports, EXECUTE_TMP_MB, s3_requests)))
    if relayed:
        _say(relays_line(relayed))
    _say(f"{job.world_size} ranks in {time.perf_counter() - began:.2f} s on this machine")
    if outcome.failures:
        _say_failures(outcome)
        return _FAILED
    if job.results is not None:
        _say(f"results in {job.results}")
    return 0


def _say_failures(outcome: RunOutcome) -> None:
    first, *rest = outcome.failures
    for failed in rest:
        _say(f"  then rank {failed.rank}: {failed.failure}")
    _say(f"fmirun: rank {first.rank} failed: {first.failure}")


def _serve(port: int, preload: Sequence[str]) -> int:
    with LocalCloud(port, preload) as cloud:
        print(f"export AWS_ENDPOINT_URL={cloud.endpoint_url}")
        print("export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local")
        print(f"export AWS_DEFAULT_REGION={limits.REGION}")
        print(f"export FMI_RENDEZVOUS={cloud.rendezvous}", flush=True)
        _say("ready; Ctrl-C ends it")
        signal.pause()
    return 0


def _guarded(command: str, body: Callable[[], int]) -> int:
    """Run a command; a failure on purpose is one line, and SIGTERM ends it as tidily as Ctrl-C."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return body()
    except (EmulatorError, BotoCoreError, ClientError) as error:
        _say(f"{command}: {error}")
        return _UNUSABLE
    except KeyboardInterrupt:
        _say(f"{command}: interrupted")
        return 128 + signal.SIGINT
    except _TerminatedError:
        _say(f"{command}: terminated")
        return 128 + signal.SIGTERM
    finally:
        # The interpreter's last collections over all that moto is made of would take 0.4 s and free nothing.
        gc.freeze()


class _TerminatedError(BaseException):
    """SIGTERM came."""


def _terminate(*_: object) -> NoReturn:
    raise _TerminatedError


def _print_line(line: RankLine, width: int) -> None:
    print(f"[{line.rank:>{width}}] {line.text}", flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _within(text: str, allowed: range) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if value not in allowed:
        raise argparse.ArgumentTypeError(f"expected a whole number from {allowed[0]} to {allowed[-1]}, got {text}")
    return value


def _world_size(text: str) -> int:
    return _within(text, range(1, limits.CONCURRENT_EXECUTIONS + 1))


def _memory(text: str) -> int:
    return _within(text, limits.MEMORY_MB)


def _timeout(text: str) -> int:
    return _within(text, limits.TIMEOUT_S)


def _positive(text: str) -> int:
    return _within(text, range(1, 2**31))


def _port(text: str) -> int:
    return _within(text, range(65536))
