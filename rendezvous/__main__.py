"""``python -m rendezvous``, and the entry point of ``fmi-rendezvous``."""

import signal
import sys


def main() -> int:
    """Run the server. Until it has started, Ctrl-C ends the process at once, without a traceback."""
    # Not where the parent has the signal ignored, as shells do for what runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from rendezvous.command import run

    return run()


if __name__ == "__main__":
    sys.exit(main())
