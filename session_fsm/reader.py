"""The verbs that only look: nothing is written, no clock is moved, no activity is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from .core import Change, Core
from .decisions import check_names
from .errors import Refusal, SessionNotFoundError
from .explain import explain, permitted
from .fields import Problems, check_text
from .session import Page, Session, SessionEvent, session_of
from .stores.abc import Stored
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
            ValueError: The limit is below 1, or `after` is no text.
            LifecycleError: There is no such status.
        """
        self._core.check_open()
        if limit < 1:
            raise ValueError(f"a page has at least 1 session, not {limit}")
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

    def _session(self, found: Stored | Change) -> Session:
        state = found.state
        return session_of(state, found.revision, self._workers.get(state.session_id))
