"""What a local run's program may import: all packages, or those of its requirements file."""

from pathlib import Path

import pytest

from emulator.fmi.bundle import UploadedFile
from emulator.fmi.program_packages import Visible, program_packages


@pytest.fixture
def program(tmp_path: Path) -> list[UploadedFile]:
    (tmp_path / "main.py").write_text("import fmi, boto3, numpy, json, near\nimport hypothesis\n")
    (tmp_path / "near.py").write_text("import torch\n")
    return [UploadedFile(tmp_path / name, f"job/{name}") for name in ("main.py", "near.py")]


def listed(program: list[UploadedFile], text: str) -> list[UploadedFile]:
    path = program[0].path.with_name("requirements.txt")
    path.write_text(text)
    return [*program, UploadedFile(path, "job/requirements.txt")]


def test_without_a_requirements_file_all_are_visible_and_those_that_aws_lacks_are_named(
    program: list[UploadedFile],
) -> None:
    packages = program_packages(program, "job", "job/main.py", None, ())
    assert packages.modules is None
    (note,) = packages.notes
    assert note.startswith("the program imports hypothesis, torch of this machine; on AWS `fmi-emulator deploy --with")


def test_preloaded_modules_are_not_named(program: list[UploadedFile]) -> None:
    assert program_packages(program, "job", "job/main.py", None, ("torch", "hypothesis.strategies")).notes == ()


def test_a_requirements_file_makes_its_packages_visible_by_the_names_of_their_modules(
    program: list[UploadedFile],
) -> None:
    text = "# what it needs\n\nHypothesis >= 6 ; python_version > '3'\npy_yaml\nPyYAML==6.*\n-r other.txt\n./own.whl\n"
    packages = program_packages(listed(program, text), "job", "job/main.py", None, ())
    assert packages.modules is not None
    assert {"hypothesis", "yaml"} <= {*packages.modules}
    assert packages.notes == (
        "requirements.txt names py_yaml, which this machine lacks: run `python -m pip install -r requirements.txt`",
    )


def test_what_the_user_asks_for_decides(program: list[UploadedFile]) -> None:
    files = listed(program, "hypothesis\n")
    assert program_packages(files, "job", "job/main.py", Visible.ALL, ()).modules is None
    asked = program_packages(program, "job", "job/main.py", Visible.AWS, ())
    assert (asked.modules, asked.notes) == ((), ())


def test_a_script_that_is_no_python_is_left_to_its_rank(program: list[UploadedFile]) -> None:
    program[1].path.write_text("def")
    assert program_packages(program, "job", "job/main.py", None, ()).notes == ()
