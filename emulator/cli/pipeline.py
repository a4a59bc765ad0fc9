"""``fmi-emulator pipeline``: runs the published state machine on a payload, from upload to results."""

import argparse
import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import EndpointConnectionError

from emulator.aws.limits import MB_PER_VCPU, TIMEOUT_S
from emulator.aws.prices import Cost, step_functions_usd
from emulator.cli import arguments
from emulator.cli.account import add_run_options, check_backend
from emulator.cli.exit_codes import FAILED, deferred_interrupts, print_status, with_rank_prefix
from emulator.cli.network import add_network_options, link_faults, nat
from emulator.cli.observation import Observation, add_observation_options
from emulator.cli.stack_run import check_rank_options, run_on_stack
from emulator.cloud import LocalCloud
from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession, EndpointUnreachableError, connect, session_with
from emulator.fmi.bundle import UploadedFile, folder_files
from emulator.fmi.deploy import EXECUTE_TMP_MB, DeploySettings, Role
from emulator.fmi.deployment.resources import StackResources
from emulator.fmi.executions.launch import LaunchRequest, pipeline_request
from emulator.fmi.outcomes import STOPPED
from emulator.fmi.payload import PipelinePayload, code_folder, read_payload, required_code_folder, uploads
from emulator.fmi.pipeline import Pipeline, PipelineOutcome
from emulator.fmi.program_packages import program_packages
from emulator.fmi.rank_count import check_rank_count, rank_count
from emulator.fmi.rank_log import LineKind, LogLine
from emulator.fmi.rendezvous_secret import secret_of_run
from emulator.fmi.report import cost_line, run_cost, run_record, run_table
from emulator.fmi.results import check_folder, write_record
from emulator.fmi.state_machine import StateMachine, published_state_machine, read_state_machine
from fmi_shim.injection import FAULTS_VARIABLE, SEED_VARIABLE

if TYPE_CHECKING:
    from argparse import _SubParsersAction

_Update = Callable[[Role, Sequence[LogLine]], None]
_REFRESH_A_SECOND = 8
_MOST_VICTIMS = 20
_DESCRIPTION = """\
Run the published pipeline as a Step Functions state machine: initialize, execute once per rank, summarize.

The payload is the state machine's input, of either published generation:
  {"bucket", "world_size", "object_type", "S3_object_name", "data_path", "script"}
  {"bucket", "file_limit", "batch_size", "object_type", "S3_object_name", "script", "result_path", "data_bucket",
   "data_prefix", "world_size"}
Numbers may be strings. The code is uploaded from the local folder S3_object_name, which is searched for in the working
directory and beside the payload; data is uploaded from --data, or from a local folder with the name data_prefix.
"""
_EXAMPLES = """\
examples:
  fmi-emulator pipeline examples/pipeline.json
  fmi-emulator pipeline examples/cosmic_ai.json --data build/partitions --preload torch
  fmi-emulator pipeline payload.json --state-machine distributed.asl.json --script-folder "../Anomaly Detection"
  fmi-emulator pipeline examples/pipeline.json --backend aws                  on the stack of `fmi-emulator deploy`
  fmi-emulator pipeline payload.json --endpoint-url http://127.0.0.1:4566     then open /_emulator/ there

exit status: 0 if the execution succeeded, 1 if it failed, 2 if it could not start, 130 after Ctrl-C, which stops it
"""


def add_parser(commands: "_SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "pipeline",
        help="run the published state machine on a payload",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "payload", type=Path, help="JSON file with the input of the state machine, for example examples/pipeline.json"
    )
    parser.add_argument(
        "--state-machine",
        type=Path,
        metavar="FILE",
        help="definition in Amazon States Language (default: the published one with an inline Map)",
    )
    parser.add_argument(
        "--script-folder",
        type=Path,
        metavar="DIR",
        help="local folder to upload as S3_object_name, for example examples",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="local folder whose files are uploaded below data_prefix, for example build/partitions",
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for the results (default: results)")
    parser.add_argument(
        "--env",
        dest="environment",
        action="append",
        default=[],
        type=arguments.environment_variable,
        metavar="NAME[=VALUE]",
        help="set a variable in the environment of the program, or pass on the one set here; may be repeated",
    )
    arguments.add_report_option(parser)
    add_observation_options(parser)
    arguments.add_rank_options(parser)
    arguments.add_seed_option(parser)
    add_network_options(parser)
    arguments.add_preload_option(parser)
    arguments.add_packages_option(parser, None, arguments.PACKAGES_OF_PROGRAM)
    arguments.add_backend_option(parser, arguments.LOCAL, docker=True)
    arguments.add_image_options(parser)
    add_run_options(parser)
    parser.set_defaults(run=_pipeline)


@dataclass(frozen=True)
class _Cloud:
    """The cloud that the pipeline runs on, and the program's variables; `own` if it was started for the run."""

    connection: AwsSession
    rendezvous: str
    environment: Mapping[str, str]
    own: LocalCloud | None
    images: arguments.Images


def _pipeline(options: argparse.Namespace) -> int:
    began = time.perf_counter()
    _check(options)
    # Missing files are reported before anything is started.
    payload = read_payload(options.payload)
    if options.backend == arguments.AWS:
        return _run_on_stack(payload, options)
    given = None if options.state_machine is None else read_state_machine(options.state_machine)
    files = _files(payload, options)
    results = options.results or Path("results")
    check_folder(results)
    if options.report is not None:
        check_folder(options.report.absolute().parent)
    # Ranks behind an emulated NAT, or in containers, do not reach this process.
    has_bus = options.backend == arguments.LOCAL and options.endpoint_url is None and nat(options) is None
    observation = Observation(options, has_bus=has_bus)
    with _cloud(payload, options, observation, files.get(payload.bucket, ())) as cloud:
        s3 = cloud.connection.client("s3")
        ranks = rank_count(s3, payload, files)
        check_rank_count(ranks, s3, payload, files)
        machine = given or published_state_machine(ranks)
        pipeline = Pipeline(cloud.connection, machine, payload, cloud.environment)
        pipeline.prepare(files, _settings(options, machine, cloud))
        outcome = _execute(pipeline, observation, cloud, results)
        s3_requests = cloud.own.s3_requests() if cloud.own else {}
        notes = _notes(cloud.own) if cloud.own else []
    cost = _report(outcome, machine, s3_requests, is_own=cloud.own is not None)
    seconds = time.perf_counter() - began
    print_status(f"{len(outcome.run.ranks)} ranks in {seconds:.2f} s on this machine")
    if options.report is not None:
        write_record(options.report, run_record(outcome.run, cost, seconds))
    for note in notes:
        print_status(note)
    if outcome.status != "SUCCEEDED":
        _print_failure(outcome)
        return FAILED
    _print_results(outcome, payload, results)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what the backend does not take, before anything is started."""
    local_only = {
        "--nat": nat(options) is not None,
        "--packages": options.packages is not None,
        "--network and its kind": bool(link_faults(options)),
        "--preload": bool(options.preload),
        "--state-machine": options.state_machine is not None,
    }
    check_backend(options, local_only)
    if options.backend == arguments.DOCKER and options.packages is not None:
        raise EmulatorError("--packages needs processes: containers have the packages of their image")
    if options.backend != arguments.DOCKER:
        arguments.refuse_container_options(options)


def _settings(options: argparse.Namespace, machine: StateMachine, cloud: _Cloud) -> DeploySettings:
    """Return how the functions are deployed."""
    return DeploySettings(
        options.memory or MB_PER_VCPU,
        options.timeout or TIMEOUT_S[-1],
        cloud.rendezvous,
        # Only a cloud that keeps running has a page to show the phases on.
        cloud.own is None,
        machine.reads_ranks,
        cloud.images.executor,
        cloud.images.ranks,
    )


def _execute(pipeline: Pipeline, observation: Observation, cloud: _Cloud, results: Path) -> PipelineOutcome:
    """Start the execution, show it until it ends, and fetch its results."""
    with (
        observation.of(cloud.own),
        deferred_interrupts() as check,
        _line_by_line() if observation.is_live else _live_view(pipeline) as update,
    ):

        def on_lines(role: Role, lines: Sequence[LogLine]) -> None:
            check()
            update(role, lines)
            for line in lines:
                observation.on_record(line, role.value)

        arn = pipeline.start()
        execution = pipeline.watch(arn, on_lines)
    outcome = pipeline.outcome(arn, execution, results)
    observation.finish(outcome.run)
    return outcome


def _print_results(outcome: PipelineOutcome, payload: PipelinePayload, results: Path) -> None:
    if payload.result_path:
        print_status(f"results in {results}, from s3://{payload.bucket}/{payload.result_path}/")
    elif outcome.written:
        print_status(
            f"results in {results}: the {outcome.written} files that the program wrote to s3://{payload.bucket}/; the "
            "payload has no result_path"
        )


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Return the variables of the ranks: the given ones, and those of the links between them."""
    links = link_faults(options)
    if not links:
        return dict(options.environment)
    seed = secrets.randbelow(2**31) if options.fault_seed is None else options.fault_seed
    print_status(f"links: {'; '.join(links)} (--fault-seed {seed})")
    return {**dict(options.environment), FAULTS_VARIABLE: "; ".join(links), SEED_VARIABLE: str(seed)}


def _run_on_stack(payload: PipelinePayload, options: argparse.Namespace) -> int:
    results = options.results or Path("results")
    check_folder(results)
    near = options.payload.parent
    code = folder_files(required_code_folder(payload, options.script_folder, near), payload.folder)
    for note in code.notes():
        print_status(note)
    data = _data_folder(payload, options)
    variables = {**dict(options.environment), **Observation(options, has_bus=False).environment}
    if variables:
        event = dict(payload.event)
        event["script_environment"] = {**event.get("script_environment", {}), **variables}
        payload = replace(payload, event=event)

    def request(resources: StackResources) -> LaunchRequest:
        check_rank_options(options, resources)
        return pipeline_request(payload, code.files, data, resources, options.max_cost)

    return run_on_stack("fmi-emulator", options, request, results)


def _data_folder(payload: PipelinePayload, options: argparse.Namespace) -> Path | None:
    """Return the local folder of the data: the given one, or one that has the name of the payload's prefix."""
    given: Path | None = options.data
    if given is not None or not payload.data_prefix:
        return given
    named = (folder / payload.data_prefix for folder in (Path.cwd(), options.payload.parent))
    return next((folder for folder in named if folder.is_dir()), None)


def _files(payload: PipelinePayload, options: argparse.Namespace) -> dict[str, list[UploadedFile]]:
    near = options.payload.parent
    data = _data_folder(payload, options)
    # A running cloud may have the code already; a new one has not.
    find = required_code_folder if options.endpoint_url is None else code_folder
    return uploads(payload, find(payload, options.script_folder, near), data, print_status)


@contextlib.contextmanager
def _cloud(
    payload: PipelinePayload, options: argparse.Namespace, observation: Observation, files: Sequence[UploadedFile]
) -> Iterator[_Cloud]:
    environment = {**_environment(options), **observation.environment}
    if options.endpoint_url is None:
        images = arguments.images(options)
        secret = secret_of_run({**payload.event.get("script_environment", {}), **environment}, images.ranks)
        script = f"{payload.folder}/{payload.script}"
        packages = program_packages(files, payload.folder, script, options.packages, options.preload)
        for note in [*packages.notes, *([secret.note] if secret.note else [])]:
            print_status(note)
        with LocalCloud(
            preload=options.preload,
            packages=packages.modules,
            containers=images.containers,
            rendezvous_secret=secret.value,
            nat=nat(options),
            telemetry=observation.has_bus,
        ) as cloud:
            session = AwsSession(session_with(cloud.credentials), cloud.endpoint_url)
            yield _Cloud(session, cloud.rendezvous, {**environment, **secret.environment}, cloud, images)
        return
    of_cloud = {
        "--preload": bool(options.preload),
        "--packages": options.packages is not None,
        "--nat": nat(options) is not None,
    }
    if given := [name for name, is_given in of_cloud.items() if is_given]:
        raise EmulatorError(
            f"{', '.join(given)} cannot be used with --endpoint-url: pass it to the `fmi-emulator serve` of that cloud"
        )
    images = arguments.images(options)
    rendezvous = os.environ.get("FMI_RENDEZVOUS", "")
    if not rendezvous:
        raise EmulatorError(
            "FMI_RENDEZVOUS is not set: with --endpoint-url, export it as `fmi-emulator serve` prints it"
        )
    try:
        yield _Cloud(connect(options.endpoint_url), rendezvous, environment, None, images)
    except EndpointConnectionError:
        raise EndpointUnreachableError(options.endpoint_url) from None


@contextlib.contextmanager
def _line_by_line() -> Iterator[_Update]:
    yield _print_lines


@contextlib.contextmanager
def _live_view(pipeline: Pipeline) -> Iterator[_Update]:
    """Show the running pipeline: on a terminal as a live table, otherwise as the lines of the ranks."""
    if not sys.stderr.isatty():
        yield _print_lines
        return
    # Importing rich takes a tenth of a second; it is not needed without a terminal.
    from rich.console import Console
    from rich.live import Live

    from emulator.fmi.live_view import live_view

    console = Console(stderr=True)
    # The output of the ranks is printed above the table, unless standard output is redirected.
    both = sys.stdout.isatty()
    with Live(console=console, refresh_per_second=_REFRESH_A_SECOND, transient=True, redirect_stdout=both) as live:

        def update(role: Role, lines: Sequence[LogLine]) -> None:
            _print_lines(role, lines)
            live.update(live_view(pipeline.progress, time.time(), console.height))

        yield update


def _print_lines(role: Role, lines: Sequence[LogLine]) -> None:
    for line in lines:
        if line.kind is LineKind.OUTPUT and line.rank is not None:
            print(with_rank_prefix(line.rank, line.world_size or 1, line.text), flush=True)
        elif line.kind is LineKind.REPORT and line.report is not None and role is not Role.EXECUTE:
            print_status(f"{role.value} ended after {line.report.duration_ms / 1000:.2f} s")
        elif line.kind is LineKind.OUTPUT:
            print_status(f"{role.value}: {line.text}")


def _report(outcome: PipelineOutcome, machine: StateMachine, s3_requests: dict[str, int], *, is_own: bool) -> Cost:
    if outcome.run.ranks:
        print_status(run_table(outcome.run))
    states = step_functions_usd(outcome.transitions, outcome.express_ms)
    cost = run_cost(outcome.reports, EXECUTE_TMP_MB, s3_requests, states)
    print_status(cost_line(cost))
    express = f" and {len(outcome.express_ms)} EXPRESS executions" if machine.is_express else ""
    counted = "" if is_own else "; S3 requests are not counted on a cloud that was already running"
    print_status(f"{outcome.transitions} state transitions{express}{counted}")
    if any(rank.report is None for rank in outcome.run.ranks):
        print_status(
            "the cost excludes stopped ranks: on AWS they continue, and are billed, until they end by themselves"
        )
    return cost


def _notes(cloud: LocalCloud) -> list[str]:
    """Return the differences of this machine from AWS, and what in the run would behave differently on AWS."""
    warnings = [warning for execution in cloud.executions() for warning in execution.warnings]
    return [*cloud.notes, *(f"on AWS: {warning}" for warning in warnings)]


def _print_failure(outcome: PipelineOutcome) -> None:
    state = f"state {outcome.failed_state}" if outcome.failed_state else "the execution"
    failures = outcome.run.failures
    if outcome.failure is not None or not failures:
        why = outcome.failure or outcome.status
        print_status(f"fmi-emulator: {state} failed: {why}")
        return
    first, *rest = failures
    stopped = [failed for failed in rest if failed.failure and failed.failure.error_type == STOPPED]
    for failed in [failed for failed in rest if failed not in stopped][:_MOST_VICTIMS]:
        print_status(f"  then rank {failed.rank}: {failed.failure}")
    if stopped:
        print_status(f"  stopped while still running: {len(stopped)} ranks")
    print_status(f"fmi-emulator: {state} failed: rank {first.rank}: {first.failure}")
