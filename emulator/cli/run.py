"""The ``fmirun`` command: a program as N functions."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from emulator.aws.lambda_.core.settings import LambdaSettings
from emulator.cli import arguments as allowed
from emulator.cli.exit_codes import FAILED, guarded, prefixed, say
from emulator.cloud import LocalCloud
from emulator.fmi.backend import local_backend
from emulator.fmi.deploy import EXECUTE_TMP_MB
from emulator.fmi.job import Job, RunOutcome
from emulator.fmi.launch import run, uploads
from emulator.fmi.log_tail import RankLine
from emulator.fmi.report.relays import relayed_pair, relays_line
from emulator.fmi.report.run_summary import cost_line, run_cost, run_table

_HELP = """\
Run a program that uses FMI as N emulated AWS Lambda functions on this machine.

The script's folder is uploaded to an S3 bucket of a local AWS endpoint, and one Lambda a rank downloads and
runs it. A rank finds RANK and WORLD_SIZE in its environment; `import fmi` and `boto3.client("s3")` work as on AWS.
"""
_EXAMPLES = """\
examples:
  fmirun -n 4 examples/reduce.py
  fmirun -n 4 --timeout 30 --memory 512 my_program.py --steps 10
  fmirun -n 4 --preload torch --data partitions --results results examples/cosmic_ai.py

exit status: 0 if every rank succeeded, 1 if one failed, 2 if the run could not begin, 130 after Ctrl-C
"""


def fmirun() -> NoReturn:
    """Run the ``fmirun`` command and exit with its status."""
    options = _parser().parse_args()
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
    sys.exit(guarded("fmirun", lambda: _run_job(job, options.preload, allowed.function_settings(options))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmirun",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-n", "--ranks", type=allowed.world_size, required=True, help="number of ranks (world size)")
    allowed.add_rank_options(parser)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of files to deal out to the ranks through S3")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for what the ranks leave in RESULT_PATH")
    parser.add_argument("--batch-size", type=allowed.positive, metavar="N", help="BATCH_SIZE in the ranks' environment")
    allowed.add_preload_option(parser)
    allowed.add_function_options(parser)
    parser.add_argument("script", type=Path, help="the program; its folder is uploaded with it")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's own arguments")
    return parser


def _run_job(job: Job, preload: Sequence[str], settings: LambdaSettings) -> int:
    began = time.perf_counter()
    # What is missing is said before anything is started.
    files = uploads(job)
    with LocalCloud(preload=preload, settings=settings) as cloud:
        for note in cloud.notes:
            say(note)
        backend = local_backend(cloud.endpoint_url, cloud.rendezvous, job.world_size, cloud.stop_functions)
        relayed: set[tuple[int, int]] = set()

        def on_line(line: RankLine) -> None:
            print(prefixed(line.rank, job.world_size, line.text), flush=True)
            if (pair := relayed_pair(line.text)) is not None:
                relayed.add(pair)

        outcome = run(job, files, backend, on_line)
        s3_requests = cloud.s3_requests()
    say(run_table(outcome))
    reports = [*(rank.report for rank in outcome.ranks if rank.report is not None), *outcome.others]
    say(cost_line(run_cost(reports, EXECUTE_TMP_MB, s3_requests)))
    if relayed:
        say(relays_line(relayed))
    say(f"{job.world_size} ranks in {time.perf_counter() - began:.2f} s on this machine")
    if outcome.failures:
        _say_failures(outcome)
        return FAILED
    if job.results is not None:
        say(f"results in {job.results}")
    return 0


def _say_failures(outcome: RunOutcome) -> None:
    first, *rest = outcome.failures
    for failed in rest:
        say(f"  then rank {failed.rank}: {failed.failure}")
    say(f"fmirun: rank {first.rank} failed: {first.failure}")
