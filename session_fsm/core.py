"""Decide, commit, act: the one way in which a session changes.

1. *Decide*: a decision is made on the session's machine, giving steps or a refusal.
2. *Commit*: snapshots and events are written in one transaction, on condition that the stored
   revision is the one decided from. If that is lost, it is decided afresh.
3. *Act*: whoever subscribed is told, after the lock of the session was let go of.

A refusal, and the answer that there is nothing to do, are given only on what was read from the
store after the call began: the revision protects writes, it does not protect refusals.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import attrs

from .clock import Clock, IdFactory, random_id
from .decisions import Decision, Draft, settle, work_of
from .errors import (
    ManagerClosedError,
    RevisionConflictError,
    SessionNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from .explain import next_timed
from .history import Sealed, Step, seal
from .lifecycle import Lifecycle
from .machine import SessionMachine
from .session import SessionEvent
from .slots import Slot, Slots, Subscriber, Telling, call
from .state import SessionState
from .stores.abc import Commit, SessionStore, Stored, StoredStep, Work

_being_told: ContextVar[bool] = ContextVar("being_told", default=False)
"""Whether this thread is in a callback that is told of an event, of whichever manager."""

MAX_RECENT_SESSIONS = 1024
"""Machines of sessions that nobody uses at the moment are kept up to this number."""


@attrs.frozen
class Change:
    """What came of a decision.

    Attributes:
        state: The state of the session now.
        revision: Its revision now.
        events: The steps that were made; empty if there was nothing to do.
    """

    state: SessionState
    revision: int
    events: tuple[SessionEvent, ...] = ()


@attrs.define(eq=False)
class _Batch:
    """What a thread has done in a batch that is not durable yet."""

    thread: int
    slots: Slots
    touched: dict[str, None] = attrs.field(factory=dict)
    events: list[SessionEvent] = attrs.field(factory=list)


class Core:
    """The sessions of one store, and whoever is told of their changes.

    Args:
        store: Where they are kept.
        lifecycle: The table that they obey.
        clock: What tells the time.
        auto_idle: Whether the end of the last task puts a session to rest.
        owner_id: In whose name work is claimed.
        new_operation_id: Makes random ids for commits.

    Threads: safe. A session's lock is held while it is decided on and committed; no lock is held
    while anybody is told.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        lifecycle: Lifecycle,
        clock: Clock,
        auto_idle: bool,
        owner_id: str,
        new_operation_id: IdFactory = random_id,
    ) -> None:
        self.store = store
        self.lifecycle = lifecycle
        self.clock = clock
        self.owner_id = owner_id
        self._auto_idle = auto_idle
        self._new_operation_id = new_operation_id
        self._slots = Slots(MAX_RECENT_SESSIONS)
        self._batch: _Batch | None = None
        self._subscribers: dict[object, tuple[Subscriber, str | None]] = {}
        self._subscribing = threading.Lock()
        self.closed = False

    # --- reading --------------------------------------------------------------------------

    def check_open(self) -> None:
        """Refuse to work for a manager that was closed.

        Raises:
            ManagerClosedError: It was closed.
        """
        if self.closed:
            raise ManagerClosedError()

    def read(self, session_id: str) -> Stored:
        """Read a session from the store.

        Raises:
            SessionNotFoundError: There is none.
        """
        self.check_open()
        if not isinstance(session_id, str):
            raise TypeError(f"a session's id is a string, not {type(session_id).__name__}")
        stored = self.store.load(session_id)
        if stored is None:
            raise SessionNotFoundError(session_id=session_id)
        return stored

    # --- changing -------------------------------------------------------------------------

    def create(
        self,
        state: SessionState,
        decision: Decision | None = None,
        *,
        claims: tuple[Work, ...] = (),
    ) -> Change:
        """Commit a new session, and what is decided on it in the same breath.

        Args:
            state: Its first state.
            decision: What is made of it at once; None: nothing.
            claims: Work that this owner takes upon itself with it.

        Raises:
            SessionExistsError: The id is in use.
        """
        self.check_open()
        session_id = state.session_id
        with self._using(session_id) as slot:
            with self._locked(slot):
                change: Change | None = None
                while change is None:
                    slot.machine = None
                    change = self._create(slot, state, decision, claims)
            self._tell(slot)
        return change

    def _create(
        self,
        slot: Slot,
        state: SessionState,
        decision: Decision | None,
        claims: tuple[Work, ...],
    ) -> Change | None:
        """Commit a new session; None if the id was used and purged meanwhile."""
        revision, digest = self.store.tail(state.session_id)
        machine = SessionMachine(state, self.lifecycle, revision=revision + 1)
        draft = self._draft(machine, state.created_at)
        draft.steps.append(Step(before=None, after=state, trigger=None, moves=False))
        if decision is not None:
            decision(draft)
        try:
            events = self._commit(slot, draft, machine, (revision, digest), claims, creates=True)
        except RevisionConflictError:
            return None
        return Change(machine.state, machine.revision, events)

    def change(
        self,
        session_id: str,
        decision: Decision,
        *,
        expected_revision: int | None = None,
        claims: tuple[Work, ...] = (),
        at: datetime | None = None,
    ) -> Change:
        """Decide on a session, commit, and tell.

        Args:
            session_id: Key of a stored session.
            decision: Made on the newest state; made again on a newer one if another writer wins.
            expected_revision: The revision that it must have; None: any.
            claims: Work that this owner takes upon itself with it.
            at: The instant; None: the clock's.

        Returns:
            The session as it is now, and its new events.

        Raises:
            SessionNotFoundError: There is no such session.
            RevisionConflictError: It is not at the expected revision; told before any refusal.
            TransitionError: Refused, on a state read after this call began.
            StoreError: It could not be written; its operation id tells whether it landed.
        """
        self.check_open()
        with self._using(session_id) as slot:
            with self._locked(slot):
                change = self._change(slot, session_id, decision, expected_revision, claims, at)
                if change.events and self._waits_for_nobody(change.state):
                    then = self._change(slot, session_id, settle, None, (), at)
                    change = Change(then.state, then.revision, change.events + then.events)
            self._tell(slot)
        return change

    def _change(
        self,
        slot: Slot,
        session_id: str,
        decision: Decision,
        expected_revision: int | None,
        claims: tuple[Work, ...],
        at: datetime | None,
    ) -> Change:
        fresh = False
        while True:
            if slot.machine is None:
                self._reload(slot, session_id)
                fresh = True
            machine = slot.machine
            assert machine is not None
            before = machine.revision
            if expected_revision is not None and before != expected_revision:
                if not fresh:
                    slot.machine = None
                    continue
                raise RevisionConflictError(
                    session_id=session_id, expected=expected_revision, found=before
                )
            # Whatever goes wrong from here on, the machine may have moved further than the store.
            slot.machine = None
            draft = self._draft(machine, self.clock.now() if at is None else at)
            try:
                decision(draft)
            except Exception:
                # Decided on old news, perhaps: whatever is wrong has to be wrong with the new.
                if fresh:
                    raise
                continue
            if not draft.steps:
                if not fresh:
                    continue
                if draft.let_go and self._let_go(session_id, draft) != before:
                    continue  # somebody may have waited for what was let go of just now
                slot.machine = machine
                return Change(machine.state, machine.revision)
            try:
                origin = (before, slot.digest)
                events = self._commit(slot, draft, machine, origin, claims, creates=False)
            except RevisionConflictError:
                if expected_revision is not None:
                    raise
                continue
            return Change(machine.state, machine.revision, events)

    def _reload(self, slot: Slot, session_id: str) -> None:
        stored = self.read(session_id)
        slot.machine = SessionMachine(stored.state, self.lifecycle, revision=stored.revision)
        slot.digest = stored.digest

    def _draft(self, machine: SessionMachine, at: datetime) -> Draft:
        def work() -> tuple[Work, ...]:
            return self.store.work_in(machine.state.session_id)

        return Draft(machine, at=at, work=work, auto_idle=self._auto_idle)

    def _commit(
        self,
        slot: Slot,
        draft: Draft,
        machine: SessionMachine,
        origin: tuple[int, str],
        claims: tuple[Work, ...],
        *,
        creates: bool,
    ) -> tuple[SessionEvent, ...]:
        revision, digest = origin
        sealed: list[Sealed] = []
        steps: list[StoredStep] = []
        for number, step in enumerate(draft.steps, revision + 1):
            sealed.append(seal(step, revision=number, previous=digest))
            digest = sealed[-1].event.digest
            timed = next_timed(step.after, self.lifecycle)
            deadline = None if timed is None else timed[1]
            steps.append(StoredStep(sealed=sealed[-1], state=step.after, deadline_at=deadline))
        before = work_of(draft.steps[0].before, self.lifecycle)
        after = work_of(machine.state, self.lifecycle)
        commit = Commit(
            session_id=machine.state.session_id,
            operation_id=self._new_operation_id(),
            owner_id=self.owner_id,
            expected_revision=revision,
            creates=creates,
            steps=tuple(steps),
            claims=tuple(sorted((after - before).union(claims), key=_by_name)),
            releases=tuple(sorted((before - after) | draft.let_go, key=_by_name)),
            stops_worker=self.is_ending(machine.state.status),
        )
        self._write(commit)
        slot.machine, slot.digest = machine, digest
        events = tuple(each.event for each in sealed)
        if (batch := self._my_batch()) is None:
            for event in events:
                slot.outbox.add(self._telling(event))
        else:
            batch.touched[commit.session_id] = None
            batch.events.extend(events)
        return events

    def _write(self, commit: Commit) -> None:
        """Write a commit; if its answer is lost, ask whether it landed."""
        try:
            self.store.commit(commit)
        except StoreUnavailableError as fault:
            if fault.operation_id is None:
                raise
            try:
                landed = self.store.landed(commit.operation_id)
            except StoreError:
                raise fault from None
            if not landed:
                raise StoreUnavailableError(problem=fault.problem) from fault

    def _let_go(self, session_id: str, draft: Draft) -> int:
        """Let go of work without a step; returns the revision that the session has then."""
        work = tuple(sorted(draft.let_go, key=_by_name))
        self.store.release(session_id, work, self.owner_id)
        return self.read(session_id).revision

    def _waits_for_nobody(self, state: SessionState) -> bool:
        """Tell whether a session is on its way out with nobody left to wait for.

        Its last step was decided while a worker ran, perhaps; letting go of one is no step, so the
        revision has not told of it.
        """
        if state.status not in self.lifecycle.drains or state.active_tasks:
            return False
        return Work("worker") not in self.store.work_in(state.session_id)

    def is_ending(self, status: str) -> bool:
        """Tell whether a session in a status is on its way out, or at its end."""
        return status in self.lifecycle.drains or status in self.lifecycle.final

    # --- batches --------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all changes of this thread one transaction; whoever subscribed is told after it.

        Session locks are not taken inside: other threads' commits wait for the store, and what
        they had decided before is decided afresh.
        """
        self.check_open()
        with ExitStack() as held:
            slots: dict[str, Slot] = {}
            try:
                with self.store.batch():
                    batch = _Batch(threading.get_ident(), Slots(MAX_RECENT_SESSIONS))
                    self._batch = batch
                    try:
                        yield
                    finally:
                        self._batch = None
                    # From here on others may see what was done, and go on with it: what they tell
                    # has to wait for what is told of the batch.
                    slots = held.enter_context(self._slots.hold_back(batch.touched))
                for session_id in batch.touched:
                    self._slots.forget(session_id)
                for slot in slots.values():
                    slot.wait_for_turn()
                for event in batch.events:
                    slots[event.session_id].outbox.add(self._telling(event))
                held.close()
                for event in batch.events:
                    self._tell(slots[event.session_id], up_to=event.revision)
            finally:
                held.close()
                for slot in slots.values():
                    self._tell(slot)

    @property
    def in_batch(self) -> bool:
        """Whether this thread is in a batch."""
        return self._my_batch() is not None

    def _my_batch(self) -> _Batch | None:
        batch = self._batch
        return batch if batch is not None and batch.thread == threading.get_ident() else None

    def _using(self, session_id: str) -> Any:
        batch = self._my_batch()
        return (self._slots if batch is None else batch.slots).use(session_id)

    @contextmanager
    def _locked(self, slot: Slot) -> Iterator[None]:
        me = threading.get_ident()
        if slot.holder == me:
            raise RuntimeError("a decision on a session may not change that session itself")
        with slot.lock:
            slot.holder = me
            try:
                yield
            except BaseException:
                slot.machine = None
                raise
            finally:
                slot.holder = None

    # --- telling --------------------------------------------------------------------------

    def subscribe(self, callback: Subscriber, session_id: str | None) -> Callable[[], None]:
        """Tell a callback of every event committed here from now on; returns what ends that."""
        self.check_open()
        if not callable(callback):
            raise TypeError(f"a subscriber is called; {type(callback).__name__} can't be")
        key = object()
        with self._subscribing:
            self._subscribers = {**self._subscribers, key: (callback, session_id)}

        def unsubscribe() -> None:
            with self._subscribing:
                left = self._subscribers.items()
                self._subscribers = {each: value for each, value in left if each is not key}

        return unsubscribe

    def _telling(self, event: SessionEvent) -> Telling:
        keys = (
            key
            for key, (_, session_id) in self._subscribers.items()
            if session_id is None or session_id == event.session_id
        )
        return Telling(event, deque(keys))

    def announce(self, event: SessionEvent) -> None:
        """Tell of an event that was not made by a change, such as a purge; in a batch."""
        batch = self._my_batch()
        assert batch is not None
        batch.touched[event.session_id] = None
        batch.events.append(event)

    def _tell(self, slot: Slot, *, up_to: int | None = None) -> None:
        """Tell of the events that were committed, in the order of their revisions.

        A thread waits for another one that is telling of the same session, or has a batch to tell
        of first, so that an event is told before its verb returns. A thread that is being told of
        something itself never waits: two callbacks could wait for each other. It leaves its event
        to the thread that is telling. If that is itself, it first lets the others know of what it
        was told.
        """
        being_told = _being_told.get()
        while (telling := slot.outbox.first()) is not None:
            if up_to is not None and telling.event.revision > up_to:
                return
            # An interrupt inside of `wait` can leave the event locked for ever: seldom go there.
            if not slot.free.is_set() and not slot.free.wait(0 if being_told else None):
                return
            if not slot.telling.acquire(blocking=not being_told):
                return
            told = _being_told.set(True)
            try:
                if slot.outbox.first() is telling and not slot.held:
                    self._tell_everybody(telling)
                    slot.outbox.done(telling)
            finally:
                _being_told.reset(told)
                slot.telling.release()

    def _tell_everybody(self, telling: Telling) -> None:
        while telling.listeners:
            subscriber = self._subscribers.get(telling.listeners.popleft())
            if subscriber is not None:
                call(subscriber[0], telling.event)


def _by_name(work: Work) -> tuple[str, str]:
    return work.kind, work.item
