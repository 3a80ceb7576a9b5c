"""What every store keeps to.

A store holds, for each session, its state at one revision (the snapshot) and the events that led
there, and writes both together or not at all. It decides nothing: what may be written is decided
by the table, before; that nobody else wrote meanwhile is the store's to see, by the revision.

Every store obeys the same contract, the one in memory included, and passes the same tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Literal

import attrs

from ..compaction import Checkpoint, fired
from ..drafts import draft_class
from ..errors import StoreUnavailableError
from ..history import Sealed, Step, Veil, seal
from ..lifecycle import Lifecycle
from ..session import PositionedEvent, SessionEvent
from ..state import SessionState

WorkKind = Literal["task", "start", "stop", "worker"]


@attrs.frozen
class Work:
    """Something in progress that an owner answers for as long as it lives.

    Attributes:
        kind: `task` (in flight), `start` and `stop` (being done), `worker` (running).
        item: The id of the task; empty for the others.
    """

    kind: WorkKind
    item: str = ""


class StoredStep:
    """One step, ready to be written; it becomes an event with bytes when that is first asked for.

    A store that keeps bytes asks at once. One that keeps objects need not, until somebody wants to
    see the history.

    Args:
        step: What was decided.
        revision: The revision that it leads to.
        previous: What its event is chained to.
        deadline_at: When the first timed row of its state fires; None if none will.

    Threads: safe; whoever asks first makes the event, and two who do make equal ones.
    """

    __slots__ = ("_previous", "_sealed", "deadline_at", "position", "revision", "step")

    position: int
    """Set by a store that keeps it as it is, for its own use."""

    def __init__(
        self, step: Step, revision: int, previous: Tail, deadline_at: datetime | None
    ) -> None:
        self.step = step
        self.revision = revision
        self.deadline_at = deadline_at
        self._previous = previous
        self._sealed: Sealed | None = None

    @property
    def state(self) -> SessionState:
        """The state that the step leads to."""
        return self.step.after

    @property
    def sealed(self) -> Sealed:
        """The event and its bytes."""
        if (sealed := self._sealed) is not None:
            return sealed
        # Not by recursion: a life may have any number of steps that nobody has asked for.
        waiting: list[StoredStep] = [self]
        while isinstance(previous := waiting[-1]._previous, StoredStep) and not previous._sealed:
            waiting.append(previous)
        for each in reversed(waiting):
            digest = digest_of(each._previous)
            sealed = each._sealed = seal(each.step, revision=each.revision, previous=digest)
            each._previous = digest  # the steps before it are not kept for its sake
        assert sealed is not None
        return sealed

    def seal_veiled(self, veil: Veil, previous: str | None) -> Sealed:
        """Make the event with its changes veiled in the bytes, before anybody asks for it.

        Args:
            veil: See `history.seal`.
            previous: The digest that it is chained to; None: the one that it was made with.
        """
        digest = digest_of(self._previous) if previous is None else previous
        sealed = seal(self.step, revision=self.revision, previous=digest, veil=veil)
        self._sealed, self._previous = sealed, digest
        return sealed


Tail = StoredStep | str
"""What the next event of an id is chained to: the step before it, or that one's digest."""


def digest_of(tail: Tail) -> str:
    """Return the digest that the next event is chained to."""
    return tail if isinstance(tail, str) else tail.sealed.event.digest


@attrs.frozen
class Stored:
    """A session as it is stored.

    Attributes:
        state: Its state.
        revision: The revision of its last event.
        tail: What the next event is chained to.
    """

    state: SessionState
    revision: int
    tail: Tail = attrs.field(eq=digest_of, repr=digest_of)

    @property
    def digest(self) -> str:
        """The digest of its last event."""
        return digest_of(self.tail)


@attrs.frozen(kw_only=True)
class Commit:
    """Steps of one session that are written together.

    Attributes:
        session_id: Whose steps.
        operation_id: Random; tells later whether the commit landed.
        owner_id: In whose name work is claimed.
        expected_revision: The revision that was decided from; of the last event of the id.
        creates: Whether the first step creates the session.
        steps: At least one, in order; each is written by itself, seen only together.
        claims: Work that the owner takes upon itself.
        releases: Work that nobody answers for any longer, whoever did.
        stops_worker: Whether a worker that runs for the session is to be stopped.
        origin: Where it creates: the tombstone that the id goes on from, if another store has it.
            A store whose own events of the id end earlier has it in their place.
    """

    session_id: str
    operation_id: str
    owner_id: str
    expected_revision: int
    creates: bool
    steps: tuple[StoredStep, ...]
    claims: tuple[Work, ...] = ()
    releases: tuple[Work, ...] = ()
    stops_worker: bool = False
    origin: Sealed | None = None


_new = object.__new__
_CommitDraft = draft_class(Commit)


def commit_of(
    session_id: str,
    operation_id: str,
    owner_id: str,
    expected_revision: int,
    creates: bool,
    steps: tuple[StoredStep, ...],
    claims: tuple[Work, ...],
    releases: tuple[Work, ...],
    stops_worker: bool,
) -> Commit:
    """Put together a commit, as quickly as can be; there is one for each change."""
    draft = _new(_CommitDraft)
    draft.session_id = session_id
    draft.operation_id = operation_id
    draft.owner_id = owner_id
    draft.expected_revision = expected_revision
    draft.creates = creates
    draft.steps = steps
    draft.claims = claims
    draft.releases = releases
    draft.stops_worker = stops_worker
    draft.origin = None
    draft.__class__ = Commit
    commit: Commit = draft
    return commit


@attrs.frozen
class Abandoned:
    """What a dead owner left in one session."""

    session_id: str
    owner_id: str
    work: tuple[Work, ...]


@attrs.frozen
class Fed:
    """What the feed of a store tells, as of one moment.

    Attributes:
        events: Those that were asked for, in the order of their commits; may be empty.
        position: Up to where they were read; that of the last of them if there may be more.
        newest: The position of the newest event of the store.
        removed: The highest position of an event that was removed, of the session that was asked
            for, or of all; 0 if none was.
    """

    events: tuple[PositionedEvent, ...]
    position: int
    newest: int
    removed: int


def carried_over(commit: Commit, tail: int) -> Sealed | None:
    """Return the tombstone of another store that a commit brings, if it is newer than a tail."""
    origin = commit.origin
    return origin if origin is not None and tail < origin.event.revision else None


class SessionStore(ABC):
    """Where the sessions of one lifecycle are kept.

    Every method may raise `StoreUnavailableError` (it can't be reached, or is full, locked or
    read-only) and `ManagerClosedError` is never raised here: a closed store is unavailable.

    Attributes:
        url: Where it is; a password in it is hidden.
        lifecycle: The lifecycle whose sessions it holds.
        durable: Whether what it holds outlives the process.

    Threads: every method is safe.
    """

    url: str
    lifecycle: Lifecycle
    durable: bool

    # --- one session ----------------------------------------------------------------------

    @abstractmethod
    def load(self, session_id: str) -> Stored | None:
        """Read a session, or None if there is none.

        Raises:
            CorruptRecordError: It is there and can't be read.
            KeyMissingError: It is there, encrypted, and the store has no key for it.
            SchemaVersionError: It has a format that is not known here.
            LifecycleError: It is there and runs in another lifecycle.
        """

    @abstractmethod
    def tail(self, session_id: str) -> tuple[int, str]:
        """Return the revision and the digest of the last event of an id; (0, "") if none."""

    @abstractmethod
    def commit(self, commit: Commit) -> None:
        """Write the steps of one session; durable on return, unless a batch is open.

        Raises:
            SessionExistsError: It creates a session, and there is one.
            SessionNotFoundError: It moves a session that is not there.
            RevisionConflictError: The stored revision is not the expected one.
            StoreUnavailableError: It carries the operation id if the commit may have landed.
        """

    @abstractmethod
    def landed(self, session_id: str, operation_id: str) -> bool:
        """Tell whether a commit of a session with this operation id was made.

        Of one whose events a checkpoint stands for, nothing is known any longer.
        """

    @abstractmethod
    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        """Return the stored bytes and the event of each step of an id, oldest first.

        If the session was compacted, its checkpoint is the first of them.

        Raises:
            CorruptRecordError: An event can't be read.
            SchemaVersionError: An event has a format that is not known here.
        """

    def chain(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        """Return what `history` does, but for changes that are encrypted: it needs no key for them.

        It is for who checks the chain; errors as `history`.
        """
        return self.history(session_id)

    # --- the feed -------------------------------------------------------------------------

    @abstractmethod
    def feed(self, after: int, limit: int, session_id: str | None = None) -> Fed:
        """Return the first events behind a position, of one session or of all.

        What is removed leaves a hole, but no position is ever given twice, and a commit that is
        seen later has higher ones. A checkpoint has no position. If an event can't be read, those
        before it are returned.

        Args:
            after: A position; 0 is before the first.
            limit: Most events; none for 0.
            session_id: Whose events; None: those of all sessions of the lifecycle.

        Raises:
            CorruptRecordError: The first of them can't be read.
            SchemaVersionError: The first of them has a format that is not known here.
            KeyMissingError: The first of them is encrypted, and the store has no key for it.
        """

    # --- many sessions --------------------------------------------------------------------

    @abstractmethod
    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        """Return the first sessions in any of these statuses, by id, behind `after`.

        Raises:
            CorruptRecordError: One of them can't be read.
        """

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return how many sessions are in each status; a status may be left out if none is."""

    def traffic(self) -> dict[tuple[str, str], int]:
        """Return how often rows were fired, by (trigger, source); rows that never were may lack.

        Counted are the lives that are stored: what was purged is not. A store that can count where
        the events are does so; this reads every history.

        Raises:
            CorruptRecordError: An event can't be read.
            SchemaVersionError: An event has a format that is not known here.
        """
        events = (event for each in all_ids(self) for _, event in self.history(each))
        return fired(events)

    @abstractmethod
    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        """Return deadlines at or before an instant, with their sessions, in order, behind one."""

    @abstractmethod
    def next_deadline(self) -> datetime | None:
        """Return the earliest deadline of all, or None."""

    @abstractmethod
    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        """Return ids that have a session or a history, in order, behind `after`."""

    # --- work and its owners --------------------------------------------------------------

    @abstractmethod
    def enlist(self, owner_id: str) -> None:
        """Make an owner known; it lives until it is dismissed, or its process ends."""

    @abstractmethod
    def dismiss(self, owner_id: str) -> None:
        """Declare an owner of this process dead; what it left can be recovered."""

    @abstractmethod
    def is_alive(self, owner_id: str) -> bool:
        """Tell whether an owner lives; one that nobody knows does not."""

    @abstractmethod
    def work_in(self, session_id: str) -> tuple[Work, ...]:
        """Return all work in progress in a session, whoever answers for it."""

    @abstractmethod
    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        """Return what dead owners left, by session; of one session, or of all."""

    @abstractmethod
    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        """Return the sessions whose worker this owner runs and has to stop."""

    @abstractmethod
    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        """Let go of work of one owner, where no step of the session does it."""

    # --- ends -----------------------------------------------------------------------------

    @abstractmethod
    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        """Return final sessions that ended before an instant, those that ended first first."""

    @abstractmethod
    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        """Remove a final session and its events; the tombstone is left in their place.

        Raises:
            RevisionConflictError: The stored revision is not this one.
            SessionNotFoundError: It is not there.
        """

    def compact(self, checkpoint: Checkpoint) -> int:
        """Put a checkpoint in the place of the events up to its revision, in one transaction.

        Returns:
            How many events were replaced; another checkpoint may have taken the place of some
            since this one was made.

        Raises:
            SessionNotFoundError: The session is not there.
            RevisionConflictError: The event of that revision is not there any longer, has another
                digest, or is the last one, which stays.
            StoreUnavailableError: This kind of store keeps every event.
        """
        raise StoreUnavailableError(problem=f"{self.url}: this kind of store keeps every event")

    # --- the store itself -----------------------------------------------------------------

    @abstractmethod
    def batch(self) -> AbstractContextManager[None]:
        """Make everything that this thread does inside one transaction, durable at its end.

        An exception undoes it all. Other threads' commits wait. Batches do not nest.
        """

    @abstractmethod
    def mark(self, name: str) -> bytes | None:
        """Return what was kept under a name, or None."""

    @abstractmethod
    def set_mark(self, name: str, body: bytes) -> None:
        """Keep something under a name, such as the position of whoever feeds the store."""

    @abstractmethod
    def drop_mark(self, name: str) -> None:
        """Keep nothing under a name any longer; twice is harmless."""

    @abstractmethod
    def marks(self, prefix: str) -> tuple[tuple[str, bytes], ...]:
        """Return the names that begin so, in order, each with what is kept; may be empty."""

    @abstractmethod
    def check(self) -> tuple[str, ...]:
        """Return what is wrong with the store as such, in words; empty if nothing."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; twice is harmless."""


def ended_at(state: SessionState, lifecycle: Lifecycle) -> datetime | None:
    """Return when a session ended; None if it has not."""
    return state.status_since if state.status in lifecycle.final else None


def all_ids(store: SessionStore, size: int = 1000) -> Iterator[str]:
    """Yield every id of a store that has a session or a history, in order."""
    after: str | None = None
    while ids := store.ids(size, after):
        yield from ids
        after = ids[-1]
