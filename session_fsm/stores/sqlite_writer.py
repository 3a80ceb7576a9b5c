"""The one connection of a store that writes: its transactions, and what their errors mean."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from ..errors import CorruptRecordError, SessionFsmError, StoreUnavailableError
from ..sharing import own_copy
from .commit_queue import CommitQueue, Request

_BROKEN_FILE = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT"}
_TRANSACTION: Final = ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
_SAVEPOINT: Final = ("SAVEPOINT part", "RELEASE part", ("ROLLBACK TO part", "RELEASE part"))


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


class Change(Protocol):
    """What is written together with others, or not at all."""

    @property
    def operation_id(self) -> str:
        """Tells later whether it was written."""
        ...

    def apply(self, writer: sqlite3.Connection) -> None:
        """Write it, in a transaction.

        Raises:
            SessionFsmError: It is refused; nothing of it was written.
        """
        ...


class Writer:
    """The connection of a store that writes.

    Args:
        connection: The connection, in autocommit mode.
        path: Its file, for errors.
        check_open: Raises if the store was closed, or is a fork's copy.
        check_files: Called before and after each commit; raises if the file, or its log, is not
            the one that was opened.

    Threads: safe; whoever writes at the same time is written together.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        check_open: Callable[[], None],
        check_files: Callable[[], None],
    ) -> None:
        self.connection = connection
        self._path = path
        self._check_open = check_open
        self._check_files = check_files
        self._inherited = False
        self._batch_thread: int | None = None
        self._queue: CommitQueue[Change] = CommitQueue(self._write, self._interrupted)

    @property
    def in_batch(self) -> bool:
        """Whether this thread has a batch open."""
        return self._batch_thread == threading.get_ident()

    def commit(self, change: Change) -> None:
        """Write a change, alone or together with others; durable on return, unless in a batch.

        Raises:
            SessionFsmError: It was refused, or could not be written; nothing of it was.
            StoreUnavailableError: With its operation id: it may have been written.
        """
        if self.in_batch:
            with self.writing() as writer:
                change.apply(writer)
        else:
            self._queue.submit(change)

    def commit_all(self, changes: Iterable[Change]) -> list[BaseException | None]:
        """Write changes in one transaction; returns for each what `commit` would raise."""
        return self._queue.submit_all(changes)

    def _write(self, requests: Sequence[Request[Change]]) -> None:
        """Write changes in one transaction, and answer each."""
        refused: dict[int, SessionFsmError] = {}
        try:
            with self._transaction(_TRANSACTION, "unknown") as writer:
                for number, request in enumerate(requests):
                    try:
                        request.item.apply(writer)
                    except SessionFsmError as refusal:
                        refused[number] = refusal
                    except Exception as fault:
                        if len(requests) > 1:
                            raise _OneByOneError from fault
                        raise
        except _OneByOneError:
            # One of them can't be written; the others are not to suffer for it.
            for request in requests:
                self._write([request])
            return
        except SessionFsmError as fault:
            for request in requests:
                request.answer(_own(fault, request))
            return
        except Exception as fault:
            if len(requests) > 1:
                raise
            requests[0].answer(fault)
            return
        for number, request in enumerate(requests):
            request.answer(refused.get(number))

    def _interrupted(self, change: Change) -> StoreUnavailableError:
        problem = f"{self._path}: the thread that was writing was interrupted"
        return StoreUnavailableError(problem=problem, operation_id=change.operation_id)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction, committed at the end, undone on an exception.

        Inside a batch of this thread it is a part of the batch's transaction, undone alone.
        """
        if self.in_batch:
            if not self.connection.in_transaction:
                # A full disk can do that; a savepoint would be a transaction of its own.
                raise StoreUnavailableError(problem="the database has undone the whole batch")
            with self._transaction(_SAVEPOINT) as writer:
                yield writer
            return
        with self._queue.alone(), self._transaction(_TRANSACTION) as writer:
            yield writer

    @contextmanager
    def _transaction(
        self, statements: tuple[str, str, tuple[str, ...]], operation_id: str | None = None
    ) -> Iterator[sqlite3.Connection]:
        begin, commit, undo = statements
        outermost = statements is _TRANSACTION
        self._check_open()
        if outermost:
            # An interrupt may have kept the last transaction from being undone.
            self._undo(undo)
        try:
            self.connection.execute(begin)
            yield self.connection
            self._check_open()  # a fork inside the block leaves the commit to the parent
            if outermost:
                self._check_files()
        except BaseException as fault:
            self._undo(undo)
            if isinstance(fault, sqlite3.Error | UnicodeDecodeError):
                raise told(fault, self._path) from fault
            raise
        try:
            self.connection.execute(commit)
        except sqlite3.Error as fault:
            self._undo(undo)
            raise told(fault, self._path, operation_id) from fault
        if outermost:
            try:
                self._check_files()
            except StoreUnavailableError as fault:
                # It is in the file that was opened, which nobody finds unless it is put back.
                fault.operation_id = operation_id or "without an id"
                raise

    def _undo(self, statements: tuple[str, ...]) -> None:
        if not self._inherited and self.connection.in_transaction:
            for statement in statements:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute(statement)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all that this thread writes one transaction; other threads wait."""
        if self.in_batch:
            raise StoreUnavailableError(problem="a batch is open already")
        with self.writing():
            self._batch_thread = threading.get_ident()
            try:
                yield
            finally:
                self._batch_thread = None

    def disown(self) -> None:
        """In a child by fork: keep away from the connection, and wait for nobody of the parent."""
        self._inherited = True
        self._batch_thread = None
        self._queue = CommitQueue(self._write, self._interrupted)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Keep everybody from writing inside, without a transaction."""
        with self._queue.alone():
            yield


class _OneByOneError(Exception):
    """A change of a group can't be written."""


def _own(fault: SessionFsmError, request: Request[Change]) -> SessionFsmError:
    """Return the error of a whole group as the one of a request."""
    own = own_copy(fault)
    if isinstance(own, StoreUnavailableError) and own.operation_id is not None:
        own.operation_id = request.item.operation_id
    return own
