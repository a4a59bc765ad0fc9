"""Where a stack's rendezvous server is: its network before it is made, its address when it runs."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emulator.errors import EmulatorError
from emulator.fmi.aws_session import AwsSession

PORT, HEALTH_PORT = 10000, 10001
_HEALTH_S = 5.0
_MOST_HEALTH_BYTES = 65536
_HEALTH_FIELDS = frozenset(["status", "connections", "introductions"])


class NetworkError(EmulatorError):
    """There is no network for the server, or the server cannot be found."""


@dataclass(frozen=True)
class Server:
    """The running rendezvous server.

    Parameters
    ----------
    task
        ARN of its task.
    address
        Its public address, or the name of the load balancer in front of it.
    health
        What ECS's health check found: HEALTHY, UNHEALTHY or UNKNOWN.
    port, health_port
        Its ports.
    """

    task: str
    address: str
    health: str
    port: int = PORT
    health_port: int = HEALTH_PORT

    @property
    def endpoint(self) -> str:
        """``host:port`` for FMI_RENDEZVOUS."""
        return f"{self.address}:{self.port}"


def default_network(session: AwsSession, subnets: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return the network and the subnets for the server: the given ones, or the public ones of the default network.

    Raises
    ------
    NetworkError
        If there is no default network, or the subnets are not of one network.
    """
    ec2 = session.client("ec2")
    if subnets:
        found = ec2.describe_subnets(SubnetIds=list(subnets))["Subnets"]
    else:
        found = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    networks = {subnet["VpcId"] for subnet in found}
    if not networks:
        raise NetworkError(
            "the region has no default network: give --subnet with a public subnet, or run `aws ec2 create-default-vpc`"
        )
    if len(networks) > 1:
        raise NetworkError(f"the subnets {', '.join(subnets)} are of {len(networks)} networks: expected one")
    return networks.pop(), sorted(subnet["SubnetId"] for subnet in found)


def find_server(session: AwsSession, cluster: str, service: str, balancer: str = "") -> Server | None:
    """Return the service's running task with its address; None if no task runs.

    Parameters
    ----------
    session
        The account.
    cluster, service
        Names of cluster and service.
    balancer
        ARN of the load balancer in front of it, whose name is then the address; empty for the task's public address.
    """
    ecs = session.client("ecs")
    tasks = ecs.list_tasks(cluster=cluster, serviceName=service, desiredStatus="RUNNING")["taskArns"]
    if not tasks:
        return None
    described = ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]
    for task in described:
        if task["lastStatus"] != "RUNNING":
            continue
        address = _balancer_name(session, balancer) if balancer else _public_address(session, task)
        if address:
            ports = _host_ports(task)
            return Server(
                task["taskArn"],
                address,
                task.get("healthStatus", "UNKNOWN"),
                ports.get(PORT, PORT),
                ports.get(HEALTH_PORT, HEALTH_PORT),
            )
    return None


def read_health(server: Server) -> dict[str, Any]:
    """Return what the server's ``/health`` answers to this machine.

    Raises
    ------
    NetworkError
        If it does not answer, or is not our server.
    """
    url = f"http://{server.address}:{server.health_port}/health"
    try:
        with urllib.request.urlopen(url, timeout=_HEALTH_S) as response:
            answer = json.loads(response.read(_MOST_HEALTH_BYTES))
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise NetworkError(f"{url} does not answer as a rendezvous server does: {error}") from None
    if not isinstance(answer, dict) or not answer.keys() >= _HEALTH_FIELDS:
        raise NetworkError(f"{url} is not of a rendezvous server of ours: expected {', '.join(sorted(_HEALTH_FIELDS))}")
    return answer


def resolve(name: str) -> list[str]:
    """Return the IPv4 addresses of a name; none if it has none."""
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, socket.AF_INET)})
    except OSError:
        return []


def _balancer_name(session: AwsSession, balancer: str) -> str:
    found = session.client("elbv2").describe_load_balancers(LoadBalancerArns=[balancer])["LoadBalancers"]
    return str(found[0]["DNSName"])


def _public_address(session: AwsSession, task: dict[str, Any]) -> str | None:
    interface = _interface(task)
    if interface is None:
        return None
    found = session.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    return found[0].get("Association", {}).get("PublicIp") if found else None


def _interface(task: dict[str, Any]) -> str | None:
    details = (entry for attachment in task.get("attachments", []) for entry in attachment.get("details", []))
    return next((entry["value"] for entry in details if entry["name"] == "networkInterfaceId"), None)


def _host_ports(task: dict[str, Any]) -> dict[int, int]:
    """Return the port at the task's address of each container port; on Fargate they are the same."""
    return {
        binding["containerPort"]: binding["hostPort"]
        for container in task.get("containers", [])
        for binding in container.get("networkBindings", [])
        if binding.get("hostPort")
    }
