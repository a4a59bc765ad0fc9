"""The lines that ranks write for readers of their logs: formatted and parsed in one place."""

import logging
import subprocess
import sys

import pytest

from fmi_shim.log_lines import Phase, RelayNotice, parse_rank_line, rank_line
from fmi_shim.pairing import rendezvous_client

SERVER = "203.0.113.10:10000"


def test_a_relay_notice_is_parsed_from_the_warning_that_a_rank_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rendezvous_client.report_relayed(7, 3, SERVER)
    (text,) = caplog.messages
    assert RelayNotice.parse(text) == RelayNotice(7, 3, SERVER)
    assert RelayNotice.parse(f"[WARNING]\t2026-01-01T00:00:00Z\t1234\t{text}") == RelayNotice(7, 3, SERVER)


@pytest.mark.parametrize("other", ["", "rank 1 and rank 2 are connected", "through the relay of the rendezvous server"])
def test_other_lines_contain_no_relay_notice(other: str) -> None:
    assert RelayNotice.parse(other) is None


def test_a_rank_line_is_parsed_into_rank_and_world_size() -> None:
    assert rank_line("3", "12", "a-1") == "fmi-rank: 3 of 12 RequestId: a-1"
    assert parse_rank_line(rank_line(3, 12, "")) == (3, 12)
    assert parse_rank_line("fmi-rank: 3 of 12 RequestId: a-1 and more") is None
    assert parse_rank_line("see fmi-rank: 3 of 12 RequestId: a-1") is None


def test_a_phase_is_parsed_from_its_line() -> None:
    phase = Phase("communication", ((1.0, 2.5), (3.0, 4.0)), 2.25, 7)
    assert phase.line() == (
        'fmi-trace: {"phase":"communication","seconds":2.25,"calls":7,"intervals":[[1.0,2.5],[3.0,4.0]]}'
    )
    assert Phase.parse(phase.line()) == phase
    assert Phase.parse('fmi-trace: {"phase":"x","seconds":1,"calls":1,"intervals":[]}') == Phase("x", (), 1.0, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fmi-trace:",
        "fmi-trace: nothing",
        'fmi-trace: {"phase": 1}',
        "fmi-trace: [1]",
        'a fmi-trace: {"phase":"x","seconds":1,"calls":1,"intervals":[]}',
        f'fmi-trace: {{"phase":"x","seconds":1,"calls":1,"intervals":[{",".join(["[1,2]"] * 1001)}]}}',
    ],
)
def test_other_lines_are_no_phase(text: str) -> None:
    assert Phase.parse(text) is None


@pytest.mark.parametrize("module", ["fmi_shim", "fmi_shim.log_lines", "fmi_shim.errors"])
def test_errors_and_log_lines_are_imported_without_numpy(module: str) -> None:
    """The emulator's commands and the deployed functions import them; numpy takes a fifth of a second."""
    check = (
        f"import sys, {module}; assert 'numpy' not in sys.modules; assert 'fmi_shim.communicator' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_package_has_the_names_of_fmi_and_no_others() -> None:
    check = """
import fmi_shim
from fmi_shim import *
assert Communicator is fmi_shim.Communicator is __import__("fmi_shim.communicator").communicator.Communicator
assert op.sum and func and types and datatypes and hints
try:
    fmi_shim.nothing
except AttributeError as error:
    assert str(error) == "module 'fmi_shim' has no attribute 'nothing'"
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", check], check=True)
