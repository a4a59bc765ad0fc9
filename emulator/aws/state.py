"""The state folder: a lock for one owner at a time, a format version, and a database."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from emulator.aws.disk_reserve import RESERVE_BYTES, TRANSACTION_BYTES, DiskFullError, DiskReserve
from emulator.aws.limits import ACCOUNT_ID
from emulator.errors import StateError

# The file that is locked; its content is the version of the format and the number of the account.
_LOCK_FILE = "fmi-emulator-state"
_VERSION = "2"
_DATABASE = "state.db"
_RESERVE = "reserve"
_CACHE_KIB = 32 * 1024


_FULL_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class StateDatabase(sqlite3.Connection):
    """A connection that can write on a full disk.

    Attributes
    ----------
    reserve
        The reserve of the database's disk; set after the connection is made.
    """

    reserve: DiskReserve | None = None

    def write(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        """Execute a single statement that writes; on a full disk, with a part of the reserve.

        Raises
        ------
        DiskFullError
            When the disk and the reserve are full; the statement has had no effect.
        """
        while True:
            try:
                cursor = self.execute(sql, parameters)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in _FULL_CODES or self.reserve is None:
                    raise
                # A transaction cannot be repeated from here.
                if self.in_transaction or not self.reserve.release(for_delete=sql.startswith("DELETE")):
                    raise DiskFullError from error
            else:
                if self.reserve is not None and self.reserve.missing:
                    self.recover_space()
                return cursor

    def recover_space(self) -> None:
        """After a change on a full disk: shorten SQLite's log, and fill the reserve if there is space."""
        if self.reserve is None or self.in_transaction:
            return
        with suppress(sqlite3.OperationalError):
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.reserve.refill()


class StateFolder:
    """A folder of state, locked until `close` or until the process ends.

    Commits to the database and written files survive a kill of the process. A power cut may lose the last seconds:
    there is no fsync beyond what keeps the database consistent.

    Parameters
    ----------
    path
        The folder; created if missing.
    lasting
        Whether the folder outlives the process. If not, the database is a temporary one outside the folder.
    account
        The number of the account whose the state is; another one is refused, since its ARNs are stored.

    Attributes
    ----------
    is_lasting
        Whether the folder outlives the process.
    database
        The connection, in autocommit mode; use it only in the thread that created it.
    reserve
        Space for deletes and small writes on a full disk.

    Raises
    ------
    StateError
        When another process uses the folder, or it is not a state folder, has another version, or is damaged.
    """

    def __init__(self, path: Path, *, lasting: bool, account: str = ACCOUNT_ID) -> None:
        self.path = path
        self._account = account
        self.is_lasting = lasting
        self._lock = self._acquire_lock()
        try:
            self._check_version()
            self._make_private(lasting=lasting)
            self.reserve = DiskReserve(self.path / _RESERVE, RESERVE_BYTES if lasting else 0)
            # On a full disk, SQLite can only recover its log with some space.
            self.reserve.ensure(2 * TRANSACTION_BYTES, for_delete=True)
            self.database = self._open_database(lasting=lasting)
            self.database.reserve = self.reserve
            self.reserve.refill()
        except BaseException:
            os.close(self._lock)
            raise

    @contextmanager
    def transaction(self, size: int = 0, *, is_delete: bool = False) -> Iterator[None]:
        """Run the block as one transaction: commit at its end, roll back if it raises.

        Parameters
        ----------
        size
            The size of the data that the block stores, bytes; the reserve makes room for it on a full disk.
        is_delete
            Whether it may use all of the reserve.

        Raises
        ------
        DiskFullError
            When the disk and the reserve are full; the transaction has had no effect.
        """
        database = self.database
        if self.reserve.is_held:
            self.reserve.ensure(size + TRANSACTION_BYTES, for_delete=is_delete)
        try:
            database.execute("BEGIN IMMEDIATE")
            yield
            database.execute("COMMIT")
        except BaseException as error:
            # SQLite itself rolls back where the disk is full.
            if database.in_transaction:
                database.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in _FULL_CODES:
                # Where a quota is used up, the disk looks as if it had space: the next attempt has what is released.
                self.reserve.release(for_delete=is_delete)
                raise DiskFullError from error
            raise
        if self.reserve.missing:
            database.recover_space()

    def folder(self, name: str) -> Path:
        """Return a subfolder; create it if missing."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def close(self) -> None:
        """Close the database and unlock the folder."""
        self.database.close()
        os.close(self._lock)

    def damaged(self, what: str) -> StateError:
        """Return the error for a folder whose content is inconsistent."""
        return StateError(
            f"the state in {self.path} is damaged: {what}; restore the folder from a copy, or start with a new one"
        )

    def _acquire_lock(self) -> int:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name != _LOCK_FILE)
            if foreign and not (self.path / _LOCK_FILE).exists():
                raise StateError(
                    f"{self.path} is not a state folder of fmi-emulator: it contains {foreign[0]!r}; "
                    "give a new or empty folder"
                )
            lock = os.open(self.path / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StateError(f"the state folder {self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise StateError(
                f"the state in {self.path} is in use by another fmi-emulator; stop that process or give another folder"
            ) from None
        return lock

    def _check_version(self) -> None:
        version, _, account = os.read(self._lock, 100).decode(errors="replace").strip().partition(" ")
        if not version and not (self.path / _DATABASE).exists():
            os.write(self._lock, f"{_VERSION} {self._account}\n".encode())
        elif version != _VERSION:
            raise StateError(
                f"the state in {self.path} has version {version or 'unknown'}, expected {_VERSION}: "
                "use the fmi-emulator that wrote it, or start with a new folder"
            )
        elif account != self._account:
            raise StateError(
                f"the state in {self.path} is of account {account}, not of {self._account}: start with --account "
                f"{account}, or with a new folder"
            )

    def _make_private(self, *, lasting: bool) -> None:
        """Deny other users everything: the folder has functions' variables, objects and logs."""
        try:
            if lasting:
                # SQLite gives its other files the permissions of the database.
                os.close(os.open(self.path / _DATABASE, os.O_WRONLY | os.O_CREAT, 0o600))
            if self.path.stat().st_mode & 0o077 == 0:
                return
            self.path.chmod(0o700)
            # An earlier version wrote files that others could read.
            for entry in self.path.rglob("*"):
                if not entry.is_symlink():
                    entry.chmod(entry.stat().st_mode & 0o700)
        except OSError as error:
            raise StateError(
                f"the state folder {self.path} cannot be made private to this user: {error.strerror}; "
                "give a folder that this user owns"
            ) from error

    def _open_database(self, *, lasting: bool) -> StateDatabase:
        if not lasting:
            # An unnamed database is a temporary file of SQLite, in memory up to the size of its cache.
            database = sqlite3.connect("", isolation_level=None, factory=StateDatabase)
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            database.execute("PRAGMA journal_mode = MEMORY")
            return database
        database = sqlite3.connect(self.path / _DATABASE, isolation_level=None, factory=StateDatabase)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            # Nothing of the database needs another disk, which may be full, too.
            database.execute("PRAGMA temp_store = MEMORY")
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            database.close()
            raise self.damaged(f"{_DATABASE}: {error}") from error
        if found != "ok":
            database.close()
            raise self.damaged(f"{_DATABASE}: {found}")
        return database
