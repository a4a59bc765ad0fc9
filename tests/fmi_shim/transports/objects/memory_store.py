"""A store in memory, and ranks in threads that exchange objects through it."""

import threading
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from fmi_shim.config import ObjectConfig
from fmi_shim.frames import Call, Operation
from fmi_shim.pairing.rendezvous_client import ServerRegistration
from fmi_shim.transports.objects.channel import ObjectChannel


class MemoryStore:
    """A store in memory that records all requests."""

    name = "the memory store"
    detects_absence = True

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, bytes] = {}
        self.read: set[str] = set()
        self.deleted: list[str] = []
        self.closed = 0
        self.there: set[str] = set()
        self.words: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, objects: Mapping[str, bytes | memoryview]) -> list[str]:
        with self._lock:
            there = [key for key in objects if key in self.objects]
            new = {key: bytes(content) for key, content in objects.items() if key not in there}
            self.objects |= new
            self.written |= new
            return there

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        with self._lock:
            self.read.update(keys)
            return [self.objects.get(key, self.words.get(key)) for key in keys]

    def present(self, keys: AbstractSet[str], prefix: str) -> set[str]:
        assert all(key.startswith(prefix) for key in keys)
        with self._lock:
            return keys & self.objects.keys()

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            self.deleted += keys
            for key in keys:
                self.objects.pop(key, None)

    def register_presence(self, name: str) -> None:
        self.there.add(name)

    def absent(self, names: AbstractSet[str]) -> set[str]:
        return set(names) - self.there

    def put_temporarily(self, key: str, content: bytes) -> None:
        self.words.setdefault(key, content)

    def close(self) -> None:
        self.closed += 1


def channel(
    store: MemoryStore, rank: int, size: int, name: str = "Test", longest: float | None = 10.0, framed: bool = False
) -> ObjectChannel:
    alone = ServerRegistration(rank, None)
    opened = ObjectChannel(rank, size, name, store, ObjectConfig(0.002, longest, framed), alone)
    opened.begin(Call(Operation.send, 0, np.dtype(float), 1), 0)
    return opened


def run(store: MemoryStore, size: int, schedule: Callable[[ObjectChannel], Any], **settings: Any) -> list[Any]:
    """Run `schedule` and then close on `size` ranks, each in a thread."""
    results: list[Any] = [None] * size

    def rank(number: int) -> None:
        opened = channel(store, number, size, **settings)
        try:
            results[number] = schedule(opened)
        except Exception as error:  # noqa: BLE001 - the error is the result
            results[number] = error
            opened.fail(error)
        opened.close()

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
