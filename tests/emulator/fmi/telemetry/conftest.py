"""Worlds of ranks that send their events to a collector of the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emulator.fmi.telemetry.history import History
from emulator.fmi.telemetry.hub import Telemetry
from tests.emulator.fmi.telemetry import programs
from tests.fmi_shim.world import World, rendezvous_server

RANKS = 4


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    with rendezvous_server() as address:
        yield address


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def telemetry(complaints: list[str]) -> Iterator[Telemetry]:
    with Telemetry("127.0.0.1", "127.0.0.1", complaints.append) as running:
        yield running


def observed(server: str, folder: Path, telemetry: Telemetry, job: str = "job") -> World:
    environment = {
        "FMI_TELEMETRY": "bus",
        "FMI_TELEMETRY_BUS": telemetry.variable,
        "FMI_JOB": job,
        "FMI_SECRET": "0123456789abcdef0123456789abcdef",
    }
    return World(server, folder, environment=environment)


@pytest.fixture
def world(server: str, tmp_path: Path, telemetry: Telemetry) -> World:
    return observed(server, tmp_path, telemetry)


@pytest.fixture(scope="session")
def recorded(server: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], History]:
    """Run a program of `programs` on four ranks once, and return its history."""
    known: dict[str, History] = {}

    def history(program: str) -> History:
        if program not in known:
            folder = tmp_path_factory.mktemp(program)
            with Telemetry("127.0.0.1", "127.0.0.1") as telemetry:
                observed(server, folder, telemetry).values(getattr(programs, program), RANKS)
                telemetry.wait_for_last_events(frozenset(range(RANKS)))
                with telemetry.history() as found:
                    known[program] = found
        return known[program]

    return history
