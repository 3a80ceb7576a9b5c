"""The verbs that only look: nothing is written, no clock is moved, no activity is noted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from typing import Any

from .changes import Change, Observer
from .core import Core
from .decisions import check_names
from .errors import Refusal, SessionNotFoundError
from .explain import explain, permitted
from .feeds import (
    POLL_SECONDS,
    check_position,
    check_waits,
    follow,
    newest_position,
    read_page,
)
from .fields import Problems, check_limit, check_text
from .hooks import entering, leaving
from .session import FeedPage, Page, PositionedEvent, Session, SessionEvent, session_of
from .stores.records import Stored
from .telling import Subscriber
from .workers import Workers


class SessionReader:
    """Looks at the sessions of a core.

    Args:
        core: The sessions and their store.
        workers: What runs for them here.

    Threads: safe.
    """

    def __init__(self, core: Core, workers: Workers) -> None:
        self._core = core
        self._workers = workers

    def get(self, session_id: str) -> Session:
        """Return a session as it is stored now.

        Raises:
            SessionNotFoundError: There is none.
            CorruptRecordError: It is there and can't be read.
        """
        return self._session(self._core.read(session_id))

    def find(self, session_id: str) -> Session | None:
        """Return a session as it is stored now, or None if there is none."""
        try:
            return self.get(session_id)
        except SessionNotFoundError:
            return None

    def list(
        self,
        *,
        status: str | Iterable[str] | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """Return sessions by id, page by page.

        Args:
            status: A status, or several; None: all that are not final.
            limit: Most sessions on the page; at least 1.
            after: `next` of the page before; None: the first page.

        Returns:
            Sessions in the order of their ids; `next` is None on the last page.

        Raises:
            ValueError: The limit is no number from 1 on, or `after` is no text.
            LifecycleError: There is no such status.
        """
        self._core.check_open()
        check_limit(limit, "sessions")
        problems: Problems = []
        if check_text(after, "after", problems) is not None and problems:
            raise ValueError("; ".join(problems))
        if status is None:
            words: tuple[str, ...] = self._core.lifecycle.live
        else:
            asked = (status,) if isinstance(status, str) else tuple(status)
            words = tuple(self._core.lifecycle.status(word) for word in asked)
        found = self._core.store.page(words, limit + 1, after)
        page = tuple(self._session(stored) for stored in found[:limit])
        return Page(page, page[-1].session_id if len(found) > limit else None)

    def counts(self) -> dict[str, int]:
        """Return how many sessions are in each status; every status is there."""
        self._core.check_open()
        found = self._core.store.counts()
        return {status: found.get(status, 0) for status in self._core.lifecycle.statuses}

    def traffic(self) -> dict[tuple[str, str], int]:
        """Return how often each row was fired in the lives that are stored, by (trigger, source).

        Every row is there with each of its sources. What was purged is not counted.

        Raises:
            CorruptRecordError: An event can't be read.
        """
        self._core.check_open()
        found = self._core.store.traffic()
        known = {(row.trigger, source): 0 for row, source in self._core.lifecycle.moves()}
        return known | found

    def explain(self, session_id: str, trigger: str, **arguments: Any) -> Refusal | None:
        """Tell why a trigger would be refused now, or None if no guard speaks against it.

        Raises:
            SessionNotFoundError: There is no such session.
            TypeError: The row takes no such argument.
        """
        check_names(arguments)
        state = self._core.read(session_id).state
        now = self._core.clock.now()
        return explain(state, trigger, at=now, lifecycle=self._core.lifecycle, **arguments)

    def permitted(self, session_id: str, **arguments: Any) -> tuple[str, ...]:
        """List the triggers that would be accepted now, in the table's order."""
        check_names(arguments)
        state = self._core.read(session_id).state
        now = self._core.clock.now()
        return permitted(state, at=now, lifecycle=self._core.lifecycle, **arguments)

    def history(self, session_id: str) -> tuple[SessionEvent, ...]:
        """Return the events of an id, oldest first; of a purged one, its tombstone.

        Raises:
            SessionNotFoundError: The id has no history.
            CorruptRecordError: An event can't be read.
        """
        self._core.check_open()
        events = tuple(event for _, event in self._core.store.history(session_id))
        if not events:
            raise SessionNotFoundError(session_id=session_id)
        return events

    # --- feeds ----------------------------------------------------------------------------

    def position(self, session_id: str | None = None) -> int:
        """Return the position behind all that was committed so far, by whomever.

        Who takes it first, then reads sessions, and then follows what comes behind it misses
        nothing.

        Args:
            session_id: Whose feed is going to be read; None: that of all sessions.
        """
        return newest_position(self._core, session_id)

    def read_events(
        self, after: int | None = 0, session_id: str | None = None, *, limit: int = 1000
    ) -> FeedPage:
        """Return what happened behind a position, in the order of the commits of all processes.

        Told are the events of kind `created`, `moved`, `changed` and `purged`. Sessions that are
        not kept (`persistence_enabled=False` on a durable store) are told to who asks for one of
        them, and not in the feed of all: no position of theirs holds longer than they do.

        Args:
            after: The `position` of the page before, or of the last event that was dealt with;
                it holds across restarts. 0: from the beginning of what is kept. None: only what
                comes from now on, so the page is empty. The negative of a position: from there,
                though some of it was removed before it was read.
            session_id: Whose events; None: those of all sessions. An id that has none yet may have
                some later.
            limit: Most events; at least 1.

        Returns:
            The events, and the position to go on from. Fewer events than the limit are all that
            there are now. In a batch, what the batch has done so far is among them, and its
            positions count for nothing if it is undone.

        Raises:
            FeedGapError: Events that were not read yet were removed by `purge` or `compact`; or the
                store has never been at this position. It says from where on all are kept.
            CorruptRecordError: The very next event can't be read. `after + 1` leaves it out, once
                it is the next number.
            KeyMissingError: The very next event is encrypted, and the store has no key for it.
            TypeError, ValueError: The position or the limit is none.
        """
        return read_page(self._core, after, session_id, limit)

    def events(
        self,
        session_id: str | None = None,
        *,
        after: int | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> Generator[PositionedEvent, None, None]:
        """Yield what happens behind a position as it comes, and wait for more.

        What is yielded, and where it ends or begins, is as for `read_events`. It waits for what
        this manager commits, and looks for what other processes did. It ends when the manager is
        closed; in a batch, where nothing can come, it ends when there is nothing more. However
        slowly it is read, it has little in hand and holds up nobody.

        Args:
            session_id: Whose events; None: those of all sessions.
            after: The position of the last event that was dealt with; None: only what comes after
                this call.
            timeout_seconds: Longest wait for the next event, by the manager's clock; then it ends.
                None: for ever.
            poll_seconds: How often it looks for what other processes did.

        Raises:
            FeedGapError: On the way: events were removed before they were read. It has ended then.
        """
        self._core.check_open()
        check_position(after)
        check_waits(timeout_seconds, poll_seconds)
        return follow(
            self._core,
            self.position(session_id) if after is None else after,
            session_id,
            timeout_seconds=timeout_seconds,
            poll_seconds=poll_seconds,
        )

    def next_deadline(self) -> datetime | None:
        """Return when the first timed row is due, or None if no clock runs."""
        self._core.check_open()
        return self._core.store.next_deadline()

    def subscribe(self, callback: Subscriber, session_id: str | None = None) -> Callable[[], None]:
        """Have a callback told of every event that this manager commits from now on.

        It runs on a verb's thread, after the commit, before the verb returns, in the order of the
        revisions of each session; no lock of a session is held, so it may call the manager. What
        it raises is logged.

        Args:
            callback: Called with each event.
            session_id: Only events of this session; None: of all.

        Returns:
            A function that ends it.
        """
        return self._core.subscribe(callback, session_id)

    def on_enter(self, status: str, hook: Subscriber) -> Callable[[], None]:
        """Have a hook called when a session has entered a status, by a move or by its creation.

        It is called as `subscribe` says: after the commit, and what it raises is logged.

        Args:
            status: A status or its word.
            hook: Called with the event.

        Returns:
            A function that ends it.

        Raises:
            LifecycleError: There is no such status.
        """
        return self._core.subscribe(entering(self._core.lifecycle, status, hook), None)

    def on_leave(self, status: str, hook: Subscriber) -> Callable[[], None]:
        """Have a hook called when a session has moved out of a status; all else as `on_enter`."""
        return self._core.subscribe(leaving(self._core.lifecycle, status, hook), None)

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Have each change made by an observer, and each commit told to it; for instruments.

        Args:
            observer: See `session_fsm.changes.Observer`.

        Returns:
            A function that ends it; twice is harmless.

        Raises:
            ValueError: There is one already.
        """
        self._core.check_open()
        if self._core.observer is not None:
            raise ValueError("the manager is being observed already")
        observer.begin(self.counts)
        self._core.observer = observer

        def end() -> None:
            if self._core.observer is observer:
                self._core.observer = None

        return end

    def _session(self, found: Stored | Change) -> Session:
        state = found.state
        return session_of(state, found.revision, self._workers.get(state.session_id))
