"""The entry points of the commands ``fmirun`` and ``fmi-emulator``.

Starting a command takes mostly imports. Until it has started, Ctrl-C and SIGTERM end the process at once, with the exit
status and the message that they have later: there is nothing to clean up.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing itself would take a third of the time until the signals are handled
    from typing import NoReturn


def fmirun() -> NoReturn:
    """Run the ``fmirun`` command and exit with its status."""
    _end_at_signals("fmirun")
    from emulator.cli.run import fmirun

    fmirun()


def fmi_emulator() -> NoReturn:
    """Run the ``fmi-emulator`` command and exit with its status."""
    _end_at_signals("fmi-emulator")
    from emulator.cli.commands import fmi_emulator

    fmi_emulator()


def _end_at_signals(command: str) -> None:
    def end(number: int, _: object) -> None:
        what = "interrupted" if number == signal.SIGINT else "terminated"
        # An exception would be raised anywhere in an import, and some places print or discard it.
        os.write(2, f"{command}: {what}\n".encode())
        os._exit(128 + number)

    # If the parent ignores a signal, as shells do for background jobs, it stays ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
