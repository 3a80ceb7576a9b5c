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
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

from .batching import Batch, Batches
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
from .slots import MAX_RECENT_SESSIONS, Plan, Slot, Slots
from .state import SessionState
from .stores.abc import SessionStore
from .stores.records import Commit, Stored, Tail, Taken, Work, commit_of
from .telling import Subscriber, Subscribers
from .waking import Bell, Lookout
from .work import ShownWork, in_order

T = TypeVar("T")

logger = logging.getLogger(__name__)


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
        self.slots = Slots(MAX_RECENT_SESSIONS)
        self._subscribers = Subscribers()
        self.bell = Bell()
        self.batches = Batches(store, self.slots, self._subscribers, self.bell)
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
            draft = self.draft(machine, state.created_at, owner_id)
            draft.steps.append(step_of(None, state, None, False, None))
            if decision is not None:
                decision(draft)
            try:
                return self._commit(slot, draft, machine, origin, claims)
            except RevisionConflictError:
                continue  # the id was used and purged meanwhile

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
        batch = self.batches.mine if self.batches.any else None
        slots = self.slots if batch is None else batch.slots
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
                self.tell(slot)
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
        return self.gone_on(slot, change, at, owner_id) if self.goes_on(change) else change

    def goes_on(self, change: Change) -> bool:
        """Tell whether what was made may have more to follow on the session's way out."""
        state = change.state
        return (
            state.status in self.lifecycle.drains and bool(change.steps) and not state.active_tasks
        )

    def gone_on(self, slot: Slot, change: Change, at: datetime | None, owner_id: str) -> Change:
        """Go on with a session's way out if there is nobody left to wait for; its slot is locked.

        Its last step was decided while a worker ran, perhaps; letting go of one is no step, so the
        revision has not told of it.
        """
        session_id = change.state.session_id
        try:
            if Work("worker") in self.store.work_in(session_id):
                return change
            then = self._change(slot, session_id, settle, None, (), at, owner_id)
        except SessionFsmError as fault:
            # What was asked for is made. The rest of the way out is gone by whoever comes next.
            logger.warning("session %r is not gone on with yet: %s", session_id, fault)
            return change
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
            draft = self.draft(machine, self.clock.now() if at is None else at, owner_id)
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
                return self._commit(slot, draft, machine, (before, slot.tail), claims)
            except RevisionConflictError:
                if expected_revision is not None:
                    raise

    def _reload(self, slot: Slot, session_id: str) -> None:
        stored = self.read(session_id)
        slot.machine = SessionMachine(stored.state, self.lifecycle, revision=stored.revision)
        slot.tail = stored.tail

    def draft(
        self, machine: SessionMachine, at: datetime, owner_id: str, *, may_read: bool = True
    ) -> Draft:
        """Return a session on its way to a new state.

        Args:
            machine: Holds it.
            at: The instant of every step.
            owner_id: In whose name it is decided.
            may_read: Whether the store may be asked.
        """
        store = self.store if may_read else None
        return Draft(machine, at, store, self._auto_idle, owner_id)

    def _commit(
        self,
        slot: Slot,
        draft: Draft,
        machine: SessionMachine,
        origin: tuple[int, Tail],
        claims: tuple[Work, ...],
    ) -> Change:
        plan = self.planned(slot, draft, machine, origin, claims)
        self.write(plan)
        return plan.change

    def planned(
        self,
        slot: Slot,
        draft: Draft,
        machine: SessionMachine,
        origin: tuple[int, Tail],
        claims: tuple[Work, ...],
    ) -> Plan:
        """Return what is to be written of what was decided.

        Args:
            slot: That of the session, which is locked.
            draft: What was decided; one step at least.
            machine: Holds the session as it will be.
            origin: The revision before that, and what the first step is chained to.
            claims: Work that the owner takes upon itself with it.
        """
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
        return Plan(slot, machine, commit, Change(state, machine.revision, steps))

    def write(self, plan: Plan, make: Callable[[], None] | None = None) -> None:
        """Write what was decided; the slot of its session is locked.

        Args:
            plan: What was decided.
            make: Writes it, and raises as `SessionStore.commit`; None: that does.
        """
        observer = self.observer
        started = 0.0 if observer is None else perf_counter()
        try:
            write(self.store, plan.commit, self.doubtful, make)
        except FencedError:
            self.check_open()  # its owner is dismissed when a manager is closed
            raise
        self.conclude(plan, None if observer is None else perf_counter() - started)

    def conclude(self, plan: Plan, seconds: float | None) -> None:
        """Note that what was decided is written; the slot of its session is locked.

        Args:
            plan: What was decided.
            seconds: How long it took to write it; None: that is not known.
        """
        slot, steps, session_id = plan.slot, plan.change.steps, plan.commit.session_id
        slot.machine, slot.tail = plan.machine, steps[-1]
        if self.batches.any and (batch := self.batches.mine) is not None:
            batch.note(session_id, steps)
            return
        if self._subscribers.any:
            for each in steps:
                self._subscribers.put(each.sealed.event, slot.outbox)
        if self.bell.any:
            self.bell.ring((session_id,))
        if self.observer is not None:
            self.observer.committed(steps, seconds)

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
        if observer is not None and self.batches.mine is None:
            observer.committed((), perf_counter() - started)
        return written

    def is_ending(self, status: str) -> bool:
        """Tell whether a session in a status is on its way out, or at its end."""
        return status in self._endings

    def batch(self) -> AbstractContextManager[Batch]:
        """Make all changes of this thread one transaction; whoever subscribed is told after it."""
        self.check_open()
        return self.batches.open(lambda: self.observer)

    # --- telling --------------------------------------------------------------------------

    def tell(self, slot: Slot) -> None:
        """Tell of what was committed of a session; this thread has no slot locked."""
        self._subscribers.tell(slot.outbox)

    def subscribe(self, callback: Subscriber, session_id: str | None) -> Callable[[], None]:
        """Tell a callback of every event committed here from now on; returns what ends that."""
        self.check_open()
        return self._subscribers.add(callback, session_id)
