"""Whoever subscribed is told of what was committed: once, in order, with no lock of a session held.

Events of a session wait in its outbox, by revision, until everybody was told of them. A thread
waits for another one that is telling of the same session, or has a batch to tell of first, so that
an event is told before its verb returns. A thread that is being told of something itself never
waits: two callbacks could wait for each other. It leaves its event to the thread that is telling.
If that is itself, it first lets the others know of what it was told.
"""

from __future__ import annotations

import logging
import threading
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import attrs

from .session import SessionEvent

logger = logging.getLogger(__name__)

Subscriber = Callable[[SessionEvent], object]
"""Is told of events; what it returns is not looked at."""

_being_told: ContextVar[bool] = ContextVar("being_told", default=False)
"""Whether this thread is in a callback that is told of an event, of whichever manager."""


def call(callback: Subscriber, event: SessionEvent) -> None:
    """Tell a subscriber of an event; what it raises is logged, but for an interrupt."""
    try:
        callback(event)
    except KeyboardInterrupt:
        raise
    except BaseException:  # be it SystemExit, which would end a loop with all that is on it
        # The change is made and durable: a listener's own trouble must not look like its failure.
        logger.exception(
            "a subscriber failed on revision %d of session %r", event.revision, event.session_id
        )


@attrs.frozen(eq=False)
class Telling:
    """An event, and the keys of the subscribers that were not told of it yet."""

    event: SessionEvent
    listeners: deque[object]


class Outbox:
    """Events of one session that were committed and not told to everybody yet, by revision.

    Attributes:
        speaking: Held by the thread that tells them.
        held: How many batches have events to tell that come before those in here.

    Threads: safe; its own lock is held for a moment only, never while anybody is told.
    """

    __slots__ = ("_free", "_lock", "_tellings", "held", "speaking")

    def __init__(self) -> None:
        self.speaking = threading.RLock()
        self.held = 0
        self._free: threading.Event | None = None
        self._lock = threading.Lock()
        self._tellings: list[Telling] = []

    def __bool__(self) -> bool:
        return bool(self._tellings)

    def add(self, telling: Telling) -> None:
        """Put in an event where its revision belongs."""
        with self._lock:
            insort(self._tellings, telling, key=lambda each: each.event.revision)

    def first(self) -> Telling | None:
        """Return the event that is to be told next, or None."""
        with self._lock:
            return self._tellings[0] if self._tellings else None

    def done(self, telling: Telling) -> None:
        """Take out an event that everybody was told of."""
        with self._lock:
            self._tellings = [each for each in self._tellings if each is not telling]

    def hold_back(self) -> None:
        """Keep what is in here from being told, until `let_go` was called as often."""
        with self._lock:
            self.held += 1
            if self._free is None:
                self._free = threading.Event()

    def let_go(self) -> None:
        """Undo one `hold_back`."""
        with self._lock:
            self.held -= 1
            if not self.held and self._free is not None:
                self._free.set()
                self._free = None

    def wait_until_free(self, *, wait: bool) -> bool:
        """Tell whether nothing is held back, after a wait for that if one is wanted."""
        free = self._free
        # An interrupt inside of `wait` can leave the event locked for ever: seldom go there.
        return free is None or free.is_set() or free.wait(None if wait else 0)


@contextmanager
def by_nobody() -> Iterator[None]:
    """Have what is begun inside, for later, not count as done by a callback that is told now."""
    told = _being_told.set(False)
    try:
        yield
    finally:
        _being_told.reset(told)


class Subscribers:
    """Whoever is told of the changes of one manager.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._callbacks: dict[object, tuple[Subscriber, str | None]] = {}
        self._changing = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self._callbacks)

    def add(self, callback: Subscriber, session_id: str | None) -> Callable[[], None]:
        """Tell a callback of every event from now on; returns what ends that."""
        if not callable(callback):
            raise TypeError(f"a subscriber is called; {type(callback).__name__} can't be")
        key = object()
        with self._changing:
            self._callbacks = {**self._callbacks, key: (callback, session_id)}

        def unsubscribe() -> None:
            with self._changing:
                left = self._callbacks.items()
                self._callbacks = {each: value for each, value in left if each is not key}

        return unsubscribe

    def put(self, event: SessionEvent, outbox: Outbox) -> None:
        """Have an event told to those who are subscribed now."""
        keys = (
            key
            for key, (_, session_id) in self._callbacks.items()
            if session_id is None or session_id == event.session_id
        )
        outbox.add(Telling(event, deque(keys)))

    def tell(self, outbox: Outbox, *, up_to: int | None = None) -> None:
        """Tell of what is in an outbox, in the order of the revisions."""
        being_told = _being_told.get()
        while (telling := outbox.first()) is not None:
            if up_to is not None and telling.event.revision > up_to:
                return
            if not outbox.wait_until_free(wait=not being_told):
                return
            if not outbox.speaking.acquire(blocking=not being_told):
                return
            told = _being_told.set(True)
            try:
                if outbox.first() is telling and not outbox.held:
                    self._tell_everybody(telling)
                    outbox.done(telling)
            finally:
                _being_told.reset(told)
                outbox.speaking.release()

    def _tell_everybody(self, telling: Telling) -> None:
        while telling.listeners:
            subscriber = self._callbacks.get(telling.listeners.popleft())
            if subscriber is not None:
                call(subscriber[0], telling.event)
