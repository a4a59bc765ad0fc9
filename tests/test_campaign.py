"""A few worlds of the campaign, with faults that depend on no time limit; `python -m tests.campaign` runs all kinds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.campaign import Campaign, Scenario, Server, Stores, run_world, scenario
from tests.fmi_shim.conftest import redis_port

__all__ = ["redis_port"]

FIRST_SEED = 11_000


def first_with(fault: str, channel: str) -> Scenario:
    """Return the first world with a fault that also has a step after it."""
    worlds = (scenario(seed, [channel]) for seed in itertools.count(FIRST_SEED))
    return next(world for world in worlds if world.fault == fault and world.step < len(world.steps) - 1)


@pytest.mark.parametrize("channel", ["direct", "shm", "redis"])
def test_worlds_with_a_fault_return_right_values_and_name_the_rank(
    channel: str, redis_port: int, tmp_path: Path
) -> None:
    campaign, server = Campaign(timed=False), Server()
    try:
        for fault in ("none", "kill", "raise"):
            folder = tmp_path / fault
            folder.mkdir()
            this = first_with(fault, channel)
            campaign.check(this, run_world(this, server, Stores(redis_port), folder))
    finally:
        server.kill()
    assert campaign.problems == []
    assert campaign.blames == []
    assert campaign.origins[True] > 0
