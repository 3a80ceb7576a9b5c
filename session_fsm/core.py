"""Decide, commit, act: the one way in which a session changes.

1. *Decide*: a decision is made on the session's machine, giving steps or a refusal.
2. *Commit*: snapshots and events are written in one transaction, on condition that the stored
   revision is the one decided from. If that is lost, it is decided afresh.
3. *Act*: whoever subscribed is told, after the lock of the session was let go of.

A refusal, and the answer that there is nothing to do, are given only on what was read from the
store after the call began: the revision protects writes, it does not protect refusals.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from .changes import Change, Observer, stored_steps
from .clock import Clock, IdFactory, numbered_ids
from .decisions import Decision, Draft, settle
from .errors import (
    FencedError,
    ManagerClosedError,
    RevisionConflictError,
    SessionFsmError,
    SessionNotFoundError,
)
from .history import step_of
from .items import Written
from .landing import write
from .lifecycle import Lifecycle
from .machine import SessionMachine
from .owning import OwnName
from .session import SessionEvent
from .slots import Batch, Slot, Slots
from .state import SessionState
from .stores.abc import SessionStore
from .stores.records import Commit, Stored, StoredStep, Tail, Taken, Work, commit_of
from .telling import Subscriber, Subscribers
from .waking import Bell, Lookout
from .work import ShownWork, in_order

T = TypeVar("T")

logger = logging.getLogger(__name__)

MAX_RECENT_SESSIONS = 1024
"""Machines of sessions that nobody uses at the moment are kept up to this number."""


class Core:
    """The sessions of one store, and whoever is told of their changes.

    Args:
        store: Where they are kept.
        lifecycle: The table that they obey.
        clock: What tells the time.
        auto_idle: Whether the end of the last task puts a session to rest.
        owner_id: In whose name work is claimed; it may be another one later, should this one be
            counted as dead.
        new_operation_id: Makes ids for commits, of which none is ever used twice; None: numbers
            behind the owner's id.

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
        new_operation_id: IdFactory | None = None,
    ) -> None:
        self.store = store
        self.lifecycle = lifecycle
        self.clock = clock
        self.name = OwnName(owner_id)
        self._auto_idle = auto_idle
        self._endings = lifecycle.drains.union(lifecycle.final)
        self._shown_work = ShownWork(lifecycle)
        self.new_operation_id = new_operation_id or numbered_ids(owner_id)
        self._slots = Slots(MAX_RECENT_SESSIONS)
        self._batch: Batch | None = None
        self._subscribers = Subscribers()
        self.bell = Bell()
        self.lookout = Lookout(store, self.bell, clock)
        self.observer: Observer | None = None
        self.closed = False
        self.doubtful: deque[Commit] = deque()

    @property
    def owner_id(self) -> str:
        """In whose name work is claimed here and now."""
        return self.name.now

    # --- reading --------------------------------------------------------------------------

    def check_open(self) -> None:
        """Refuse to work for a manager that was closed.

        Raises:
            ManagerClosedError: It was closed.
        """
        if self.closed:
            raise ManagerClosedError()

    def close(self) -> None:
        """Do no more work, and let whoever waits for some know."""
        self.closed = True
        self.lookout.close()
        self.bell.ring_all()

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
        owner_id: str | None = None,
    ) -> Change:
        """Commit a new session, and what is decided on it in the same breath.

        Args:
            state: Its first state.
            decision: What is made of it at once; None: nothing.
            claims: Work that the owner takes upon itself with it.
            owner_id: In whose name; None: in that of this core, as it is now.

        Raises:
            SessionExistsError: The id is in use.
        """
        self.check_open()
        made = (state, decision, claims, owner_id or self.owner_id)
        make = partial(self._locked, state.session_id, self._create, *made)
        if self.observer is not None:
            return self.observer.around(state.session_id, "create", make)
        return make()

    def _create(
        self,
        slot: Slot,
        state: SessionState,
        decision: Decision | None,
        claims: tuple[Work, ...],
        owner_id: str,
    ) -> Change:
        while True:
            slot.machine = None
            origin = self.store.tail(state.session_id)
            machine = SessionMachine(state, self.lifecycle, revision=origin[0] + 1)
            draft = self._draft(machine, state.created_at, owner_id)
            draft.steps.append(step_of(None, state, None, False, None))
            if decision is not None:
                decision(draft)
            try:
                steps = self._commit(slot, draft, machine, origin, claims)
            except RevisionConflictError:
                continue  # the id was used and purged meanwhile
            return Change(machine.state, machine.revision, steps)

    def change(
        self,
        session_id: str,
        decision: Decision,
        *,
        expected_revision: int | None = None,
        claims: tuple[Work, ...] = (),
        at: datetime | None = None,
        owner_id: str | None = None,
    ) -> Change:
        """Decide on a session, commit, and tell.

        Args:
            session_id: Key of a stored session.
            decision: Made on the newest state; made again on a newer one if another writer wins.
            expected_revision: The revision that it must have; None: any.
            claims: Work that this owner takes upon itself with it.
            at: The instant; None: the clock's.
            owner_id: In whose name; None: in that of this core, as it is now.

        Returns:
            The session as it is now, and its new events.

        Raises:
            SessionNotFoundError: There is no such session.
            RevisionConflictError: It is not at the expected revision; told before any refusal.
            TransitionError: Refused, on a state read after this call began.
            FencedError: The owner is counted as dead.
            StoreError: It could not be written; its operation id tells whether it landed.
        """
        self.check_open()
        # Fixed from here on: what was begun in the name of one who is counted as dead ends there.
        made = (decision, expected_revision, claims, at, owner_id or self.owner_id)
        if (observer := self.observer) is not None:
            make = partial(self._locked, session_id, self._change_and_go_on, session_id, *made)
            return observer.around(session_id, decision, make)
        return self._locked(session_id, self._change_and_go_on, session_id, *made)

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        """Let go of work in a session, without a step.

        Nobody here claims it meanwhile: a store that has lost the answer does it again.
        """
        self._locked(session_id, lambda _: self.store.release(session_id, work, owner_id))

    def give_back(self, taken: Taken) -> None:
        """Have what was taken over be the dead owner's again; as `release`."""
        self._locked(taken.session_id, lambda _: self.store.give_back(taken))

    def _locked(self, session_id: str, work: Callable[..., T], *arguments: Any) -> T:
        """Do something with the slot of a session, locked, then tell of what was committed."""
        batch = None if self._batch is None else self._my_batch()
        slots = self._slots if batch is None else batch.slots
        me = threading.get_ident()
        while True:
            slot = slots.get(session_id)
            if slot.holder == me:
                raise RuntimeError("a decision on a session may not change that session itself")
            with slot.lock:
                if slot.gone:
                    continue
                slot.holder = me
                try:
                    result = work(slot, *arguments)
                except BaseException:
                    slot.machine = None
                    raise
                finally:
                    slot.holder = None
            if slot.outbox:
                self._subscribers.tell(slot.outbox)
            slots.trim()
            return result

    def _change_and_go_on(
        self,
        slot: Slot,
        session_id: str,
        decision: Decision,
        expected_revision: int | None,
        claims: tuple[Work, ...],
        at: datetime | None,
        owner_id: str,
    ) -> Change:
        change = self._change(slot, session_id, decision, expected_revision, claims, at, owner_id)
        if change.state.status in self.lifecycle.drains and change.steps:
            try:
                return self._go_on(slot, change, at, owner_id)
            except SessionFsmError as fault:
                # What was asked for is made. The rest of the way out is gone by whoever comes next.
                logger.warning("session %r is not gone on with yet: %s", session_id, fault)
        return change

    def _go_on(self, slot: Slot, change: Change, at: datetime | None, owner_id: str) -> Change:
        """Go on with a session's way out if there is nobody left to wait for.

        Its last step was decided while a worker ran, perhaps; letting go of one is no step, so the
        revision has not told of it.
        """
        state = change.state
        if state.active_tasks or Work("worker") in self.store.work_in(state.session_id):
            return change
        then = self._change(slot, state.session_id, settle, None, (), at, owner_id)
        return Change(then.state, then.revision, change.steps + then.steps)

    def _change(
        self,
        slot: Slot,
        session_id: str,
        decision: Decision,
        expected_revision: int | None,
        claims: tuple[Work, ...],
        at: datetime | None,
        owner_id: str,
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
            draft = self._draft(machine, self.clock.now() if at is None else at, owner_id)
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
                if (written := self._without_step(session_id, before, draft)) is None:
                    continue
                slot.machine = machine
                return Change(machine.state, machine.revision, (), written)
            try:
                origin = (before, slot.tail)
                steps = self._commit(slot, draft, machine, origin, claims)
            except RevisionConflictError:
                if expected_revision is not None:
                    raise
                continue
            return Change(machine.state, machine.revision, steps)

    def _reload(self, slot: Slot, session_id: str) -> None:
        stored = self.read(session_id)
        slot.machine = SessionMachine(stored.state, self.lifecycle, revision=stored.revision)
        slot.tail = stored.tail

    def _draft(self, machine: SessionMachine, at: datetime, owner_id: str) -> Draft:
        return Draft(machine, at, self.store, self._auto_idle, owner_id)

    def _commit(
        self,
        slot: Slot,
        draft: Draft,
        machine: SessionMachine,
        origin: tuple[int, Tail],
        claims: tuple[Work, ...],
    ) -> tuple[StoredStep, ...]:
        expected = origin[0]
        steps = stored_steps(draft.steps, *origin, self.lifecycle)
        state = machine.state
        before = draft.steps[0].before
        begun, ended = self._shown_work.changed(before, state, claims, draft.let_go)
        commit = commit_of(
            state.session_id,
            self.new_operation_id(),
            draft.owner_id,
            expected,
            before is None,
            steps,
            begun,
            ended,
            state.status in self._endings,
            draft.writes,
        )
        observer = self.observer
        started = 0.0 if observer is None else perf_counter()
        try:
            write(self.store, commit, self.doubtful)
        except FencedError:
            self.check_open()  # its owner is dismissed when a manager is closed
            raise
        seconds = None if observer is None else perf_counter() - started
        slot.machine, slot.tail = machine, steps[-1]
        if self._batch is not None and (batch := self._my_batch()) is not None:
            batch.touched[commit.session_id] = None
            batch.events.extend(step.sealed.event for step in steps)
            batch.steps += steps
            return steps
        if self._subscribers.any:
            for each in steps:
                self._subscribers.put(each.sealed.event, slot.outbox)
        if self.bell.any:
            self.bell.ring((commit.session_id,))
        if observer is not None:
            observer.committed(steps, seconds)
        return steps

    def _without_step(
        self, session_id: str, revision: int, draft: Draft
    ) -> tuple[Written, ...] | None:
        """Do what leaves a session at its revision; None if it has to be decided afresh."""
        if draft.let_go:
            self.store.release(session_id, in_order(draft.let_go), draft.holder_id)
            if self.read(session_id).revision != revision:
                return None  # somebody may have waited for what was let go of just now
        if draft.writes is None:
            return ()
        observer, told = self.observer, (self.new_operation_id(), draft.owner_id)
        started = 0.0 if observer is None else perf_counter()
        try:
            written = self.store.write_items(session_id, revision, draft.writes, *told)
        except RevisionConflictError:
            return None
        if observer is not None and not self.in_batch:
            observer.committed((), perf_counter() - started)
        return written

    def is_ending(self, status: str) -> bool:
        """Tell whether a session in a status is on its way out, or at its end."""
        return status in self._endings

    # --- batches --------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all changes of this thread one transaction; whoever subscribed is told after it.

        Session locks are not taken inside: other threads' commits wait for the store, and what
        they had decided before is decided afresh.
        """
        self.check_open()
        afterwards: list[Callable[[], object]] = []
        with ExitStack() as held:
            slots: dict[str, Slot] = {}
            try:
                with self.store.batch():
                    batch = Batch(threading.get_ident(), Slots(MAX_RECENT_SESSIONS))
                    self._batch = batch
                    try:
                        yield
                    finally:
                        self._batch = None
                    # From here on others may see what was done, and go on with it: what they tell
                    # has to wait for what is told of the batch.
                    slots = held.enter_context(self._slots.hold_back(batch.touched))
                afterwards = batch.afterwards
                self.bell.ring(batch.touched)
                if self.observer is not None:
                    self.observer.committed(batch.steps, None)
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

    def when_durable(self, callback: Callable[[], object]) -> None:
        """Have something called once what this thread has changed is durable; maybe at once.

        In a batch it is called after that, and not if it is undone. It has to raise nothing.
        """
        batch = self._my_batch()
        if batch is None:
            callback()
        else:
            batch.afterwards.append(callback)

    @property
    def in_batch(self) -> bool:
        """Whether this thread is in a batch."""
        return self._my_batch() is not None

    def _my_batch(self) -> Batch | None:
        batch = self._batch
        return batch if batch is not None and batch.thread == threading.get_ident() else None

    # --- telling --------------------------------------------------------------------------

    def subscribe(self, callback: Subscriber, session_id: str | None) -> Callable[[], None]:
        """Tell a callback of every event committed here from now on; returns what ends that."""
        self.check_open()
        return self._subscribers.add(callback, session_id)

    def announce(self, event: SessionEvent) -> None:
        """Tell of an event that was not made by a change, such as a purge; in a batch."""
        batch = self._my_batch()
        assert batch is not None
        batch.touched[event.session_id] = None
        batch.events.append(event)
