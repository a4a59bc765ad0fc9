"""The whole API on real processes and sockets, against plain Python."""

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import fmi_shim as fmi
from fmi_shim.config import ChannelName
from fmi_shim.errors import ConfigError, FmiError, PeerTimeoutError
from tests.fmi_shim import programs
from tests.fmi_shim.world import World


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "raw"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_operation_accepts_arrays_of_any_shape(world: World, size: int, framed: bool) -> None:
    assert world.values(programs.every_array_operation, size, framed, framed=framed) == [[]] * size


def test_tensors_are_returned_as_tensors(world: World) -> None:
    pytest.importorskip("torch")
    own = [[[0.0 + r, 1.0 + r, 2.0 + r], [3.0 + r, 4.0 + r, 5.0 + r]] for r in range(2)]
    first, second = world.values(programs.tensors, 2)
    summed = [[1.0, 3.0, 5.0], [7.0, 9.0, 11.0]]
    for rank, result in enumerate((first, second)):
        assert result["bcast filled the tensor"]
        assert result["allreduce"] == (True, "torch.float32", summed)
        assert result["bcast"] == (True, "torch.float32", own[0])
        assert result["custom"] == (True, "torch.float32", own[1])
        assert result["own"] == (True, "torch.float32", own[rank])
    transposed = [[row[i] for row in values] for values in own for i in range(3)]
    assert first["gather"] == (True, "torch.float32", transposed)


def test_torch_is_never_imported(world: World) -> None:
    assert world.values(programs.without_torch, 2) == [True, True]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_exchanges_larger_than_any_socket_buffer_do_not_deadlock(world: World, size: int) -> None:
    total = float(sum(range(size)))
    assert world.values(programs.big_exchange, size, 2_000_000) == [(total, total)] * size


def test_fifty_ranks_pair_and_finish_an_allreduce(world: World) -> None:
    assert world.values(programs.sum_of_ranks, 50) == [1225] * 50


def test_wrong_arguments_raise_before_anything_is_sent(world: World) -> None:
    for rank, (errors, total) in enumerate(world.values(programs.wrong_arguments, 2)):
        assert total == 2
        other = 1 - rank
        assert [kind for kind, _ in errors].count("") == 0, errors
        texts = [f"{kind}: {text}" for kind, text in errors]
        expected = [
            "ValueError: invalid dst 2: expected 0 to 1",
            "ValueError: invalid src -1: expected 0 to 1",
            "TypeError: invalid src '0': expected a whole number",
            "ValueError: invalid root 7: expected 0 to 1",
            "TypeError: invalid root True: expected a whole number",
            "TypeError: invalid value 1.5 (float): expected a whole number for fmi.datatypes.int",
            "OverflowError: invalid value 2147483648: expected -2147483648 to 2147483647 for fmi.datatypes.int",
            "TypeError: invalid value '1' (str): expected a real number for fmi.datatypes.double",
            "ValueError: invalid value: expected 3 elements as in fmi.types, got 2",
            "TypeError: invalid value [1, 2.5] (list): expected numbers of int32 for fmi.datatypes.int_list",
            "OverflowError: invalid element -2147483649 of value: expected numbers in the range of int32",
            "TypeError: invalid value ['1'] (list): expected numbers of float64 for fmi.datatypes.double_list",
            "TypeError: invalid value 5 (int): expected a list of numbers for fmi.datatypes.int_list",
            "TypeError: invalid value 1 (int): expected a numpy array, a torch CPU tensor",
            "TypeError: invalid f <built-in function max>: expected fmi.func(...)",
            "TypeError: invalid t <class 'int'>: expected fmi.types(...), or None for arrays",
            "TypeError: invalid element type <U1 of value: expected native bool, int, float or complex",
            "TypeError: invalid f fmi.op.sum for elements of bool: expected max, min, land, lor, lxor, band, bor,",
            "ValueError: invalid value of 3 rows or elements: expected a multiple of 2",
            "ValueError: invalid t fmi.datatypes.int: expected int_list or double_list",
            "ValueError: invalid value of 3 rows or elements: expected a multiple of 2",
            "ValueError: invalid value: expected an array to fill that is C-contiguous and writable",
            "TypeError: invalid hint 'fast': expected fmi.hints.fast or fmi.hints.cheap",
        ]
        assert other in (0, 1)
        for text, beginning in zip(texts, expected, strict=True):
            assert text.startswith(beginning)


@pytest.mark.parametrize(
    ("rank", "size", "error", "message"),
    [
        (0, 0, ValueError, "invalid num_peers 0: expected 1 to"),
        (2, 2, ValueError, "invalid peer_id 2: expected 0 to 1"),
        (-1, 2, ValueError, "invalid peer_id -1: expected 0 to 1"),
        ("0", 2, TypeError, "invalid peer_id '0': expected a whole number"),
        (0, 2.0, TypeError, "invalid num_peers 2.0: expected a whole number"),
    ],
)
def test_a_wrong_rank_or_world_size_is_refused(
    world: World, rank: object, size: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fmi.Communicator(rank, size, world.config(), "name")  # type: ignore[arg-type]


def test_a_name_too_long_for_the_rendezvous_server_is_refused(world: World) -> None:
    fmi.Communicator(0, 10, world.config(), "x" * 96).close()
    with pytest.raises(ValueError, match=r"invalid comm_name 'xxx.*expected at most 94 bytes of UTF-8 without NUL"):
        fmi.Communicator(0, 11, world.config(), "x" * 95)


def test_a_wrong_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fmi.json"
    path.write_text(json.dumps({"backends": {"Direct": {"enabled": True, "port": []}}}))
    with pytest.raises(
        ConfigError, match=r"invalid backends.Direct.port \[\]: expected a whole number from 1 to 65535"
    ):
        fmi.Communicator(0, 1, path, "name")


def test_a_hint_reaches_the_choice_of_a_channel(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[fmi.hints] = []

    def choose(names: tuple[ChannelName, ...], *given: object) -> ChannelName:
        chosen.append(cast("fmi.hints", given[-1]))
        raise ConfigError("this test opens no channel")

    monkeypatch.setattr("fmi_shim.selection.selector.choose", choose)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-test")
    path = world.folder / "fmi.json"
    direct = {"enabled": True, "host": "127.0.0.1", "port": 1}
    s3 = {"enabled": True, "bucket_name": "none", "s3_region": "us-east-1", "timeout": 1, "max_timeout": 1}
    path.write_text(json.dumps({"backends": {"Direct": direct, "S3": s3}}))
    for hint in (fmi.hints.fast, fmi.hints.cheap):
        comm = fmi.Communicator(0, 2, path, "name")
        comm.hint(hint)
        with pytest.raises(ConfigError):
            comm.allreduce(3, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
    assert chosen == [fmi.hints.fast, fmi.hints.cheap]


def test_a_forked_child_that_exits_does_not_close_its_parents_connections(world: World) -> None:
    assert world.values(programs.fork_a_child, 2) == [1, 1]


def test_a_closed_communicator_refuses_further_calls(world: World) -> None:
    for text in world.values(programs.closed, 2):
        assert "barrier (call 1) refused" in text
        assert "BrokenCommunicatorError: the communicator was closed" in text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((int,), TypeError, "invalid datatype <class 'int'>: expected one of fmi.datatypes.int"),
        ((fmi.datatypes.int_list,), ValueError, "expected the number of elements"),
        ((fmi.datatypes.double_list, -2), ValueError, "expected the number of elements"),
        ((fmi.datatypes.int_list, 2.0), TypeError, "invalid count 2.0: expected a whole number"),
    ],
)
def test_a_wrong_type_descriptor_is_refused(
    arguments: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fmi.types(*arguments)  # type: ignore[arg-type]


def test_what_programs_for_the_original_binding_use_is_accepted() -> None:
    assert fmi.types(fmi.datatypes.int, 5) == fmi.types(fmi.datatypes.int)
    assert fmi.types(fmi.datatypes.double, 0).count == 1
    assert fmi.func(fmi.op.custom, max, 1, 0).code == fmi.func(fmi.op.custom, max, True, False).code
    assert [int(member) for member in fmi.datatypes] == [0, 1, 2, 3]
    assert fmi.datatypes.names["double"] is fmi.datatypes.values[1] is fmi.datatypes.double
    assert fmi.op.names["custom"] is fmi.op.values[int(fmi.op.custom)] is fmi.op.custom
    assert fmi.hints.values == {0: fmi.hints.fast, 1: fmi.hints.cheap}
    assert issubclass(FmiError, RuntimeError)
    assert issubclass(PeerTimeoutError, TimeoutError)


def test_the_number_of_cached_plans_is_bounded(world: World) -> None:
    comm = fmi.Communicator(0, 1, world.config(), "name")
    most = 0
    for count in range(1, 700):
        comm.allreduce(np.ones(count), fmi.func(fmi.op.sum))
        most = max(most, len(comm._calls._plans), len(comm._calls.allreduces))
    assert 2 <= most <= 256
