"""Containers of ECS that run the rendezvous server, as processes of this machine."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from emulator.aws.credentials import Credentials
from emulator.aws.ecs.programs import Container, Program

_PREFIX = "FMI_RENDEZVOUS_"
_COMMAND = "fmi-rendezvous"
# Images whose own command is a rendezvous server: ours, and those of the original TCPunch.
_IMAGES = ("rendezvous", "tcpunch")
_HOSTS = ("--host", "--health-host")


class RendezvousPrograms:
    """Runs containers of the rendezvous server.

    A container is one if its command is ``fmi-rendezvous`` or a Python program with variables of the server
    (``FMI_RENDEZVOUS_…``), or if it has no command and its image is named for a rendezvous server.

    Parameters
    ----------
    endpoint_url
        The AWS endpoint that its program uses.
    credentials
        The key of its requests.
    """

    def __init__(self, endpoint_url: str, credentials: Credentials) -> None:
        self._endpoint_url = endpoint_url
        self._credentials = credentials

    def find(self, container: Container, address: str) -> Program | None:
        """Return the program; None if the container is no rendezvous server."""
        arguments = _arguments(container)
        if arguments is None:
            return None
        folder = str(Path(sys.executable).parent)
        environment = {
            "PATH": os.pathsep.join([folder, os.defpath]),
            "PYTHONUNBUFFERED": "1",
            "AWS_ENDPOINT_URL": self._endpoint_url,
            **self._credentials.environment(),
            **container.environment,
            # It must listen on its own address, and never on all addresses of this machine.
            f"{_PREFIX}HOST": address,
            f"{_PREFIX}HEALTH_HOST": address,
        }
        return Program(tuple(_with_address(arguments, address)), environment)


def _arguments(container: Container) -> tuple[str, ...] | None:
    command = container.command
    server = (sys.executable, "-m", "rendezvous")
    if not command:
        repository = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
        return server if any(name in repository.lower() for name in _IMAGES) else None
    program = command[0].rpartition("/")[2]
    if program == _COMMAND:
        return (*server, *command[1:])
    is_server = command[1:3] == ("-m", "rendezvous") or any(name.startswith(_PREFIX) for name in container.environment)
    if program.startswith("python") and is_server:
        return (sys.executable, *command[1:])
    return None


def _with_address(arguments: Sequence[str], address: str) -> list[str]:
    """Return arguments in which the server listens on the task's address."""
    changed = list(arguments)
    for index, argument in enumerate(changed):
        flag, equals, _ = argument.partition("=")
        if flag not in _HOSTS:
            continue
        if equals:
            changed[index] = f"{flag}={address}"
        elif index + 1 < len(changed):
            changed[index + 1] = address
    return changed
