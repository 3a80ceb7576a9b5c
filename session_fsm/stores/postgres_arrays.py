"""Columns of many rows as a PostgreSQL server takes them: one array for each, in binary.

A list would be looked at item by item, to find out what it holds. What is sent here is known: each
column has its type, and each value is encoded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, Final

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.postgres import types
from psycopg.pq import Format

from .postgres_links import Connection

_HEAD: Final = Struct("!iiIii").pack
_LENGTH: Final = Struct("!i").pack
_INTEGER: Final = Struct("!q").pack
_NULL: Final = _LENGTH(-1)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Value = bytes | None


def integer(value: int) -> bytes:
    """Encode a `bigint`."""
    return _INTEGER(value)


def instant(value: datetime) -> bytes:
    """Encode a `timestamptz`."""
    return _INTEGER((value - _EPOCH) // _MICROSECOND)


class Packed(bytes):
    """An array, as it is sent."""

    __slots__ = ()


def packed(kind: str, values: Sequence[Value]) -> Packed:
    """Put together an array of one dimension.

    Args:
        kind: The name of the type of its items, such as `int8`.
        values: Its items, each encoded; None is NULL.
    """
    head = _HEAD(1, None in values, types[kind].oid, len(values), 1)
    items = [_NULL if value is None else _LENGTH(len(value)) + value for value in values]
    return Packed(b"".join([head, *items]))


class PackedDumper(Dumper):
    """Sends an array as it is; the statement says of what type it is."""

    format = Format.BINARY

    def dump(self, obj: Packed) -> Buffer:
        """Return what is sent."""
        return obj


def asked_with(link: Connection, query: bytes, told: Iterable[Any]) -> list[Any]:
    """Execute a statement that is told arrays, among others; returns its rows."""
    cursor: psycopg.Cursor[Any] = link.cursor(binary=True)
    cursor.adapters.register_dumper(Packed, PackedDumper)
    return cursor.execute(query, tuple(told)).fetchall()
