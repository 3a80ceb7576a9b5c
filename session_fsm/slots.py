"""One lock for each session that is being worked on, and the machines of recent ones.

Two sessions never wait for each other: the one lock that all share is held only while a slot is
looked up, never while anything is decided, written or told.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from .changes import Change
from .machine import SessionMachine
from .stores.records import Commit, Tail
from .telling import Outbox

MAX_RECENT_SESSIONS: Final = 1024
"""Machines of sessions that nobody uses at the moment are kept up to this number."""


class Slot:
    """What a manager keeps of one session.

    Attributes:
        machine: As of the last commit that was seen here; None if nothing is known.
        tail: What the next event is chained to; goes with the machine.
        lock: Held while the session is decided on and committed.
        holder: The thread that holds the lock.
        outbox: What was committed here and not told yet.
        gone: Whether it was let go of: it is no longer the slot of its session.
    """

    __slots__ = ("gone", "holder", "lock", "machine", "outbox", "tail")

    def __init__(self) -> None:
        self.machine: SessionMachine | None = None
        self.tail: Tail = ""
        self.lock = threading.Lock()
        self.holder: int | None = None
        self.outbox = Outbox()
        self.gone = False

    def unlock(self) -> None:
        """Let others decide on the session; whoever has locked it may be another thread."""
        self.holder = None
        self.lock.release()

    def wait_for_turn(self) -> None:
        """Wait until whoever has committed before now has put its events into the outbox."""
        if self.holder != threading.get_ident():
            with self.lock:
                pass


class Plan:
    """What was decided on a session, and is not written yet.

    Attributes:
        slot: That of the session, which is locked.
        machine: Holds the session as it will be.
        commit: What is to be written.
        change: What comes of it.
    """

    __slots__ = ("change", "commit", "machine", "slot")

    def __init__(self, slot: Slot, machine: SessionMachine, commit: Commit, change: Change) -> None:
        self.slot = slot
        self.machine = machine
        self.commit = commit
        self.change = change


_MOST_LOOKED_AT: Final = 8
"""How many slots in use are looked at, at most, before one more is kept: a batch may hold any
number, and is not to look at all of them for each."""


class Slots:
    """The slots of a manager; those of recent sessions are kept, up to a bound.

    Args:
        most: How many slots that nobody uses are kept.

    Threads: safe. A slot is looked up without a lock, and may be let go of before whoever has
    looked it up has locked it: then it is `gone`, and the slot is looked up again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, Slot] = OrderedDict()

    def known(self, session_id: str) -> Slot | None:
        """Return the slot of a session if there is one, to look at; it is not taken into use."""
        return self._slots.get(session_id)

    def get(self, session_id: str) -> Slot:
        """Return the slot of a session, made if there is none; whoever locks it looks at `gone`."""
        slots = self._slots
        slot = slots.get(session_id)
        if slot is None:
            return self._made(session_id)
        try:
            slots.move_to_end(session_id)
        except KeyError:  # it was let go of just now
            return self._made(session_id)
        return slot

    def _made(self, session_id: str) -> Slot:
        with self._lock:
            slot = self._slots.get(session_id)
            if slot is None:
                self._make_room(self._most - 1)
                slot = self._slots[session_id] = Slot()
        return slot

    def trim(self) -> None:
        """Let go of slots that were kept beyond the bound because they were in use."""
        if len(self._slots) > self._most:
            with self._lock:
                self._make_room(self._most)

    def _make_room(self, most: int) -> None:
        """Let go of the slots that were used longest ago and that nobody uses; holds the lock."""
        in_use = 0
        while len(self._slots) > most and in_use < _MOST_LOOKED_AT:
            session_id, slot = self._slots.popitem(last=False)
            if slot.lock.acquire(blocking=False):
                slot.gone = not slot.outbox and not slot.outbox.held
                slot.lock.release()
            if not slot.gone:
                in_use += 1
                self._slots[session_id] = slot  # at the other end: others are looked at next

    @contextmanager
    def hold_back(self, session_ids: Iterable[str]) -> Iterator[dict[str, Slot]]:
        """Keep others from telling of these sessions, until what came before is told."""
        slots: dict[str, Slot] = {}
        try:
            for session_id in session_ids:
                slot = None
                while slot is None:
                    slot = self.get(session_id)
                    with self._lock:  # nobody is let go of meanwhile
                        if slot.gone:
                            slot = None
                        else:
                            slot.outbox.hold_back()
                slots[session_id] = slot
            yield slots
        finally:
            for slot in slots.values():
                slot.outbox.let_go()

    def forget(self, session_id: str) -> None:
        """Drop what is known of a session, so that it is read again."""
        slot = self._slots.get(session_id)
        if slot is not None:
            slot.machine = None

    def __len__(self) -> int:
        return len(self._slots)
