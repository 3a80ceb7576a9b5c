"""Single connections to a PostgreSQL server: who has which, and how long one waits on it.

A store has connections of its own, made as they are needed, or borrows each from a pool that is
somebody else's, and gives it back as it came.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from .postgres_faults import ConnectError, SilentError
from .postgres_url import Target

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

MAX_CONNECTIONS: Final = 8
"""Most connections of a store to its server, but for the one that renews leases."""
PATIENCE_SECONDS: Final = 30.0
"""Longest wait for a connection that another thread uses."""
_PREPARE_THRESHOLD: Final = 1
"""A statement is prepared when it is used for the second time: each is used again and again."""

Connection = psycopg.Connection[Any]


class Link(psycopg.Connection[Any]):
    """A connection that does not wait for ever.

    Attributes:
        silence_seconds: Longest time for which the server may say nothing; None: any.
    """

    silence_seconds: float | None = None

    def wait(self, gen: Any, *arguments: Any, **more: Any) -> Any:
        """Wait for an answer.

        Raises:
            SilentError: None came in time; the connection is closed.
        """
        if self.silence_seconds is None:
            return super().wait(gen, *arguments, **more)
        try:
            return super().wait(_watched(gen, self.silence_seconds), *arguments, **more)
        except SilentError:
            self.pgconn.finish()
            raise


def _watched(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Do what a generator of psycopg does, until nothing has been ready for too long."""
    try:
        wanted = next(gen)
        end = monotonic() + seconds
        while True:
            ready = yield wanted
            if ready:
                end = monotonic() + seconds
            elif monotonic() > end:
                raise SilentError(f"the server has not answered for {seconds:g} seconds")
            wanted = gen.send(ready)
    except StopIteration as stop:
        return stop.value


class Source(Protocol):
    """Where a store has its connections from."""

    def link(self) -> contextlib.AbstractContextManager[Connection]:
        """Give a connection in autocommit mode; after an error it may be closed.

        Raises:
            ConnectError: None was to be had.
        """
        ...

    def forget_idle(self) -> None:
        """Close those that nobody uses: the server may have lost them, too."""
        ...

    def close(self) -> None:
        """Close all that are not somebody else's; those in use when they are given back."""
        ...


class OwnLinks:
    """Connections of a store's own.

    Args:
        target: Where they lead.
        silence_seconds: See `Link`.
        limit: Most at once.

    Threads: safe.
    """

    def __init__(
        self, target: Target, *, silence_seconds: float | None, limit: int = MAX_CONNECTIONS
    ) -> None:
        self._target = target
        self._silence_seconds = silence_seconds
        self._limit = limit
        self._idle: list[Link] = []
        self._used = 0
        self._closed = False
        self._free = threading.Condition()

    def connect(self) -> Link:
        """Make a connection that is nobody's yet.

        Raises:
            ConnectError: It can't be made.
        """
        try:
            link = Link.connect(
                self._target.conninfo, autocommit=True, prepare_threshold=_PREPARE_THRESHOLD
            )
        except (psycopg.Error, UnicodeError) as fault:
            raise ConnectError(self._target.hide(str(fault).strip())) from None
        link.silence_seconds = self._silence_seconds
        return link

    @contextmanager
    def link(self) -> Iterator[Connection]:
        """Give a connection in autocommit mode; see `Source`."""
        link = self._take()
        try:
            yield link
        finally:
            self._give_back(link)

    def _take(self) -> Link:
        with self._free:
            if not self._free.wait_for(self._is_free, PATIENCE_SECONDS):
                raise ConnectError(f"all {self._limit} connections of the store are in use")
            self._used += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self.connect()
        except BaseException:
            self._let_go()
            raise

    def _is_free(self) -> bool:
        return self._used < self._limit

    def _let_go(self) -> None:
        with self._free:
            self._used -= 1
            self._free.notify()

    def _give_back(self, link: Link) -> None:
        sound = not link.closed and link.pgconn.transaction_status == TransactionStatus.IDLE
        with self._free:
            self._used -= 1
            self._free.notify()
            if sound and not self._closed:
                self._idle.append(link)
                return
        link.close()

    def forget_idle(self) -> None:
        """Close those that nobody uses."""
        with self._free:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def close(self) -> None:
        """Close all; those in use when they are given back."""
        self._closed = True
        self.forget_idle()


class BorrowedLinks:
    """Connections of a pool that is somebody else's, each given back as it came.

    Args:
        pool: The pool; its owner opens and closes it.

    Threads: safe.
    """

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    @contextmanager
    def link(self) -> Iterator[Connection]:
        """Give a connection in autocommit mode; see `Source`."""
        try:
            link = self._pool.getconn()
        except psycopg.Error as fault:
            raise ConnectError(f"the pool gave no connection: {type(fault).__name__}") from None
        undo: Callable[[], None] = _nothing
        try:
            undo = _made_ours(link)
            yield link
        finally:
            with contextlib.suppress(psycopg.Error):
                if link.pgconn.transaction_status != TransactionStatus.IDLE and not link.closed:
                    link.rollback()
                undo()
            self._pool.putconn(link)

    def forget_idle(self) -> None:
        """Leave it to the pool."""

    def close(self) -> None:
        """Leave the pool open."""


def _nothing() -> None:
    return None


def _made_ours(link: Connection) -> Callable[[], None]:
    """Have a connection work as those of a store do; returns what undoes that."""
    autocommit, rows, cursors = link.autocommit, link.row_factory, link.cursor_factory

    def undo() -> None:
        link.row_factory, link.cursor_factory = rows, cursors
        if link.autocommit != autocommit:
            link.autocommit = autocommit

    if not autocommit:
        link.autocommit = True
    link.row_factory, link.cursor_factory = tuple_row, psycopg.Cursor
    return undo
