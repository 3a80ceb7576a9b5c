"""Connections to a PostgreSQL database (skeleton: signatures are final)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import psycopg

from .postgres_sql import Sql

T = TypeVar("T")


class Connections:
    """The connections of one store."""

    sql: Sql
    url: str

    @property
    def in_batch(self) -> bool:
        """Tell whether this thread is in a batch."""
        raise NotImplementedError

    def read(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Do what only reads, on a connection that commits each statement; may be done again."""
        raise NotImplementedError

    def write(
        self, work: Callable[[psycopg.Connection[Any]], T], *, operation_id: str | None = None
    ) -> T:
        """Do what writes, in one transaction; may be done again from its beginning."""
        raise NotImplementedError

    def batch(self) -> AbstractContextManager[None]:
        """Make all that this thread writes one transaction; other threads wait."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every connection."""
        raise NotImplementedError
