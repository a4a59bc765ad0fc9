import logging

import pytest

from emulator.fmi.report.relays import relayed_pair, relays_line
from fmi_shim.pairing import rendezvous_client


def test_the_report_of_a_rank_is_recognised_wherever_it_is_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rendezvous_client.report_relayed(7, 3, "203.0.113.10:10000")
    (text,) = caplog.messages
    assert relayed_pair(text) == relayed_pair(f"[WARNING]\t2026-01-01T00:00:00Z\t1234\t{text}") == (3, 7)


@pytest.mark.parametrize("other", ["", "rank 1 and rank 2 are connected", "through the relay of the rendezvous server"])
def test_other_lines_are_not(other: str) -> None:
    assert relayed_pair(other) is None


def test_the_summary_names_the_pairs() -> None:
    assert relays_line({(2, 11), (2, 3)}) == (
        "2 pairs of ranks were relayed through the rendezvous server, slower than a direct connection: 2-3, 2-11"
    )
    assert relays_line({(0, 1)}).startswith("1 pair of ranks was relayed")
