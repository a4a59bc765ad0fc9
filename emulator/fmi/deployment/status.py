"""What a stack runs at present, and what it costs."""

from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.network import NetworkError, Server, find_server, read_health, resolve
from emulator.fmi.deployment.resources import StackResources
from emulator.fmi.deployment.stack import Stack
from fmi_shim.prices import (
    USD_PER_FARGATE_GB_HOUR,
    USD_PER_FARGATE_VCPU_HOUR,
    USD_PER_NETWORK_BALANCER_HOUR,
    USD_PER_PUBLIC_IPV4_HOUR,
    USD_PER_SECRET_HOUR,
)

# Of the task definition in the template.
_TASK_VCPUS, _TASK_GB, _SECRETS = 0.25, 0.5, 2
_SHOWN_RUNS = 10


@dataclass(frozen=True)
class FunctionStatus:
    """A function: its name, state, last update, and memory in MB."""

    name: str
    state: str
    update: str
    memory_mb: int


@dataclass(frozen=True)
class StackStatus:
    """What a stack runs.

    Parameters
    ----------
    stack
        Name and state.
    functions
        The functions.
    server
        The rendezvous server; None if its task does not run.
    server_note
        What is wrong with it, or how it answers.
    is_healthy
        Whether ranks can use it.
    running
        ARNs of the running executions.
    usd_per_hour
        What it costs while nothing runs, USD.
    """

    stack: Stack
    functions: tuple[FunctionStatus, ...]
    server: Server | None
    server_note: str
    is_healthy: bool
    running: tuple[str, ...]
    usd_per_hour: float


def read_status(session: AwsSession, stack: Stack, resources: StackResources) -> StackStatus:
    """Return what a stack runs."""
    functions = session.client("lambda")
    server = find_server(session, resources.cluster, resources.service, resources.balancer)
    is_healthy, note = _server_health(server, resources.dns_name)
    executions = session.client("stepfunctions").list_executions(
        stateMachineArn=resources.state_machine, statusFilter="RUNNING", maxResults=_SHOWN_RUNS
    )["executions"]
    return StackStatus(
        stack,
        tuple(_function(functions, name) for name in resources.functions),
        server,
        note,
        is_healthy,
        tuple(found["executionArn"] for found in executions),
        idle_usd_per_hour(stack, is_running=server is not None),
    )


def idle_usd_per_hour(stack: Stack, *, is_running: bool = True) -> float:
    """Return what a stack costs while nothing runs, USD an hour.

    These are the secrets, the server's task with its address if it runs, and the load balancer with an address in each
    of its subnets. Bytes that the balancer passes on are not counted.
    """
    usd = _SECRETS * USD_PER_SECRET_HOUR
    if is_running:
        usd += _TASK_VCPUS * USD_PER_FARGATE_VCPU_HOUR + _TASK_GB * USD_PER_FARGATE_GB_HOUR + USD_PER_PUBLIC_IPV4_HOUR
    if "Balancer" in stack.outputs:
        subnets = len(stack.parameters.get("SubnetIds", "").split(","))
        usd += USD_PER_NETWORK_BALANCER_HOUR + subnets * USD_PER_PUBLIC_IPV4_HOUR
    return usd


def _function(functions: Any, name: str) -> FunctionStatus:
    try:
        found = functions.get_function_configuration(FunctionName=name)
    except ClientError as error:
        return FunctionStatus(name, str(error.response["Error"]["Code"]), "", 0)
    return FunctionStatus(name, found.get("State", ""), found.get("LastUpdateStatus", ""), found["MemorySize"])


def _server_health(server: Server | None, dns_name: str) -> tuple[bool, str]:
    if server is None:
        return False, "not running: see its service's events in ECS"
    if dns_name and not {server.address, *resolve(server.address)} & set(resolve(dns_name)):
        return False, f"{dns_name} does not resolve to {server.address} yet: wait, or check the zone's name servers"
    try:
        answer = read_health(server)
    except NetworkError as error:
        if server.health == "HEALTHY":
            return True, f"healthy as ECS sees it; this machine cannot reach it: {error}"
        return False, f"{server.health.lower()} as ECS sees it: {error}"
    return True, f"healthy, {answer['connections']} connections, {answer['introductions']} pairs of ranks so far"
