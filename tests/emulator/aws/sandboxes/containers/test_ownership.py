"""Whose containers: only those of a process that has certainly ended are removed."""

import dataclasses
import json
import os
import subprocess
import sys

import psutil
import pytest

from emulator.aws.sandboxes.containers.ownership import OWNER_LABEL, Owner

OWN = Owner.of_this_process()


def ended() -> Owner:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        started = round(psutil.Process(process.pid).create_time())
    return dataclasses.replace(OWN, pid=process.pid, started=started)


def test_a_process_that_ended_is_dead_and_this_one_is_not() -> None:
    assert ended().is_dead()
    assert not OWN.is_dead()


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({"machine": "another"}, False),
        ({"namespace": "pid:[1]"}, False),
        ({"boot": "another"}, True),
        ({"started": OWN.started - 1000}, True),
    ],
)
def test_the_same_number_is_not_the_same_process(changes: dict[str, str], dead: bool) -> None:
    assert dataclasses.replace(OWN, **changes).is_dead() is dead  # type: ignore[arg-type]


def test_a_label_names_its_owner_and_a_foreign_one_nobody() -> None:
    assert Owner.parse(OWN.labels()[OWNER_LABEL]) == OWN
    assert OWN.pid == os.getpid()
    for label in ("", "7", "[]", "{}", json.dumps({"pid": 1}), "null"):
        assert Owner.parse(label) is None
