"""What is written to the tables of sessions in the SQLite store, and in whose transaction.

An item that is encrypted says so in its row, beside the ciphertext, which is bound to its session,
table, key and version. A session that was stored without a key gets one with its next step: items
that are put there before are written plain, as its state is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ..clock import instant_text
from ..errors import (
    KeyMissingError,
    LifecycleError,
    RevisionConflictError,
    SessionFsmError,
    SessionNotFoundError,
)
from ..items import Clear, Delete, Item, ItemWrites, Put, Write, Written, check_expected
from ..jsontext import dump_json
from ..keys import DataKey
from .sqlite_keys import ENCRYPTION_FORMAT

FIELDS: Final = "key, version, expires_at, updated_at, encryption, body"
LIVE: Final = "(expires_at IS NULL OR expires_at > :at)"
_VERSION: Final = (
    "SELECT version FROM session_item WHERE session_id = :id AND table_name = :table"  # noqa: S608
    f" AND key = :key AND {LIVE}"
)
_IN_TABLE: Final = "FROM session_item WHERE session_id = :id AND table_name = :table"


class ItemWriter:
    """Writes of one session, as they are made inside the transaction of whoever writes.

    Args:
        session_id: The session.
        lifecycle: The name of its lifecycle.
        writes: What is written.
        key: The key of the session; None: values are written as they are.

    Attributes:
        written: What came of each write, once they were made.
    """

    __slots__ = ("_key", "_lifecycle", "_session_id", "_writes", "written")

    def __init__(
        self, session_id: str, lifecycle: str, writes: ItemWrites, key: DataKey | None
    ) -> None:
        self._session_id = session_id
        self._lifecycle = lifecycle
        self._writes = writes
        self._key = key
        self.written: tuple[Written, ...] = ()

    def make(self, writer: sqlite3.Connection, expected_revision: int) -> None:
        """Make the writes, one after the other, if the session is at a revision.

        What was made before one that is refused is left to whoever undoes the transaction.

        Raises:
            SessionNotFoundError: The session is not there.
            LifecycleError: The session runs in another lifecycle.
            RevisionConflictError: The stored revision is not the expected one.
            KeyMissingError: The session is encrypted, and there is no key.
            ItemConflictError: An item is not at the version that a write expects.
        """
        self._check(writer, expected_revision)
        self.written = tuple(self._make(writer, each) for each in self._writes.writes)

    def _check(self, writer: sqlite3.Connection, expected: int) -> None:
        session_id = self._session_id
        row = writer.execute(
            "SELECT lifecycle, revision, key_id FROM session"
            " LEFT JOIN session_key USING (session_id) WHERE session_id = ?",
            (session_id,),
        ).fetchone()
        if row is None:
            raise SessionNotFoundError(session_id=session_id)
        lifecycle, found, key_id = row
        check_lifecycle(session_id, lifecycle, self._lifecycle)
        if found != expected:
            raise RevisionConflictError(session_id=session_id, expected=expected, found=found)
        if self._key is None and key_id is not None:
            raise KeyMissingError(session_id=session_id, key_id=key_id)

    def _make(self, writer: sqlite3.Connection, write: Write) -> Written:
        at = self._writes.at
        place = {"id": self._session_id, "table": write.table, "at": instant_text(at)}
        if isinstance(write, Clear):
            count = writer.execute(f"SELECT count(*) {_IN_TABLE} AND {LIVE}", place)
            [live] = count.fetchone()
            writer.execute(f"DELETE {_IN_TABLE}", place)
            return int(live)
        place["key"] = write.key
        found = writer.execute(_VERSION, place).fetchone()
        check_expected(self._session_id, write, 0 if found is None else found[0])
        writer.execute(f"DELETE {_IN_TABLE} AND key = :key", place)
        return int(found is not None) if isinstance(write, Delete) else self._put(writer, write)

    def _put(self, writer: sqlite3.Connection, write: Put) -> Item:
        session_id, at = self._session_id, self._writes.at
        item = Item(
            key=write.key,
            value=write.value,
            version=_next_version(writer, session_id),
            expires_at=write.expires_at(at),
            updated_at=at,
        )
        body, encryption = dump_json(write.value), None
        if self._key is not None:
            place = cipher_place(session_id, write.table, write.key, item.version)
            body, encryption = self._key.encrypt(body, *place).encode(), ENCRYPTION_FORMAT
        writer.execute(
            f"INSERT INTO session_item (session_id, table_name, lifecycle, {FIELDS})"  # noqa: S608
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                session_id,
                write.table,
                self._lifecycle,
                write.key,
                item.version,
                None if item.expires_at is None else instant_text(item.expires_at),
                instant_text(at),
                encryption,
                body,
            ),
        )
        return item


def _next_version(writer: sqlite3.Connection, session_id: str) -> int:
    raised = writer.execute(
        "UPDATE session_item_version SET version = version + 1 WHERE session_id = ?"
        " RETURNING version",
        (session_id,),
    ).fetchall()
    if raised:
        return int(raised[0][0])
    writer.execute("INSERT INTO session_item_version VALUES (?, 1)", (session_id,))
    return 1


class PreparedWrites:
    """Writes that are made without a step of the session.

    Args:
        writes: What is written.
        expected_revision: The revision that the session must have.
        operation_id: Whose fate it is, should that not be known.
    """

    __slots__ = ("_expected_revision", "operation_id", "writes")

    def __init__(self, writes: ItemWriter, expected_revision: int, operation_id: str) -> None:
        self.writes = writes
        self._expected_revision = expected_revision
        self.operation_id = operation_id

    def apply(self, writer: sqlite3.Connection) -> None:
        """Make them, in a transaction; errors as `ItemWriter.make`."""
        with undone_alone(writer):
            self.writes.make(writer, self._expected_revision)


@contextmanager
def undone_alone(writer: sqlite3.Connection) -> Iterator[None]:
    """Undo what is done inside if that is refused, and nothing of the transaction around it."""
    writer.execute("SAVEPOINT items")
    try:
        yield
    except SessionFsmError:
        writer.execute("ROLLBACK TO items")
        writer.execute("RELEASE items")
        raise
    writer.execute("RELEASE items")


def check_lifecycle(session_id: str, found: str, expected: str) -> None:
    """Accept a session of a lifecycle.

    Raises:
        LifecycleError: It runs in another one.
    """
    if found != expected:
        problem = f"session {session_id!r} runs in the lifecycle {found!r}"
        raise LifecycleError(problem=problem, lifecycle=expected)


def cipher_place(session_id: str, table: str, key: str, version: int) -> tuple[str | int, ...]:
    """Return what the ciphertext of an item is bound to."""
    return ("item", session_id, table, key, version)
