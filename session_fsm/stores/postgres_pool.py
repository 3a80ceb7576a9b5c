"""The pool of a PostgreSQL store: connections of its own, as many as are needed up to a limit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final

from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from .postgres_faults import ConnectError
from .postgres_links import MAX_CONNECTIONS, Connection, Link, Misses
from .postgres_url import Target

PATIENCE_SECONDS: Final = 30.0
"""Longest wait for a connection that another thread uses."""
MAX_IDLE_SECONDS: Final = 600.0
"""Longest time for which a connection is kept that nobody needs."""
MAX_LIFETIME_SECONDS: Final = 3600.0
"""Longest time for which a connection is used; then another one takes its place."""
_LOOK_SECONDS: Final = 0.05
_LONGEST_LOOK_SECONDS: Final = 0.4
"""How long one waits in the queue of the pool, before one looks what has become of it."""
_PREPARE_THRESHOLD: Final = 1
"""A statement is prepared when it is used for the second time: each is used again and again."""


class OwnLinks:
    """Connections of a store's own, from a pool of its own.

    The pool makes them on threads of its own, which begin with the first connection, keeps those
    that nobody uses for a while, and replaces what breaks or is old. It would keep whoever waits
    in the dark where none can be made; so it tries briefly, and who waits is told why it failed.

    Args:
        target: Where they lead.
        silence_seconds: See `Link`.
        limit: Most at once.

    Threads: safe.
    """

    def __init__(
        self, target: Target, *, silence_seconds: float | None, limit: int = MAX_CONNECTIONS
    ) -> None:
        self._limit = limit
        self._misses = Misses(target.hide)
        self._closed = False
        self._changing = threading.Lock()
        self._options: dict[str, Any] = {
            "conninfo": target.conninfo,
            "connection_class": Link,
            "kwargs": {
                "autocommit": True,
                "prepare_threshold": _PREPARE_THRESHOLD if target.prepare else None,
                "misses": self._misses,
                "silence_seconds": silence_seconds,
            },
            "min_size": 0,
            "max_size": limit,
            "max_idle": MAX_IDLE_SECONDS,
            "max_lifetime": MAX_LIFETIME_SECONDS,
            # Whoever needs a connection tries again, as long as it likes, and sooner.
            "reconnect_timeout": 0.0,
            "num_workers": max(1, limit // 4),
            "name": "session_fsm",
            "open": False,
        }
        self._pool: ConnectionPool[Link] = ConnectionPool(**self._options)

    @contextmanager
    def link(self) -> Iterator[Connection]:
        """Give a connection in autocommit mode; see `Source`."""
        pool, link = self._take()
        try:
            yield link
        finally:
            if link.pgconn.transaction_status != TransactionStatus.IDLE:
                link.close()
            pool.putconn(link)

    def _take(self) -> tuple[ConnectionPool[Link], Link]:
        missed, end, pause = self._misses.number, monotonic() + PATIENCE_SECONDS, _LOOK_SECONDS
        while True:
            pool = self._pool
            try:
                if pool.closed:
                    self._open(pool)
                return pool, pool.getconn(pause)
            except PoolTimeout:
                if self._misses.number != missed:
                    raise ConnectError(self._misses.last) from None
                if monotonic() > end:
                    raise ConnectError(
                        f"all {self._limit} connections of the store are in use"
                    ) from None
            except PoolClosed:
                if self._closed:
                    raise ConnectError("the store is closed") from None
            except ConnectError:
                raise
            except BaseException:
                # An interrupt leaves a place in the queue behind: who has it waits no longer, but
                # would be given a connection, which nobody ever gave back.
                self._renew(pool)
                raise
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)

    def _open(self, pool: ConnectionPool[Link]) -> None:
        with self._changing:
            if self._closed:
                raise ConnectError("the store is closed")
            pool.open()

    def _renew(self, pool: ConnectionPool[Link]) -> None:
        with self._changing:
            if pool is self._pool and not self._closed:
                self._pool = ConnectionPool(**self._options)
        pool.close(timeout=0)

    def forget_idle(self) -> None:
        """Close those that nobody uses; those in use, when they are given back."""
        with contextlib.suppress(PoolClosed):
            self._pool.drain()

    def close(self) -> None:
        """Close all, those in use when they are given back, and end the threads."""
        with self._changing:
            self._closed = True
        self._pool.close()
