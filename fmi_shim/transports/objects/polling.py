"""Waiting for objects that other ranks are to write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fmi_shim.backoff import PollBackoff
from fmi_shim.config import ObjectConfig
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.frames import Call
from fmi_shim.transports.objects.liveness import Presence
from fmi_shim.transports.objects.store import Name, Store

Running = Callable[[], Call]
"""Tells the running call."""


class Arrivals:
    """What comes from the others, as one rank waits for it.

    Parameters
    ----------
    rank
        This rank.
    comm_name
        Name of the communicator.
    store
        Where the objects come.
    config
        How long to wait.
    presence
        Tells of ranks that will write nothing more.

    Attributes
    ----------
    last_read
        The key of the last object of each rank that was read.
    """

    def __init__(self, rank: int, comm_name: str, store: Store, config: ObjectConfig, presence: Presence) -> None:
        self._rank = rank
        self._comm_name = comm_name
        self._store = store
        self._config = config
        self._presence = presence
        self.last_read: dict[int, str] = {}

    def wait_for(self, names: Sequence[Name], call: Running) -> dict[Name, bytes]:
        """Return the content of all of `names` once they are there.

        All are asked for at first, and again when one has come that was waited for; in between that one alone, since
        a look costs a request for each object.

        Raises
        ------
        PeerTimeoutError
            If no object came for ``max_timeout``.
        FmiError
            If those who are to write have failed, or are gone.
        """
        found: dict[Name, bytes] = {}
        missing = asked = list(names)
        patience = self._patience()
        while missing:
            contents = self._store.get([name.key(self._comm_name) for name in asked])
            came = {name: content for name, content in zip(asked, contents, strict=True) if content is not None}
            for name in came:
                self._note(name)
            found |= came
            was_one = len(asked) == 1
            missing = asked = [name for name in missing if name not in came]
            if missing and not (came and was_one):
                self._pause(missing, patience, call, restart=bool(came))
                asked = missing[:1]
        return {name: found[name] for name in names}

    def meet(self, names: Sequence[Name], call: Running) -> None:
        """Wait until all of `names` exist, without reading them; errors as in `wait_for`."""
        missing = {name.key(self._comm_name): name for name in names}
        patience = self._patience()
        while True:
            came = self._store.present(missing.keys(), self._comm_name)
            for key in came:
                self._note(missing.pop(key))
            if not missing:
                return
            self._pause(list(missing.values()), patience, call, restart=bool(came))

    def _patience(self) -> PollBackoff:
        self._presence.wait_begins()
        return PollBackoff(self._config.poll, self._config.max_timeout, self._presence.sleep)

    def _pause(self, missing: Sequence[Name], patience: PollBackoff, call: Running, restart: bool) -> None:
        """Pause before the next look, unless those who are to write have failed, are gone, or are too late."""
        keys = {name.key(self._comm_name) for name in missing}
        there = lambda: bool(self._store.present(keys, self._comm_name))  # noqa: E731
        self._presence.look([name.writer for name in missing], there, call)
        if not patience.pause(restart):
            raise self._late(missing, call())

    def _note(self, name: Name) -> None:
        if name.writer != self._rank:
            self._presence.heard_of(name.writer)
            self.last_read[name.writer] = name.key(self._comm_name)

    def _late(self, missing: Sequence[Name], call: Call) -> PeerTimeoutError:
        first = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return PeerTimeoutError(
            f"rank {self._rank} in {call}: {where(first, self._comm_name, self._store)}{more} did not come for "
            f"{self._config.max_timeout:g} s: rank {first.writer} is late, stopped, left, or in another call; raise "
            "max_timeout (ms, 0 for ever) if it needs longer",
            origin=first.writer,
        )


def where(name: Name, comm_name: str, store: Store) -> str:
    """Return what to call an object in errors."""
    return f"{name.key(comm_name)!r} in {store.name}"
