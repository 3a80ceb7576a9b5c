"""Whoever waits for what is committed: it is called, and looks into the store for itself.

What this manager commits rings a bell. What other processes do is looked for by whoever waits, in
turns: however many wait, the store is asked once in their interval, and only those whom it concerns
are woken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from .clock import Clock
from .errors import StoreError
from .stores.abc import SessionStore
from .stores.records import Fed

MOST_LOOKED_AT: Final = 1000
"""Most events of others that are looked at to find whom they concern; more concern everybody."""

_NOTHING_SEEN: Final = -1

Callback = Callable[[], object]


class Bell:
    """Rings after each commit of a manager, and when that is closed.

    Who rings does nothing but make the calls: what was committed is neither told nor kept, so
    nobody who reads slowly, or not at all, costs whoever commits more than that.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str | None, dict[object, Callback]] = {}
        self._changing = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether anybody listens."""
        return bool(self._callbacks)

    @property
    def sessions(self) -> int:
        """Of how many sessions somebody listens to the events of that session alone."""
        return len(self._callbacks) - (None in self._callbacks)

    def listen(self, callback: Callback, session_id: str | None = None) -> Callable[[], None]:
        """Have something called at each ring; returns what ends that.

        Args:
            callback: Called on the thread that commits; has to be quick and to raise nothing.
            session_id: Whose commits it is called after; None: all.
        """
        key = object()
        with self._changing:
            self._callbacks.setdefault(session_id, {})[key] = callback

        def end() -> None:
            with self._changing:
                left = self._callbacks.get(session_id, {})
                left.pop(key, None)
                if not left:
                    self._callbacks.pop(session_id, None)

        return end

    def ring(self, session_ids: Iterable[str]) -> None:
        """Call whoever listens to one of some sessions, and whoever listens to all."""
        with self._changing:
            called = [
                callback
                for each in (*session_ids, None)
                for callback in self._callbacks.get(each, {}).values()
            ]
        for callback in called:
            callback()

    def ring_all(self) -> None:
        """Call everybody who listens."""
        with self._changing:
            called = [each for group in self._callbacks.values() for each in group.values()]
        for callback in called:
            callback()


class Lookout:
    """Looks for what other processes commit, for all who listen to a bell.

    Args:
        store: Where it is looked.
        bell: Rung if there is something.
        clock: What tells the time.

    Threads: safe.
    """

    def __init__(self, store: SessionStore, bell: Bell, clock: Clock) -> None:
        self._store = store
        self._bell = bell
        self._clock = clock
        self._seen = _NOTHING_SEEN
        self._looked_at: datetime | None = None
        self._looking = threading.Lock()
        self._end_watching: Callable[[], None] | None = None

    def begin(self) -> None:
        """Take what is committed so far as known: whoever is about to listen reads it next.

        From now on it is also looked whenever the store has heard that others may have committed.
        """
        if self._seen == _NOTHING_SEEN:
            with self._looking:
                if self._seen == _NOTHING_SEEN:
                    self._seen = self._store.feed(0, 0).newest
                    self._end_watching = self._store.watch(self.look)

    def close(self) -> None:
        """Look no more when the store has heard of others."""
        if self._end_watching is not None:
            self._end_watching()

    def seconds_left(self, since: datetime, poll_seconds: float) -> float:
        """Return how long the next look is off for somebody who waits; negative if it is due.

        Args:
            since: When who waits has looked for itself.
            poll_seconds: How often it wants to know.
        """
        looked_at = self._looked_at
        last = since if looked_at is None else max(since, looked_at)
        passed = (self._clock.now() - last).total_seconds()
        # A clock that was set back does not make it later.
        return poll_seconds - max(0.0, passed)

    def look_if_due(self, since: datetime, poll_seconds: float) -> None:
        """Look, unless somebody else has done so just now; arguments as for `seconds_left`."""
        with self._looking:
            if self.seconds_left(since, poll_seconds) <= 0:
                self._look()

    def look(self) -> None:
        """Look now, and wake those whom it concerns; it costs nothing while nobody listens.

        To be called by whoever learns that another process may have committed.
        """
        if self._bell.any:
            with self._looking:
                self._look()

    def _look(self) -> None:
        self._looked_at = self._clock.now()
        # To look at more events than there are sessions to find costs more than to wake them all.
        limit = min(self._bell.sessions, MOST_LOOKED_AT)
        try:
            told = self._read(self._seen, limit)
        except StoreError:
            self._bell.ring_all()  # whoever reads on meets what is wrong
            return
        seen, self._seen = self._seen, told.newest
        if told.newest == seen:
            return
        if limit and told.position == told.newest:
            self._bell.ring({each.event.session_id for each in told.events})
        elif not self._bell.sessions:
            self._bell.ring(())
        else:
            self._bell.ring_all()

    def _read(self, after: int, limit: int) -> Fed:
        try:
            return self._store.feed(after, limit)
        except StoreError:
            # Be it one event that can't be read: how far it goes is told without it.
            told = self._store.feed(0, 0)
            return Fed((), after, told.newest, told.removed)


def wait_for_ring(
    rung: threading.Event,
    lookout: Lookout,
    clock: Clock,
    *,
    poll_seconds: float,
    end: datetime | None,
) -> None:
    """Wait until an event is set, and take turns in looking for what others do.

    Args:
        rung: Set by the bell.
        lookout: What looks.
        clock: What waits.
        poll_seconds: How often it is looked.
        end: When the wait ends at the latest; None: never.
    """
    since = clock.now()
    while not rung.is_set():
        left = lookout.seconds_left(since, poll_seconds)
        if left <= 0:
            lookout.look_if_due(since, poll_seconds)
            since = clock.now()
            continue
        if end is not None:
            until = (end - clock.now()).total_seconds()
            if until <= 0:
                return
            left = min(left, until)
        clock.wait(rung, left)
