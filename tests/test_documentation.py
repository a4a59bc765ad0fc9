"""The documentation: every path that it names exists, and the table of environment variables is complete."""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rendezvous.options import parser

ROOT = Path(__file__).parent.parent
CODE = ("rendezvous", "fmi_shim", "inference", "emulator", "benchmarks", "examples")
FOLDERS = (*CODE, "tests", "docs", r"\.ci", r"\.github")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])

LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
PATH = re.compile(rf"(?<![\w/.*:-])(?:{'|'.join(FOLDERS)})/[\w./*-]*")
MODULE = re.compile(rf"(?<![\w/.-])(?:{'|'.join(CODE)})(?:\.\w+)+(?![\w/])")
ADDRESS = re.compile(r"`([\w./-]+\.py):([\w.]+)`")
VARIABLE = re.compile(r"FMI_[A-Z0-9_]*[A-Z0-9]")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_named_exists(page: Path) -> None:
    text = page.read_text()
    links = [target for target in LINK.findall(text) if "://" not in target]
    missing = [target for target in links if not (page.parent / target).exists()]
    missing += [path for path in PATH.findall(text) if not list(ROOT.glob(path.rstrip("./")))]
    assert not missing, f"{page.name} names paths that do not exist: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_and_object_named_exists(page: Path) -> None:
    missing = []
    for name in MODULE.findall(page.read_text()):
        if name.rpartition(".")[2] in ("md", "png", "service"):
            continue
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing, f"{page.name} names modules or objects that do not exist: {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_address_of_a_name_in_a_file_is_right(page: Path) -> None:
    missing = [
        f"{path}:{name}"
        for path, name in ADDRESS.findall(page.read_text())
        if not (ROOT / path).is_file() or not all(is_defined(part, ROOT / path) for part in name.split("."))
    ]
    assert not missing, f"{page.name} has wrong addresses: {missing}"


def is_defined(name: str, path: Path) -> bool:
    """Return whether the file defines a class, function or constant of this name."""
    definition = rf"(?m)^\s*(?:(?:async )?def|class) {name}\b|^\s*{name}\b(?:: .*)? ="
    return re.search(definition, path.read_text()) is not None


def test_paths_are_found_in_text_and_missing_ones_reported() -> None:
    text = "see `fmi_shim/config.py`, emulator/aws/*.py and /tmp/examples/reduce.py:12; https://x.org/docs/a"
    assert PATH.findall(text) == ["fmi_shim/config.py", "emulator/aws/*.py"]
    assert list(ROOT.glob("fmi_shim/config.py"))
    assert not list(ROOT.glob("fmi_shim/no_such_module.py"))
    assert ADDRESS.findall("see `fmi_shim/calls.py:Plan.run`") == [("fmi_shim/calls.py", "Plan.run")]
    assert is_defined("Plan", ROOT / "fmi_shim/calls.py")
    assert not is_defined("NoSuchClass", ROOT / "fmi_shim/calls.py")


def test_the_readme_is_short_and_shows_the_first_example() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) < 200
    shown = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert shown is not None
    example = (ROOT / "examples/reduce.py").read_text()
    assert example.endswith(shown[1])


class RecordingEnvironment(dict[str, str]):
    """An empty environment that records which variables are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        self.read.add(name)
        return default


def names_in_code() -> set[str]:
    """Return the FMI_* variables that are literals in the code, and those that `fmi-rendezvous` derives from flags."""
    environment = RecordingEnvironment()
    parser(environment)
    names = set(environment.read)
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            names.update(literals(ast.parse(path.read_text())))
    return names


def literals(tree: ast.AST) -> Iterator[str]:
    """Yield the texts in `tree` that are names of variables, without those that name an option's value in its help."""
    metavars = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "metavar"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in metavars:
            yield from VARIABLE.findall(node.value) if VARIABLE.fullmatch(node.value) else ()


def test_the_table_of_environment_variables_is_complete() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs/environment.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows)), "a variable has two rows"
    assert set(rows) == names_in_code()


def test_variables_of_fmi_rendezvous_are_among_those_found() -> None:
    names = names_in_code()
    assert {"FMI_RENDEZVOUS_PORT", "FMI_RENDEZVOUS_SECRET", "FMI_RENDEZVOUS", "FMI_SWITCH_POINTS"} <= names
    assert "FMI_JSON" not in names, "the metavar of an option is not a variable"
