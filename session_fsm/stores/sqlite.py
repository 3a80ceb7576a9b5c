"""The embedded store: one SQLite file, many processes on one machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..clock import instant_text
from ..compaction import Checkpoint
from ..errors import (
    CorruptRecordError,
    FencedError,
    KeyMissingError,
    RevisionConflictError,
    SessionNotFoundError,
)
from ..history import Sealed, Unveil
from ..keys import Keyring
from ..lifecycle import Lifecycle
from ..serialization import parse_instant
from ..session import SessionEvent
from ..table import SESSION_LIFECYCLE
from .abc import Outcome, prepared_each
from .feed import fed
from .owners import OwnerLocks
from .reading import read_event, read_state
from .records import Abandoned, Commit, Fed, Stored, Work, WorkKind
from .sqlite_commit import PreparedCommit, key, leave_behind, leave_only, tail_of
from .sqlite_connection import BUSY_TIMEOUT_SECONDS, Connections
from .sqlite_feed import feed_rows
from .sqlite_keys import (
    RekeyReport,
    SessionKeys,
    is_covered,
    overwrite_what_is_deleted,
    uncovered_state,
    without_what_is_encrypted,
)
from .sqlite_schema import rule_problems, schema_problems
from .sqlite_tables import SqliteTables, item_problems
from .sqlite_traffic import traffic_of

logger = logging.getLogger(__name__)

_LOAD = """
SELECT session.session_id, CAST(session.state AS BLOB), session.revision, session.lifecycle,
    session.status, session.digest, NULL, NULL
FROM session
"""
# In one statement with what they open: the session may be purged, and its id used again.
_LOAD_WITH_KEY = """
SELECT session.session_id, CAST(session.state AS BLOB), session.revision, session.lifecycle,
    session.status, session.digest, session_key.key_id, session_key.wrapped
FROM session LEFT JOIN session_key USING (session_id)
"""
_HISTORY = """(
    SELECT session_id, revision, body, digest FROM session_checkpoint WHERE session_id = :id
    UNION ALL
    SELECT session_id, revision, body, digest FROM session_event WHERE session_id = :id
)"""
_EVENTS = f"SELECT revision, body, digest, NULL, NULL FROM {_HISTORY} ORDER BY revision"  # noqa: S608 - constant
_EVENTS_WITH_KEY = (
    f"SELECT revision, body, digest, key_id, wrapped FROM {_HISTORY}"  # noqa: S608 - constant
    " LEFT JOIN session_key USING (session_id) ORDER BY revision"
)
_KINDS: dict[str, WorkKind] = {
    "task": "task",
    "start": "start",
    "stop": "stop",
    "worker": "worker",
}


class SqliteStore(SqliteTables):
    """Sessions in an SQLite file, written durably, shared by the processes of one machine.

    Beside the file lies a directory `<file>.owners` with a lock for each living owner.

    Args:
        path: The file; made if it is missing, its directory is not.
        lifecycle: The lifecycle whose sessions it holds; others may share the file.
        busy_timeout_seconds: Longest wait for a writer of another process.
        keyring: What `llm_config` and `metadata`, in states and histories, and the values of tables
            are encrypted with; None: they are written as they are, and sessions that are encrypted
            can't be read.

    Attributes:
        path: The file.
        key_id: The name of the key that new sessions are encrypted with; None: they are not.

    Raises:
        StoreUnavailableError: It can't be opened.
        CorruptRecordError: It is no database, or a broken one.
        SchemaVersionError: It is somebody else's, or of a version that is not known here.
        LifecycleError: It knows a lifecycle of this name with other rows.
    """

    durable = True
    commits_together = True

    def __init__(
        self,
        path: Path | str,
        lifecycle: Lifecycle = SESSION_LIFECYCLE,
        *,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
        keyring: Keyring | None = None,
    ) -> None:
        self.key_id = None if keyring is None else keyring.key_id
        self._load, self._events = (
            (_LOAD, _EVENTS) if keyring is None else (_LOAD_WITH_KEY, _EVENTS_WITH_KEY)
        )
        self.path = Path(path)
        self.url = f"sqlite:///{self.path}"
        self.lifecycle = lifecycle
        # SQLite follows links to the file itself; whoever comes by another name meets these too.
        real = self.path.resolve()
        locks = real.with_name(f"{real.name}.owners")
        self._owners = OwnerLocks(locks)
        self._connections = Connections(
            self.path,
            lifecycle=lifecycle,
            lock_directory=locks,
            busy_timeout_seconds=busy_timeout_seconds,
        )
        self._keys = SessionKeys(keyring, self._connections.reading)

    # --- one session ----------------------------------------------------------------------

    def load(self, session_id: str) -> Stored | None:
        with self._connections.reading() as reader:
            one = f"{self._load} WHERE session_id = ?"
            row = reader.execute(one, (key(session_id),)).fetchone()
        return None if row is None else self._stored(row)

    def _stored(
        self, row: tuple[str, bytes, int, str, str, str, str | None, bytes | None]
    ) -> Stored:
        session_id, text, revision, lives_by, status, digest, key_id, wrapped = row

        def uncovered(covered: bytes) -> bytes:
            data_key = self._keys.key_of(session_id, key_id, wrapped)
            return uncovered_state(covered, session_id, revision, data_key)

        state = read_state(
            text,
            self.lifecycle,
            session_id=session_id,
            lives_by=lives_by,
            status=status,
            uncover=uncovered if key_id is not None or is_covered(text) else None,
        )
        return Stored(state, revision, digest)

    def tail(self, session_id: str) -> tuple[int, str]:
        with self._connections.reading() as reader:
            return tail_of(reader, session_id)

    def commit(self, commit: Commit) -> None:
        self._connections.commit(self._prepared(commit))

    def _prepared(self, commit: Commit) -> PreparedCommit:
        if not self._owners.holds(commit.owner_id):
            self._connections.check_open()
            raise FencedError(session_id=commit.session_id, owner_id=commit.owner_id)
        cover = self._keys.cover(commit) if self.key_id is not None else None
        return PreparedCommit(commit, self.lifecycle, cover)

    def commit_all(self, commits: Sequence[Commit]) -> list[Outcome]:
        outcomes, prepared = prepared_each(self._prepared, commits)
        if prepared:
            errors = self._connections.commit_all(prepared.values())
            outcomes.update(zip(prepared, errors, strict=True))
        return [outcomes[place] for place in range(len(commits))]

    def landed(self, session_id: str, operation_id: str) -> bool:
        query = "SELECT 1 FROM session_event WHERE session_id = ? AND operation_id = ? LIMIT 1"
        with self._connections.reading() as reader:
            found = reader.execute(query, (key(session_id), operation_id)).fetchone()
        return found is not None

    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        rows = self._event_rows(session_id)
        if not rows:
            return ()
        unveil = self._keys.unveil(session_id, *rows[0][3:])
        return tuple((bytes(row[1]), self._event(session_id, row, unveil)) for row in rows)

    def chain(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        rows = self._event_rows(session_id)
        unveil = without_what_is_encrypted
        return tuple((bytes(row[1]), self._event(session_id, row, unveil)) for row in rows)

    def _event_rows(self, session_id: str) -> list[Any]:
        with self._connections.reading() as reader:
            return reader.execute(self._events, {"id": key(session_id)}).fetchall()

    def _event(self, session_id: str, row: Any, unveil: Unveil) -> SessionEvent:
        revision, body, digest, *_ = row
        return read_event(
            body, digest, self.lifecycle, session_id=session_id, revision=revision, unveil=unveil
        )

    # --- the feed -------------------------------------------------------------------------

    def feed(self, after: int, limit: int, session_id: str | None = None) -> Fed:
        whose = None if session_id is None else key(session_id)
        with self._connections.reading() as reader:
            found = feed_rows(reader, self.lifecycle.name, after, limit, whose)

        def read(each: str, *row: Any) -> SessionEvent:
            return self._event(each, row, self._keys.unveil(each, *row[3:]))

        return fed(found, limit, read)

    # --- many sessions --------------------------------------------------------------------

    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        words = list(dict.fromkeys(str(status) for status in statuses))
        if not words:
            return ()
        # One run for each status, each in the order of its index: a page costs by its own length.
        run = (
            "SELECT * FROM (SELECT session_id FROM session INDEXED BY session_by_status"
            " WHERE lifecycle = ? AND status = ? AND session_id > ?"
            " ORDER BY session_id LIMIT ?)"
        )
        parameters: list[Any] = []
        for word in words:
            parameters += [self.lifecycle.name, word, after or "", limit]
        ids = f"{' UNION ALL '.join([run] * len(words))} ORDER BY session_id LIMIT ?"
        query = f"{self._load} WHERE session_id IN ({ids}) ORDER BY session_id"
        with self._connections.reading() as reader:
            rows = reader.execute(query, [*parameters, limit]).fetchall()
        return tuple(self._stored(row) for row in rows)

    def counts(self) -> dict[str, int]:
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT status, sessions FROM session_count WHERE lifecycle = ?",
                (self.lifecycle.name,),
            ).fetchall()
        return {status: count for status, count in rows if count}

    def traffic(self) -> dict[tuple[str, str], int]:
        with self._connections.reading() as reader:
            found, unreadable = traffic_of(reader, self.lifecycle.name)
        for session_id in unreadable:
            self.history(session_id)  # names the event, and says what is wrong with it
        return found

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        behind = ("", "") if after is None else (instant_text(after[0]), after[1])
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT deadline_at, session_id FROM session INDEXED BY session_by_deadline"
                " WHERE lifecycle = ? AND deadline_at IS NOT NULL AND deadline_at <= ?"
                " AND (deadline_at, session_id) > (?, ?)"
                " ORDER BY deadline_at, session_id LIMIT ?",
                (self.lifecycle.name, instant_text(at), *behind, limit),
            ).fetchall()
        return tuple((_deadline(*row), row[1]) for row in rows)

    def next_deadline(self) -> datetime | None:
        with self._connections.reading() as reader:
            row = reader.execute(
                "SELECT deadline_at, session_id FROM session INDEXED BY session_by_deadline"
                " WHERE lifecycle = ? AND deadline_at IS NOT NULL"
                " ORDER BY deadline_at, session_id LIMIT 1",
                (self.lifecycle.name,),
            ).fetchone()
        return None if row is None else _deadline(*row)

    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        # Sessions of other lifecycles have histories here too; theirs are not ours to judge.
        told = {"after": after or "", "lifecycle": self.lifecycle.name, "limit": limit}
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT DISTINCT session_id FROM session_event AS event"
                " WHERE session_id > :after AND NOT EXISTS (SELECT 1 FROM session"
                "  WHERE session.session_id = event.session_id AND session.lifecycle <> :lifecycle)"
                " ORDER BY session_id LIMIT :limit",
                told,
            ).fetchall()
            rows += reader.execute(
                "SELECT session_id FROM session WHERE session_id > :after"
                " AND lifecycle = :lifecycle ORDER BY session_id LIMIT :limit",
                told,
            ).fetchall()
        return tuple(sorted({session_id for (session_id,) in rows})[:limit])

    # --- work and its owners --------------------------------------------------------------

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        self._connections.check_open()
        self._owners.take(owner_id)

    def dismiss(self, owner_id: str) -> None:
        self._owners.drop(owner_id)

    def is_alive(self, owner_id: str) -> bool:
        self._connections.check_open()
        return self._owners.is_alive(owner_id)

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT kind, item FROM work WHERE session_id = ? ORDER BY kind, item",
                (key(session_id),),
            ).fetchall()
        return tuple(Work(_KINDS[kind], item) for kind, item in rows)

    def work_of(self, session_id: str, owner_id: str) -> tuple[Work, ...]:
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT kind, item FROM work WHERE session_id = ? AND owner_id = ?"
                " ORDER BY kind, item",
                (key(session_id), owner_id),
            ).fetchall()
        return tuple(Work(_KINDS[kind], item) for kind, item in rows)

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        query = (
            "SELECT work.session_id, owner_id, kind, item"
            " FROM work JOIN session USING (session_id) WHERE session.lifecycle = ?"
        )
        with self._connections.reading() as reader:
            if session_id is None:
                rows = reader.execute(query, (self.lifecycle.name,)).fetchall()
            else:
                one = f"{query} AND work.session_id = ?"
                rows = reader.execute(one, (self.lifecycle.name, key(session_id))).fetchall()
        alive = {owner: self._owners.is_alive(owner) for owner in {row[1] for row in rows}}
        if session_id is None:
            self._owners.clear()  # of those who have left nothing, nobody else would ask
        left: dict[tuple[str, str], list[Work]] = {}
        for each, owner, kind, item in rows:
            if not alive[owner]:
                left.setdefault((each, owner), []).append(Work(_KINDS[kind], item))
        return tuple(
            Abandoned(*key, tuple(sorted(work, key=lambda each: (each.kind, each.item))))
            for key, work in sorted(left.items())
        )

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        with self._connections.reading() as reader:
            rows = reader.execute(
                "SELECT session_id FROM work INDEXED BY work_to_stop"
                " WHERE owner_id = ? AND stop = 1 ORDER BY session_id",
                (owner_id,),
            ).fetchall()
        return tuple(session_id for (session_id,) in rows)

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        with self._connections.writing() as writer:
            writer.executemany(
                "DELETE FROM work WHERE session_id = ? AND kind = ? AND item = ? AND owner_id = ?",
                [(session_id, each.kind, each.item, owner_id) for each in work],
            )

    # --- ends -----------------------------------------------------------------------------

    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        with self._connections.reading() as reader:
            rows = reader.execute(
                f"{self._load} WHERE lifecycle = ? AND ended_at IS NOT NULL AND ended_at < ?"
                " ORDER BY ended_at, session_id LIMIT ?",
                (self.lifecycle.name, instant_text(before), limit),
            ).fetchall()
        return tuple(self._readable(rows))

    def _readable(self, rows: Iterable[Any]) -> Iterator[Stored]:
        for row in rows:
            try:
                yield self._stored(row)
            except (CorruptRecordError, KeyMissingError) as fault:
                # One that can't be read is left where it is, and keeps nobody else from leaving.
                logger.warning("not removed: %s", fault)

    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        with self._connections.writing() as writer:
            if self.key_id is not None:
                # Without its key the session can't be read in what is left of it anywhere.
                overwrite_what_is_deleted(writer)
            removed = writer.execute(
                "DELETE FROM session WHERE session_id = ? AND revision = ?",
                (session_id, revision),
            ).rowcount
            if removed != 1:
                found = tail_of(writer, session_id)[0]
                if not writer.execute(
                    "SELECT 1 FROM session WHERE session_id = ?", (session_id,)
                ).fetchone():
                    raise SessionNotFoundError(session_id=session_id)
                raise RevisionConflictError(session_id=session_id, expected=revision, found=found)
            writer.execute("DELETE FROM work WHERE session_id = ?", (session_id,))
            leave_only(writer, tombstone, self.lifecycle.name)

    def compact(self, checkpoint: Checkpoint) -> int:
        # Its key is the session's own: should the id have another life, the event is not there.
        sealed = checkpoint.sealed(self._keys.veil_of(checkpoint.event.session_id))
        with self._connections.writing() as writer:
            return leave_behind(writer, checkpoint, sealed)

    # --- the store itself -----------------------------------------------------------------

    def batch(self) -> AbstractContextManager[None]:
        return self._connections.batch()

    def mark(self, name: str) -> bytes | None:
        with self._connections.reading() as reader:
            row = reader.execute("SELECT body FROM mark WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_mark(self, name: str, body: bytes) -> None:
        with self._connections.writing() as writer:
            writer.execute(
                "INSERT INTO mark VALUES (?, ?) ON CONFLICT DO UPDATE SET body = excluded.body",
                (name, body),
            )

    def drop_mark(self, name: str) -> None:
        with self._connections.writing() as writer:
            writer.execute("DELETE FROM mark WHERE name = ?", (name,))

    def marks(self, prefix: str) -> tuple[tuple[str, bytes], ...]:
        # Names are in the order of their characters: those that begin so stand in one run.
        query = "SELECT name, body FROM mark WHERE name >= ? ORDER BY name"
        with (
            self._connections.reading() as reader,
            closing(reader.execute(query, (prefix,))) as rows,
        ):
            run = takewhile(lambda row: row[0].startswith(prefix), rows)
            return tuple((name, bytes(body)) for name, body in run)

    def rekey(self) -> RekeyReport:
        """Have the key of every session wrapped by the keyring's current key, page by page.

        No state and no event is written. It can be killed at any time and run again; other
        processes go on meanwhile, if their keyrings have both keys.

        Returns:
            How many were wrapped anew, and the sessions whose key could not be.

        Raises:
            ValueError: The store was opened without a keyring.
        """
        return self._keys.rekey(self._connections.writing)

    def check(self) -> tuple[str, ...]:
        with self._connections.reading() as reader:
            rows = reader.execute("PRAGMA integrity_check").fetchall()
            found = [f"database: {text}" for (text,) in rows if text != "ok"]
            found += [
                f"database: {problem}"
                for problem in (*schema_problems(reader), *rule_problems(reader, self.lifecycle))
            ]
            counted = dict(
                reader.execute(
                    "SELECT status, count(*) FROM session WHERE lifecycle = ? GROUP BY status",
                    (self.lifecycle.name,),
                ).fetchall()
            )
            found += item_problems(reader, self.lifecycle.name, self._keys)
        kept = self.counts()
        found += [
            f"database: {counted.get(word, 0)} sessions are {word!r}, {kept.get(word, 0)} counted"
            for word in sorted(counted.keys() | kept.keys())
            if counted.get(word, 0) != kept.get(word, 0)
        ]
        return tuple(found)

    def close(self) -> None:
        self._connections.close()
        self._owners.close()


def _deadline(text: str, session_id: str) -> datetime:
    try:
        return parse_instant(text)
    except ValueError as fault:
        problem = f"deadline_at: {fault}"
        raise CorruptRecordError(record=f"session {session_id!r}", problems=(problem,)) from fault
