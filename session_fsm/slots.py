"""One lock for each session that is being worked on, and the machines of recent ones.

Two sessions never wait for each other: the one lock that all share is held only while a slot is
looked up, never while anything is decided, written or told.
"""

from __future__ import annotations

import logging
import threading
from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import attrs

from .machine import SessionMachine
from .session import SessionEvent

logger = logging.getLogger(__name__)

Subscriber = Callable[[SessionEvent], object]
"""Is told of events; what it returns is not looked at."""


def call(callback: Subscriber, event: SessionEvent) -> None:
    """Tell a subscriber of an event; what it raises is logged."""
    try:
        callback(event)
    except Exception:
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

    Threads: safe; its lock is held for a moment only, never while anybody is told.
    """

    __slots__ = ("_lock", "_tellings")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tellings: list[Telling] = []

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


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@attrs.define(eq=False)
class Slot:
    """What a manager keeps of one session.

    Attributes:
        machine: As of the last commit that was seen here; None if nothing is known.
        digest: The digest of the last event; goes with the machine.
        lock: Held while the session is decided on and committed.
        holder: The thread that holds the lock.
        outbox: What was committed here and not told yet.
        telling: Held by the thread that tells them.
        held: How many batches have events to tell that come before those in the outbox.
        free: Set while there are none.
        users: How many threads hold or await the slot.
    """

    machine: SessionMachine | None = None
    digest: str = ""
    lock: threading.Lock = attrs.field(factory=threading.Lock)
    holder: int | None = None
    outbox: Outbox = attrs.field(factory=Outbox)
    telling: threading.RLock = attrs.field(factory=threading.RLock)
    held: int = 0
    free: threading.Event = attrs.field(factory=_set_event)
    users: int = 0

    def wait_for_turn(self) -> None:
        """Wait until whoever has committed before now has put its events into the outbox."""
        if self.holder != threading.get_ident():
            with self.lock:
                pass


class Slots:
    """The slots of a manager; those of recent sessions are kept, up to a bound.

    Args:
        most: How many slots that nobody uses are kept.

    Threads: safe.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, Slot] = OrderedDict()

    @contextmanager
    def use(self, session_id: str) -> Iterator[Slot]:
        """Give the slot of a session, which stays for as long as it is used; not locked."""
        with self._lock:
            slot = self._slots.get(session_id)
            if slot is None:
                slot = self._slots[session_id] = Slot()
            else:
                self._slots.move_to_end(session_id)
            slot.users += 1
        try:
            yield slot
        finally:
            with self._lock:
                slot.users -= 1
                if len(self._slots) > self._most:
                    self._evict()

    def _evict(self) -> None:
        """Let go of the slots that were used longest ago and that nobody uses."""
        surplus = len(self._slots) - self._most
        oldest = (key for key, slot in self._slots.items() if slot.users == 0)
        for session_id in list(islice(oldest, surplus)):
            del self._slots[session_id]

    @contextmanager
    def hold_back(self, session_ids: Iterable[str]) -> Iterator[dict[str, Slot]]:
        """Keep others from telling of these sessions, until what came before is told."""
        with ExitStack() as used:
            slots = {each: used.enter_context(self.use(each)) for each in session_ids}
            with self._lock:
                for slot in slots.values():
                    slot.held += 1
                    slot.free.clear()
            try:
                yield slots
            finally:
                with self._lock:
                    for slot in slots.values():
                        slot.held -= 1
                        if not slot.held:
                            slot.free.set()

    def forget(self, session_id: str) -> None:
        """Drop what is known of a session, so that it is read again."""
        with self._lock:
            slot = self._slots.get(session_id)
        if slot is not None:
            slot.machine = None

    def __len__(self) -> int:
        return len(self._slots)
