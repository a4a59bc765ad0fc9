"""What moto's services hold, kept between runs: queues, topics, rules, roles, tables and all others.

moto has no storage of its own, but its objects can be pickled. One file has all of them, for the versions of moto and
Python that wrote it. A pickle may contain a program, so the file is signed with a key of this user, and a file from
elsewhere is not read.
"""

import asyncio
import contextlib
import copyreg
import hmac
import importlib
import io
import logging
import marshal
import os
import pickle
import platform
import secrets
import tempfile
import threading
import time
import types
from collections import defaultdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moto.core.base_backend import BackendDict
from moto.core.config import default_user_config

_log = logging.getLogger(__name__)
# Services that are our own, whose part in moto is derived from theirs.
_NOT_KEPT = frozenset(["cloudformation", "lambda", "logs", "moto_api", "s3", "stepfunctions"])
# Changes of that time are written together, and writing takes at most one part in so many of a core.
_DELAY_S = 0.5
_SHARE = 20
# An object may change while another thread pickles it.
_ATTEMPTS = 10
_LOCK = type(threading.RLock())
_DIGEST = "sha256"
_SIGNATURE_BYTES = 32


class MotoState:
    """Writes moto's objects to a folder soon after they have changed, and at the end.

    Parameters
    ----------
    folder
        Where the file is; use it in the thread of the event loop.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"moto-{version('moto')}-python-{platform.python_version()}.pickle"
        self._delay_s = _DELAY_S
        self._saving: asyncio.Task[None] | None = None
        self._has_changed = False

    @property
    def exists(self) -> bool:
        """Whether an earlier run has written something."""
        return any(self._folder.glob("*.pickle"))

    def restore(self) -> str | None:
        """Bring back what was kept; return a sentence on what could not be."""
        if not self._path.exists():
            others = ", ".join(sorted(path.name for path in self._folder.glob("*.pickle")))
            return (
                f"what moto's services held is not restored: {self._folder} has {others} of other versions, expected "
                f"{self._path.name}; use those versions, or make the resources again"
            )
        try:
            content = self._path.read_bytes()
            signature, pickled = content[:_SIGNATURE_BYTES], content[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, hmac.digest(_key(), pickled, _DIGEST)):
                return self._refuse(f"was not written by this user here: it is not signed with {_key_path()}")
            kept = pickle.loads(pickled)  # noqa: S301 - written by this user
            for (module, name), backends in kept.items():
                of_service = _of_service(module, name)
                for account, region, backend in backends:
                    of_service[account][region] = backend
        except Exception as error:  # noqa: BLE001 - whatever the file contains
            return self._refuse(f"is damaged: {error!r:.200}")
        return None

    def _refuse(self, reason: str) -> str:
        """Keep the file under another name, as the next change is written; return a sentence on it."""
        aside = self._path.with_suffix(".refused")
        with contextlib.suppress(OSError):
            self._path.replace(aside)
        return f"what moto's services held is not restored: {self._path} {reason}; it is now {aside.name}"

    def changed(self) -> None:
        """Note that a request may have changed something; it is written soon."""
        self._has_changed = True
        if self._saving is None:
            self._saving = asyncio.get_running_loop().create_task(self._save_soon(), name="moto's state")

    async def close(self) -> None:
        """Write what has changed."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.gather(self._saving, return_exceptions=True)
        if self._has_changed:
            await asyncio.to_thread(self._save)

    async def _save_soon(self) -> None:
        while self._has_changed:
            await asyncio.sleep(self._delay_s)
            self._has_changed = False
            try:
                await asyncio.to_thread(self._save)
            except asyncio.CancelledError:
                self._has_changed = True
                raise
        self._saving = None

    def _save(self) -> None:
        began = time.monotonic()
        try:
            pickled = _pickled()
            content = hmac.digest(_key(), pickled, _DIGEST) + pickled
            written = self._path.with_suffix(".new")
            written.touch(0o600)
            written.write_bytes(content)
            written.replace(self._path)
        except Exception as error:  # noqa: BLE001 - moto's objects, or a full disk: the endpoint goes on
            _log.warning("what moto's services hold was not written to %s: %r", self._path, error)
        self._delay_s = max(_DELAY_S, _SHARE * (time.monotonic() - began))


def _key_path() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "fmi-emulator" / "state.key"


def _key() -> bytes:
    """Return the key that signs this user's files, which is made at its first use."""
    path = _key_path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Complete before it has its name: another process may read it at once.
        with tempfile.NamedTemporaryFile(dir=path.parent) as made:
            made.write(secrets.token_bytes(_SIGNATURE_BYTES))
            made.flush()
            with contextlib.suppress(FileExistsError):
                os.link(made.name, path)
    return path.read_bytes()


def _pickled() -> bytes:
    """Pickle the backends of all services in use, together: they refer to each other."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(RuntimeError):
            kept = {
                (backends.backend.__module__, backends.backend.__name__): [
                    # moto makes those of AWS's other partitions, such as aws-cn, when it searches for a key.
                    found
                    for found in backends.iter_backends()
                    if not found[1].startswith("aws-")
                ]
                for backends in _in_use()
                if backends.service_name not in _NOT_KEPT
            }
            buffer = io.BytesIO()
            _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(kept)
            return buffer.getvalue()
    raise RuntimeError("it changed all the time")


def _in_use() -> list[Any]:
    registry: Any = BackendDict
    return list(registry._instances)  # noqa: SLF001 - moto has no other list of them


class _Pickler(pickle.Pickler):
    """Pickles what moto's objects contain besides data: locks, functions without a name, dictionaries of its own."""

    def reducer_override(self, value: Any) -> Any:
        """Return how to make a value again, where pickle cannot find out."""
        if isinstance(value, _LOCK):
            return threading.RLock, ()
        if isinstance(value, types.FunctionType) and value.__name__ == "<lambda>" and value.__closure__ is None:
            return _function, (value.__module__, marshal.dumps(value.__code__))
        if isinstance(value, defaultdict) and type(value) is not defaultdict:
            # Those of moto take other arguments than their base class.
            state = (vars(value), {"default_factory": value.default_factory})
            return copyreg.__newobj__, (type(value),), state, None, iter(value.items())  # type: ignore[attr-defined]
        if type(value).__name__ == "AWSManagedPolicy" and not value.attachment_count:
            # 24 MB, which moto has in its package.
            return _aws_policy, (value.account_id, value.arn)
        return NotImplemented


@lru_cache(maxsize=1)
def _aws_policies(account: str) -> dict[str, Any]:
    from moto.iam.models import IAMBackend

    # As when they were written: see MotoBridge.load_managed_policies.
    default_user_config["iam"]["load_aws_managed_policies"] = True
    return {policy.arn: policy for policy in IAMBackend("aws", account).aws_managed_policies}


def _aws_policy(account: str, arn: str) -> Any:
    return _aws_policies(account)[arn]


def _of_service(module: str, name: str) -> Any:
    """Return moto's objects of a service, by the class of those of a region."""
    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, BackendDict) and value.backend.__name__ == name:
            return value
    raise LookupError(f"{module} has no objects of {name}")


def _function(module: str, code: bytes) -> types.FunctionType:
    return types.FunctionType(marshal.loads(code), vars(importlib.import_module(module)))  # noqa: S302 - as above
