"""The store for many machines: a PostgreSQL database, or an engine that speaks its protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..compaction import Checkpoint
from ..errors import SessionExistsError, SessionFsmError, StoreUnavailableError
from ..history import Sealed
from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from . import postgres_schema
from .abc import Outcome, prepared_each
from .postgres_checks import problems_of
from .postgres_clock import DatabaseClock, Seconds, boot_time
from .postgres_commit import PreparedCommit
from .postgres_connection import RETRY_SECONDS, STATEMENT_TIMEOUT_SECONDS, Connections
from .postgres_counts import counts
from .postgres_doubts import Doubts
from .postgres_hints import Hints
from .postgres_items import ItemWriter
from .postgres_leases import LEASE_SECONDS, Leases
from .postgres_links import MAX_CONNECTIONS, Connection
from .postgres_owning import PostgresOwning
from .postgres_reading import PostgresReading
from .postgres_removing import bury, compact, leave_only, tail_of
from .postgres_sql import HOLD, known
from .postgres_tables import PostgresTables
from .postgres_tending import Tending
from .postgres_tokens import TAKEN, Token, Tokens
from .postgres_traffic import traffic_of
from .postgres_writer import Writer
from .records import Commit, carried_over

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

MAX_BEATING: Final = 3
"""Connections that renew leases, say that owners are gone, and tend what is read later."""
MAX_HINTING: Final = 2
"""Connections that tell others of commits, and hear of theirs."""
MEASUREMENTS: Final = 3
"""So often is the database's clock asked when a store is opened; the best answer counts."""
_LANDED: Final = (
    f"SELECT owner_id, token, {TAKEN},"  # noqa: S608 - constants
    " EXISTS (SELECT 1 FROM {s}.session_event"
    " WHERE session_id = %(id)s::text AND operation_id = %(operation)s::text),"
    " coalesce((SELECT revision FROM {s}.session_event WHERE session_id = %(id)s::text"
    " ORDER BY revision DESC LIMIT 1), 0)"
    " FROM (SELECT 1) AS one LEFT JOIN {s}.session ON session_id = %(id)s::text"
)
_MARK: Final = "SELECT body FROM {s}.mark WHERE name = %s::text"
_MARK_NOW: Final = f"{_MARK} FOR UPDATE"
_SET_MARK: Final = (
    "INSERT INTO {s}.mark (name, body) VALUES (%s::text, %s::bytea)"
    " ON CONFLICT (name) DO UPDATE SET body = excluded.body"
)
_DROP_MARK: Final = "DELETE FROM {s}.mark WHERE name = %s::text"
_MARKS: Final = (
    "SELECT name, body FROM {s}.mark WHERE name >= %s::text AND name < %s::text"
    " AND starts_with(name, %s::text) ORDER BY name"
)
_LAST: Final = "\U0010ffff"


class PostgresStore(PostgresOwning, PostgresReading, PostgresTables):
    """Sessions in a PostgreSQL database, shared by any number of processes on any machines.

    Owners live by the clock of the database, as long as they renew their leases; a session whose
    worker runs, or is being started, belongs to one of them, with a token that grows with each
    change of hands. What an owner writes that does not live, or with an old token, is refused.

    Args:
        url: `postgresql://user@host:port/database?schema=name&prepare=true`, and whatever else
            libpq takes, TLS included; None: a pool is given.
        lifecycle: The lifecycle whose sessions it holds; others may share the schema.
        pool: An open pool of connections, which stays its owner's: it is never closed here, and its
            connections have its own time-outs. The store keeps none of them, so that commits of
            others are only found, not heard of. It needs one for each thread that calls at once,
            one that heartbeats find free, and two more for a moment, to tend and to tell of
            commits; if it is used up for longer than a third of a lease, owners may lapse.
        schema: The schema; None: what the URL says, or `session_fsm`.
        prepare: Whether statements are prepared; False where a pooler hands connections round by
            transaction, and knows nothing of that; None: what the URL says, or True. The
            connections of a pool do as their owner says.
        statement_timeout_seconds: Longest time for one statement, and for which a transaction may
            stand still, such as a batch; None: what the role has, and nothing is said when a
            connection begins.
        retry_seconds: For how long a lost server is tried again, before an error is raised.
        max_connections: Most connections at once for whoever calls. Beside them are up to three
            that renew leases and tend, and two for hints, one of those from the first watch on.
        lease_seconds: How long an owner lives without a renewal; the same for every node.
        margin_seconds: How much earlier an owner gives up itself; None: a third of that.
        seconds: Tells what has passed on this machine, while it was suspended, too.

    Attributes:
        clock: The clock of the database.
        lease_seconds: See there.

    Raises:
        ValueError: Neither a URL nor a pool, or both; or the URL can't be read.
        StoreUnavailableError: It can't be opened.
        SchemaVersionError: The schema is somebody else's, or of a version that is not known here.
        LifecycleError: It knows a lifecycle of this name with other rows.
    """

    durable = True
    commits_together = True

    def __init__(
        self,
        url: str | None = None,
        lifecycle: Lifecycle = SESSION_LIFECYCLE,
        *,
        pool: ConnectionPool[Any] | None = None,
        schema: str | None = None,
        prepare: bool | None = None,
        statement_timeout_seconds: float | None = STATEMENT_TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
        lease_seconds: float = LEASE_SECONDS,
        margin_seconds: float | None = None,
        seconds: Seconds = boot_time,
    ) -> None:
        where = url if pool is None else pool
        if where is None or (url is not None and pool is not None):
            raise ValueError("a PostgreSQL store has either a URL or a pool")
        self.lifecycle = lifecycle
        connect = partial(Connections, where, schema=schema, prepare=prepare)
        is_bounded = statement_timeout_seconds is not None
        connections = self._connections = connect(
            statement_timeout_seconds=statement_timeout_seconds,
            retry_seconds=retry_seconds,
            max_connections=max_connections,
        )
        self._sql = connections.sql
        self.url = connections.url
        self.clock = DatabaseClock(seconds)
        self.lease_seconds = lease_seconds
        # Who renews must not wait for whoever works, and must not wait long for anything.
        self._beats = connect(
            statement_timeout_seconds=lease_seconds / 10 if is_bounded else None,
            retry_seconds=0,
            max_connections=MAX_BEATING,
            silence_seconds=lease_seconds / (10 if is_bounded else 5),
            connect_timeout_seconds=lease_seconds / 10,
        )
        self._tending = Tending(self._beats)
        self._leases = Leases(
            connections,
            self._beats,
            clock=self.clock,
            beaten=self._tending.nudge,
            lease_seconds=lease_seconds,
            margin_seconds=margin_seconds,
            seconds=seconds,
        )
        self.margin_seconds = self._leases.margin_seconds
        self._writer = Writer(connections, self._note)
        self._hinting = connect(
            statement_timeout_seconds=statement_timeout_seconds,
            retry_seconds=0,
            max_connections=MAX_HINTING,
            connect_timeout_seconds=None if pool is None else lease_seconds / 10,
        )
        # Of a pool none is kept: it may have no other one.
        self._hints = Hints(self._hinting, listens=pool is None)
        self._tokens = Tokens(lambda: connections.in_batch)
        self._doubts = Doubts()
        try:
            connections.outside_batch(
                lambda link: postgres_schema.prepare(link, self._sql, lifecycle)
            )
            for _ in range(MEASUREMENTS):
                connections.outside_batch(self._leases.measure)
        except BaseException:
            self.close()
            raise

    # --- one session ----------------------------------------------------------------------

    def commit(self, commit: Commit) -> None:
        prepared = self._prepared(commit)
        self._make(prepared, partial(self._writer.commit, prepared))

    def commit_all(self, commits: Sequence[Commit]) -> list[Outcome]:
        outcomes, prepared = prepared_each(self._prepared, commits)
        made = self._writer.commit_all(tuple(prepared.values())) if prepared else []
        for (place, each), outcome in zip(prepared.items(), made, strict=True):
            if isinstance(outcome, SessionFsmError):
                self._failed(each)
            outcomes[place] = partial(self._make, each, outcome) if callable(outcome) else outcome
        return [outcomes[place] for place in range(len(commits))]

    def _prepared(self, commit: Commit) -> PreparedCommit:
        session_id, owner_id = commit.session_id, commit.owner_id
        self._leases.check(owner_id, session_id)
        self._doubts.claimed(commit)
        token = None if commit.creates else self._tokens.of(owner_id, session_id)
        return PreparedCommit(
            commit, self.lifecycle, self._sql, token=token, before=self._before(commit)
        )

    def _make(self, prepared: PreparedCommit, make: Callable[[], None]) -> None:
        try:
            make()
        except SessionFsmError:
            self._failed(prepared)
            raise

    def _failed(self, prepared: PreparedCommit) -> None:
        commit, token = prepared.commit, prepared.stated
        if token is not None and prepared.gave_up:
            self._tokens.drop(commit.owner_id, commit.session_id, token)

    def _before(self, commit: Commit) -> Callable[[Connection], None] | None:
        if commit.writes is not None:
            maker = ItemWriter(
                commit.session_id, self.lifecycle.name, commit.writes, commit.operation_id
            )
            return lambda link: maker.make(link, self._sql, commit.expected_revision)
        return None if commit.origin is None else lambda link: self._make_room(link, commit)

    def _make_room(self, link: Connection, commit: Commit) -> None:
        """Put the tombstone that a commit brings in the place of an older history."""
        session_id = commit.session_id
        origin = carried_over(commit, tail_of(link, self._sql, session_id)[0])
        if origin is not None:
            if link.execute(self._sql(HOLD), (session_id,)).fetchone() is not None:
                raise SessionExistsError(session_id=session_id)
            leave_only(link, self._sql, origin)

    def _note(self, made: PreparedCommit) -> None:
        self._tokens.keep(made.commit.owner_id, made.commit.session_id, made.token)
        if not self._connections.in_batch:
            self._hints.committed()

    def landed(self, session_id: str, operation_id: str) -> bool:
        told = {"id": known(session_id), "operation": operation_id}
        [(owner_id, number, taken, found, revision)] = self._rows(_LANDED, told)
        if not found and self._writer.is_open(operation_id, revision):
            problem = f"{self.url}: it was sent, and may still arrive"
            raise StoreUnavailableError(problem=problem, operation_id=operation_id)
        if found and owner_id is not None and self._leases.has(owner_id):
            # Nobody has been told what it made its owner's.
            self._tokens.keep(owner_id, session_id, Token(number, taken))
        return bool(found)

    # --- many sessions --------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        return counts(self._connections, self.lifecycle.name)

    def traffic(self) -> dict[tuple[str, str], int]:
        found, unreadable = self._connections.read(
            lambda link: traffic_of(link, self._sql, self.lifecycle.name)
        )
        for session_id in unreadable:
            self.history(session_id)  # names the event, and says what is wrong with it
        return found

    # --- ends -----------------------------------------------------------------------------

    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        event = tombstone.event

        def work(link: Connection) -> None:
            admit = partial(self._check_writer, link, session_id)
            bury(link, self._sql, session_id, revision, tombstone, admit=admit)

        def landed(link: Connection) -> bool:
            # The transaction may still be committing: it has the session locked, and is waited for.
            link.execute(self._sql(HOLD), (session_id,))
            return tail_of(link, self._sql, session_id) == (event.revision, event.digest)

        self._connections.write(work, landed=landed)

    def compact(self, checkpoint: Checkpoint) -> int:
        sealed = checkpoint.sealed(None)

        def work(link: Connection) -> int:
            admit = partial(self._check_writer, link, checkpoint.event.session_id)
            return compact(link, self._sql, checkpoint, sealed, admit=admit)

        return self._connections.write(work)

    # --- the store itself -----------------------------------------------------------------

    def batch(self) -> AbstractContextManager[None]:
        return self._batch()

    @contextmanager
    def _batch(self) -> Iterator[None]:
        with self._connections.batch(self._alone):
            yield
        self._hints.committed()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._writer.alone(), self._tokens.batch():
            yield

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        return self._hints.watch(callback)

    def mark(self, name: str) -> bytes | None:
        rows = self._rows(_MARK, (known(name),))
        return rows[0][0] if rows else None

    def set_mark(self, name: str, body: bytes) -> None:
        self._change(_SET_MARK, name, body)

    def drop_mark(self, name: str) -> None:
        self._change(_DROP_MARK, known(name))

    def _change(self, text: str, name: str, *body: bytes) -> None:
        before: Any = None

        def now(link: Connection) -> Any:
            return link.execute(self._sql(_MARK_NOW), (known(name),), binary=True).fetchone()

        def work(link: Connection) -> None:
            nonlocal before
            before = now(link)
            self._check_writer(link)
            link.execute(self._sql(text), (name, *body))

        # Whether it was this that has changed it or others, who came later: it is not done again.
        self._connections.write(work, landed=lambda link: now(link) != before)

    def marks(self, prefix: str) -> tuple[tuple[str, bytes], ...]:
        return tuple(
            (name, body) for name, body in self._rows(_MARKS, (prefix, _past(prefix), prefix))
        )

    def check(self) -> tuple[str, ...]:
        return self._connections.read(
            lambda link: tuple(problems_of(link, self._sql, self.lifecycle))
        )

    def close(self) -> None:
        if self._connections.is_inherited:
            return  # owners, threads and sockets are the parent's
        self._connections.close()
        self._leases.close()
        self._tending.close()
        self._hints.close()
        self._hinting.close()
        self._beats.close()


def _past(prefix: str) -> str:
    """Return a text behind all that begin so, and before all that stand behind those."""
    kept = prefix.rstrip(_LAST)
    if not kept:
        return _LAST * 64
    following = ord(kept[-1]) + 1
    # Between these two stand the halves of others, which are no text.
    return kept[:-1] + ("\ue000" if following == 0xD800 else chr(following))
