"""The commands: fmirun runs a program as N functions; fmi-emulator keeps the local cloud and looks into it."""

from emulator.cli.commands import fmi_emulator
from emulator.cli.run import fmirun

__all__ = ["fmi_emulator", "fmirun"]
