"""What every store keeps to.

A store holds, for each session, its state at one revision (the snapshot) and the events that led
there, and writes both together or not at all. It decides nothing: what may be written is decided
by the table, before; that nobody else wrote meanwhile is the store's to see, by the revision.

Every store obeys the same contract, the one in memory included, and passes the same tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from ..clock import SYSTEM_CLOCK, Clock
from ..compaction import Checkpoint, fired
from ..errors import StoreUnavailableError
from ..history import Sealed
from ..items import Item, ItemWrites, Written
from ..lifecycle import Lifecycle
from ..session import SessionEvent
from .records import Abandoned, Commit, Fed, Stored, Taken, Work


class NotTogetherError(StoreUnavailableError):
    """A commit that was not written, as it can't be together with others; by itself it may be."""


Outcome = BaseException | Callable[[], None] | None
"""What came of a commit: it was written (None), or was not, or a call that may last finds out."""

T = TypeVar("T")


def prepared_each(
    prepare: Callable[[Commit], T], commits: Iterable[Commit]
) -> tuple[dict[int, Outcome], dict[int, T]]:
    """Prepare commits, each by itself.

    Returns:
        By their places: the errors of those that can't be, and the others.
    """
    errors: dict[int, Outcome] = {}
    prepared: dict[int, T] = {}
    for place, commit in enumerate(commits):
        try:
            prepared[place] = prepare(commit)
        except Exception as fault:  # noqa: BLE001 - of whatever kind: it is this one's
            errors[place] = fault
    return errors, prepared


class SessionStore(ABC):
    """Where the sessions of one lifecycle are kept.

    Every method may raise `StoreUnavailableError` (it can't be reached, or is full, locked or
    read-only) and `ManagerClosedError` is never raised here: a closed store is unavailable.

    Attributes:
        url: Where it is; a password in it is hidden.
        lifecycle: The lifecycle whose sessions it holds.
        durable: Whether what it holds outlives the process.
        clock: What its managers go by, unless they are handed another one.
        lease_seconds: How long an owner is counted as alive without being heard of; None: for as
            long as its process lives.
        margin_seconds: How much earlier it lapses: it has so long to stop what it runs, before
            others may begin.
        commits_together: Whether many commits by `commit_all` take less than each by itself on a
            thread of its own. False for a kind of store that has a `commit` of its own and no
            `commit_all`; one that is put upon an instance is not seen.

    Threads: every method is safe.
    """

    url: str
    lifecycle: Lifecycle
    durable: bool
    clock: Clock = SYSTEM_CLOCK
    lease_seconds: float | None = None
    margin_seconds: float = 0.0
    commits_together: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        definers = [kind for kind in cls.__mro__ if "commit" in vars(kind)]
        together = {"commit_all", "commits_together"}
        nearest = next(kind for kind in cls.__mro__ if together & vars(kind).keys())
        if cls.__mro__.index(definers[0]) < cls.__mro__.index(nearest):
            cls.commits_together = False  # what its commit does besides is not to be passed over

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
            ItemConflictError: An item is not at the version that a write expects.
            FencedError: The owner in whose name it is made does not live, or has lost the session.
            StoreUnavailableError: It carries the operation id if the commit may have landed.
        """

    def commit_all(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Write the steps of several sessions, at one go where that is possible; not in a batch.

        None is harmed by another one that is refused, or has to wait.

        Args:
            commits: Each of another session.

        Returns:
            For each, in order: None if it is durable; an error as of `commit`, or
            `NotTogetherError`; or, where its answer was lost, what sees to it that it is made, and
            raises as `commit` does: to be called once, on any thread.

        Raises:
            StoreUnavailableError: Nothing was written of any.
        """
        return [self._outcome(commit) for commit in commits]

    def _outcome(self, commit: Commit) -> Exception | None:
        try:
            self.commit(commit)
        except Exception as fault:  # noqa: BLE001 - of whatever kind: it is this one's
            return fault
        return None

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

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have something called when another process may have committed; returns what ends that.

        It is a hint, which may come late, too often, or never: whoever waits looks by itself now
        and then. It is called on any thread, has to be quick and to raise nothing.
        """
        return _nothing

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

    # --- tables of a session --------------------------------------------------------------

    @abstractmethod
    def item(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        """Return an item; None if there is none, or it has expired at an instant.

        Raises:
            SessionNotFoundError: The session is not there.
            LifecycleError: The session runs in another lifecycle.
            CorruptRecordError: The item is there and can't be read.
            KeyMissingError: It is there, encrypted, and the store has no key for it.
            SchemaVersionError: It is encrypted in a format that is not known here.
        """

    @abstractmethod
    def items(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> tuple[Item, ...]:
        """Return the first items of a table that have not expired, by key, behind `after`.

        Errors as for `item`.
        """

    @abstractmethod
    def write_items(
        self,
        session_id: str,
        expected_revision: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        """Write to tables of a session, all or nothing; durable on return, unless in a batch.

        The session stays at its revision, which has to be the one that this was decided from. A
        version is one higher than the last one that the session has given.

        Returns:
            What came of each write, in order.

        Raises:
            SessionNotFoundError: The session is not there.
            LifecycleError: The session runs in another lifecycle.
            RevisionConflictError: The stored revision is not the expected one.
            ItemConflictError: An item is not at the version that a write expects.
            KeyMissingError: The session is encrypted, and the store has no key for it.
            FencedError: The owner in whose name it is done does not live, or has lost the session.
            StoreUnavailableError: It carries the operation id if they may have been written.
        """

    @abstractmethod
    def drop_expired_items(self, at: datetime, limit: int) -> int:
        """Remove items that have expired at an instant, so many at most; returns how many."""

    # --- work and its owners --------------------------------------------------------------

    @abstractmethod
    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        """Make an owner known; it lives until it is dismissed, its process ends, or it lapses.

        Args:
            owner_id: A new one: whoever has died does not live again.
            lapsed: Called when the owner can't be sure any longer that it is counted as alive,
                because the store could not be told so in time. What runs in its name has to be
                stopped then. It is called on a thread of its own, again until it returns without
                an exception.
        """

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
    def work_of(self, session_id: str, owner_id: str) -> tuple[Work, ...]:
        """Return the work in progress in a session for which one owner answers."""

    @abstractmethod
    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        """Return what dead owners left, by session; of one session, or of all."""

    def take_over(
        self, owner_id: str, limit: int, *, restarting: bool, passing_over: Collection[str] = ()
    ) -> tuple[Taken, ...]:
        """Give work of dead owners to a living one: each session to one of those who ask for it.

        This leaves it in the name of the dead, and to the next commit: whoever commits first has
        it.

        Args:
            owner_id: Who takes it.
            limit: Most sessions; a store that leaves the work in the name of the dead gives all.
            restarting: Whether sessions whose worker is to be started anew are among them.
            passing_over: Ids of sessions that are not, whatever was left in them.

        Returns:
            What was taken, by session.
        """
        left = self.abandoned()
        return tuple(
            Taken(
                session_id=each.session_id,
                owner_id=each.owner_id,
                work=each.work,
                holder_id=each.owner_id,
            )
            for each in left
            if each.session_id not in passing_over and (restarting or not self._restarts(each))
        )

    def _restarts(self, left: Abandoned) -> bool:
        if Work("worker") not in left.work:
            return False
        stored = self.load(left.session_id)
        return stored is not None and stored.state.config.recovery == "restart"

    def give_back(self, taken: Taken) -> None:  # noqa: B027 - where nothing was taken, that is all
        """Have work that was taken over be the dead owner's again, for whoever asks next.

        It was no attempt then: where attempts are counted, all is as it was before.
        """

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
        """Remove a final session, its events and tables; the tombstone is left in their place.

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


def _nothing() -> None: ...


def all_ids(store: SessionStore, size: int = 1000) -> Iterator[str]:
    """Yield every id of a store that has a session or a history, in order."""
    after: str | None = None
    while ids := store.ids(size, after):
        yield from ids
        after = ids[-1]
