"""What moto's services hold, kept in a file that only its writer's key makes readable."""

import os
import pickle
import stat
from pathlib import Path

import pytest

from emulator.aws.gateway import moto_state
from emulator.aws.gateway.moto_state import MotoState


class Program:
    """Runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def state(tmp_path: Path) -> MotoState:
    (tmp_path / "moto").mkdir()
    return MotoState(tmp_path / "moto")


@pytest.mark.parametrize("signature", [b"", bytes(32)])
def test_a_file_without_the_users_signature_is_not_unpickled(
    state: MotoState, tmp_path: Path, signature: bytes
) -> None:
    content = signature + pickle.dumps(Program(tmp_path / "ran"))
    state._path.write_bytes(content)
    text = state.restore()
    assert text is not None
    assert "was not written by this user here: it is not signed with" in text
    assert not (tmp_path / "ran").exists()
    assert [path.read_bytes() for path in (tmp_path / "moto").iterdir()] == [content]
    assert not state.exists


def test_a_file_that_was_changed_is_not_unpickled(state: MotoState) -> None:
    state._save()
    content = state._path.read_bytes()
    assert state.restore() is None
    state._path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "it is not signed" in str(state.restore())


def test_the_key_is_made_once_and_for_this_user_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    key = moto_state._key()
    assert len(key) == 32
    assert moto_state._key() == key
    (path,) = (tmp_path / "data" / "fmi-emulator").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
