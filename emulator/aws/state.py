"""The folder with all that the emulator keeps: one owner at a time, a version mark, and a database."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emulator.errors import StateError

# The mark is the file that is locked, too; what it holds is the version of all that lies beside it.
_MARK = "fmi-emulator-state"
_VERSION = "1"
_DATABASE = "state.db"
_TAKEN_ANEW = {_MARK}
_CACHE_KIB = 32 * 1024


class StateFolder:
    """A folder of state, held until `close` or until the process ends.

    What was committed to the database survives a kill of the process, as do files that were written. A power cut may
    take the last seconds: nothing is forced to the disk but the database's own order of writes.

    Parameters
    ----------
    path
        The folder; it is made when there is none.
    lasting
        Whether the folder outlives the process. If not, the database is a temporary one and lies nowhere in it.

    Attributes
    ----------
    database
        The connection, in autocommit mode; use it in the thread that made it.

    Raises
    ------
    StateError
        When the folder is another process's, is no state folder, has another version, or is damaged.
    """

    def __init__(self, path: Path, *, lasting: bool) -> None:
        self.path = path
        self._mark = self._take()
        try:
            self._check_version()
            self.database = self._open_database(lasting=lasting)
        except BaseException:
            os.close(self._mark)
            raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that happens within, or nothing."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def folder(self, name: str) -> Path:
        """Return a folder within, made when there is none."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

    def close(self) -> None:
        """Close the database and let others take the folder."""
        self.database.close()
        os.close(self._mark)

    def damaged(self, what: str) -> StateError:
        """Return the error for a folder whose content does not fit together."""
        return StateError(
            f"the state in {self.path} is damaged: {what}; restore the folder from a copy, or begin with a new one"
        )

    def _take(self) -> int:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in _TAKEN_ANEW)
            if foreign and not (self.path / _MARK).exists():
                raise StateError(
                    f"{self.path} is no state folder of fmi-emulator, it has {foreign[0]!r}; give a new or empty folder"
                )
            mark = os.open(self.path / _MARK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StateError(f"the state folder {self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(mark)
            raise StateError(
                f"the state in {self.path} is in use by another fmi-emulator; stop that one or give another folder"
            ) from None
        return mark

    def _check_version(self) -> None:
        version = os.read(self._mark, 100).decode(errors="replace").strip()
        if not version and not (self.path / _DATABASE).exists():
            os.write(self._mark, f"{_VERSION}\n".encode())
        elif version != _VERSION:
            raise StateError(
                f"the state in {self.path} has version {version or 'unknown'}, this fmi-emulator reads {_VERSION}; "
                "use the fmi-emulator that wrote it, or begin with a new folder"
            )

    def _open_database(self, *, lasting: bool) -> sqlite3.Connection:
        if not lasting:
            # A database without a name is SQLite's own temporary file: in memory until that much is full.
            database = sqlite3.connect("", isolation_level=None)
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            database.execute("PRAGMA journal_mode = MEMORY")
            return database
        database = sqlite3.connect(self.path / _DATABASE, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            database.close()
            raise self.damaged(f"{_DATABASE}: {error}") from error
        if found != "ok":
            database.close()
            raise self.damaged(f"{_DATABASE}: {found}")
        return database
