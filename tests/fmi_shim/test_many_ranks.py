"""Worlds of more ranks than a machine has cores, by far."""

from tests.fmi_shim import programs
from tests.fmi_shim.world import World


def test_a_hundred_ranks_sum_with_few_connections_each(world: World) -> None:
    outcomes = world.values(programs.sum_and_connections, 100)
    assert {total for total, _ in outcomes} == {99 * 100 // 2}
    # 64 ranks double 6 times; 36 of them have one more to fold in.
    assert max(connections for _, connections in outcomes) == 7
