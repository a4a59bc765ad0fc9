"""What an object channel needs of S3 or Redis, and what its objects are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

Content = bytes | memoryview


class Store(Protocol):
    """Where objects are kept. An object is written whole or not at all, and is seen by all once it is written.

    Every method raises `StoreError` when the store refuses or cannot be reached.

    Attributes
    ----------
    name
        What to call the store in errors.
    knows_who_is_there
        Whether `absent` knows it.
    """

    name: str
    knows_who_is_there: bool

    def put(self, objects: Mapping[str, Content]) -> list[str]:
        """Write objects under new keys; return the keys that exist already, which are left as they are."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the content under each key, None where there is none."""

    def present(self, keys: AbstractSet[str], prefix: str) -> set[str]:
        """Return those of `keys`, which all begin with `prefix`, that exist, without reading them."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects under `keys`, where there are any."""

    def attend(self, name: str) -> None:
        """Be there under this name until the process ends, or `close`."""

    def absent(self, names: AbstractSet[str]) -> set[str]:
        """Return those of `names` under which nobody is there; none where that is not known."""

    def leave_word(self, key: str, content: bytes) -> None:
        """Write an object, unless there is one, that is gone after a while."""

    def close(self) -> None:
        """Close connections."""


@dataclass(frozen=True, slots=True)
class Name:
    """What an object is called.

    Attributes
    ----------
    writer
        The rank that writes it.
    label
        ``bcast``, ``barrier``, ``reduce``, ``scan``, or the receiver's rank.
    number
        How many of the kind came before, from 0.
    """

    writer: int
    label: str
    number: int

    def key(self, comm_name: str) -> str:
        """Return the name in the store."""
        return f"{comm_name}{self.writer}_{self.label}_{self.number}"
