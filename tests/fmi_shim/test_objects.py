"""Python objects between ranks: what is sent, and who is trusted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fmi_shim as fmi
from fmi_shim.errors import ConfigError, MismatchError
from fmi_shim.objects import InvalidEnvelopeError, buffer_lengths, decode_object, encode_object
from tests.fmi_shim import object_programs as programs
from tests.fmi_shim.conftest import world_on
from tests.fmi_shim.world import World

SECRET = {"FMI_SECRET": "0123456789abcdef of the test"}
KEY = b"k" * 16


@pytest.fixture
def on(request: pytest.FixtureRequest, tmp_path: Path, channel: str) -> World:
    world = world_on(channel, request, tmp_path)
    world.environment = world.environment | SECRET
    return world


@pytest.mark.parametrize(
    ("channel", "size"), [("direct", 1), ("direct", 2), ("direct", 5), ("shm", 3), ("redis", 3), ("s3", 2)]
)
def test_any_value_is_received_by_every_call(on: World, size: int) -> None:
    galaxies = [programs.galaxy(rank).summary for rank in range(size)]
    for rank, found in enumerate(on.values(programs.every_call, size)):
        last = [(programs.galaxy(3).summary, {1, 2}, [0, 1])] if rank == size - 1 else []
        gathered = galaxies if rank == 0 else None
        assert found == [programs.galaxy(7).summary, gathered, rank, galaxies, *last, "mine"]


@pytest.mark.parametrize("channel", ["direct", "shm", "redis"])
@pytest.mark.parametrize("what", ["bcast", "send"])
def test_an_object_is_not_received_as_an_array_nor_the_reverse(on: World, what: str) -> None:
    outcome = on.run(programs.mixed_up, 2, what)[1]
    assert isinstance(outcome.error, MismatchError)
    assert "_object" in str(outcome.error)


@pytest.mark.parametrize("channel", ["direct", "redis"])
def test_an_object_of_a_rank_with_another_secret_is_not_unpickled(on: World) -> None:
    outcome = on.run(programs.with_other_secrets, 2)[1]
    assert isinstance(outcome.error, MismatchError)
    assert "the object of rank 0 was not made with this rank's secret" in str(outcome.error)
    assert "expected the same FMI_SECRET on all ranks" in str(outcome.error)


@pytest.mark.parametrize("channel", ["direct"])
def test_what_cannot_be_pickled_leaves_the_communicator_usable(on: World) -> None:
    assert on.values(programs.not_picklable, 2) == [(True, [0, 1])] * 2


@pytest.mark.parametrize(
    ("framed", "secret", "message"),
    [
        (False, "x" * 16, "bcast_object needs the framed mode, since FMI's protocol has no objects: expected framed"),
        (True, "", "bcast_object needs a secret, since unpickling an object runs what its sender chose: expected FMI_"),
        (True, "x" * 15, "the same random text of 16 bytes or more on all ranks; fmirun sets it"),
    ],
)
@pytest.mark.parametrize("channel", ["direct"])
def test_objects_are_refused_where_nothing_proves_who_made_them(
    on: World, monkeypatch: pytest.MonkeyPatch, framed: bool, secret: str, message: str
) -> None:
    monkeypatch.setenv("FMI_SECRET", secret)
    monkeypatch.delenv("FMI_RENDEZVOUS_SECRET", raising=False)
    with fmi.Communicator(0, 1, on.config(framed), "refused") as comm, pytest.raises(ConfigError, match=message):
        comm.bcast_object(1, 0)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from([b"a" * 20_000, bytearray(30_000), b""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_an_object_is_decoded_from_its_envelope_and_buffers(value: object) -> None:
    parts = encode_object(value, KEY, b"call")
    assert buffer_lengths(parts[0], KEY, b"call") == [part.size for part in parts[1:]]
    assert decode_object(parts) == value


def test_large_buffers_are_not_copied() -> None:
    array = np.arange(10_000)
    envelope, buffer = encode_object([array, array[:3]], KEY, b"")
    assert np.shares_memory(array, buffer)
    assert envelope.nbytes < 1000
    received = buffer.copy()
    assert np.shares_memory(decode_object([envelope, received])[0], received)


@pytest.mark.parametrize(("key", "context"), [(b"j" * 16, b"call"), (KEY, b"another call")])
def test_an_envelope_of_another_key_or_call_is_invalid(key: bytes, context: bytes) -> None:
    with pytest.raises(InvalidEnvelopeError):
        buffer_lengths(encode_object(1, KEY, b"call")[0], key, context)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_detected(position: int, change: int) -> None:
    parts = [part.copy() for part in encode_object(np.zeros(10_000), KEY, b"")]
    changed = parts[position % 2]
    changed[position % changed.size] ^= change
    with pytest.raises(InvalidEnvelopeError):
        buffer_lengths(parts[0], KEY, b"")
        decode_object(parts)


@pytest.mark.parametrize("cut", [0, 5, 33])
def test_a_short_envelope_is_invalid(cut: int) -> None:
    with pytest.raises(InvalidEnvelopeError):
        buffer_lengths(encode_object(1, KEY, b"")[0][:cut], KEY, b"")
