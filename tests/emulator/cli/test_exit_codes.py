"""How a command handles signals."""

import os
import signal

import pytest

from emulator.cli.exit_codes import deferred_interrupts, run_command


def test_an_interrupt_is_deferred_until_it_is_checked() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = False
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as check:
        check()
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
        check()
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_an_unchecked_interrupt_is_raised_at_the_end_and_a_second_one_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    reached = False
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert not reached


def test_sigterm_is_deferred_too(capsys: pytest.CaptureFixture[str]) -> None:
    former = signal.getsignal(signal.SIGTERM)

    def body() -> int:
        with deferred_interrupts() as check:
            os.kill(os.getpid(), signal.SIGTERM)
            check()
        return 0

    try:
        assert run_command("command", body) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, former)
    assert capsys.readouterr().err == "command: terminated\n"
