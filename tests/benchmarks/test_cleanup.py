"""A benchmark that is told to end, amid all that it has started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.cleanup import exit_on_signals, signals_deferred

_ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize(
    ("benchmark", "number"),
    [
        (("object_store", "--short"), signal.SIGINT),
        (("comparison", "--worlds", "4", "--sizes", "1048576", "--contestants", "direct", "shm"), signal.SIGINT),
        (("rendezvous_load", "--scale", "0.01"), signal.SIGTERM),
    ],
)
def test_a_benchmark_that_is_told_to_end_leaves_nothing(
    tmp_path: Path, benchmark: tuple[str, ...], number: signal.Signals
) -> None:
    name, *options = benchmark
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as command:
        assert command.stdout is not None
        # When it tells the first of its figures, or their heads, all that it measures runs.
        while not command.stdout.readline().startswith(("| case", "throughput", "allreduce")):
            assert command.poll() is None, command.communicate()
        started = psutil.Process(command.pid).children(recursive=True)
        if number == signal.SIGINT:
            # As a terminal does it: everyone in the session is told.
            os.killpg(command.pid, number)
        else:
            command.send_signal(number)
        _, errors = command.communicate(timeout=40)
    assert started
    assert command.returncode == 128 + number
    assert errors == ""
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
    assert list(tmp_path.iterdir()) == []


def test_what_begins_to_run_is_known_before_its_program_is_told_to_end() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    known = []
    try:
        exit_on_signals()
        with pytest.raises(SystemExit) as left, signals_deferred():
            signal.raise_signal(signal.SIGTERM)
            known.append("begun")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert left.value.code == 128 + signal.SIGTERM
    assert known == ["begun"]
