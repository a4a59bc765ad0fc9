"""Every operation, type, function, root and world size on every channel, against plain Python: `matrix` says what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fmi_shim import conftest, matrix
from tests.fmi_shim.matrix import SIZES, Form, Function, Kind, Operation, Order, Step
from tests.fmi_shim.world import OpenWorld

_STEPS_AT_ONCE = {"direct": 40, "shm": 40, "redis": 20, "s3": 5}
"""So many steps of all ranks must end in the time limit of a world."""


@dataclass(frozen=True)
class Place:
    """A world: its channel, its size, what is done there in any case, and how many random examples beside that.

    On S3 the types and at most three roots take turns: all of it would be 80,000 requests, each of which is 2 ms of
    work for boto3 and the server. S3 and Redis have all but the store's own file in common, to which neither types nor
    roots make a difference. Among more than four ranks on Redis the types take turns, too.
    """

    channel: str
    framed: bool
    size: int
    order: Order
    steps: Callable[[int], Iterator[Step]]
    examples: int
    most_steps: int = 8

    def __str__(self) -> str:
        return f"{self.channel}-{'framed' if self.framed else 'raw'}-{self.size}"


PLACES = [
    *(Place("direct", framed, size, Order.fmi, matrix.steps, 5) for framed in (False, True) for size in SIZES),
    *(
        Place("redis", size % 2 == 0, size, Order.rank_0, matrix.covering_steps if size > 4 else matrix.steps, 3)
        for size in SIZES
    ),
    *(Place("shm", True, size, Order.own, matrix.steps, 5) for size in SIZES),
    *(Place("s3", size % 2 == 1, size, Order.rank_0, matrix.fewest_steps, 1, 1 if size > 9 else 4) for size in SIZES),
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
            for rank, value in enumerate(matrix.expected(step, size, order, self.place.framed)):
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


@pytest.mark.parametrize("size", SIZES)
def test_a_reduction_meets_every_pair_of_type_function_and_root(size: int) -> None:
    steps = [step for step in matrix.steps(size) if step.operation is Operation.reduce and step.function.is_fmi]
    assert {(step.kind, step.function) for step in steps} == set(product(Kind, matrix.FMI_FUNCTIONS))
    assert {(step.kind, step.root) for step in steps} == set(product(Kind, range(size)))
    assert {(step.function, step.root) for step in steps} == set(product(matrix.FMI_FUNCTIONS, range(size)))


# On S3, sixteen ranks make thousands of requests, beside whatever else the machine does.
@pytest.mark.timeout(240)
def test_every_operation_type_function_and_root_equals_plain_python(ranks: Ranks) -> None:
    todo = list(ranks.place.steps(ranks.place.size))
    at_once = _STEPS_AT_ONCE[ranks.place.channel]
    for first in range(0, len(todo), at_once):
        assert ranks.wrong(todo[first : first + at_once]) == []


def test_any_sequence_of_calls_equals_plain_python(ranks: Ranks) -> None:
    @settings(max_examples=ranks.place.examples, suppress_health_check=list(HealthCheck))
    @given(some_steps(ranks.place.size, ranks.place.most_steps))
    def holds(todo: list[Step]) -> None:
        assert ranks.wrong(todo) == []

    holds()


@st.composite
def some_steps(draw: st.DrawFn, size: int, most: int) -> list[Step]:
    return [draw(a_step(size)) for _ in range(draw(st.integers(1, most)))]


def a_step(size: int) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        st.sampled_from(Operation),
        st.sampled_from(Kind),
        st.sampled_from(Function),
        st.integers(0, size - 1),
        st.sampled_from([1, 2, 3, 50, 3000]),
        st.integers(0, 1000),
        st.sampled_from(Form),
    ).filter(lambda step: step.is_valid)
