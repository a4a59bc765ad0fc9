"""The store of state machines."""

import asyncio
import json
from pathlib import Path

import pytest

from emulator.aws.account import Account
from emulator.aws.disk_reserve import DiskReserve
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.core.machines import MachineStore
from emulator.errors import ApiError, StateError

TEXT = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})

ACCOUNT = Account()
OTHER = TEXT.replace("Succeed", "Fail")


def create(store: MachineStore, name: str, kind: MachineType = MachineType.STANDARD) -> str:
    return asyncio.run(store.create(ACCOUNT, name, TEXT, "role", kind, {"a": "1"}, {})).arn


def test_state_machines_are_loaded_after_a_restart(tmp_path: Path) -> None:
    store = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    arns = [create(store, name) for name in ("one", "One", "..", "ü" * 80)]
    express = create(store, "express", MachineType.EXPRESS)
    asyncio.run(store.update(arns[0], ACCOUNT, OTHER, "other", {}))
    store.delete(arns[1], ACCOUNT)
    again = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    assert again.all(ACCOUNT) == store.all(ACCOUNT)
    assert again.get(arns[0], ACCOUNT).text == OTHER
    assert again.get(express, ACCOUNT).kind is MachineType.EXPRESS
    with pytest.raises(ApiError, match="State Machine Does Not Exist"):
        again.get(arns[1], ACCOUNT)


def test_an_interrupted_write_leaves_the_previous_content(tmp_path: Path) -> None:
    store = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    arn = create(store, "one")
    (file,) = tmp_path.iterdir()
    # The state of the folder after a kill during an update.
    file.with_suffix(".new").write_text(file.read_text()[:20])
    again = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    assert again.get(arn, ACCOUNT) == store.get(arn, ACCOUNT)
    asyncio.run(again.update(arn, ACCOUNT, None, "other", {}))
    assert MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0)).get(arn, ACCOUNT).role_arn == "other"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"name": "x"}'])
def test_a_damaged_file_raises_an_error_with_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "some.json").write_text(content)
    with pytest.raises(StateError, match=r"some.json: expected a state machine"):
        MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))


def test_a_definition_that_this_version_refuses_is_kept_and_named_until_it_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    arn, kept = create(store, "one"), create(store, "two")
    (file,) = (path for path in tmp_path.glob("*.json") if json.loads(path.read_text())["name"] == "one")
    refused = TEXT.replace("Succeed", "Retired")
    file.write_text(json.dumps({**json.loads(file.read_text()), "definition": refused}))
    again = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    assert "state machine 'one' is kept, but cannot run in this version" in caplog.text
    assert again.get(kept, ACCOUNT).definition == store.get(kept, ACCOUNT).definition
    assert again.get(arn, ACCOUNT).text == refused
    assert [machine.name for machine in again.all(ACCOUNT)] == ["one", "two"]
    with pytest.raises(ApiError, match="state machine 'one' was created by another version") as raised:
        _ = again.get(arn, ACCOUNT).definition
    assert raised.value.code == "InvalidDefinition"
    assert "/States/A/Type" in raised.value.message
    again.tag(again.get(arn, ACCOUNT), {"b": "2"})
    assert MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0)).get(arn, ACCOUNT).tags == {"b": "2"}
    asyncio.run(again.update(arn, ACCOUNT, TEXT, None, {}))
    assert again.get(arn, ACCOUNT).definition == store.get(arn, ACCOUNT).definition
