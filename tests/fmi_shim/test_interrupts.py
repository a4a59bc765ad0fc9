"""Ctrl-C ends every wait on every channel at once, long before its time is over."""

from pathlib import Path

import pytest

from tests.fmi_shim import failing_programs
from tests.fmi_shim.conftest import world_on


@pytest.mark.parametrize("wait", ["meeting", "message", "collective"])
@pytest.mark.parametrize(
    ("channel", "framed"), [("direct", True), ("direct", False), ("shm", True), ("redis", True), ("s3", True)]
)
def test_ctrl_c_ends_a_wait(
    request: pytest.FixtureRequest, tmp_path: Path, channel: str, framed: bool, wait: str
) -> None:
    world = world_on(channel, request, tmp_path)
    ranks = [(0, 2)] if wait == "meeting" else 2
    over = tmp_path / "over"
    first = world.run(failing_programs.interrupted_in, ranks, wait, over, framed=framed, max_timeout=0)[0]
    assert isinstance(first.error, KeyboardInterrupt)
