"""Which modules a program needs that a stack's functions lack."""

import pytest

from emulator.fmi.executions.imports import ProgramSyntaxError, first_import, missing_modules

AVAILABLE = ["fmi", "fmi_shim", "numpy"]


def missing(files: dict[str, str], python: tuple[int, int] = (3, 13)) -> list[str]:
    contents = {f"prog/{name}": text.encode() for name, text in files.items()}
    return missing_modules(contents, "prog/main.py", python, AVAILABLE)


def test_the_modules_of_the_script_and_of_what_it_imports_are_followed() -> None:
    files = {
        "main.py": "import os, boto3, fmi, numpy.linalg, own.part\nfrom beside import x\n",
        "own/__init__.py": "import pandas\n",
        "own/part.py": "from scipy import stats\n",
        "beside.py": "import torch\n",
        "unused.py": "import tensorflow\n",
    }
    assert missing(files) == ["pandas", "scipy", "torch"]


def test_imports_that_a_program_can_do_without_are_not_counted() -> None:
    assert (
        missing({"main.py": "try:\n    import cupy\nexcept ImportError:\n    pass\ndef f():\n    import torch\n"}) == []
    )


def test_syntax_that_is_too_new_for_the_functions_is_named() -> None:
    files = {"main.py": "match 1:\n    case _: pass\n"}
    with pytest.raises(ProgramSyntaxError, match=r"prog/main\.py"):
        missing(files, python=(3, 9))
    assert missing(files) == []
    with pytest.raises(ProgramSyntaxError):
        missing({"main.py": "def"})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"in/main.py": "import fmi"}, ("prog/in/main.py", "fmi")),
        (
            {"in/main.py": "def f():\n    from fmilib.fmi_operations import x"},
            ("prog/in/main.py", "fmilib.fmi_operations"),
        ),
        (
            {"in/main.py": "import sys, part", "part.py": "try:\n    import fmi\nexcept ImportError: pass"},
            ("prog/part.py", "fmi"),
        ),
        (
            {"in/main.py": "import torch\ntorch.distributed.init_process_group()"},
            ("prog/in/main.py", "torch.distributed"),
        ),
        ({"in/main.py": "import torch, fmi_tools\nprint('import fmi')", "in/unused.py": "import fmi"}, None),
        ({"in/main.py": "not Python"}, None),
        ({}, None),
    ],
)
def test_a_module_is_found_wherever_a_program_imports_it(
    files: dict[str, str], expected: tuple[str, str] | None
) -> None:
    """In the script, or in what it imports from its folder or those above it up to the program's."""
    contents = {f"prog/{name}": text.encode() for name, text in files.items()}
    assert first_import(contents, "prog/in/main.py", "prog", ["fmi", "fmilib", "torch.distributed"]) == expected
