"""Many changes of one thread as one transaction of the store, told of when it is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs

from .changes import Observer
from .session import SessionEvent
from .slots import MAX_RECENT_SESSIONS, Slot, Slots
from .stores.abc import SessionStore
from .stores.records import StoredStep
from .telling import Subscribers
from .waking import Bell


@attrs.define(eq=False)
class Batch:
    """What a thread has done in a batch that is not durable yet.

    Attributes:
        thread: Which thread.
        slots: What is decided on in it.
        touched: The sessions that were changed, in order.
        events: What is told of it.
        steps: What was written.
        afterwards: Called when it is durable and told; never if it is undone.
    """

    thread: int
    slots: Slots
    touched: dict[str, None] = attrs.field(factory=dict)
    events: list[SessionEvent] = attrs.field(factory=list)
    steps: list[StoredStep] = attrs.field(factory=list)
    afterwards: list[Callable[[], object]] = attrs.field(factory=list)

    def note(self, session_id: str, steps: Sequence[StoredStep]) -> None:
        """Keep what was written of one session."""
        self.touched[session_id] = None
        self.events.extend(step.sealed.event for step in steps)
        self.steps += steps

    def announce(self, event: SessionEvent) -> None:
        """Have an event told that was not made by a change, such as a purge."""
        self.touched[event.session_id] = None
        self.events.append(event)


class Batches:
    """The batches of one manager, one at a time.

    Args:
        store: Where they are written.
        slots: The sessions of all other threads.
        subscribers: Who is told.
        bell: Rung for whoever waits for events.

    Attributes:
        any: Whether there is one now, of whichever thread.

    Threads: safe.
    """

    def __init__(
        self, store: SessionStore, slots: Slots, subscribers: Subscribers, bell: Bell
    ) -> None:
        self._store = store
        self._slots = slots
        self._subscribers = subscribers
        self._bell = bell
        self._open: Batch | None = None
        self.any = False

    @property
    def mine(self) -> Batch | None:
        """The batch that this thread is in, if it is in one."""
        batch = self._open
        return batch if batch is not None and batch.thread == threading.get_ident() else None

    def when_durable(self, callback: Callable[[], object]) -> None:
        """Have something called once what this thread has changed is durable; maybe at once.

        In a batch it is called after that, and not if it is undone. It has to raise nothing.
        """
        batch = self.mine
        if batch is None:
            callback()
        else:
            batch.afterwards.append(callback)

    @contextmanager
    def open(self, observer: Callable[[], Observer | None]) -> Iterator[Batch]:
        """Make all changes of this thread one transaction; whoever subscribed is told after it.

        Session locks are not taken inside: other threads' commits wait for the store, and what
        they had decided before is decided afresh.

        Args:
            observer: Returns who watches, if anybody does.
        """
        afterwards: list[Callable[[], object]] = []
        with ExitStack() as held:
            slots: dict[str, Slot] = {}
            try:
                with self._store.batch():
                    batch = Batch(threading.get_ident(), Slots(MAX_RECENT_SESSIONS))
                    self._open, self.any = batch, True
                    try:
                        yield batch
                    finally:
                        self._open, self.any = None, False
                    # From here on others may see what was done, and go on with it: what they tell
                    # has to wait for what is told of the batch.
                    slots = held.enter_context(self._slots.hold_back(batch.touched))
                afterwards = batch.afterwards
                self._bell.ring(batch.touched)
                if (watching := observer()) is not None:
                    watching.committed(batch.steps, None)
                for session_id in batch.touched:
                    self._slots.forget(session_id)
                for slot in slots.values():
                    slot.wait_for_turn()
                for event in batch.events:
                    self._subscribers.put(event, slots[event.session_id].outbox)
                held.close()
                for event in batch.events:
                    outbox = slots[event.session_id].outbox
                    self._subscribers.tell(outbox, up_to=event.revision)
            finally:
                held.close()
                for slot in slots.values():
                    self._subscribers.tell(slot.outbox)
                for each in afterwards:
                    each()
