"""The parsers of the commands' arguments, and --version."""

import subprocess
from argparse import ArgumentTypeError
from collections.abc import Callable
from importlib import metadata

import pytest

from emulator.cli import arguments
from tests.commands import installed, run


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (arguments.world_size, "1000", 1000),
        (arguments.rank, "0", 0),
        (arguments.memory_mb, "128", 128),
        (arguments.timeout_s, "900", 900),
        (arguments.positive, "1", 1),
        (arguments.port, "0", 0),
        (arguments.ipv4_address, "0.0.0.0", "0.0.0.0"),
    ],
)
def test_valid_text_is_parsed(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (arguments.world_size, "two", "expected a whole number, got 'two'"),
        (arguments.world_size, "10001", "expected a whole number from 1 to 10000, got 10001"),
        (arguments.rank, "-1", "from 0 to 999, got -1"),
        (arguments.memory_mb, "64", "from 128 to 10240, got 64"),
        (arguments.timeout_s, "901", "from 1 to 900, got 901"),
        (arguments.positive, "0", "from 1 to"),
        (arguments.port, "65536", "from 0 to 65535, got 65536"),
        (arguments.ipv4_address, "here", "expected an IPv4 address such as 127.0.0.1, got 'here'"),
    ],
)
def test_invalid_text_is_an_error_that_names_what_was_expected(
    read: Callable[[str], object], text: str, said: str
) -> None:
    with pytest.raises(ArgumentTypeError, match=said):
        read(text)


@pytest.mark.parametrize("command", ["fmirun", "fmi-emulator"])
def test_version_prints_the_name_and_the_version(command: str) -> None:
    ended = subprocess.run([installed(command), "--version"], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{command} {metadata.version('fmi-emulator')}\n"


@pytest.mark.parametrize(
    "command",
    [["fmirun"], ["fmi-emulator"], ["fmi-emulator", "serve"], ["fmi-emulator", "pipeline"], ["fmi-emulator", "logs"]],
)
def test_help_has_examples(command: list[str]) -> None:
    name, *subcommand = command
    ended = run(name, *subcommand, "--help")
    assert ended.returncode == 0
    _, _, examples = ended.stdout.partition("\nexamples:\n")
    assert examples.startswith(f"  {' '.join(command)} ")
