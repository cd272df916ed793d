"""The SQLite file behind the store: its tables, connections for many threads, all-or-nothing writes."""

from __future__ import annotations

import fcntl
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from promptclf.errors import DataError, StoreError

VERSION = 1
BUSY_SECONDS = 5.0

_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued',
    request TEXT NOT NULL,
    created TEXT NOT NULL,
    started TEXT,
    ended TEXT,
    result TEXT,
    error TEXT,
    pid INTEGER,
    cancelling INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_owner ON jobs (owner);
CREATE INDEX jobs_state ON jobs (state);
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    event TEXT NOT NULL
);
CREATE INDEX events_job ON events (job, number);
CREATE TABLE datasets (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    created TEXT NOT NULL,
    rows TEXT NOT NULL,
    labels TEXT NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX datasets_owner ON datasets (owner);
CREATE TABLE feedback (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    created TEXT NOT NULL,
    text TEXT NOT NULL,
    task TEXT NOT NULL,
    mode TEXT NOT NULL,
    predicted TEXT NOT NULL,
    label TEXT NOT NULL,
    model TEXT NOT NULL,
    UNIQUE (owner, key)
);
"""


class Database:
    """A SQLite file in a folder of its own; for use by many threads and processes.

    Parameters
    ----------
    folder
        Made if need be, readable by this user only.

    Raises
    ------
    StoreError
        If the file cannot be opened, is something else, or was written by a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "store.sqlite3"
        self._idle: deque[sqlite3.Connection] = deque()  # each serves one thread at a time
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            # Of two processes that begin with an empty folder, one makes the tables.
            with (folder / "store.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._prepare()
        except OSError as error:
            raise StoreError(f"{folder}: expected a folder to write to: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the connections that no thread uses."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection. All that is written through it is on the disk at the end, or nothing is.

        Raises
        ------
        StoreError
            If the file cannot be read or written, or stays locked for 5 seconds.
        """
        db = None
        try:
            db = self._take()
            if write:
                db.execute("BEGIN IMMEDIATE")  # waits for its turn here, not at the first change
            yield db
            if write:
                db.execute("COMMIT")
        except BaseException as error:
            if db is not None:
                db.close()  # undoes what was begun
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{self.file}: {error}; see that it is writable and try again") from error
            if isinstance(error, UnicodeEncodeError):
                raise DataError("text: expected Unicode, got half of a surrogate pair; remove it") from error
            raise
        self._idle.append(db)

    def rows(self, query: str, *values: Any) -> list[Any]:
        """What a query finds."""
        with self.open() as db:
            return db.execute(query, values).fetchall()

    def change(self, command: str, *values: Any) -> bool:
        """Execute one command; whether it changed a row."""
        with self.open(write=True) as db:
            return db.execute(command, values).rowcount > 0

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            # FULL: what was committed survives a power failure too. secure_delete: what is deleted is gone.
            for setting in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
                db.execute(f"PRAGMA {setting}")
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self) -> None:
        with self.open() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(f"{self.file}: expected version {VERSION}, got {version}; update promptclf")
            db.execute("PRAGMA journal_mode = WAL")
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
