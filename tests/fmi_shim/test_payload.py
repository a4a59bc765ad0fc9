from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fmi_shim as fmi
from fmi_shim.payload import pack, pack_operand, pack_template
from fmi_shim.value_types import value_type_of

int32s = st.integers(-(2**31), 2**31 - 1)
doubles = st.floats(allow_nan=False)
arrays = hnp.arrays(
    hnp.integer_dtypes(endianness="=") | hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)) | hnp.boolean_dtypes(),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(st.lists(int32s))
def test_a_list_of_ints_is_packed_as_c_int32_and_restored_equal(values: list[int]) -> None:
    payload = pack(values, fmi.types(fmi.datatypes.int_list, len(values)))
    assert payload.flat.tobytes() == b"".join(value.to_bytes(4, "little", signed=True) for value in values)
    restored = payload.restore()
    assert restored == values
    assert all(type(value) is int for value in restored)


@given(st.lists(doubles | st.integers(-(2**53), 2**53)))
def test_a_list_of_doubles_is_packed_as_float64_and_restored_as_floats(values: list[float]) -> None:
    payload = pack(values, fmi.types(fmi.datatypes.double_list, len(values)))
    assert payload.flat.dtype == np.float64
    assert payload.restore() == values
    assert all(type(value) is float for value in payload.restore())


@pytest.mark.parametrize(
    ("value", "datatype", "expected"),
    [
        (5, fmi.datatypes.int, 5),
        (True, fmi.datatypes.int, 1),
        (np.int64(-7), fmi.datatypes.int, -7),
        (2, fmi.datatypes.double, 2.0),
        (np.float32(0.5), fmi.datatypes.double, 0.5),
        (np.array(3.0), fmi.datatypes.double, 3.0),
    ],
)
def test_numbers_of_python_and_numpy_are_one_value(value: object, datatype: fmi.datatypes, expected: float) -> None:
    restored = pack(value, fmi.types(datatype)).restore()
    assert restored == expected
    assert type(restored) is type(expected)


@pytest.mark.parametrize("value", [(1, 2), np.array([1, 2]), range(1, 3)])
def test_any_sequence_of_numbers_is_a_list(value: object) -> None:
    assert pack(value, fmi.types(fmi.datatypes.int_list, 2)).restore() == [1, 2]


@pytest.mark.parametrize("value", ["12", b"12", bytearray(8), memoryview(b"12"), {1: 2, 3: 4}, {1, 2}, iter([1, 2])])
def test_values_that_are_not_sequences_of_numbers_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="expected a list of numbers"):
        pack(value, fmi.types(fmi.datatypes.int_list, 2))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_an_int_outside_int32_overflows(value: int) -> None:
    with pytest.raises(OverflowError, match=str(value)):
        pack(value, fmi.types(fmi.datatypes.int))
    with pytest.raises(OverflowError, match=str(value)):
        pack([0, value], fmi.types(fmi.datatypes.int_list, 2))


@given(arrays)
def test_an_array_is_packed_without_a_copy_and_restored_as_itself(value: np.ndarray[Any, Any]) -> None:
    payload = pack(value, None)
    assert payload.flat.ndim == 1
    assert payload.restore() is value
    assert np.shares_memory(payload.flat, value) or value.size == 0
    assert payload.spare is None
    apart = payload.apart_from(payload)
    assert not np.shares_memory(apart.flat, value)
    assert apart.restore().shape == value.shape
    assert apart.restore().tobytes() == value.tobytes()


def test_an_array_that_is_not_contiguous_is_copied_once() -> None:
    value = np.arange(12.0).reshape(3, 4).T
    assert pack(value, None).flat.tolist() == value.reshape(-1).tolist()


def test_a_tensor_shares_its_memory_and_is_restored_as_a_tensor() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6, dtype=torch.int64).reshape(2, 3)
    payload = pack(tensor, None)
    payload.flat[0] = 42
    assert tensor[0, 0] == 42
    assert payload.restore() is tensor
    assert torch.equal(payload.value_type.restore(payload.flat.copy()), tensor)
    assert pack(torch.ones(3, requires_grad=True), None).flat.tolist() == [1.0] * 3


def test_the_memory_of_a_parameter_and_of_its_data_is_one_object() -> None:
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.ones(4))
    for out in (parameter.data, parameter.detach().view(4), parameter.data.numpy()):
        _, flat, spare = pack_operand(parameter.data, None, out)
        assert flat is spare
    with pytest.raises(ValueError, match="overlaps that of value in part"):
        pack_operand(parameter.data[1:], None, parameter.data[:-1])


def test_a_tensor_of_a_type_that_numpy_lacks_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"invalid value of torch\.complex32: expected a tensor"):
        pack(torch.zeros(2, dtype=torch.complex32), None)
    with pytest.raises(TypeError, match=r"value on meta: expected a CPU tensor"):
        pack(torch.ones(2, device="meta"), None)


@pytest.mark.parametrize("dtype", ["U1", "S1", "O", "datetime64[s]", ">f8", "g"])
def test_elements_other_than_native_numbers_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match="expected native bool, int, float or complex"):
        pack(np.zeros(2, dtype), None)


def test_an_array_to_fill_must_be_contiguous_and_writable() -> None:
    frozen = np.zeros(3)
    frozen.flags.writeable = False
    for template in (frozen, np.zeros((3, 3))[:, 1]):
        with pytest.raises(ValueError, match="that is C-contiguous and writable"):
            pack_template(template)


@pytest.mark.parametrize(
    ("shape", "size", "expected"), [((6,), 3, (2,)), ((4, 5), 2, (2, 5)), ((0,), 3, (0,)), ((3, 0), 3, (1, 0))]
)
def test_slices_are_cut_along_the_first_axis(shape: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    assert pack(np.zeros(shape), None).value_type.slice(size).shape == expected


def test_a_typed_slice_counts_the_whole_list() -> None:
    assert value_type_of(fmi.types(fmi.datatypes.int_list, 12)).slice(4).count == 3
    with pytest.raises(ValueError, match="10 rows or elements"):
        value_type_of(fmi.types(fmi.datatypes.int_list, 10)).slice(4)
