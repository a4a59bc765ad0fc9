"""The interface to a store of objects (S3 or Redis), and the names of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

Content = bytes | memoryview


class Store(Protocol):
    """A store of objects. An object is written whole or not at all, and all ranks can read it once it is written.

    Every method raises `StoreError` if the store refuses the request or cannot be reached.

    Attributes
    ----------
    name
        The store's name in error messages.
    detects_absence
        Whether `absent` detects processes that have ended.
    """

    name: str
    detects_absence: bool

    def put(self, objects: Mapping[str, Content]) -> list[str]:
        """Write objects under new keys; return the keys that exist already, which are left as they are."""

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the content under each key, None where there is none."""

    def present(self, keys: AbstractSet[str], prefix: str) -> set[str]:
        """Return those of `keys` that exist, without reading them. All begin with `prefix`."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete the objects under `keys` that exist."""

    def register_presence(self, name: str) -> None:
        """Register this process under `name` until it ends, or calls `close`."""

    def absent(self, names: AbstractSet[str]) -> set[str]:
        """Return those of `names` under which no process is registered; none if the store cannot detect that."""

    def put_temporarily(self, key: str, content: bytes) -> None:
        """Write an object that is deleted after a while, unless the key exists."""

    def close(self) -> None:
        """Close connections."""


@dataclass(frozen=True, slots=True)
class ObjectName:
    """The name of an object.

    Attributes
    ----------
    writer
        The rank that writes it.
    label
        ``bcast``, ``barrier``, ``reduce``, ``scan``, or the receiver's rank.
    number
        Number of earlier objects of this kind, from 0.
    """

    writer: int
    label: str
    number: int

    def key(self, comm_name: str) -> str:
        """Return the key in the store."""
        return f"{comm_name}{self.writer}_{self.label}_{self.number}"
