"""The state folder: its lock, its version, and damaged content."""

import asyncio
import io
import sqlite3
import zipfile
from pathlib import Path

import pytest

from emulator.aws.account import Account
from emulator.aws.lambda_.core.code_store import CodeStore
from emulator.aws.s3.core.store import ObjectStore
from emulator.aws.s3.core.tables import ObjectVersion
from emulator.aws.state import StateFolder
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.core.machines import MachineStore
from emulator.errors import StateError


def test_commits_are_visible_to_the_next_owner(tmp_path: Path) -> None:
    first = StateFolder(tmp_path / "new" / "state", lasting=True)
    first.database.execute("CREATE TABLE kept (value)")
    first.close()
    second = StateFolder(tmp_path / "new" / "state", lasting=True)
    assert second.database.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    second.close()


def test_a_second_owner_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    owner = StateFolder(tmp_path, lasting=True)
    with pytest.raises(StateError, match="is in use by another fmi-emulator; stop that process or give another folder"):
        StateFolder(tmp_path, lasting=True)
    owner.close()
    StateFolder(tmp_path, lasting=True).close()


def test_a_folder_with_other_files_is_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StateError, match=r"is not a state folder of fmi-emulator: it contains 'thesis.tex'"):
        StateFolder(tmp_path, lasting=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StateError, match="cannot be used: File exists"):
        StateFolder(tmp_path / "thesis.tex", lasting=True)


def test_the_state_of_another_account_is_refused(tmp_path: Path) -> None:
    StateFolder(tmp_path, lasting=True, account="111111111111").close()
    with pytest.raises(StateError, match="is of account 111111111111, not of 123456789012: start with --account 11111"):
        StateFolder(tmp_path, lasting=True)
    StateFolder(tmp_path, lasting=True, account="111111111111").close()


def test_another_version_is_refused(tmp_path: Path) -> None:
    StateFolder(tmp_path, lasting=True).close()
    (tmp_path / "fmi-emulator-state").write_text("7\n")
    with pytest.raises(StateError, match="has version 7, expected 2: use the fmi-emulator that wrote it"):
        StateFolder(tmp_path, lasting=True)


@pytest.mark.parametrize("damage", [b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_database_is_refused(tmp_path: Path, damage: bytes) -> None:
    StateFolder(tmp_path, lasting=True).close()
    (tmp_path / "state.db").write_bytes(damage)
    with pytest.raises(StateError, match=r"is damaged: state.db: .*; restore the folder from a copy"):
        StateFolder(tmp_path, lasting=True)


def test_a_truncated_body_file_is_refused_and_an_unreferenced_one_is_removed(tmp_path: Path) -> None:
    state = StateFolder(tmp_path, lasting=True)
    store = ObjectStore(state)
    store.buckets.create("bucket", "us-east-1")
    writer = store.bodies.writer(small_bytes=0)
    writer.write([b"content"])
    body = writer.finish()
    store.objects.put("bucket", ObjectVersion("key", "", 0, body))
    half_written = store.bodies.writer(small_bytes=0)
    half_written.write([b"half"])
    state.close()
    assert len(list((tmp_path / "bodies").iterdir())) == 2
    state = StateFolder(tmp_path, lasting=True)
    assert ObjectStore(state).read("bucket", "key") == b"content"
    state.close()
    (kept,) = (tmp_path / "bodies").iterdir()
    kept.write_bytes(b"cont")
    state = StateFolder(tmp_path, lasting=True)
    with pytest.raises(StateError, match=f"body file {kept.name} is missing or too short"):
        ObjectStore(state)
    state.close()


def test_tables_with_other_columns_are_refused(tmp_path: Path) -> None:
    StateFolder(tmp_path, lasting=True).close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("CREATE TABLE versions (other)")
    database.close()
    state = StateFolder(tmp_path, lasting=True)
    with pytest.raises(StateError, match="is damaged: objects: no such column"):
        ObjectStore(state)
    state.close()


def modes(folder: Path) -> dict[str, int]:
    """Return the permissions of a folder and of everything in it."""
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


def test_a_new_folder_and_its_files_are_private(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state", lasting=True)
    store = ObjectStore(state)
    store.buckets.create("bucket", "us-east-1")
    writer = store.bodies.writer(small_bytes=0)
    writer.write([b"content"])
    store.bodies.retain(writer.finish().files)
    definition = '{"StartAt": "a", "States": {"a": {"Type": "Pass", "End": true}}}'
    store_of_machines = MachineStore(state.folder("step_functions"), state.reserve)
    asyncio.run(store_of_machines.create(Account(), "machine", definition, "role", MachineType.STANDARD, {}, {}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("main.py", "")
        opened.writestr("package/deep/module.py", "")
        program = zipfile.ZipInfo("bootstrap")
        program.external_attr = 0o100755 << 16
        opened.writestr(program, "")
    CodeStore(state.folder("functions"), state.reserve).unpack_new("code", buffer.getvalue())
    found = modes(state.path)
    state.close()
    assert len(found) > 10
    for name, mode in found.items():
        is_folder = (state.path / name).is_dir()
        if name.startswith("functions/code") and not name.endswith(
            ".zip"
        ):  # the function may run as another user, who sees only this folder
            assert mode == (0o755 if is_folder or name.endswith("bootstrap") else 0o644), name
        else:
            assert mode == (0o700 if is_folder else 0o600), name


def test_a_folder_of_an_earlier_version_becomes_private(tmp_path: Path) -> None:
    StateFolder(tmp_path, lasting=True).close()
    (tmp_path / "bodies").mkdir(exist_ok=True)
    (tmp_path / "bodies" / "one").touch()
    for path in (tmp_path, *tmp_path.rglob("*")):
        path.chmod(0o755)
    StateFolder(tmp_path, lasting=True).close()
    assert {mode & 0o077 for mode in modes(tmp_path).values()} == {0}
