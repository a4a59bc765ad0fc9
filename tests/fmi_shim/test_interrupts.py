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
    # What nobody interrupts is a rank that leaves a store, and waits for those that read from it.
    longest = 4000 if channel == "s3" else 0
    first = world.run(failing_programs.interrupted_in, ranks, wait, framed=framed, max_timeout=longest)[0]
    assert isinstance(first.error, KeyboardInterrupt)
