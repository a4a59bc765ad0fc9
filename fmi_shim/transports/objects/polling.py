"""Waiting for objects that other ranks write."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fmi_shim.backoff import Deadline, PollBackoff, raise_limit
from fmi_shim.config import ObjectConfig
from fmi_shim.errors import PeerTimeoutError
from fmi_shim.frames import Call
from fmi_shim.transports.objects.liveness import Liveness
from fmi_shim.transports.objects.store import ObjectName, Store

_MAX_CAUSES = 8
"""The most ranks of which the server is asked whether they keep this one waiting."""

RunningCall = Callable[[], Call]
"""Returns the running call."""


class ObjectPoller:
    """Polls a store for the objects of other ranks.

    Parameters
    ----------
    rank
        This rank.
    comm_name
        ObjectName of the communicator.
    store
        Where the objects are.
    config
        How long to wait.
    liveness
        Detects ranks that have failed or ended.

    Attributes
    ----------
    last_read
        For each rank, the key of its last object that was read.
    call_deadline
        The instant by which the running call must end.
    awaited
        The rank whose object was awaited last in the running call; None if none was.
    """

    def __init__(self, rank: int, comm_name: str, store: Store, config: ObjectConfig, liveness: Liveness) -> None:
        self._rank = rank
        self._comm_name = comm_name
        self._store = store
        self._config = config
        self._liveness = liveness
        self.last_read: dict[int, str] = {}
        self.call_deadline = Deadline(None)
        self.awaited: int | None = None

    def read(self, names: Sequence[ObjectName], call: RunningCall) -> dict[ObjectName, bytes]:
        """Return the content of all objects in `names`, once they exist.

        All are requested at first. Then the first missing one is polled alone, since a poll costs a request for each
        object; when it exists, all missing ones are requested again.

        Raises
        ------
        PeerTimeoutError
            If no object appeared for ``max_timeout``.
        FmiError
            If a rank has failed, or an awaited one has ended.
        """
        found: dict[ObjectName, bytes] = {}
        missing = asked = list(names)
        backoff = self._backoff()
        while missing:
            contents = self._store.get([name.key(self._comm_name) for name in asked])
            new = {name: content for name, content in zip(asked, contents, strict=True) if content is not None}
            for name in new:
                self._record(name)
            found |= new
            was_one = len(asked) == 1
            missing = asked = [name for name in missing if name not in new]
            if missing and not (new and was_one):
                self._pause(missing, backoff, call, restart=bool(new))
                asked = missing[:1]
        return {name: found[name] for name in names}

    def read_some(self, names: Sequence[ObjectName], call: RunningCall, wait: bool) -> dict[ObjectName, bytes]:
        """Return the content of those objects in `names` that exist; with `wait` at least one, errors as in `read`."""
        backoff = self._backoff() if wait else None
        while names:
            contents = self._store.get([name.key(self._comm_name) for name in names])
            found = {name: content for name, content in zip(names, contents, strict=True) if content is not None}
            for name in found:
                self._record(name)
            if found or backoff is None:
                return found
            self._pause(names, backoff, call, restart=False)
        return {}

    def wait_until_present(self, names: Sequence[ObjectName], call: RunningCall) -> None:
        """Wait until all objects in `names` exist, without reading them; errors as in `read`."""
        missing = {name.key(self._comm_name): name for name in names}
        backoff = self._backoff()
        while True:
            new = self._store.present(missing.keys(), self._comm_name)
            for key in new:
                self._record(missing.pop(key))
            if not missing:
                return
            self._pause(list(missing.values()), backoff, call, restart=bool(new))

    def _backoff(self) -> PollBackoff:
        self._liveness.start_wait()
        self.awaited = None
        return PollBackoff(self._config.poll, self._config.max_timeout, self._liveness.sleep, self.call_deadline)

    def _pause(self, missing: Sequence[ObjectName], backoff: PollBackoff, call: RunningCall, restart: bool) -> None:
        """Pause before the next poll; raise if a rank has failed, an awaited one has ended, or time is over."""

        def found(writer: int) -> bool:
            keys = {name.key(self._comm_name) for name in missing if name.writer == writer}
            return bool(self._store.present(keys, self._comm_name))

        self.awaited = missing[0].writer
        self._liveness.check_peers([name.writer for name in missing], found, call)
        if not backoff.pause(restart):
            raise self._timeout_error(missing, call(), backoff.deadline)

    def _record(self, name: ObjectName) -> None:
        if name.writer != self._rank:
            self._liveness.mark_seen(name.writer)
            self.last_read[name.writer] = name.key(self._comm_name)

    def _timeout_error(self, missing: Sequence[ObjectName], call: Call, passed: Deadline) -> PeerTimeoutError:
        first = missing[0]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        cause = None
        for name in missing[:_MAX_CAUSES]:  # until one of them does not wait for this rank itself
            cause = self._liveness.find_cause(name.writer)
            if cause is None or cause.origin is not None:
                break
        chain = f"; the cause: {cause.text}" if cause is not None and cause.text else ""
        return PeerTimeoutError(
            f"rank {self._rank} in {call.made_by(self._rank)}: {describe(first, self._comm_name, self._store)}{more} "
            f"did not appear for {passed.elapsed}: check that rank {first.writer} has not ended and is not stopped, "
            f"late, or in another call; {raise_limit(passed, self.call_deadline, 'max_timeout')}{chain}",
            origin=first.writer if cause is None or cause.origin is None else cause.origin,
        )


def describe(name: ObjectName, comm_name: str, store: Store) -> str:
    """Return the description of an object in error messages."""
    return f"{name.key(comm_name)!r} in {store.name}"
