"""Connections to one SQLite file: one that writes, some that read, and what their errors mean.

Write-ahead logging lets readers go on while the one writer commits; `synchronous=FULL` makes a
commit durable before it is answered. Threads of this process queue at the writer's lock in order of
arrival; other processes are waited for by SQLite, up to the busy time-out.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from ..errors import CorruptRecordError, SessionFsmError, StoreUnavailableError
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

BUSY_TIMEOUT_SECONDS: Final = 30.0
MAX_IDLE_READERS: Final = 4

_BROKEN_FILE = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"}


def told(
    fault: sqlite3.Error | UnicodeDecodeError, path: Path, operation_id: str | None = None
) -> SessionFsmError:
    """Return what an error of the database means to a user of the store."""
    name = getattr(fault, "sqlite_errorname", "") or type(fault).__name__
    # Neither has a code of its own: a text that is none, and a message that quotes one.
    undecodable = str(fault).startswith("Could not decode to UTF-8")
    undecodable = undecodable or isinstance(fault, UnicodeDecodeError)
    if undecodable or any(name.startswith(broken) for broken in _BROKEN_FILE):
        return CorruptRecordError(record=f"the database {path}", problems=(str(fault),))
    problem = f"{path}: {fault} ({name})"
    return StoreUnavailableError(problem=problem, operation_id=operation_id)


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
        self._writing = threading.RLock()
        self._batch_thread: int | None = None
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
                self._writer = self._connect("rwc")
                try:
                    with self.writing():
                        prepare(self._writer, lifecycle)
                    self._identity = FileIdentity(path)
                    if key is not None and self._identity.key != key:
                        raise StoreUnavailableError(problem=f"{path} was replaced meanwhile")
                except BaseException:
                    self._disconnect(self._writer)
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
            is_new(connection)  # somebody else's file must not even get our kind of journal
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            self._disconnect(connection)
            raise
        return connection

    def _disconnect(self, connection: sqlite3.Connection) -> None:
        if not self._inherited:
            connection.close()
            self._connected.discard(connection)

    # --- writing --------------------------------------------------------------------------

    @contextmanager
    def writing(self, operation_id: str | None = None) -> Iterator[sqlite3.Connection]:
        """Give the writer inside one transaction, committed at the end, undone on any exception.

        Inside a batch of this thread it is a part of the batch's transaction, undone alone.

        Args:
            operation_id: What is being done; stands in the error if it may have landed.
        """
        with self._writing:
            self.check_open()
            nested = self._batch_thread is not None
            begin, commit, undo = _SAVEPOINT if nested else _TRANSACTION
            if not nested:
                # An interrupt may have kept the last transaction from being undone.
                self._undo(undo)
            elif not self._writer.in_transaction:
                # A full disk can do that; a savepoint would be a transaction of its own.
                raise StoreUnavailableError(problem="the database has undone the whole batch")
            try:
                self._writer.execute(begin)
                yield self._writer
                self.check_open()  # a fork inside the block leaves the commit to the parent
                if not nested:
                    self._check_identity()
            except BaseException as fault:
                self._undo(undo)
                if isinstance(fault, sqlite3.Error):
                    raise told(fault, self.path) from fault
                raise
            try:
                self._writer.execute(commit)
            except sqlite3.Error as fault:
                self._undo(undo)
                raise told(fault, self.path, operation_id) from fault
            if not nested:
                try:
                    self._check_identity()
                except StoreUnavailableError as fault:
                    # It is in the file that was opened, which nobody finds unless it is put back.
                    fault.operation_id = operation_id or "without an id"
                    raise

    def _check_identity(self) -> None:
        if self._identity is not None:  # known once the file has its log
            self._identity.check()

    def _undo(self, statements: tuple[str, ...]) -> None:
        if not self._inherited and self._writer.in_transaction:
            for statement in statements:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute(statement)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all that this thread writes one transaction; other threads wait."""
        with self._writing:
            if self._batch_thread is not None:
                raise StoreUnavailableError(problem="a batch is open already")
            with self.writing():
                self._batch_thread = threading.get_ident()
                try:
                    yield
                finally:
                    self._batch_thread = None

    # --- reading --------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to read with; inside a batch of this thread, the writer itself."""
        if self._batch_thread == threading.get_ident():
            try:
                yield self._writer
            except sqlite3.Error as fault:
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
        with self._writing:
            with self._idle_lock:
                if self._closed:
                    return
                self._closed = True
                idle, self._idle = self._idle, []
            for connection in (*idle, self._writer):
                self._disconnect(connection)
            mark_closed(self)

    def disown(self) -> Iterable[FileKey]:
        """In a child by fork: keep away from the connections; all of this is the parent's."""
        self._inherited = True
        keep_for_ever(self._connected)
        # Whoever held these is a thread of the parent.
        self._writing, self._idle_lock = threading.RLock(), threading.Lock()
        self._batch_thread, self._idle = None, []
        return () if self._identity is None else (self._identity.key,)


_TRANSACTION = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_SAVEPOINT = ("SAVEPOINT part", "RELEASE part", ("ROLLBACK TO part", "RELEASE part"))
