"""Single connections to a PostgreSQL server: who has which, and how long one waits on it.

A store has a pool of its own, or borrows each from one that is somebody else's, and gives it back
as it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from .postgres_faults import ConnectError, SilentError

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

MAX_CONNECTIONS: Final = 8
"""Most connections that a store works on at once; leases and hints have others beside them."""

Connection = psycopg.Connection[Any]


class Misses:
    """What went wrong with connections that could not be made.

    Args:
        hide: Hides what must not be told.

    Attributes:
        number: How many could not be made.
        last: What was wrong with the last of them, as it may be told.

    Threads: safe.
    """

    __slots__ = ("_hide", "last", "number")

    def __init__(self, hide: Callable[[str], str]) -> None:
        self._hide = hide
        self.number = 0
        self.last = ""

    def note(self, text: str) -> str:
        """Note what went wrong; returns it as it may be told."""
        self.last = self._hide(text)
        self.number += 1
        return self.last


class Link(psycopg.Connection[Any]):
    """A connection that does not wait for ever.

    Attributes:
        silence_seconds: Longest time for which the server may say nothing; None: any.
    """

    silence_seconds: float | None = None

    @classmethod
    def connect(  # type: ignore[override]  # the rest of what psycopg takes is passed on as it is
        cls,
        conninfo: str = "",
        *,
        misses: Misses | None = None,
        silence_seconds: float | None = None,
        **more: Any,
    ) -> Self:
        """Make a connection.

        Args:
            conninfo: Where it leads.
            misses: Told what goes wrong.
            silence_seconds: See there.
            more: As psycopg takes it.

        Raises:
            ConnectError: It can't be made.
        """
        try:
            link = super().connect(conninfo, **more)
        except (psycopg.Error, UnicodeError) as fault:
            text = str(fault).strip()
            raise ConnectError(text if misses is None else misses.note(text)) from None
        link.silence_seconds = silence_seconds
        # Behind a pooler it may hear what others listen for, all of which would be kept.
        link.add_notify_handler(not_listening)
        return link

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


def not_listening(_: psycopg.Notify) -> None:
    """Drop a notification, on a connection that nobody listens on."""


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


class BorrowedLinks:
    """Connections of a pool that is somebody else's, each given back as it came.

    Args:
        pool: The pool; its owner opens and closes it.
        patience_seconds: Longest wait for one that somebody else uses; None: the pool's own.

    Threads: safe.
    """

    def __init__(self, pool: ConnectionPool[Any], *, patience_seconds: float | None = None) -> None:
        self._pool = pool
        self._patience_seconds = patience_seconds

    @contextmanager
    def link(self) -> Iterator[Connection]:
        """Give a connection in autocommit mode; see `Source`."""
        try:
            link = self._pool.getconn(self._patience_seconds)
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
