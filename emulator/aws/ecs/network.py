"""Addresses of tasks: a loopback address and an interface that EC2 describes, and targets of load balancers."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.aws.ecs.tasks import Interface
from emulator.aws.sdk_client import AwsClient

# Linux answers at all of 127.0.0.0/8, so that tasks can listen on the same port.
_FIRST = int(ipaddress.IPv4Address("127.0.1.1"))
_ADDRESSES = 250
_LOOPBACK = "127.0.0.1"


class LoopbackNetwork:
    """Gives each task a loopback address of its own, and 127.0.0.1 where the machine has no other one.

    Parameters
    ----------
    aws
        Makes interfaces.
    account
        The account.

    Attributes
    ----------
    balancer_addresses
        The addresses of load balancers by the DNS names that they were made with.
    """

    def __init__(self, aws: AwsClient, account: str) -> None:
        self._aws = aws
        self._account = account
        self._used: set[str] = set()
        self._balancers: dict[str, str] = {}
        self.balancer_addresses: dict[str, str] = {}
        self._next = 0

    async def attach(self, region: str, configuration: Mapping[str, Any]) -> Interface:
        """Make an interface in the first of the given subnets.

        Parameters
        ----------
        region
            The region.
        configuration
            ``subnets``, ``securityGroups`` and ``assignPublicIp``, as in awsvpcConfiguration.
        """
        address = self._address()
        request = {"SubnetId": (configuration.get("subnets") or [""])[0], "PrivateIpAddress": address}
        groups = {"Groups": configuration["securityGroups"]} if configuration.get("securityGroups") else {}
        made = (await self._aws.call("ec2", "CreateNetworkInterface", {**request, **groups}, region))[
            "NetworkInterface"
        ]
        interface = Interface(made["NetworkInterfaceId"], request["SubnetId"], made.get("MacAddress", ""), address)
        if configuration.get("assignPublicIp") == "ENABLED":
            await asyncio.to_thread(self._publish, region, interface)
        return interface

    async def register(self, region: str, balancers: Sequence[Mapping[str, Any]], address: str) -> None:
        """Make a task a target of its service's load balancers.

        A balancer forwards nothing here. Its DNS name becomes the task's address, where its ports are the task's.
        """
        for entry in balancers:
            group = entry["targetGroupArn"]
            target = [{"Id": address, "Port": entry["containerPort"]}]
            await self._aws.call("elbv2", "RegisterTargets", {"TargetGroupArn": group, "Targets": target}, region)
            await asyncio.to_thread(self._name_balancers, region, group, address)

    async def deregister(self, region: str, balancers: Sequence[Mapping[str, Any]], address: str) -> None:
        """Undo `register`, but for the name."""
        for entry in balancers:
            target = [{"Id": address, "Port": entry["containerPort"]}]
            request = {"TargetGroupArn": entry["targetGroupArn"], "Targets": target}
            await self._aws.call("elbv2", "DeregisterTargets", request, region)

    async def detach(self, region: str, interface: Interface) -> None:
        """Remove an interface; its address can be used again."""
        self._used.discard(interface.address)
        await self._aws.call("ec2", "DeleteNetworkInterface", {"NetworkInterfaceId": interface.id}, region)

    def _publish(self, region: str, interface: Interface) -> None:
        """Set the public address, which EC2 has no call for; programs of this machine reach the task there."""
        from moto.ec2.models import ec2_backends

        found = ec2_backends[self._account][region].enis[interface.id]
        found.public_ip = interface.address

    def _name_balancers(self, region: str, group: str, address: str) -> None:
        from moto.elbv2.models import elbv2_backends

        backend = elbv2_backends[self._account][region]
        for arn in backend.target_groups[group].load_balancer_arns:
            if arn in backend.load_balancers:
                balancer = backend.load_balancers[arn]
                self.balancer_addresses[self._balancers.setdefault(arn, balancer.dns_name.lower())] = address
                balancer.dns_name = address

    def _address(self) -> str:
        for _ in range(_ADDRESSES):
            address = str(ipaddress.IPv4Address(_FIRST + self._next % _ADDRESSES))
            self._next += 1
            if address in self._used:
                continue
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind((address, 0))
                self._used.add(address)
                return address
        return _LOOPBACK
