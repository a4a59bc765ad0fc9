"""FMI_LOG: what a rank writes to standard error."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmi_shim as fmi
from fmi_shim.errors import ConfigError
from fmi_shim.log import configure_log
from tests.fmi_shim.world import World

PROGRAM = """
import sys
import fmi_shim as fmi
rank, config, name, how = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
comm = fmi.Communicator(rank, 2, config, name)
comm.barrier()
if how == "fails" and rank == 1:
    raise RuntimeError("a bug")
if how == "is lost" and rank == 1:
    import os
    os._exit(3)
if how != "ends":
    comm.recv(1, fmi.types(fmi.datatypes.int))
comm.close()
"""


def outputs(world: World, how: str, environment: dict[str, str]) -> list[str]:
    """Return what two ranks wrote to standard error."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(world.config()), f"{world.folder.name}-log", how],
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "", "PYTHONPATH": ":".join(sys.path)} | environment,
        )
        for rank in range(2)
    ]
    return [rank.communicate(timeout=50)[1] for rank in ranks]


@pytest.fixture
def world(rendezvous_address: str, tmp_path: Path) -> World:
    return World(rendezvous_address, tmp_path)


def test_info_names_the_peer_and_the_kind_of_each_connection(world: World) -> None:
    first, second = outputs(world, "ends", {"FMI_LOG": "info"})
    assert "fmi INFO: rank 0: connected to rank 1 (direct)\n" in first
    assert "fmi INFO: rank 1: connected to rank 0 (direct)\n" in second
    assert "DEBUG" not in first + second
    assert first.count("connected to") == second.count("connected to") == 1


def test_raw_connections_are_logged(world: World) -> None:
    first, second = outputs(world, "ends", {"FMI_LOG": "info", "FMI_FRAMED": "0"})
    assert "connected to rank 1 (direct, TCPunch)" in first
    assert "connected to rank 0 (direct, TCPunch)" in second


def test_debug_adds_the_registration_with_the_server(world: World) -> None:
    for output in outputs(world, "ends", {"FMI_LOG": "debug"}):
        assert f"registered with the rendezvous server {world.address}" in output


def test_an_abort_is_logged_by_its_sender_and_its_receiver(world: World) -> None:
    receiver, sender = outputs(world, "fails", {"FMI_LOG": "info"})
    assert "rank 1: sends an abort: FmiError: rank 1 raised RuntimeError: a bug" in sender
    assert "rank 0: received an abort from rank 1: rank 1 raised RuntimeError: a bug" in receiver


def test_a_lost_peer_is_logged(world: World) -> None:
    assert "rank 0: lost rank 1\n" in outputs(world, "is lost", {"FMI_LOG": "info"})[0]


@pytest.mark.parametrize("environment", [{}, {"FMI_LOG": ""}, {"FMI_LOG": "warning"}])
def test_without_a_level_direct_connections_are_not_logged(world: World, environment: dict[str, str]) -> None:
    assert outputs(world, "ends", environment) == ["", ""]


@pytest.fixture
def unchanged_log() -> Iterator[logging.Logger]:
    log = logging.getLogger("fmi_shim")
    before = log.level, log.propagate, list(log.handlers)
    yield log
    log.level, log.propagate, log.handlers[:] = before


def test_an_unknown_level_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMI_LOG", "loud")
    with pytest.raises(ConfigError, match="invalid FMI_LOG 'loud': expected one of debug, info, warning"):
        fmi.Communicator(0, 2, world.config(), "comm")


def test_the_handler_is_added_once(unchanged_log: logging.Logger) -> None:
    for _ in range(2):
        configure_log({"FMI_LOG": "debug"})
    assert len(unchanged_log.handlers) == 1
    assert unchanged_log.level == logging.DEBUG
