"""Several strands at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")


async def for_each(items: Iterable[_Item], limit: int, work: Callable[[_Item], Awaitable[None]]) -> None:
    """Do work for every item, for at most `limit` of them at once, each begun as soon as there is room.

    The first failure stops the rest: they are cancelled and waited for, then it is raised.
    """
    remaining = iter(items)

    async def take() -> None:
        for item in remaining:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(take())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
