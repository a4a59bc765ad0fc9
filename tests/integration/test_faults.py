"""``fmirun --fault`` and ``--network-*`` as a user runs them."""

import re
from pathlib import Path

from tests.integration.fmirun import EXAMPLES, fmirun

PROGRAM = """
import os, time
import fmi
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
comm = fmi.Communicator(rank, size, "fmi.json", "faults")
comm.barrier()
began = time.monotonic()
for number in range(5):
    total = comm.allreduce(rank, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))
print("total", total, "slow" if time.monotonic() - began > 0.09 else "fast")
"""


def script(tmp_path: Path) -> Path:
    folder = tmp_path / "program"
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM)
    (folder / "fmi.json").write_text((EXAMPLES / "fmi.json").read_text())
    return folder / "main.py"


def test_a_rank_is_killed_and_named_and_the_seed_printed(tmp_path: Path) -> None:
    status, _, errors = fmirun(tmp_path, "-n", 3, "--fault", "kill rank 2 at allreduce 3", script(tmp_path))
    assert status == 1
    assert re.match(r"faults: kill rank 2 at allreduce 3 \(--fault-seed \d+\)\n", errors)
    assert errors.splitlines()[-1].startswith("fmirun: rank 2 failed: ")


def test_a_slow_network_and_a_server_that_restarts_change_no_result(tmp_path: Path) -> None:
    options = ("--network", "aws", "--network-latency", "20ms", "--fault", "restart server at 0.2s")
    status, output, errors = fmirun(tmp_path, "-n", 2, *options, "--fault-seed", 3, script(tmp_path))
    assert (status, sorted(output.splitlines())) == (0, [f"[{rank}] total 1 slow" for rank in range(2)]), errors


def test_a_throttled_function(tmp_path: Path) -> None:
    status, _, errors = fmirun(tmp_path, "-n", 2, "--fault", "throttle lambda at invoke 1", script(tmp_path))
    assert status != 0
    assert "TooManyRequestsException" in errors


def test_a_hung_function(tmp_path: Path) -> None:
    options = ("--timeout", 8, "--fault", "hang rank 1 at allreduce 2")
    status, _, errors = fmirun(tmp_path, "-n", 2, *options, script(tmp_path))
    assert status == 1
    assert re.search(r"rank 1(?: failed)?: Timeout: .*timed out after 8", errors)


def test_a_duplicated_invocation_is_named(tmp_path: Path) -> None:
    """The first Invoke is that of *initialize*, the next are the ranks'. Rank 1 comes when both copies are there."""
    faults = "duplicate lambda at invoke 2; delay rank 1 by 2s"
    _, output, errors = fmirun(tmp_path, "-n", 2, "--fault", faults, script(tmp_path))
    assert re.search(r"two processes run as rank [01]: each rank must be started once", output + errors)


def test_a_fault_that_does_not_happen_is_named(tmp_path: Path) -> None:
    options = ("--fault", "kill rank 1 at call 500; fail s3 at put 500")
    status, output, errors = fmirun(tmp_path, "-n", 2, *options, script(tmp_path))
    assert status == 0, errors
    assert "[1] fault 'kill rank 1 at call 500' did not happen: rank 1 made 6 calls: choose an earlier" in output
    assert re.search(r"\nfault 'fail s3 at put 500' did not happen: the endpoint received \d+ requests", errors)


def test_a_function_that_exhausts_its_memory(tmp_path: Path) -> None:
    options = ("--memory", 256, "--fault", "exhaust rank 1 at allreduce 2")
    status, _, errors = fmirun(tmp_path, "-n", 2, *options, script(tmp_path))
    assert status == 1
    assert errors.splitlines()[-1] == "fmirun: rank 1 failed: OutOfMemory: used more than 256 MB: raise --memory"


def test_what_cannot_fail_is_refused_before_anything_starts(tmp_path: Path) -> None:
    status, output, errors = fmirun(tmp_path, "-n", 2, "--fault", "kill rank 2", script(tmp_path))
    assert (status, output) == (2, "")
    assert "invalid fault 'kill rank 2': there is no rank 2: expected 0 to 1" in errors
    status, _, errors = fmirun(tmp_path, "-n", 2, "--network-loss", "2", EXAMPLES / "reduce.py")
    assert status == 2
    assert "invalid share '2': expected a percentage up to 100% such as 0.1%" in errors
