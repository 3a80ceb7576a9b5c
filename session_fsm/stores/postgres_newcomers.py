"""Owners that are to be made known to a PostgreSQL server, which may only read for a while.

Whom it can't take in waits: until a server that stands by is promoted, or a full disk has room.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

import psycopg

from ..errors import StoreError, StoreUnavailableError
from .postgres_clock import Seconds
from .postgres_connection import Connections
from .postgres_faults import has_no_right, is_not_now
from .postgres_links import Connection
from .postgres_sql import Sql

logger = logging.getLogger(__name__)

_ENLIST: Final = (
    "INSERT INTO {s}.owner AS owner (owner_id, expires_at)"
    " VALUES (%(owner)s::text, clock_timestamp() + %(lease)s::interval)"
    " ON CONFLICT (owner_id) DO UPDATE SET expires_at = excluded.expires_at"
    " WHERE %(again)s::boolean OR owner.expires_at <= clock_timestamp()"
    " RETURNING owner_id"
)
_ONLY_READS: Final = "SELECT current_setting('transaction_read_only', true) = 'on'"


class Newcomer:
    """An owner that is to be made known.

    Args:
        owner_id: The owner.
        lease: How long it lives without a renewal.
        lapsed: Called once it can't be sure any longer that it lives.

    Attributes:
        sent: When the server was last told of it.
    """

    __slots__ = ("lapsed", "owner_id", "sent", "told")

    def __init__(self, owner_id: str, lease: timedelta, lapsed: Callable[[], None] | None) -> None:
        self.owner_id = owner_id
        self.lapsed = lapsed
        self.sent = 0.0
        self.told = {"owner": owner_id, "lease": lease, "again": False}


class Newcomers:
    """Those whom the server can't take in for now.

    Args:
        sql: Formats statements.
        seconds: Tells what has passed.

    Threads: safe; one takes in those who wait.
    """

    def __init__(self, sql: Sql, seconds: Seconds) -> None:
        self._sql = sql
        self._seconds = seconds
        self._waiting: dict[str, Newcomer] = {}

    def __contains__(self, owner_id: str) -> bool:
        return owner_id in self._waiting

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._waiting))

    def take_in(self, newcomer: Newcomer, connections: Connections) -> bool:
        """Make an owner known, now or later.

        Returns:
            Whether it is known now. If it is not, it waits; or the role may only read, and it will
            never be.

        Raises:
            StoreUnavailableError: An owner of this name lives, or the server can't be reached.
        """
        try:
            self.ask(newcomer, connections)
        except StoreUnavailableError as fault:
            if has_no_right(fault.__cause__):
                _only_read(newcomer)
                return False
            if not is_not_now(fault.__cause__):
                raise
            logger.info("owner %s can't write before the server does: %s", newcomer.owner_id, fault)
            self._waiting[newcomer.owner_id] = newcomer
            return False
        return True

    def ask(self, newcomer: Newcomer, connections: Connections) -> None:
        """Have the server take in an owner; errors as `take_in`, and if it can't."""
        told = newcomer.told

        def begin(link: Connection) -> bool:
            newcomer.sent = self._seconds()
            try:
                row = link.execute(self._sql(_ENLIST), told).fetchone()
            except psycopg.Error as fault:
                # If the answer was lost, the row is our own.
                told["again"] = told["again"] or not is_not_now(fault)
                raise
            told["again"] = True
            return row is not None

        if not connections.outside_batch(begin):
            raise StoreUnavailableError(problem=f"owner {newcomer.owner_id!r}: it lives already")

    def take_in_all(
        self,
        connections: Connections,
        admit: Callable[[Newcomer], None],
        dismiss: Callable[[str], None],
    ) -> bool:
        """Make those known who wait for that.

        Args:
            connections: Those that give up soon.
            admit: Called with each that is known now.
            dismiss: Called with the name of one that has left in the meantime.

        Returns:
            Whether none waits any longer.

        Raises:
            StoreError: One could not be made known; the others were.
        """
        newcomers = list(self._waiting.values())
        if not newcomers:
            return True
        # A server logs whatever it refuses, so it is asked first.
        if connections.outside_batch(self._only_reads):
            return False
        faults: list[StoreError] = []
        for newcomer in newcomers:
            owner_id = newcomer.owner_id
            try:
                self.ask(newcomer, connections)
            except StoreError as fault:
                if has_no_right(fault.__cause__):
                    _only_read(newcomer)
                    self.discard(owner_id)
                else:
                    faults.append(fault)
                continue
            admit(newcomer)
            if not self.discard(owner_id):
                dismiss(owner_id)
        if faults:
            raise faults[0]
        return True

    def _only_reads(self, link: Connection) -> bool:
        return link.execute(self._sql(_ONLY_READS)).fetchone() == (True,)

    def discard(self, owner_id: str) -> bool:
        """Have an owner wait no longer; returns whether it did."""
        return self._waiting.pop(owner_id, None) is not None

    def clear(self) -> None:
        """Have nobody wait any longer."""
        self._waiting.clear()

    def check(self, owner_id: str) -> None:
        """Refuse to write for an owner that waits.

        Raises:
            StoreUnavailableError: It does.
        """
        if owner_id in self._waiting:
            raise StoreUnavailableError(
                problem=f"owner {owner_id!r} is not known yet: the server only reads for now"
            )


def _only_read(newcomer: Newcomer) -> None:
    logger.info("owner %s is not made known: the store is only read", newcomer.owner_id)
