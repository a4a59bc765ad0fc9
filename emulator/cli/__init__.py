"""The entry points of the commands ``fmirun`` and ``fmi-emulator``.

Starting a command takes mostly imports. Until it has started, Ctrl-C ends the process at once, without a message: there
is nothing to clean up.
"""

import signal
from typing import NoReturn


def fmirun() -> NoReturn:
    """Run the ``fmirun`` command and exit with its status."""
    _end_at_interrupt()
    from emulator.cli.run import fmirun

    fmirun()


def fmi_emulator() -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    _end_at_interrupt()
    from emulator.cli.commands import fmi_emulator

    fmi_emulator()


def _end_at_interrupt() -> None:
    # If the parent ignores the signal, as shells do for background jobs, it stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
