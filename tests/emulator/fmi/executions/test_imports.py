"""Which modules a program needs that a stack's functions lack."""

import pytest

from emulator.fmi.executions.imports import ProgramSyntaxError, missing_modules

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
