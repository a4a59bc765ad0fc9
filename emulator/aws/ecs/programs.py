"""What a container runs as: which program, and with which address in the place of the task's own network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Container:
    """A container of a task, with its overrides applied.

    Parameters
    ----------
    name, image
        From the task definition.
    command
        Its entry point and command; empty if the image's own are meant.
    environment
        Its variables, with the values of its secrets. Never logged.
    """

    name: str
    image: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Program:
    """A program of this machine.

    Parameters
    ----------
    arguments
        The program and its arguments.
    environment
        All its variables.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class Programs(Protocol):
    """Finds the program that a container runs as."""

    def find(self, container: Container, address: str) -> Program | None:
        """Return the program; None if the image cannot run here.

        Parameters
        ----------
        container
            The container.
        address
            The address of the task: what the container listens on, in the place of all addresses of its network.
        """
