"""Which containers run as a rendezvous server, and where they listen."""

import sys

import pytest

from emulator.aws.credentials import Credentials
from emulator.aws.ecs.programs import Container, Program
from emulator.fmi.rendezvous_container import RendezvousPrograms

SERVER = (sys.executable, "-m", "rendezvous")
ADDRESS = "127.0.1.7"


def program(*command: str, image: str = "nginx", **environment: str) -> Program | None:
    programs = RendezvousPrograms("http://127.0.0.1:1", Credentials("id", "secret"))
    return programs.find(Container("c", image, command, environment), ADDRESS)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (("fmi-rendezvous", "--port", "1"), (*SERVER, "--port", "1")),
        (("/usr/bin/fmi-rendezvous", "--host", "0.0.0.0"), (*SERVER, "--host", ADDRESS)),
        (("fmi-rendezvous", "--health-host=0.0.0.0"), (*SERVER, f"--health-host={ADDRESS}")),
        (("python", "-m", "rendezvous"), SERVER),
    ],
)
def test_a_server_listens_at_its_own_address(command: tuple[str, ...], arguments: tuple[str, ...]) -> None:
    found = program(*command, FMI_RENDEZVOUS_HOST="0.0.0.0")
    assert found is not None
    assert found.arguments == arguments
    assert found.environment["FMI_RENDEZVOUS_HOST"] == ADDRESS
    assert found.environment["FMI_RENDEZVOUS_HEALTH_HOST"] == ADDRESS


def test_a_python_program_with_variables_of_the_server_is_one() -> None:
    found = program("python3", "-c", "print()", FMI_RENDEZVOUS_PORT="10000")
    assert found is not None
    assert found.arguments == (sys.executable, "-c", "print()")


@pytest.mark.parametrize("image", ["example.com/a/fmi-rendezvous:1", "tcpunch@sha256:00", "My-Rendezvous"])
def test_an_image_named_for_a_server_is_one(image: str) -> None:
    found = program(image=image)
    assert found is not None
    assert found.arguments == SERVER


def test_other_containers_are_none() -> None:
    assert program() is None
    assert program("sh", "-c", "fmi-rendezvous", image="rendezvous") is None
    assert program("python3", "-c", "print()") is None
    assert program(image="example.com/rendezvous/nginx:1") is None


def test_secrets_are_not_shown() -> None:
    found = program("fmi-rendezvous", FMI_RENDEZVOUS_SECRET="hidden")
    assert "hidden" not in repr(found)
    assert "hidden" not in repr(Container("c", "i", (), {"S": "hidden"}))
