"""Checks before anything costs money: quotas, functions, bucket, bundle and rendezvous server of a stack."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from botocore.exceptions import ClientError

from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.code import BundleInfo, read_info
from emulator.fmi.deployment.network import NetworkError, Server, find_server, read_health
from emulator.fmi.deployment.resources import StackResources
from emulator.fmi.executions.imports import ProgramSyntaxError, missing_modules

# Concurrent executions of Lambda.
_QUOTA = "L-B99A9384"
_NO_QUOTA = frozenset(["NoSuchResourceException", "AccessDeniedException", "ServiceException"])
_UPDATE_S, _START_S, _POLL_S = 90.0, 60.0, 1.0
# initialize and summarize do not run beside the ranks.
_MISSING_BUCKET = frozenset(["404", "NoSuchBucket"])


class PreflightError(EmulatorError):
    """The run would fail, or cost more than it should."""


@dataclass(frozen=True)
class Program:
    """What is checked of a program.

    Parameters
    ----------
    files
        The content of its Python files, by path.
    script
        The path of the script; None for a module that may be installed.
    """

    files: Mapping[str, bytes]
    script: str | None


@dataclass(frozen=True)
class Preflight:
    """What the checks have found.

    Parameters
    ----------
    server
        The rendezvous server.
    rendezvous
        ``host:port`` for FMI_RENDEZVOUS: by name, if the stack keeps one.
    notes
        One sentence for each thing that the user should know.
    """

    server: Server
    rendezvous: str
    notes: tuple[str, ...]


def check(session: AwsSession, resources: StackResources, world_size: int | None, program: Program | None) -> Preflight:
    """Check that a run can succeed.

    Parameters
    ----------
    session, resources
        The account and the stack.
    world_size
        Number of ranks; None if it is not known yet.
    program
        The program; None if it is in S3 already.

    Raises
    ------
    PreflightError
        If it cannot. The message names the command that mends the cause.
    """
    s3 = session.client("s3")
    _check_bucket(s3, resources)
    functions = session.client("lambda")
    for name in resources.functions:
        _check_function(functions, name, resources)
    if world_size is not None:
        _check_concurrency(session, functions, resources, world_size)
    notes = []
    info = read_info(s3, resources.bucket, resources.code_key)
    if info is None:
        notes.append("the functions run an image: whether it has the program's modules is not known")
    elif program is not None:
        notes += _check_program(info, resources, program)
    server, note = _check_server(session, resources)
    notes += [note] if note else []
    host = resources.dns_name or server.address
    return Preflight(server, f"{host}:{server.port}", tuple(notes))


def _check_bucket(s3: Any, resources: StackResources) -> None:
    try:
        s3.head_bucket(Bucket=resources.bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _MISSING_BUCKET:
            raise
        raise PreflightError(
            f"bucket {resources.bucket} of stack {resources.stack!r} is gone: run `fmi-emulator destroy` and "
            "`fmi-emulator deploy`"
        ) from None


def _check_function(functions: Any, name: str, resources: StackResources) -> None:
    ends = time.monotonic() + _UPDATE_S
    while True:
        try:
            found = functions.get_function_configuration(FunctionName=name)
        except functions.exceptions.ResourceNotFoundException:
            raise PreflightError(
                f"function {name} of stack {resources.stack!r} is gone: run `fmi-emulator deploy`"
            ) from None
        state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
        if state == "Active" and update == "Successful":
            break
        if "Failed" in (state, update):
            reason = found.get("StateReason") or found.get("LastUpdateStatusReason") or "no reason given"
            raise PreflightError(f"function {name} cannot run: {reason}: mend it and run `fmi-emulator deploy`")
        # Also right after a deployment: state and configuration of functions are eventually consistent.
        if time.monotonic() > ends:
            raise PreflightError(
                f"function {name} is still being updated (State {state}, LastUpdateStatus {update}) after "
                f"{_UPDATE_S:.0f} s: wait, then see `fmi-emulator status`"
            )
        time.sleep(_POLL_S)
    architecture = found.get("Architectures", ["x86_64"])[0]
    if architecture != resources.architecture:
        raise PreflightError(
            f"function {name} is for {architecture}, but the stack's image or archive is for {resources.architecture}: "
            f"run `fmi-emulator deploy --architecture {resources.architecture}`"
        )


def _check_concurrency(session: AwsSession, functions: Any, resources: StackResources, world_size: int) -> None:
    """Refuse more ranks than can run at once: ranks wait for each other, so those that run would time out."""
    reserved = functions.get_function_concurrency(FunctionName=resources.execute).get("ReservedConcurrentExecutions")
    if reserved is not None:
        if world_size > reserved:
            raise PreflightError(
                f"{world_size} ranks must run at once, but function {resources.execute} has {reserved} reserved "
                f"executions: run `aws lambda put-function-concurrency --function-name {resources.execute} "
                f"--reserved-concurrent-executions {world_size}`"
            )
        return
    limits = functions.get_account_settings()["AccountLimit"]
    allowed = min(limits["UnreservedConcurrentExecutions"], _quota(session) or limits["ConcurrentExecutions"])
    if world_size > allowed:
        raise PreflightError(
            f"{world_size} ranks must run at once, but the account allows {allowed} concurrent executions in "
            f"{session.session.region_name}: run `aws service-quotas request-service-quota-increase --service-code "
            f"lambda --quota-code {_QUOTA} --desired-value {world_size}`"
        )


def _quota(session: AwsSession) -> int | None:
    """Return the account's quota of concurrent executions; None where Service Quotas does not say."""
    try:
        found = session.client("service-quotas").get_service_quota(ServiceCode="lambda", QuotaCode=_QUOTA)
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NO_QUOTA:
            raise
        return None
    return int(found["Quota"]["Value"])


def _check_program(info: BundleInfo, resources: StackResources, program: Program) -> list[str]:
    major, minor = (int(part) for part in info.python.split("."))
    if program.script is not None:
        try:
            missing = missing_modules(program.files, program.script, (major, minor), info.modules)
        except ProgramSyntaxError as error:
            raise PreflightError(
                f"the functions run Python {info.python}, which cannot read {error}: run `fmi-emulator deploy "
                "--python` with the program's version"
            ) from None
        if missing:
            options = " ".join(f"--with {name}" for name in missing)
            raise PreflightError(
                f"the program imports {', '.join(missing)}, which stack {resources.stack!r} lacks: run `fmi-emulator "
                f"deploy {options}`, or deploy an image with --image-uri"
            )
    here, there = metadata.version("numpy"), info.packages.get("numpy", "")
    if there.partition(".")[0] != here.partition(".")[0]:
        return [f"numpy is {there} in the functions and {here} here: results may differ"]
    return []


def _check_server(session: AwsSession, resources: StackResources) -> tuple[Server, str]:
    ends = time.monotonic() + _START_S
    while True:
        server = find_server(session, resources.cluster, resources.service, resources.balancer)
        problem = ""
        if server is not None:
            try:
                health = read_health(server)
                break
            except NetworkError as error:
                if server.health == "HEALTHY":
                    note = f"the rendezvous server is healthy as ECS sees it; this machine cannot reach it: {error}"
                    return server, note
                problem = f"it is {server.health} as ECS sees it, and {error}; "
        # Its task may have been replaced, or has just started.
        if time.monotonic() > ends:
            raise PreflightError(
                f"the rendezvous server of stack {resources.stack!r} does not run after {_START_S:.0f} s: {problem}see "
                f"`fmi-emulator status`, and the events of service {resources.service} in ECS"
            )
        time.sleep(_POLL_S)
    if health["status"] != "ok":
        raise PreflightError(f"the rendezvous server is {health['status']}: wait for its successor, and try again")
    return server, ""
