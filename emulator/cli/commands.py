"""The ``fmi-emulator`` command: its subcommands, each in a module of its own."""

import argparse
import sys
from typing import NoReturn

from emulator.cli import logs, pipeline, serve
from emulator.cli.exit_codes import run_command

_DESCRIPTION = """\
The local cloud: an AWS endpoint on this machine, for programs that use FMI and boto3.
"""
_EXAMPLES = """\
examples:
  fmi-emulator serve                                  (then export what it prints, in another terminal)
  fmi-emulator pipeline examples/pipeline.json        (the published state machine, on a cloud of its own)
  fmi-emulator logs fmi-execute --follow --rank 3
  fmi-emulator COMMAND --help                         (tells the rest)

A single program is run as N functions by fmirun.
"""


def fmi_emulator() -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    parser = argparse.ArgumentParser(
        prog="fmi-emulator",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (serve, pipeline, logs):
        command.add_parser(commands)
    options = parser.parse_args()
    sys.exit(run_command("fmi-emulator", lambda: options.run(options)))
