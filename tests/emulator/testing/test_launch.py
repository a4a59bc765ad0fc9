"""``emulator.launch``, ``emulator.LocalCloud`` and ``FmiTestCase``: the same worlds without pytest."""

import asyncio
import doctest
import io
import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path

import numpy as np
import pytest

import emulator
import emulator.testing.launch
import fmi_shim as fmi
from emulator.testing import FmiTestCase, WorldError, WorldTimeoutError, WorldUsageError

SUM = fmi.func(fmi.op.sum)
INT = fmi.types(fmi.datatypes.int)
ROOT = Path(__file__).parents[3]


def total(comm: fmi.Communicator) -> int:
    found: int = comm.allreduce(comm.rank, SUM, INT)
    return found


def test_values_by_rank_and_output_with_the_rank(capsys: pytest.CaptureFixture[str]) -> None:
    def rank(comm: fmi.Communicator, scale: float, *, shift: float) -> np.ndarray:
        print("line of", comm.rank)
        return comm.allreduce(np.full(100_000, scale * comm.rank + shift), SUM)

    values = emulator.launch(rank, 3, args=(2.0,), kwargs={"shift": 1.0})
    assert [value.shape for value in values] == [(100_000,)] * 3
    assert all((value == 9.0).all() for value in values)
    assert sorted(capsys.readouterr().out.splitlines()) == [f"[{rank}] line of {rank}" for rank in range(3)]


def test_a_failure_raises_with_the_origin_as_its_cause() -> None:
    def rank(comm: fmi.Communicator) -> None:
        if comm.rank == 1:
            marked = {"key": "value of a local"}
            raise KeyError(marked["missing"])
        comm.barrier()

    with pytest.raises(WorldError) as raised:
        emulator.launch(rank, 2, show_output=False)
    error = raised.value
    assert (error.origin, error.first.kind) == (1, "KeyError")
    assert isinstance(error.__cause__, KeyError)
    assert "value of a local" in str(error)
    assert error.failures[1].is_victim


def test_a_new_interpreter_receives_closures() -> None:
    offset = 5

    def rank(comm: fmi.Communicator, factor: int) -> int:
        found: int = comm.allreduce(comm.rank * factor + offset, SUM, INT)
        return found

    assert emulator.launch(rank, 2, args=(2,), start="spawn") == [12, 12]
    lock = threading.Lock()
    with pytest.raises(
        WorldUsageError, match=r"rank function .*lambda.* cannot be carried over to a new process: .*lock"
    ):
        emulator.launch(lambda comm: lock.locked(), 2, start="spawn")


def test_a_time_limit_raises_a_timeout_error() -> None:
    with pytest.raises(TimeoutError, match=r"rank 0 of 1 did not end within 0\.3 s") as raised:
        emulator.launch(lambda comm: threading.Event().wait(), 1, timeout=0.3)
    assert isinstance(raised.value, WorldTimeoutError)


def test_in_an_event_loop_and_inside_a_coroutine() -> None:
    async def beside_a_loop() -> tuple[list[int], list[int]]:
        return await asyncio.to_thread(emulator.launch, total, 2), emulator.launch(total, 3)

    assert asyncio.run(beside_a_loop()) == ([1, 1], [3, 3, 3])


def test_a_rank_may_have_an_event_loop() -> None:
    async def within() -> list[int]:
        return emulator.launch(lambda comm: asyncio.run(asyncio.sleep(0, comm.rank)), 2)

    assert asyncio.run(within()) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world_size": 0}, "invalid world size 0: expected a whole number from 1"),
        ({"world_size": "4"}, "invalid world size '4': expected a whole number from 1"),
        ({"world_size": 2, "timeout": "soon"}, "invalid time limit 'soon': expected seconds above 0"),
        ({"world_size": 2, "max_timeout": None}, "invalid max_timeout None: expected seconds above 0"),
        ({"world_size": 2, "channel": "tcp"}, "invalid channel 'tcp': expected one of direct, shm, redis, s3"),
        ({"world_size": 2, "start": "thread"}, "invalid start 'thread': expected one of fork, spawn"),
        ({"world_size": 2, "timeout": 0}, "invalid time limit 0: expected seconds above 0"),
        ({"world_size": 2, "channel": "shm", "framed": False}, "invalid framed=False for channel shm"),
        ({"world_size": 2, "function": "total"}, "invalid rank function 'total': expected a function"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(WorldUsageError, match=message):
        emulator.launch(**{"function": total, **arguments})  # type: ignore[arg-type]


def test_descriptors_of_the_parent_are_closed_in_ranks(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        descriptor = file.fileno()

        targets = emulator.launch(lambda comm: str(Path(f"/dev/fd/{descriptor}").resolve()), 1)
    assert targets == [os.devnull]


def test_torch_has_one_thread_in_a_rank_after_its_pool_was_used() -> None:
    torch = pytest.importorskip("torch")
    torch.ones(600, 600) @ torch.ones(600, 600)

    def rank(comm: fmi.Communicator) -> tuple[int, float]:
        return torch.get_num_threads(), float((torch.ones(600, 600) @ torch.ones(600, 600))[0, 0])

    assert emulator.launch(rank, 2) == [(1, 600.0)] * 2


def test_a_cloud_is_emptied_by_reset() -> None:
    with emulator.LocalCloud() as cloud:
        s3 = cloud.client("s3")
        s3.create_bucket(Bucket="bucket")
        cloud.reset()
        assert s3.list_buckets()["Buckets"] == []
        assert cloud.environment["AWS_ENDPOINT_URL"] == cloud.endpoint_url


def test_importing_the_package_stays_cheap() -> None:
    code = "import sys, emulator; print(sorted({'numpy', 'boto3', 'aiohttp'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert found.stdout.strip() == "[]"


def test_the_examples_in_the_docstrings() -> None:
    assert doctest.testmod(emulator.testing.launch).failed == 0


def test_unittest_cases_have_worlds() -> None:
    class Case(FmiTestCase):
        channel = "shm" if sys.platform == "linux" else "direct"

        def test_total(self) -> None:
            self.assert_rank_values([1, 1], total)

        def test_wrong(self) -> None:
            self.assertEqual(self.fmi_world(2)(total), [0, 0])

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Case)
    result = unittest.TextTestRunner(io.StringIO()).run(suite)
    assert (result.testsRun, len(result.failures), len(result.errors)) == (2, 1, 0)
