"""The pytest plugin, in sessions of pytest of its own."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
# Each starts an interpreter and its own servers.
pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parents[3]
PLUGIN = ("-p", "emulator.testing.plugin", "-p", "no:cacheprovider")
HEADER = """
import os, signal, sys, threading, time
import pytest
import fmi_shim as fmi
SUM = fmi.func(fmi.op.sum)
INT = fmi.types(fmi.datatypes.int)
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the sessions. Other plugins that are installed here would take most of their start."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    """Run the tests in `text` in a process of their own."""
    pytester.makepyfile(HEADER + text)
    return pytester.runpytest_subprocess(*PLUGIN, *arguments)


def test_closures_return_values_by_rank_without_warnings(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_sum(fmi_world):
    offset = 3
    def rank(comm, factor, plus=0):
        assert os.environ["RANK"] == str(comm.rank)
        return comm.allreduce(comm.rank * factor + offset + plus, SUM, INT)
    assert fmi_world(4)(rank, 2, plus=1) == [28] * 4

def test_beside_a_thread(fmi_world):
    ended = threading.Event()
    threading.Thread(target=ended.wait).start()
    assert fmi_world(2)(lambda comm: comm.rank) == [0, 1]
    ended.set()
""",
        "-W",
        "error",
    )
    result.assert_outcomes(passed=2)


def test_the_origin_is_shown_first_with_its_assertion_and_locals(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_wrong(fmi_world):
    import logging
    def rank(comm):
        print("hello from", comm.rank)
        logging.getLogger("job").warning("of %d", comm.rank)
        total = comm.allreduce(comm.rank, SUM, INT)
        if comm.rank == 2:
            local_of_rank = "visible"
            assert [total] == [7]
        comm.barrier()
    fmi_world(4)(rank)
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"rank 2 of 4 failed first",
            r">           assert \[total\] == \[7\]",
            r"E           assert \[6\] == \[7\]",
            r"local_of_rank = 'visible'",
            r"the other ranks:",
            r"  rank \d: PeerFailedError: rank 2 raised AssertionError.*",
            r"the world was started at .*:\d+",
            r"-* Captured output of rank 0 -*",
            r"hello from 0",
            r"WARNING job: of 0",
            r"-* Captured output of rank 3 -*",
            r"FAILED .* - rank 2: AssertionError: assert \[6\].*",
        ]
    )
    assert "most recent call" not in result.stdout.str()


def test_a_hang_shows_the_stacks_of_all_ranks(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def wait_for_nobody():
    time.sleep(60)

def test_hang(fmi_world):
    def rank(comm):
        if comm.rank == 1:
            wait_for_nobody()
        if comm.rank == 0:
            comm.recv(1, INT)
    fmi_world(3, timeout="3s")(rank)

def test_stopped(fmi_world):
    fmi_world(1, timeout=0.5)(lambda comm: os.kill(os.getpid(), signal.SIGSTOP))
""",
    )
    result.assert_outcomes(failed=2)
    result.stdout.re_match_lines(
        [
            r"ranks 0, 1 of 3 did not end within 3 s: check where each waits.*",
            r"rank 0: Hung: .*",
            r'  File ".*communicator.py", line \d+ in recv',
            r"rank 1: Hung: .*",
            r'  File ".*", line \d+ in wait_for_nobody',
            r"returned in time: rank 2",
            r"rank 0: Hung: did not end \(stopped by a signal\)",
        ]
    )


def test_a_process_that_dies_and_a_value_that_cannot_be_sent(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_killed(fmi_world):
    def rank(comm):
        comm.barrier()
        if comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        comm.barrier()
    fmi_world(2)(rank)

def test_exit(fmi_world):
    fmi_world(2)(lambda comm: os._exit(7) if comm.rank else 1)

def test_value(fmi_world):
    fmi_world(2)(lambda comm: {"a": [1, lambda: 2]})

def test_sys_exit(fmi_world):
    assert fmi_world(2)(lambda comm: sys.exit(0)) == [None, None]

def test_skip(fmi_world):
    fmi_world(2)(lambda comm: pytest.skip("not today"))
""",
        "-rs",
    )
    result.assert_outcomes(failed=3, passed=1, skipped=1)
    text = result.stdout.str()
    assert "rank 1: Killed: the process was ended by SIGKILL" in text
    assert re.search(r"rank 0: PeerLostError: .*lost rank 1", text)
    assert "rank 1: Exited: the process ended with status 7" in text
    assert "returned a value that cannot be sent to the test: dict, of which ['a'] is list, of which [1] is a" in text
    assert "not today" in text


def test_the_marker_runs_each_combination(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.fmi(world_size=[2, 3], channel=["direct", "shm"], framed=[True, False])
def test_sum(fmi_world):
    n = fmi_world.world_size
    def rank(comm):
        return comm.allreduce(1, SUM, INT)
    assert fmi_world()(rank) == [n] * n

@pytest.mark.fmi(world_size=2, channel=["redis", "s3"], timeout="25s")
def test_stores(fmi_world):
    assert fmi_world()(lambda comm: comm.allreduce(1, SUM, INT)) == [2, 2]

@pytest.mark.fmi(world_size=3)
def test_one(fmi_world):
    assert fmi_world()(lambda comm: comm.size) == [3] * 3
""",
        "-v",
        "-rs",
    )
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("skipped", 0) == 2 * 3 + 2 + 1
    names = re.findall(r"test_sum\[([\w-]+)\] PASSED", result.stdout.str())
    assert set(names) == {f"n{size}-{mode}" for size in (2, 3) for mode in ("direct", "direct-raw", "shm")}
    assert "test_stores[n2-s3] PASSED" in result.stdout.str()


WRONG_MARKERS = {
    "world_size=[2, 0]": "invalid world_size 0: expected a whole number from 1",
    "channel='tcp'": "invalid channel 'tcp': expected one of direct, shm, redis, s3",
    "channel='shm', framed=False": "channel shm has no mode without headers",
    "size=3": "argument size: expected world_size, channel, framed",
}


def test_a_wrong_marker_is_refused(pytester: pytest.Pytester) -> None:
    for number, marker in enumerate(WRONG_MARKERS):
        text = f"import pytest\n@pytest.mark.fmi({marker})\ndef test_it(fmi_world):\n    fmi_world(2)\n"
        pytester.makepyfile(**{f"test_marker{number}": text})
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(errors=len(WRONG_MARKERS))
    for message in WRONG_MARKERS.values():
        assert message in result.stdout.str()


def test_misuse_has_one_clear_message_each(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_nested(fmi_world):
    def outer(comm):
        return fmi_world(2)(lambda comm: 1)
    fmi_world(2)(outer)

def test_thread(fmi_world):
    errors = []
    def use():
        try:
            fmi_world(2)
        except Exception as error:
            errors.append(error)
    thread = threading.Thread(target=use, name="other")
    thread.start()
    thread.join()
    raise errors[0]

def test_large(fmi_world):
    fmi_world(10_000_000)

def test_function_first(fmi_world):
    fmi_world(lambda comm: 1)

def test_no_size(fmi_world):
    fmi_world()
""",
    )
    text = result.stdout.str()
    assert re.search(
        r"nested world: rank \d of a world asked for another world: expected a call in the test itself", text
    )
    assert "fmi_world was used in thread 'other': expected the thread that runs the test" in text
    assert re.search(r"a world of 10000000 ranks is too large for this machine: expected at most \d+, because of", text)
    assert "invalid world size: got a function: expected the number of ranks first" in text
    assert "missing world size: expected fmi_world(4)" in text
    result.assert_outcomes(failed=5)


def test_workers_of_xdist_and_the_limit_of_pytest_timeout(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.parametrize("number", range(6))
def test_sum(fmi_world, number):
    assert fmi_world(3)(lambda comm: comm.allreduce(number, SUM, INT)) == [3 * number] * 3

@pytest.mark.timeout(10)
def test_hang(fmi_world):
    fmi_world(2)(lambda comm: time.sleep(60))
""",
        *("-p", "xdist", "-p", "pytest_timeout", "-n", "2"),
    )
    result.assert_outcomes(passed=6, failed=1)
    assert "ranks 0, 1 of 2 did not end within 8 s" in result.stdout.str()


def test_the_limit_of_pytest_timeout_inside_a_world_shows_the_stacks(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_servers_are_running_from_here(fmi_world):
    fmi_world(1)(lambda comm: None)

@pytest.mark.timeout(4)
def test_hang(fmi_world):
    fmi_world(2, timeout=50)(lambda comm: time.sleep(60))
""",
        *("-p", "pytest_timeout"),
    )
    result.assert_outcomes(passed=1, failed=1)
    assert re.search(r"rank 1 is in:\n.*\n  File .*test_the_limit.*", result.stdout.str())


def test_coverage_measures_the_ranks(pytester: pytest.Pytester) -> None:
    pytester.makefile(".rc", cover="[run]\nparallel = true\npatch = _exit, fork\n")
    pytester.makepyfile(
        ranked="""
def on_rank(comm):
    return comm.rank
"""
    )
    pytester.makepyfile("import ranked\ndef test_it(fmi_world):\n    assert fmi_world(2)(ranked.on_rank) == [0, 1]\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("COV")]:
            patch.delenv(name)
        coverage = (sys.executable, "-m", "coverage")
        pytester.run(*coverage, "run", "--rcfile=cover.rc", "--include=ranked.py", "-m", "pytest", *PLUGIN)
        pytester.run(*coverage, "combine", "--rcfile=cover.rc")
        report = pytester.run(*coverage, "report", "--rcfile=cover.rc")
    assert re.search(r"ranked\.py\s+2\s+0\s+100%", report.stdout.str())


def test_pdb_stops_in_the_failing_rank(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        HEADER
        + """
def test_wrong(fmi_world):
    def rank(comm):
        secret = comm.rank + 41
        comm.barrier()
        assert comm.rank != 1
        comm.barrier()
    fmi_world(3)(rank)

def test_next():
    pass
"""
    )
    result = debugged(pytester, "p secret, os.environ['RANK']\nc\n")
    assert "rank 1 stopped; the debugger is in its process" in result
    assert "(Pdb) (42, '1')" in result
    assert "1 failed, 1 passed" in result


def debugged(pytester: pytest.Pytester, commands: str) -> str:
    """Run pytest with ``--pdb`` and return what it prints."""
    command = [sys.executable, "-m", "pytest", *PLUGIN, "--pdb"]
    ended = subprocess.run(command, input=commands, capture_output=True, text=True, timeout=50, cwd=pytester.path)
    return ended.stdout + ended.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 2), (signal.SIGKILL, -9)])
def test_nothing_is_left_after_an_interrupt(pytester: pytest.Pytester, number: int, status: int) -> None:
    pytester.makepyfile(
        HEADER
        + """
def test_wait(fmi_world):
    def rank(comm):
        import subprocess
        subprocess.Popen(["sleep", "61.5"])
        comm.barrier()
        with open("pids", "a") as file:
            file.write(f"{os.getpid()} ")
        time.sleep(60)
    fmi_world(2, timeout=55)(rank)
"""
    )
    temporary = pytester.mkdir("temporary")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    pids = pytester.path / "pids"
    command = [sys.executable, "-m", "pytest", *PLUGIN]
    with subprocess.Popen(command, cwd=pytester.path, env=environment, stdout=subprocess.DEVNULL) as session:
        deadline = time.monotonic() + 40
        while not (pids.exists() and len(pids.read_text().split()) == 2) and time.monotonic() < deadline:
            time.sleep(0.05)
        ranks = [int(pid) for pid in pids.read_text().split()]
        assert len(ranks) == 2
        session.send_signal(number)
        assert session.wait(30) == status
    deadline = time.monotonic() + 10
    while any(is_running(pid) for pid in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in ranks if is_running(pid)]
    assert not list(temporary.glob("fmi-*"))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_example_of_a_test_folder(pytester: pytest.Pytester) -> None:
    # setup.cfg has an option of pytest-timeout.
    arguments = ("-p", "pytest_timeout", str(ROOT / "examples/tests"), f"--rootdir={pytester.path}")
    result = pytester.runpytest_subprocess(*PLUGIN, *arguments)
    result.assert_outcomes(passed=11)


def test_a_cloud_for_each_test(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nlocal_cloud_scope = function\n")
    result = run(
        pytester,
        """
import boto3
def test_it(local_cloud):
    boto3.client("s3").create_bucket(Bucket="bucket")
    assert local_cloud.client("s3").list_buckets()["Buckets"][0]["Name"] == "bucket"
""",
    )
    result.assert_outcomes(passed=1)


def test_the_packages_of_the_plugin_are_imported_unchanged() -> None:
    """pytest rewrites the assertions of a distribution that has a plugin: slowly, and in threads not safely."""
    for name in ("fmi_shim.frames", "emulator.cloud", "rendezvous.protocol"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert type(spec.loader).__name__ == "SourceFileLoader"
