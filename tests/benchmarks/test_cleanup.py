"""A benchmark that is terminated while its processes run."""

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
def test_a_terminated_benchmark_leaves_no_process_and_no_file(
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
        # When it prints its first figure or header, all its processes run.
        while not command.stdout.readline().startswith(("| case", "throughput", "allreduce")):
            assert command.poll() is None, command.communicate()
        started = psutil.Process(command.pid).children(recursive=True)
        if number == signal.SIGINT:
            # Like a terminal: the signal goes to the whole process group.
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


def test_signals_are_deferred_until_a_started_process_is_known() -> None:
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
