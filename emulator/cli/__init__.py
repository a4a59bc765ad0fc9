"""The commands: fmirun runs a program as N functions; fmi-emulator keeps the local cloud and looks into it.

Here are their entry points alone. Until a command has begun, most of which time goes into imports, Ctrl-C ends the
process at once: there is nothing to tidy up, and nothing to say.
"""

import signal
from typing import NoReturn


def fmirun() -> NoReturn:
    """Run the ``fmirun`` command and exit with its status."""
    _let_interrupts_end_the_process()
    from emulator.cli.run import fmirun

    fmirun()


def fmi_emulator() -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    _let_interrupts_end_the_process()
    from emulator.cli.commands import fmi_emulator

    fmi_emulator()


def _let_interrupts_end_the_process() -> None:
    # Not where the parent has the signal ignored, as shells do for what runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
