"""The store of state machines."""

import json
from pathlib import Path

import pytest

from emulator.aws.disk_reserve import DiskReserve
from emulator.aws.stepfunctions.asl.definition import MachineType
from emulator.aws.stepfunctions.core.machines import MachineStore
from emulator.errors import ApiError, StateError

TEXT = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})

OTHER = TEXT.replace("Succeed", "Fail")


def create(store: MachineStore, name: str, kind: MachineType = MachineType.STANDARD) -> str:
    return store.create(name, TEXT, "role", kind, {"a": "1"}, {}).arn


def test_state_machines_are_loaded_after_a_restart(tmp_path: Path) -> None:
    store = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    arns = [create(store, name) for name in ("one", "One", "..", "ü" * 80)]
    express = create(store, "express", MachineType.EXPRESS)
    store.update(arns[0], OTHER, "other", {})
    store.delete(arns[1])
    again = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    assert again.all() == store.all()
    assert again.get(arns[0]).text == OTHER
    assert again.get(express).kind is MachineType.EXPRESS
    with pytest.raises(ApiError, match="State Machine Does Not Exist"):
        again.get(arns[1])


def test_an_interrupted_write_leaves_the_previous_content(tmp_path: Path) -> None:
    store = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    arn = create(store, "one")
    (file,) = tmp_path.iterdir()
    # The state of the folder after a kill during an update.
    file.with_suffix(".new").write_text(file.read_text()[:20])
    again = MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
    assert again.get(arn) == store.get(arn)
    again.update(arn, None, "other", {})
    assert MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0)).get(arn).role_arn == "other"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"name": "x"}'])
def test_a_damaged_file_raises_an_error_with_its_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "some.json").write_text(content)
    with pytest.raises(StateError, match=r"some.json: expected a state machine"):
        MachineStore(tmp_path, DiskReserve(tmp_path / "reserve", 0))
