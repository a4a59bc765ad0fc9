"""Ranks at a server of TCPunch's own: of version 2 alone, or one that closes on names that do not contain "pair"."""

import contextlib
import json
import socket
from pathlib import Path

import pytest

import fmi_shim as fmi
from fmi_shim.backoff import Deadline
from fmi_shim.errors import ConfigError, RendezvousError
from fmi_shim.pairing.control_connection import Access, ControlConnection, ServerLostError, connect_to_server
from rendezvous.options import parse
from rendezvous.protocol import Endpoint
from rendezvous.protocol.messages import Registration
from tests.fmi_shim.pairing.original_servers import original_server, serve_pairs, serve_v2
from tests.fmi_shim.programs import INT
from tests.fmi_shim.world import World, rendezvous_server

NOBODY = Endpoint("127.0.0.1", 9)
SUM = fmi.func(fmi.op.sum)


def sum_all(comm: fmi.Communicator, rank: int, size: int) -> int:
    return comm.allreduce(rank + 1, SUM, INT)


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
def test_ranks_speak_version_2_with_a_server_that_speaks_it_alone(tmp_path: Path, framed: bool) -> None:
    with original_server(serve_v2) as address:
        assert World(address, tmp_path).values(sum_all, 3, framed=framed) == [6, 6, 6]


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
def test_a_server_that_requires_pair_in_names_connects_ranks_whose_names_contain_it(
    tmp_path: Path, framed: bool
) -> None:
    folder = tmp_path / "pair"
    folder.mkdir()
    with original_server(serve_pairs) as address:
        assert World(address, folder).values(sum_all, 3, framed=framed) == [6, 6, 6]


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
def test_ranks_say_that_a_server_requires_pair_in_names(tmp_path: Path, framed: bool) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with original_server(serve_pairs) as address:
        for outcome in World(address, folder).run(sum_all, 2, framed=framed):
            assert isinstance(outcome.error, RendezvousError)
            assert "may accept only names that contain 'pair'" in str(outcome.error)
            assert outcome.seconds < 15


def test_a_server_that_accepts_and_is_silent_is_said_not_to_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = Endpoint(*silent.getsockname())
        with pytest.raises(ServerLostError, match=r"did not answer within .*0\.2 s\)?: check that it is a rendezvous"):
            ControlConnection(server, Access(), Registration("", "comm", 0, 2, bytes(16), NOBODY), Deadline(0.2))


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_server_that_does_not_accept_is_said_not_to_answer(seconds: float) -> None:
    with socket.socket() as full, contextlib.ExitStack() as connections:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # those that the kernel accepts, and one that waits
            waiting = connections.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(ServerLostError) as refused:
            connect_to_server(Endpoint(*full.getsockname()), Deadline(seconds)).close()
    assert "did not answer within" in str(refused.value)
    assert "in progress" not in str(refused.value)


def test_an_ipv6_address_is_refused_by_name_wherever_a_server_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "fmi.json"
    monkeypatch.delenv("FMI_RENDEZVOUS", raising=False)
    for host in ("::1", "[::1]"):
        path.write_text(json.dumps({"backends": {"Direct": {"enabled": True, "host": host, "port": 10000}}}))
        with pytest.raises(ConfigError, match="IPv6 is not supported"):
            fmi.Communicator(0, 2, path, "comm")
    path.write_text(json.dumps({"backends": {"Direct": {"enabled": True}}}))
    monkeypatch.setenv("FMI_RENDEZVOUS", "[::1]:10000")
    with pytest.raises(ConfigError, match=r"invalid host in FMI_RENDEZVOUS '\[::1\]:10000'.*IPv6 is not supported"):
        fmi.Communicator(0, 2, path, "comm")
    with pytest.raises(SystemExit):
        parse(["--host", "::1"], {})
    assert "IPv6 is not supported" in capsys.readouterr().err


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
def test_a_rank_over_a_limit_of_the_server_names_the_limit(tmp_path: Path, framed: bool) -> None:
    with rendezvous_server("--max-connections-per-address", "1") as address:
        outcomes = World(address, tmp_path).run(sum_all, 2, framed=framed, max_timeout=6000)
    assert any("raise --max-connections-per-address" in str(outcome.error) for outcome in outcomes), outcomes
