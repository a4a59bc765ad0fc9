"""The ``fmi-emulator`` command with its subcommands, each in its own module."""

import argparse
import sys
from typing import NoReturn

from emulator.cli import arguments, deployment, doctor, image, logs, pipeline, runs, serve, sweep
from emulator.cli.exit_codes import run_command

_DESCRIPTION = """\
Run a local cloud: an AWS endpoint on this machine for programs that use FMI and boto3.
"""
_EXAMPLES = """\
examples:
  fmi-emulator serve                                  start the endpoint; export the lines that it prints
  fmi-emulator pipeline examples/pipeline.json        run the published state machine on a cloud of its own
  fmi-emulator sweep --world-sizes 2,4,8 --out sweep examples/reduce.py      run it over a grid of settings
  fmi-emulator logs fmi-execute --follow --rank 3     print what rank 3 writes
  fmi-emulator COMMAND --help                         show the options of a command

To run one program as N functions, use fmirun.
"""


def fmi_emulator() -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    parser = argparse.ArgumentParser(
        prog="fmi-emulator",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_version_option(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (serve, pipeline, sweep, logs, image, doctor):
        command.add_parser(commands)
    deployment.add_parsers(commands)
    runs.add_parsers(commands)
    options = parser.parse_args()
    sys.exit(run_command("fmi-emulator", lambda: options.run(options)))
