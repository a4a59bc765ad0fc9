"""The import paths that stay visible in a sandbox with a private /tmp."""

import json
import sys
from pathlib import Path

import boto3
import pytest

import emulator
import inference
from emulator.aws.sandboxes.file_system import import_paths


@pytest.mark.parametrize("module", [emulator, inference, boto3, pytest, json])
def test_every_module_lies_in_an_import_path(module: object) -> None:
    origin = Path(str(getattr(module, "__file__", ""))).resolve()
    assert any(origin.is_relative_to(path.resolve()) for path in import_paths())


def test_import_paths_do_not_depend_on_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An editable project is found by its record even where sys.path does not have it."""
    monkeypatch.chdir(tmp_path)
    root = Path(emulator.__file__).resolve().parent.parent
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry).resolve() != root])
    assert any(root.is_relative_to(path.resolve()) for path in import_paths())
