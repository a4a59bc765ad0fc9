"""The ``fmirun`` command: runs a program as N functions."""

import argparse
import contextlib
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from emulator.aws.limits import CONCURRENT_EXECUTIONS, MB_PER_VCPU, TIMEOUT_S
from emulator.aws.prices import Cost
from emulator.cli import arguments as allowed
from emulator.cli.account import add_run_options, check_backend
from emulator.cli.exit_codes import FAILED, print_status, run_command, with_rank_prefix
from emulator.cli.network import nat
from emulator.cli.observation import Observation, add_observation_options
from emulator.cloud import LocalCloud
from emulator.errors import EmulatorError
from emulator.fmi.bundle import CodeFolder, program_name
from emulator.fmi.console import Console
from emulator.fmi.deploy import EXECUTE_TMP_MB
from emulator.fmi.log_reader import RankLine
from emulator.fmi.outcomes import RunOutcome
from emulator.fmi.program_packages import program_packages
from emulator.fmi.rendezvous_secret import secret_of_run
from emulator.fmi.report import cost_line, relays_line, run_cost, run_record, run_table
from emulator.fmi.results import check_folder, write_record
from emulator.fmi.run import DATA_PREFIX, RunRequest, local_backend, run, run_event, uploads
from fmi_shim.faults import Fault, FaultError, parse_faults
from fmi_shim.injection import FAULTS_VARIABLE, SEED_VARIABLE
from fmi_shim.log_lines import RelayNotice

if TYPE_CHECKING:
    from emulator.fmi.deployment.resources import StackResources

_HELP = """\
Run a program that uses FMI as N emulated AWS Lambda functions on this machine.

The folder of the script is uploaded to an S3 bucket of a local AWS endpoint. One Lambda per rank downloads it and runs
the script, with RANK and WORLD_SIZE in its environment; `import fmi` and `boto3.client("s3")` work as on AWS.
"""
_EXAMPLES = """\
examples:
  fmirun -n 4 examples/reduce.py
  fmirun -n 4 --timeout 30 --memory 512 my_program.py --steps 10     options after the script are its arguments
  fmirun -n 4 --preload torch --data partitions --results results examples/cosmic_ai.py
  fmirun -n 4 -x LEVEL=2 -x HOME -m package.module --steps 10        a module of the current folder, as python -m
  fmirun -n 4 --fault "kill rank 2 at allreduce 3" my_program.py             rank 2 ends at its third allreduce
  fmirun -n 4 --network aws --network-loss 0.1% my_program.py                links as between functions on AWS
  fmirun -n 4 --nat symmetric my_program.py                          each rank behind a NAT, through the relay
  fmirun -n 64 --backend aws my_program.py                           the same on AWS, after `fmi-emulator deploy`
  fmirun -n 4 --backend docker examples/reduce.py                    each rank in a container of the deployed image
  fmirun -n 2 --pdb my_program.py                                    breakpoint() in rank 0 stops there

exit status: 0 if every rank succeeded; the program's own, if the rank that failed first ended with one; else 1 if a
rank failed, 2 if the run could not start, 130 after Ctrl-C
"""


def fmirun() -> NoReturn:
    """Run the ``fmirun`` command and exit with its status."""
    parser = _parser()
    options = parser.parse_args()
    seed = secrets.randbelow(2**31) if options.fault_seed is None else options.fault_seed
    faults = "; ".join(allowed.faults(options))
    try:
        planned = parse_faults(faults, options.ranks, seed)
    except FaultError as error:
        parser.error(str(error))
    if options.fault:
        print_status(f"faults: {'; '.join(map(str, planned))} (--fault-seed {seed})")
    settings: dict[str, Any] = {
        "arguments": tuple(options.arguments),
        "memory_mb": options.memory or MB_PER_VCPU,
        "timeout_s": options.timeout or TIMEOUT_S[-1],
        "data": options.data,
        "results": options.results,
        "batch_size": options.batch_size,
        "environment": {
            **dict(options.environment),
            **({FAULTS_VARIABLE: faults, SEED_VARIABLE: str(seed)} if faults else {}),
        },
    }
    if options.module:
        request = RunRequest.of_module(options.script, options.ranks, **settings)
    else:
        request = RunRequest(Path(options.script), options.ranks, **settings)
    sys.exit(run_command("fmirun", lambda: _run(request, options, planned, seed)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fmirun",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    allowed.add_version_option(parser)
    parser.add_argument(
        "-n", "--ranks", type=allowed.world_size, required=True, help="number of ranks (world size), for example 4"
    )
    allowed.add_rank_options(parser)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of files to distribute to the ranks through S3, for example build/partitions",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder for the results that the ranks write below RESULT_PATH in S3, for example results",
    )
    parser.add_argument(
        "--batch-size",
        type=allowed.positive,
        metavar="N",
        help="BATCH_SIZE in the environment of the ranks, for example 512",
    )
    parser.add_argument(
        "-x",
        dest="environment",
        action="append",
        default=[],
        type=allowed.environment_variable,
        metavar="NAME[=VALUE]",
        help="set a variable in the environment of the ranks, or pass on the one set here; may be repeated. It is set "
        "before the program starts, and after the interpreter and preloaded modules have read theirs",
    )
    parser.add_argument(
        "--stdin",
        choices=("none", "rank0"),
        default="none",
        help="standard input of the ranks: empty, or this command's for rank 0 (default %(default)s)",
    )
    parser.add_argument(
        "--pdb",
        action="store_true",
        help="breakpoint() in rank 0 stops there, and pdb takes its commands from standard input; implies --stdin "
        "rank0. The other ranks wait for at most max_timeout of fmi.json",
    )
    allowed.add_report_option(parser)
    add_observation_options(parser)
    allowed.add_fault_options(parser)
    allowed.add_preload_option(parser)
    allowed.add_packages_option(parser, None, allowed.PACKAGES_OF_PROGRAM)
    allowed.add_function_options(parser)
    allowed.add_backend_option(parser, allowed.LOCAL, docker=True)
    allowed.add_image_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "-m", "--module", action="store_true", help="SCRIPT is the name of a module of the current folder, as python -m"
    )
    parser.add_argument(
        "script",
        metavar="SCRIPT",
        help="the program, for example examples/reduce.py; its folder (with -m, the current one) is uploaded with it",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def _run(request: RunRequest, options: argparse.Namespace, faults: Sequence[Fault], seed: int) -> int:
    began = time.perf_counter()
    _check(options)
    # Missing files are reported before anything is started.
    code = uploads(request)
    if options.backend == allowed.AWS:
        return _run_on_stack(request, options, code)
    outcome, cost = _run_here(request, options, code, faults, seed)
    seconds = time.perf_counter() - began
    print_status(f"{request.world_size} ranks in {seconds:.2f} s on this machine")
    if options.report is not None:
        write_record(options.report, run_record(outcome, cost, seconds))
    if outcome.failures:
        return _print_failures(outcome)
    if request.results is not None:
        print_status(f"results in {request.results}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what the backend does not take, before anything is started."""
    local_only = {
        "--cold-start-seed": options.cold_start_seed is not None,
        "--cold-starts": options.cold_starts != "local",
        "--nat": nat(options) is not None,
        "--packages": options.packages is not None,
        "--pdb": options.pdb,
        "--preload": bool(options.preload),
        "--runtime-client": options.runtime_client is not None,
        "--stdin": options.stdin != "none",
    }
    check_backend(options, local_only)
    if options.backend == allowed.DOCKER and options.packages is not None:
        raise EmulatorError("--packages needs processes: containers have the packages of their image")
    if options.backend != allowed.DOCKER:
        allowed.refuse_container_options(options)
    if options.backend == allowed.AWS:
        return
    if options.ranks > CONCURRENT_EXECUTIONS:
        raise EmulatorError(
            f"invalid number of ranks {options.ranks}: expected at most {CONCURRENT_EXECUTIONS} on this machine; "
            "with --backend aws, as many as the account's quota allows"
        )
    if options.endpoint_url is not None:
        raise EmulatorError("--endpoint-url names what stands for AWS: give --backend aws, too")
    if options.report is not None:
        check_folder(options.report.absolute().parent)


def _run_here(
    request: RunRequest, options: argparse.Namespace, code: CodeFolder, faults: Sequence[Fault], seed: int
) -> tuple[RunOutcome, Cost]:
    """Run the program on a local cloud of its own, and print its output, its ranks and its cost."""
    # Ranks behind an emulated NAT, or in containers, do not reach this process.
    observation = Observation(options, has_bus=options.backend == allowed.LOCAL and nat(options) is None)
    images = allowed.images(options)
    secret = secret_of_run(request.environment, images.ranks)
    request = replace(request, environment={**request.environment, **secret.environment, **observation.environment})
    script = None if request.module else run_event(request, "")["script"]
    packages = program_packages(code.files, program_name(request.script), script, options.packages, options.preload)
    relayed: set[RelayNotice] = set()

    def on_line(line: RankLine) -> None:
        print(with_rank_prefix(line.rank, request.world_size, line.text), flush=True)
        if (notice := RelayNotice.parse(line.text)) is not None:
            relayed.add(notice)

    with (
        LocalCloud(
            preload=options.preload,
            packages=packages.modules,
            settings=allowed.function_settings(options),
            containers=images.containers,
            rendezvous_secret=secret.value,
            telemetry=observation.has_bus,
            nat=nat(options),
        ) as cloud,
        contextlib.ExitStack() as opened,
    ):
        for note in [*cloud.notes, *code.notes(), *packages.notes, *([secret.note] if secret.note else [])]:
            print_status(note)
        backend = local_backend(
            cloud.endpoint_url,
            cloud.credentials,
            cloud.rendezvous,
            request.world_size,
            cloud.stop_functions,
            images.executor,
            images.ranks,
        )
        console = None
        if options.pdb or options.stdin == "rank0":
            console = opened.enter_context(Console(cloud.rendezvous.rpartition(":")[0], options.pdb)).address
        cloud.plan_faults(faults, seed)
        opened.enter_context(observation.of(cloud))
        outcome = run(request, code.files, backend, on_line, console, observation.on_record)
        observation.finish(outcome)
        s3_requests = cloud.s3_requests()
        for text in cloud.missed_faults():
            print_status(text)
    print_status(run_table(outcome))
    reports = [*(rank.report for rank in outcome.ranks if rank.report is not None), *outcome.others]
    cost = run_cost(reports, EXECUTE_TMP_MB, s3_requests)
    print_status(cost_line(cost))
    if relayed:
        print_status(relays_line(relayed))
    return outcome, cost


def _run_on_stack(request: RunRequest, options: argparse.Namespace, code: CodeFolder) -> int:
    # Runs on this machine do not pay for the imports.
    from emulator.cli.stack_run import check_rank_options, run_on_stack
    from emulator.fmi.executions.launch import LaunchRequest

    for note in code.notes():
        print_status(note)
    variables = Observation(options, has_bus=False).environment
    request = replace(request, environment={**request.environment, **variables})

    def launch_request(resources: "StackResources") -> LaunchRequest:
        check_rank_options(options, resources)
        event = run_event(request, resources.bucket)
        return LaunchRequest(
            name=request.module or request.script.stem,
            program=[file for file in code.files if not file.key.startswith(DATA_PREFIX)],
            event=event,
            world_size=request.world_size,
            data=[file for file in code.files if file.key.startswith(DATA_PREFIX)],
            script=None if request.module else event["script"],
            merge=request.results is not None,
            max_usd=options.max_cost,
        )

    return run_on_stack("fmirun", options, launch_request, request.results)


def _print_failures(outcome: RunOutcome) -> int:
    """Print why ranks failed, the cause last, and return the exit status."""
    first, *rest = outcome.failures
    for failed in rest:
        print_status(f"  then rank {failed.rank}: {failed.failure}")
    print_status(f"fmirun: rank {first.rank} failed: {first.failure}")
    return FAILED if first.failure is None or first.failure.exit_status is None else first.failure.exit_status
