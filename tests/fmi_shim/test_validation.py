"""Every wrong argument of every method raises before anything is sent, and names itself, its value, what is allowed."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.selection.selector import ChannelSelector
from tests.fmi_shim.programs import DOUBLE, INT, doubles, ints
from tests.fmi_shim.world import World

SUM = fmi.func(fmi.op.sum)
ARRAY = np.ones(3)


class Closed:
    """A channel that nothing may go through."""

    rank, size, full_duplex = 0, 3, True

    def begin(self, *_: object) -> None:
        raise AssertionError("a wrong argument went as far as the channel")

    def prepare(self, *_: object) -> Any:
        return self.begin  # preparing sends nothing

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.begin()


@pytest.fixture(scope="module")
def comm(rendezvous_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[fmi.Communicator]:
    """Rank 0 of 3."""
    folder: Path = tmp_path_factory.mktemp("arguments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChannelSelector, "choose", lambda *_: Closed())
        yield fmi.Communicator(0, 3, World(rendezvous_address, folder).config(), "name")


RANKS = [-1, 3, 2**70, True, 1.0, "0", None, [0], np.array([1])]
TYPES = [int, "int", 5, fmi.datatypes.int, [INT]]
FUNCTIONS = [None, max, fmi.op.sum, "sum", fmi.func]
VALUES: list[tuple[Any, Any]] = [
    *((value, INT) for value in ("1", 1.5, None, [1], 2**31, -(2**31) - 1, 1j, object(), np.array([1, 2]))),
    *((value, DOUBLE) for value in ("1", None, [1.0], 1j, b"1", np.array([1.0, 2.0]))),
    *(
        (value, ints(3))
        for value in ([1, 2], "abc", b"abc", [1, 2, "3"], [1, 2, 2**31], [1, 2, 2.5], None, 3, {1, 2, 3})
    ),
    *((value, ints(3)) for value in ([[1], [2], [3]], [1, 2, None], iter([1, 2, 3]), {1: 1, 2: 2, 3: 3}, "x" * 10_000)),
    *((value, doubles(3)) for value in ([1.0, 2.0], ["1", 2, 3], [1, 2, 3j], None, 3.0, np.ones(4))),
    *((value, None) for value in (5, 1.5, [1, 2, 3], "abc", object(), np.array(["a"]), np.array([None]), (1,), {})),
]
OUTS: list[Any] = [np.ones(4), np.ones(3, np.float32), [1.0, 2.0, 3.0], "out", 5, np.ones((3, 2))[:, 0], bytes(24)]
SENDING = ["send", "isend", "sendrecv", "bcast", "gather", "allgather", "scatter", "alltoall", "reduce", "allreduce",
           "reduce_scatter", "scan", "exscan"]  # fmt: skip
GOOD: dict[str, dict[str, Any]] = {
    "send": {"value": ARRAY, "dst": 1},
    "isend": {"value": ARRAY, "dst": 1},
    "recv": {"src": 1, "t": INT},
    "irecv": {"src": 1, "t": INT},
    "sendrecv": {"value": ARRAY, "dst": 1, "src": 2},
    "bcast": {"value": ARRAY, "root": 0},
    "gather": {"value": ARRAY, "root": 0},
    "allgather": {"value": ARRAY},
    "scatter": {"value": ARRAY, "root": 0},
    "alltoall": {"value": ARRAY},
    "reduce": {"value": ARRAY, "root": 0, "f": SUM},
    "allreduce": {"value": ARRAY, "f": SUM},
    "reduce_scatter": {"value": ARRAY, "f": SUM},
    "scan": {"value": ARRAY, "f": SUM},
    "exscan": {"value": ARRAY, "f": SUM},
    "split": {"colour": 0, "key": 0},
    "hint": {"hint": fmi.hints.fast},
}


def wrong() -> Iterator[Any]:
    """Yield method, arguments and the one that is wrong."""
    for method, good in GOOD.items():
        for name in sorted(good.keys() & {"dst", "src", "root"}):
            yield from (pytest.param(method, good | {name: value}, name) for value in RANKS)
        if "f" in good:
            yield from (pytest.param(method, good | {"f": value}, "f") for value in FUNCTIONS)
        if method not in ("split", "hint"):
            yield from (pytest.param(method, good | {"t": value}, "t") for value in TYPES)
        if method in SENDING:
            yield from (pytest.param(method, good | {"value": value, "t": t}, "value") for value, t in VALUES)
        if method in SENDING and method not in ("send", "isend", "bcast"):
            outs = OUTS[2:] if method == "sendrecv" else OUTS  # what comes there may be of another type
            yield from (pytest.param(method, good | {"out": out}, "out") for out in outs)
            scalars = method in ("scatter", "alltoall", "reduce_scatter")
            yield pytest.param(method, good | {"value": [1, 2, 3], "t": ints(3), "out": ARRAY}, "out")
            if scalars:
                yield pytest.param(method, good | {"value": 1, "t": INT}, "t")
                yield pytest.param(method, good | {"value": [1, 2], "t": ints(2)}, "value")
                yield pytest.param(method, good | {"value": np.ones(4)}, "value")
                yield pytest.param(method, good | {"value": np.ones(())}, "value")
    for value in (-1, 2**31, 1.5, "red", True):
        yield pytest.param("split", {"colour": value}, "colour")
    for value in (2**31, -(2**31) - 1, None, "1", 0.5):
        yield pytest.param("split", {"colour": 1, "key": value}, "key")
    for value in ("fast", None, 1, fmi.op.max):
        yield pytest.param("hint", {"hint": value}, "hint")
    for method in sorted(GOOD.keys() - {"isend", "irecv", "split", "hint"}):
        yield pytest.param(method, GOOD[method] | {"timeout": -1}, "timeout")
    yield pytest.param("recv", {"src": 1, "out": "place"}, "out")
    yield pytest.param("allreduce", {"value": np.array([True]), "f": SUM}, "f")
    yield pytest.param("allreduce", {"value": np.array([1j]), "f": fmi.func(fmi.op.max)}, "f")


@pytest.mark.parametrize(("method", "arguments", "name"), list(wrong()))
def test_the_error_of_a_wrong_argument_has_its_name_its_value_and_the_expected_values(
    comm: fmi.Communicator, method: str, arguments: dict[str, Any], name: str
) -> None:
    call: Callable[..., Any] = getattr(comm, method)
    with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
        call(**arguments)
    text = str(caught.value)
    assert re.match(rf"(invalid|missing) ([^:]* (of|and) )?{name}\b", text), text
    assert len(text) < 400
    assert ": expected " in text, text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("0", 2, "c", 128), "peer_id"),
        ((2, 2, "c", 128), "peer_id"),
        ((0, 0, "c", 128), "num_peers"),
        ((0, 2.0, "c", 128), "num_peers"),
        ((0, 2, 5, 128), "comm_name"),
        ((0, 2, None, 128), "comm_name"),
        ((0, 2, "x" * 100, 128), "comm_name"),
        ((0, 2, "\ud800", 128), "comm_name"),
        ((0, 2, "a\0b", 128), "comm_name"),
        ((0, 2, "c", 0), "faas_memory"),
        ((0, 2, "c", "128"), "faas_memory"),
    ],
)
def test_the_error_of_a_wrong_argument_of_the_communicator_has_its_name(
    world: World, arguments: tuple[Any, ...], name: str
) -> None:
    rank, size, comm_name, memory = arguments
    with pytest.raises((TypeError, ValueError), match=rf"invalid {name} .*expected"):
        fmi.Communicator(rank, size, world.config(), comm_name, memory)
