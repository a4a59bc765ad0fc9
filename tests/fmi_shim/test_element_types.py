"""Elements that numpy lacks: bfloat16 and float8, of torch and of ml_dtypes."""

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmi_shim as fmi
from emulator.testing.launch import launch
from emulator.testing.services import MissingServiceError
from fmi_shim.frames import SHORT_FLOATS
from fmi_shim.operators import builtin_combine
from fmi_shim.payload import as_array, combine_of
from tests.fmi_shim import element_type_programs as programs
from tests.fmi_shim.world import Program

torch = pytest.importorskip("torch")

BFLOAT16 = SHORT_FLOATS["bfloat16"]
OPERATIONS = {
    fmi.op.sum: torch.add,
    fmi.op.prod: torch.mul,
    fmi.op.max: torch.maximum,
    fmi.op.min: torch.minimum,
}
BITS = st.integers(0, 2**16 - 1)


def values(channel: str, framed: bool, size: int, program: Program, *arguments: object) -> list[Any]:
    """Run a program on ranks that are forked from this process, which has imported torch."""
    try:
        run = partial(on_rank, program, arguments)
        return launch(run, size, channel=channel, framed=framed, show_output=False)
    except MissingServiceError as error:
        pytest.skip(str(error))


def on_rank(program: Program, arguments: tuple[object, ...], comm: fmi.Communicator) -> Any:
    return program(comm, comm.rank, comm.size, *arguments)


@pytest.mark.parametrize(
    ("channel", "framed", "kind"),
    [
        ("direct", True, "bfloat16"),
        ("direct", True, "float8_e5m2"),
        ("direct", False, "float8_e4m3fn"),
        ("shm", True, "bfloat16"),
        ("redis", True, "float8_e4m3fnuz"),
    ],
)
def test_tensors_of_any_element_type_are_moved(channel: str, framed: bool, kind: str) -> None:
    assert values(channel, framed, 2, programs.every_operation, kind, framed) == [[]] * 2


@pytest.mark.parametrize(("channel", "size"), [("direct", 3), ("shm", 3), ("redis", 2)])
def test_bfloat16_is_reduced(channel: str, size: int) -> None:
    assert values(channel, True, size, programs.reductions) == [[]] * size


@given(st.sampled_from(list(OPERATIONS)), st.lists(st.tuples(BITS, BITS), min_size=1, max_size=20))
def test_bfloat16_is_combined_as_by_torch(op: fmi.op, pairs: list[tuple[int, int]]) -> None:
    left, right = (np.array([pair[i] for pair in pairs], np.uint16) for i in (0, 1))
    out = np.empty_like(left)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # signalling NaNs
        builtin_combine(op, BFLOAT16)(left.view(BFLOAT16), right.view(BFLOAT16), out.view(BFLOAT16))
    tensors = (torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16) for bits in (left, right))
    expected = OPERATIONS[op](*tensors).float().numpy()
    got = torch.from_numpy(out.view(np.int16)).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("kind", "op", "allowed"),
    [
        ("bfloat16", fmi.op.band, "for elements of bfloat16: expected sum, prod, max, min, avg, or a custom function"),
        ("float8_e5m2", fmi.op.sum, "for elements of float8_e5m2: expected a custom function"),
    ],
)
def test_an_operator_that_such_elements_lack_is_refused(kind: str, op: fmi.op, allowed: str) -> None:
    _, value_type = as_array(torch.zeros(2, dtype=getattr(torch, kind)))
    with pytest.raises(TypeError, match=f"invalid f {op} {allowed}"):
        combine_of(fmi.func(op), value_type)


def test_arrays_of_ml_dtypes_are_such_elements() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is missing: pip install ml_dtypes")
    array = np.arange(3).astype(ml_dtypes.bfloat16)
    memory, value_type = as_array(array)
    assert (value_type.dtype, value_type.shape) == (BFLOAT16, (3,))
    restored = value_type.restore(memory)
    assert restored.dtype == array.dtype
    assert np.shares_memory(restored, array)


def test_elements_that_no_message_has_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a tensor of an element type that numpy has"):
        as_array(torch.zeros(2, dtype=torch.float8_e8m0fnu))
