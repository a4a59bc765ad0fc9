"""Every operation, type, function, root and world size on every channel, against plain Python: `matrix` says what."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fmi_shim import conftest, matrix
from tests.fmi_shim.matrix import Form, Function, Kind, Operation, Order, Step
from tests.fmi_shim.world import OpenWorld


@dataclass(frozen=True)
class Place:
    """A world: its channel, its size, how much of everything is done there, and how many examples beside that."""

    channel: str
    framed: bool
    size: int
    order: Order
    share: range
    examples: int
    most_steps: int = 8

    def __str__(self) -> str:
        return f"{self.channel}-{'framed' if self.framed else 'raw'}-{self.size}"


SIZES = (*range(1, 10), 16)
S3_SHARES = (2, 4, 4, 4, 3, 2, 1, 1, 1, 1)
"""Parts of what S3 is to do, for each of the sizes: a request to moto takes a hundredth of a second, so that on S3 each
operation is done with each function once, with the types and roots in turn. The rest of the way is Redis's, too."""
PARTS = sum(S3_SHARES)
ALL = range(PARTS)
PLACES = [
    *(Place("direct", framed, size, Order.fmi, ALL, 5) for framed in (False, True) for size in SIZES),
    *(Place("redis", size % 2 == 0, size, Order.rank_0, ALL, 3) for size in SIZES),
    *(Place("shm", True, size, Order.own, ALL, 5) for size in SIZES),
    *(
        Place("s3", size % 2 == 1, size, Order.rank_0, range(sum(S3_SHARES[:i]), sum(S3_SHARES[: i + 1])), 1, 4)
        for i, size in enumerate(SIZES)
    ),
]


@dataclass(frozen=True)
class Ranks:
    """The ranks of a place, which stay for all that is done there."""

    place: Place
    world: OpenWorld

    def wrong(self, todo: Sequence[Step]) -> list[tuple[Step, int, Any, Any]]:
        """Do it; return the steps that gave another value, or one of another type, than plain Python gives."""
        order, size = self.place.order, self.place.size
        came = self.world.values(matrix.every_step, todo, order)
        found = []
        for i, step in enumerate(todo):
            for rank, value in enumerate(matrix.expected(step, size, order)):
                got = came[rank][i]
                if got != value or type(got) is not type(value):
                    found.append((step, rank, got, value))
        return found


@pytest.fixture(scope="module", params=PLACES, ids=str)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    place: Place = request.param
    world = conftest.world_on(place.channel, request, tmp_path_factory.mktemp(place.channel))
    with world.opened(place.size, place.framed) as opened:
        yield Ranks(place, opened)


def test_every_operation_type_function_and_root_gives_what_plain_python_gives(ranks: Ranks) -> None:
    place = ranks.place
    todo = list(matrix.steps(place.size if place.share == ALL else 1))
    if place.share != ALL:
        todo = [replace(s, root=i % place.size) for i, s in enumerate(types_in_turn(todo)) if i % PARTS in place.share]
    assert ranks.wrong(todo) == []


def test_any_succession_of_calls_gives_what_plain_python_gives(ranks: Ranks) -> None:
    @settings(max_examples=ranks.place.examples, suppress_health_check=list(HealthCheck))
    @given(some_steps(ranks.place.size, ranks.place.most_steps))
    def holds(todo: list[Step]) -> None:
        assert ranks.wrong(todo) == []

    holds()


def types_in_turn(todo: Sequence[Step]) -> list[Step]:
    """Return one step for each operation and function, the first with its first type, the next with its second, ..."""
    alike: dict[tuple[Operation, Function], list[Step]] = {}
    for step in todo:
        alike.setdefault((step.operation, step.function), []).append(step)
    return [steps[i % len(steps)] for i, steps in enumerate(alike.values())]


@st.composite
def some_steps(draw: st.DrawFn, size: int, most: int) -> list[Step]:
    def step() -> Step:
        operation = draw(st.sampled_from(Operation))
        return Step(
            operation,
            draw(st.sampled_from([kind for kind in Kind if kind.is_list or not operation.takes_lists])),
            draw(st.sampled_from(Function)),
            draw(st.integers(0, size - 1)),
            draw(st.sampled_from([1, 2, 3, 50, 3000])),
            draw(st.integers(0, 1000)),
            draw(st.sampled_from(Form)),
        )

    return [step() for _ in range(draw(st.integers(1, most)))]
