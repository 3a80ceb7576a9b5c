"""What a store does on its connections: read, write, and batch, in spite of faults.

A connection is lost when the server restarts, a network is cut, or nothing is heard for too long.
What only reads is done again. What writes is done again as long as its COMMIT was not sent; once it
was, nobody knows what became of it, until somebody asks.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from ..errors import StoreUnavailableError
from .postgres_faults import ConnectError, is_lost, may_go_again, told
from .postgres_links import MAX_CONNECTIONS, BorrowedLinks, Connection, Source
from .postgres_pool import OwnLinks
from .postgres_retrying import LostError, Patience, in_savepoint, undo
from .postgres_sql import DEFAULT_SCHEMA, Sql
from .postgres_url import target_of, target_of_pool

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

T = TypeVar("T")

STATEMENT_TIMEOUT_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 30.0
SILENCE_SECONDS: Final = 5.0
"""Longest wait for the server to say that the time of a statement is out."""
NO_ID: Final = "without an id"


class Connections:
    """The connections of one store.

    Args:
        where: The URL of the server, or a pool of connections to it, which stays its owner's.
        schema: The schema of the store; None: what the URL says, or the usual one.
        prepare: Whether statements are prepared; None: what the URL says, or that they are. A
            pool's connections do as their owner says.
        statement_timeout_seconds: Longest time for a statement, by the server's clock; None: what
            the server has for the role. A pool's connections have their owner's.
        retry_seconds: For how long a lost server is tried again.
        max_connections: Most connections at once.
        silence_seconds: For how long the server may say nothing, besides the time of a statement,
            if that is known; None: the usual time, or any where it is not.
        connect_timeout_seconds: Longest time for a connection to be made, or to be had from a pool;
            None: what the URL, or the pool, says.

    Attributes:
        sql: Formats statements for the schema.
        target: Where the store is.
        source: Where connections come from.

    Raises:
        ValueError: The URL can't be read.

    Threads: safe.
    """

    def __init__(
        self,
        where: str | ConnectionPool[Any],
        *,
        schema: str | None = None,
        prepare: bool | None = None,
        statement_timeout_seconds: float | None = STATEMENT_TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
        silence_seconds: float | None = None,
        connect_timeout_seconds: float | None = None,
    ) -> None:
        self.retry_seconds = retry_seconds
        self.statement_timeout_seconds = statement_timeout_seconds
        self.source: Source
        if isinstance(where, str):
            self.target = target_of(
                where,
                schema=schema,
                prepare=prepare,
                statement_timeout_seconds=statement_timeout_seconds,
                connect_timeout_seconds=connect_timeout_seconds,
            )
            if statement_timeout_seconds is not None:
                if silence_seconds is None:
                    silence_seconds = SILENCE_SECONDS
                silence_seconds += statement_timeout_seconds
            self.source = OwnLinks(
                self.target, silence_seconds=silence_seconds, limit=max_connections
            )
        else:
            self.target = target_of_pool(where, schema=schema)
            self.source = BorrowedLinks(where, patience_seconds=connect_timeout_seconds)
        self.url = self.target.url
        self.sql = Sql(self.target.schema or DEFAULT_SCHEMA)
        self._process_id = os.getpid()
        self._closing = threading.Event()
        self._batch: tuple[int, Connection] | None = None
        self.has_connected = False

    # --- asking ---------------------------------------------------------------------------

    @property
    def in_batch(self) -> bool:
        """Whether this thread has a batch open."""
        batch = self._batch
        return batch is not None and batch[0] == threading.get_ident()

    def patience(self) -> Patience:
        """Return what tells how long to try again, from now on."""
        return Patience(self.retry_seconds, self._closing)

    def lock_patience(self) -> Patience:
        """Return what tells how long to wait for what others have locked: as a statement would."""
        seconds = self.statement_timeout_seconds
        return Patience(STATEMENT_TIMEOUT_SECONDS if seconds is None else seconds, self._closing)

    @property
    def is_inherited(self) -> bool:
        """Whether they are a fork's copy of its parent's."""
        return os.getpid() != self._process_id

    def check_open(self) -> None:
        """Refuse to work for a store that was closed.

        Raises:
            StoreUnavailableError: It was closed, or is a fork's copy of its parent's.
        """
        if self.is_inherited:
            problem = f"{self.url} was opened before this process was forked: open it here"
            raise StoreUnavailableError(problem=problem)
        if self._closing.is_set():
            raise StoreUnavailableError(problem="the store is closed")

    @contextmanager
    def link(self) -> Iterator[Connection]:
        """Give a connection in autocommit mode, outside every batch; errors are psycopg's."""
        self.check_open()
        with self.source.link() as link:
            self.has_connected = True
            yield link

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do what only reads; inside a batch of this thread, on what the batch has written.

        Args:
            work: Called with a connection that commits each statement; it may be called again.

        Raises:
            StoreUnavailableError: The server can't be reached, or has refused.
            CorruptRecordError: The server has found something broken.
        """
        self.check_open()
        return self._inside(work) if self.in_batch else self.outside_batch(work)

    def outside_batch(self, work: Callable[[Connection], T]) -> T:
        """Do what only reads, or may be done twice, apart from any batch; errors as `read`."""
        self.check_open()
        return self._again(lambda: self._once(work))

    def _once(self, work: Callable[[Connection], T]) -> T:
        with self.link() as link:
            try:
                return work(link)
            except psycopg.Error as fault:
                if is_lost(fault, link):
                    raise LostError(fault) from fault
                raise

    def write(
        self,
        work: Callable[[Connection], T],
        *,
        operation_id: str | None = None,
        landed: Callable[[Connection], bool] | None = None,
    ) -> T:
        """Do what writes, in one transaction; inside a batch, in a part of its transaction.

        Args:
            work: Called inside a transaction; it may be called again, after that was undone.
            operation_id: What tells later whether it was written, if anything does.
            landed: Asked where the answer to a COMMIT was lost: if not, it is done again. None:
                nobody can tell.

        Raises:
            StoreUnavailableError: The server can't be reached, or has refused; with an operation
                id, if it may have been written.
            CorruptRecordError: The server has found something broken.
        """
        self.check_open()
        if self.in_batch:
            return self._inside(lambda link: in_savepoint(link, work))
        open_ends: list[T] = []

        def attempt() -> T:
            with self.link() as link:
                if open_ends and landed is not None:
                    if self._asked(link, landed):
                        return open_ends[0]
                    open_ends.clear()
                result = self._worked(link, work)
                try:
                    self._end(link)
                except psycopg.Error as fault:
                    if not is_lost(fault, link):
                        raise
                    open_ends.append(result)
                    if landed is None:
                        raise told(fault, self.target, operation_id or NO_ID) from fault
                    raise LostError(fault) from fault
                return result

        try:
            return self._again(attempt)
        except StoreUnavailableError as fault:
            if open_ends:
                fault.operation_id = operation_id or NO_ID
            raise

    def _asked(self, link: Connection, landed: Callable[[Connection], bool]) -> bool:
        try:
            return landed(link)
        except psycopg.Error as fault:
            if is_lost(fault, link):
                raise LostError(fault) from fault
            raise

    def _worked(self, link: Connection, work: Callable[[Connection], T]) -> T:
        try:
            link.execute("BEGIN", prepare=False)
            return work(link)
        except psycopg.Error as fault:
            lost = is_lost(fault, link)
            undo(link)
            if lost:
                raise LostError(fault) from fault
            raise
        except BaseException:
            undo(link)
            raise

    def _end(self, link: Connection) -> None:
        try:
            said = link.execute("COMMIT", prepare=False).statusmessage
        except psycopg.Error:
            undo(link)
            raise
        if said != "COMMIT":
            raise StoreUnavailableError(problem=f"{self.url}: the transaction was undone ({said})")

    def _again(self, attempt: Callable[[], T]) -> T:
        patience = self.patience()
        while True:
            try:
                return attempt()
            except LostError as lost:
                fault: psycopg.Error = lost.fault
                self.source.forget_idle()
            except ConnectError as missing:
                fault = missing
                if not self.has_connected:
                    raise told(fault, self.target) from None
            except psycopg.Error as failed:
                fault = failed
                if not may_go_again(failed):
                    raise told(failed, self.target) from failed
            except UnicodeError as failed:
                raise told(failed, self.target) from failed
            if not patience.pause():
                raise told(fault, self.target) from fault

    # --- batches --------------------------------------------------------------------------

    @contextmanager
    def batch(self, alone: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Make all that this thread writes one transaction.

        Args:
            alone: What makes other threads wait.

        Raises:
            StoreUnavailableError: It could not be written; with an operation id, if it may have
                been. A batch is open already.
        """
        self.check_open()
        if self.in_batch:
            raise StoreUnavailableError(problem="a batch is open already")
        with alone(), contextlib.ExitStack() as held:
            link = self._again(lambda: self._begun(held))
            self._batch = (threading.get_ident(), link)
            try:
                yield
                self.check_open()
            except BaseException:
                undo(link)
                raise
            finally:
                self._batch = None
            try:
                self._end(link)
            except psycopg.Error as fault:
                unknown = NO_ID if is_lost(fault, link) else None
                raise told(fault, self.target, unknown) from fault

    def _begun(self, held: contextlib.ExitStack) -> Connection:
        with contextlib.ExitStack() as tried:
            link = tried.enter_context(self.link())
            try:
                link.execute("BEGIN", prepare=False)
            except psycopg.Error as fault:
                if is_lost(fault, link):
                    raise LostError(fault) from fault
                raise
            held.push(tried.pop_all())
            return link

    def _inside(self, work: Callable[[Connection], T]) -> T:
        assert self._batch is not None
        link = self._batch[1]
        try:
            return work(link)
        except (psycopg.Error, UnicodeError) as fault:
            raise told(fault, self.target) from fault

    @property
    def is_batching(self) -> bool:
        """Whether any thread has a batch open."""
        return self._batch is not None

    # --- the end --------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection but those of somebody else's pool; twice is harmless."""
        if not self.is_inherited:
            self._closing.set()
            self.source.close()
