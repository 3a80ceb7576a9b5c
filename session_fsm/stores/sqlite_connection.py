"""Connections to one SQLite file: one that writes, some that read, and what their errors mean.

Write-ahead logging lets readers go on while the one writer commits; `synchronous=FULL` makes a
commit durable before it is answered. What threads of this process write at the same time is
written together; other processes are waited for by SQLite, up to the busy time-out.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ..errors import StoreUnavailableError
from ..lifecycle import Lifecycle
from .sqlite_file import (
    FileIdentity,
    FileKey,
    check_not_inherited,
    file_key,
    inherited,
    keep_for_ever,
    make_private,
    mark_closed,
    mark_open,
)
from .sqlite_schema import is_new, prepare
from .sqlite_writer import Change, Writer, told

BUSY_TIMEOUT_SECONDS: Final = 30.0
MAX_IDLE_READERS: Final = 4
PAGE_BYTES: Final = 2048
"""Of a new file. A commit writes each page that it changes, six or seven of them, and so half the
bytes of SQLite's own 4096; a state and its event still fit in one each."""
CACHE_KIB: Final = 16_000
"""Most pages that a connection keeps: all that lead to the sessions of a million, and more."""


class Connections:
    """The connections of one store to its file, which is made if it is missing, with mode 0600.

    Args:
        path: The file.
        lifecycle: Made known to the database before anything is written.
        lock_directory: Where the lock lies under which the file is opened.
        busy_timeout_seconds: Longest wait for a writer of another process.

    Raises:
        StoreUnavailableError: It can't be opened.
        CorruptRecordError: It is no database, or a broken one.
        SchemaVersionError: It is somebody else's, or of a version that is not known here.
        LifecycleError: It knows a lifecycle of this name with other rows.

    Threads: safe.
    """

    def __init__(
        self,
        path: Path,
        *,
        lifecycle: Lifecycle,
        lock_directory: Path,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        self.path = path
        self._absolute = path.absolute()  # a process may go to another directory
        self._busy_timeout_seconds = busy_timeout_seconds
        self._idle: list[sqlite3.Connection] = []
        self._idle_lock = threading.Lock()
        self._connected: set[sqlite3.Connection] = set()
        self._identity: FileIdentity | None = None
        self._closed = False
        self._inherited = False
        # Ten processes that open a new file at once would meet "database is locked" in spite of
        # any time-out, because turning on the log can't wait: they take turns at a lock file.
        turn = FileLock(lock_directory / "opening", timeout=busy_timeout_seconds)
        try:
            with turn:
                make_private(path)
                key = file_key(path) if path.exists() else None
                if key is not None:
                    check_not_inherited(path, key)
                mark_open(self)
                self._writer = Writer(
                    self._connect("rwc"),
                    path,
                    check_open=self.check_open,
                    check_files=self._check_files,
                )
                try:
                    with self.writing() as writer:
                        prepare(writer, lifecycle)
                    self._identity = FileIdentity(path)
                    if key is not None and self._identity.key != key:
                        raise StoreUnavailableError(problem=f"{path} was replaced meanwhile")
                except BaseException:
                    self._disconnect(self._writer.connection)
                    mark_closed(self)
                    raise
        except (sqlite3.Error, UnicodeDecodeError) as fault:
            raise told(fault, path) from fault
        except (OSError, Timeout) as fault:
            raise StoreUnavailableError(problem=f"can't open {path}: {fault}") from fault

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._absolute.as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connected.add(connection)
        try:
            if is_new(connection):  # somebody else's must not even get our kind of journal
                connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except BaseException:
            self._disconnect(connection)
            raise
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        if not self._inherited:
            connection.close()
            self._connected.discard(connection)

    # --- writing --------------------------------------------------------------------------

    def commit(self, change: Change) -> None:
        """Write a change, alone or together with others; errors as `Writer.commit`."""
        self._writer.commit(change)

    def commit_all(self, changes: Iterable[Change]) -> list[BaseException | None]:
        """Write changes in one transaction; returns for each what `commit` would raise."""
        return self._writer.commit_all(changes)

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """Give the writer inside one transaction; inside a batch, inside a part of that."""
        return self._writer.writing()

    def batch(self) -> AbstractContextManager[None]:
        """Make all that this thread writes one transaction; other threads wait."""
        return self._writer.batch()

    def _check_files(self) -> None:
        if self._identity is not None:  # known once the file has its log
            self._identity.check()

    # --- reading --------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to read with; inside a batch of this thread, the writer itself."""
        if self._writer.in_batch:
            try:
                yield self._writer.connection
            except (sqlite3.Error, UnicodeDecodeError) as fault:
                raise told(fault, self.path) from fault
            return
        reader: sqlite3.Connection | None = None
        try:
            reader = self._take_reader()
            yield reader
        except (sqlite3.Error, UnicodeDecodeError) as fault:
            raise told(fault, self.path) from fault
        finally:
            if reader is not None:
                self._give_back(reader)

    def _take_reader(self) -> sqlite3.Connection:
        with self._idle_lock:
            self.check_open()
            assert self._identity is not None
            self._identity.check_file()
            if self._idle:
                return self._idle.pop()
        self._identity.check()
        reader = self._connect()
        try:
            self._identity.check()  # and it is this one that was opened
        except BaseException:
            self._disconnect(reader)
            raise
        return reader

    def _give_back(self, reader: sqlite3.Connection) -> None:
        with self._idle_lock:
            if not self._closed and len(self._idle) < MAX_IDLE_READERS:
                self._idle.append(reader)
                return
        self._disconnect(reader)

    # --- the end --------------------------------------------------------------------------

    def check_open(self) -> None:
        """Refuse to work for a store that was closed.

        Raises:
            StoreUnavailableError: It was closed, or is a fork's copy of its parent's.
        """
        if self._inherited:
            raise inherited(self.path)
        if self._closed:
            raise StoreUnavailableError(problem="the store is closed")

    def close(self) -> None:
        """Close every connection; waits for a write that is being done; twice is harmless."""
        with self._writer.at_rest():
            with self._idle_lock:
                if self._closed:
                    return
                self._closed = True
                idle, self._idle = self._idle, []
            for connection in (*idle, self._writer.connection):
                self._disconnect(connection)
            mark_closed(self)

    def disown(self) -> Iterable[FileKey]:
        """In a child by fork: keep away from the connections; all of this is the parent's."""
        self._inherited = True
        keep_for_ever(self._connected)
        # Whoever held these is a thread of the parent.
        self._writer.disown()
        self._idle_lock, self._idle = threading.Lock(), []
        return () if self._identity is None else (self._identity.key,)
