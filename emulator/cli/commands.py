"""The ``fmi-emulator`` command: its subcommands, each in a module of its own."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from emulator.cli import logs, pipeline, serve
from emulator.cli.exits import guarded


def fmi_emulator(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    parser = argparse.ArgumentParser(
        prog="fmi-emulator", description="The local cloud: an AWS endpoint for FMI programs."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (serve, pipeline, logs):
        command.add_parser(commands)
    options = parser.parse_args(arguments)
    sys.exit(guarded("fmi-emulator", lambda: options.run(options)))
