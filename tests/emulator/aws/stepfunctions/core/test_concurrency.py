"""Concurrent branches."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.aws.stepfunctions.asl.failures import StateFailure
from emulator.aws.stepfunctions.core.concurrency import run_concurrently
from emulator.aws.stepfunctions.core.interpreter import Turns

few = settings(max_examples=50)


@few
@given(st.integers(0, 30), st.integers(1, 10))
def test_every_item_is_processed_once_within_the_concurrency_limit(count: int, limit: int) -> None:
    done: list[int] = []
    at_once = [0, 0]

    async def work(item: int) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        for _ in range(1 + item % 4):
            await asyncio.sleep(0)
        at_once[0] -= 1
        done.append(item)

    asyncio.run(run_concurrently(range(count), limit, work, Turns()))
    assert sorted(done) == list(range(count))
    assert at_once == [0, min(count, limit)]


def test_the_first_failure_cancels_the_others_and_waits_for_them() -> None:
    ended: list[int] = []

    async def work(item: int) -> None:
        try:
            await asyncio.sleep(0 if item == 3 else 1000)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append(item)
            raise
        raise StateFailure("Mine", "why")

    with pytest.raises(StateFailure, match="Mine: why"):
        asyncio.run(run_concurrently(range(10), 5, work, Turns()))
    assert sorted(ended) == [0, 1, 2, 4], "pending items never start"


def test_cancelling_the_caller_cancels_the_workers() -> None:
    ended: list[int] = []

    async def work(item: int) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(item)

    async def cancelled() -> None:
        task = asyncio.create_task(run_concurrently(range(3), 3, work, Turns()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled())
    assert sorted(ended) == [0, 1, 2]
