from __future__ import annotations

import gc
import threading
import weakref

import pytest

from inference.prefetch import prefetched


class Item:
    """Something that a weak reference can refer to."""


def test_items_come_in_order_and_the_next_is_fetched_while_one_is_used() -> None:
    started = {name: threading.Event() for name in "abc"}

    def fetch(name: str) -> str:
        started[name].set()
        return name.upper()

    seen = []
    for fetched in prefetched(fetch, "abc"):
        following = chr(ord(fetched.name) + 1)
        if following in started:
            assert started[following].wait(10), "the next item is not fetched while this one is in use"
        seen.append((fetched.name, fetched.item))
        assert fetched.waited >= 0
    assert seen == [("a", "A"), ("b", "B"), ("c", "C")]


def test_nothing_to_fetch_is_nothing() -> None:
    assert list(prefetched(str, [])) == []


def test_an_error_is_raised_when_its_turn_comes() -> None:
    def fetch(name: str) -> str:
        if name == "b":
            raise ValueError("damaged b")
        return name

    seen = []
    with pytest.raises(ValueError, match="damaged b"):
        for fetched in prefetched(fetch, "abc"):
            seen.append(fetched.name)  # noqa: PERF401  # the loop ends with an exception
    assert seen == ["a"]


def test_at_most_two_items_are_alive() -> None:
    alive: list[weakref.ref[Item]] = []

    def fetch(_: str) -> Item:
        item = Item()
        alive.append(weakref.ref(item))
        return item

    for fetched in prefetched(fetch, [str(number) for number in range(6)]):
        del fetched
        gc.collect()
        assert sum(reference() is not None for reference in list(alive)) <= 2
