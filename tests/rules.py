"""A rule-based state machine that drives managers and a plain model of them side by side.

Hypothesis picks verbs, sessions and managers; after each, every manager must show what the model
says. The model is plain dicts and knows nothing of tables, steps or stores, so it can't share a
mistake with them.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from session_fsm import (
    Session,
    SessionConfig,
    SessionEvent,
    SessionExistsError,
    SessionFsmError,
    SessionManager,
    SessionNotFoundError,
    SessionStatus,
    TransitionError,
)
from session_fsm.clock import ManualClock

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
STOP_GRACE = timedelta(seconds=10)

_ids = st.sampled_from(("a", "b", "c"))
_tasks = st.sampled_from(("t", "u"))
_managers = st.integers(0, 1)
_timeouts = st.sampled_from((None, 1, 2))
_causes = st.sampled_from(("boom", "no disk"))


class _Worker:
    """A worker that counts how often it was stopped."""

    def __init__(self) -> None:
        self.stops = 0

    def stop(self) -> None:
        self.stops += 1


@attrs.define(kw_only=True)
class _Modelled:
    """What the model knows of a session."""

    status: str
    revision: int
    timeout: timedelta | None
    limit: int
    since: datetime
    activity: datetime
    tasks: dict[str, int] = attrs.field(factory=dict)
    conversations: int = 0
    number: int = 0
    error: str | None = None
    worker: int | None = None

    @property
    def deadline(self) -> datetime | None:
        """When the session expires, or its stop is given up."""
        if self.status == "terminating":
            return self.since + STOP_GRACE
        if self.status in ("active", "idle") and self.timeout is not None and not self.tasks:
            return self.activity + self.timeout
        return None

    def expired(self, now: datetime) -> bool:
        """Whether nobody may work with the session any longer."""
        due = self.deadline
        return self.status != "terminating" and due is not None and due <= now

    def move(self, status: str, now: datetime) -> None:
        """Make a step to a status."""
        self.status, self.since = status, now
        self.revision += 1

    def settle(self, now: datetime) -> None:
        """End a session that has nothing to wait for."""
        if self.status == "terminating" and not self.tasks and self.worker is None:
            self.move("terminated", now)

    def blame(self, cause: str, dropped: list[str]) -> None:
        """Add a cause and the tasks that it dropped to the error."""
        noun = "task" if len(dropped) == 1 else "tasks"
        tail = [f"{len(dropped)} {noun} dropped: {', '.join(dropped)}"] if dropped else []
        self.error = "; ".join([*([self.error] if self.error else []), cause, *tail])


class _RefusedError(Exception):
    """The model says no."""


class SessionRules(RuleBasedStateMachine):
    """Drives two managers over one store, and a model; a subclass says what they are opened on.

    Restarts are among the rules: a manager is closed, and another one takes its place, which finds
    what the first has left.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(BEGINNING)
        self._managers: list[SessionManager] = []
        self._owners: list[int] = []
        self._dead: set[int] = set()
        self._owner_count = 0
        self._model: dict[str, _Modelled] = {}
        self._graves: dict[str, int] = {}
        self._told: list[list[SessionEvent]] = []
        self._workers: list[tuple[int, _Worker]] = []
        self._in_batch = False

    @abstractmethod
    def open_manager(self, clock: ManualClock) -> SessionManager:
        """Open one more manager on the same store, with the lifecycle's own graces."""

    @initialize(
        timeouts=st.tuples(_timeouts, _timeouts),
        with_worker=st.tuples(st.booleans(), st.booleans()),
    )
    def open_all(
        self, timeouts: tuple[int | None, int | None], with_worker: tuple[bool, bool]
    ) -> None:
        """Open the managers, and create a session in each, so that there is something to do."""
        for _ in range(2):
            self._managers.append(self._opened())
        for manager, session_id in enumerate(("a", "b")):
            worker = _Worker() if with_worker[manager] else None
            self._create(manager, session_id, timeouts[manager], 2, worker)

    def _opened(self) -> SessionManager:
        manager = self.open_manager(self.clock)
        events: list[SessionEvent] = []
        manager.subscribe(events.append)
        self._told.append(events)
        self._owners.append(self._owner_count)
        self._owner_count += 1
        return manager

    def teardown(self) -> None:
        """Check what can be told at the end alone, and close everything."""
        try:
            for manager in self._managers:
                report = manager.verify()
                assert report.ok, report.problems
                assert report.sessions == len(self._model)
            self._check_what_was_told()
        finally:
            for manager in self._managers:
                manager.close()
        assert all(worker.stops == 1 for _, worker in self._workers)

    def _check_what_was_told(self) -> None:
        """Each step of each session was told once, by the manager that made it, in order."""
        for session_id in ("a", "b", "c"):
            told: list[int] = []
            for events in self._told:
                own = [event.revision for event in events if event.session_id == session_id]
                assert own == sorted(own)
                told += own
            lived = self._model.get(session_id)
            last = self._graves.get(session_id, 0) if lived is None else lived.revision
            assert sorted(told) == list(range(1, last + 1))

    # --- driving both ---------------------------------------------------------------------

    @property
    def _now(self) -> datetime:
        return self.clock.now()

    def _drive(
        self,
        manager: int,
        session_id: str,
        verb: Callable[[SessionManager], Session],
        modelled: Callable[[_Modelled], object],
    ) -> None:
        """Do something to a session and to its model; both do it, or both refuse."""
        if (session := self._model.get(session_id)) is None:
            _expect(SessionNotFoundError, lambda: verb(self._managers[manager]))
            return
        changed = attrs.evolve(session, tasks=dict(session.tasks))
        try:
            modelled(changed)
        except _RefusedError:
            _expect(TransitionError, lambda: verb(self._managers[manager]))
            return
        self._model[session_id] = changed
        self._act(manager, session_id)
        shown = verb(self._managers[manager])
        assert (shown.status, shown.revision) == (changed.status, changed.revision)

    def _act(self, manager: int, session_id: str) -> None:
        """Stop the worker of a session that is being ended, if it runs in this manager."""
        if self._in_batch:
            return
        session, owner = self._model[session_id], self._owners[manager]
        if session.status in ("terminating", "terminated") and session.worker == owner:
            session.worker = None
            session.settle(self._now)

    def _stop_ended(self, manager: int) -> None:
        for session_id in self._model:
            self._act(manager, session_id)

    # --- rules: creating and working ------------------------------------------------------

    @rule(manager=_managers, session_id=_ids, timeout=_timeouts, limit=st.integers(1, 2))
    def create(self, manager: int, session_id: str, timeout: int | None, limit: int) -> None:
        """Create a session."""
        self._create(manager, session_id, timeout, limit, None)

    @rule(manager=_managers, session_id=_ids, timeout=_timeouts)
    def create_with_worker(self, manager: int, session_id: str, timeout: int | None) -> None:
        """Create a session that a worker runs for."""
        self._create(manager, session_id, timeout, 1, _Worker())

    def _create(
        self,
        manager: int,
        session_id: str,
        timeout: int | None,
        limit: int,
        worker: _Worker | None,
    ) -> None:
        config = SessionConfig(timeout_minutes=timeout, max_conversations=limit)

        def verb() -> Session:
            start = None if worker is None else lambda _: worker
            chosen = self._managers[manager]
            return chosen.create(session_id, config=config, metadata={"n": 0}, start=start)

        if session_id in self._model:
            _expect(SessionExistsError, verb)
            return
        session = verb()
        assert session.worker is worker
        owner = None if worker is None else self._owners[manager]
        if worker is not None:
            self._workers.append((self._owners[manager], worker))
        self._model[session_id] = _Modelled(
            status="active",
            revision=self._graves.get(session_id, 0) + 2,
            timeout=None if timeout is None else timedelta(minutes=timeout),
            limit=limit,
            since=self._now,
            activity=self._now,
            worker=owner,
        )

    @rule(manager=_managers, session_id=_ids, task=_tasks)
    def begin_task(self, manager: int, session_id: str, task: str) -> None:
        """Begin a task; it wakes an idle session."""

        def modelled(session: _Modelled) -> None:
            if session.status not in ("active", "idle") or session.expired(self._now):
                raise _RefusedError
            if task in session.tasks:
                raise _RefusedError
            if session.status == "idle":
                session.move("active", self._now)
            session.tasks[task] = self._owners[manager]
            session.activity = self._now
            session.revision += 1

        self._drive(
            manager, session_id, lambda chosen: chosen.begin_task(session_id, task), modelled
        )

    @rule(manager=_managers, session_id=_ids, task=_tasks)
    def end_task(self, manager: int, session_id: str, task: str) -> None:
        """End a task; with the last one a session rests, or ends."""

        def modelled(session: _Modelled) -> None:
            if task not in session.tasks:
                raise _RefusedError
            self._end_tasks(session, [task])
            if session.status == "active" and not session.tasks:
                session.move("idle", self._now)
            session.settle(self._now)

        self._drive(manager, session_id, lambda chosen: chosen.end_task(session_id, task), modelled)

    def _end_tasks(self, session: _Modelled, tasks: list[str]) -> None:
        for task in tasks:
            del session.tasks[task]
            session.activity = self._now
            session.revision += 1

    @rule(manager=_managers, session_id=_ids, task=_tasks)
    def task(self, manager: int, session_id: str, task: str) -> None:
        """Begin a task, and end it in a manager that another one may have replaced in mind."""
        self.begin_task(manager, session_id, task)
        self.end_task(1 - manager, session_id, task)

    @rule(manager=_managers, session_id=_ids)
    def start_conversation(self, manager: int, session_id: str) -> None:
        """Count one more conversation."""

        def modelled(session: _Modelled) -> None:
            full = session.conversations >= session.limit
            if session.status != "active" or full or session.expired(self._now):
                raise _RefusedError
            session.conversations += 1
            session.activity = self._now
            session.revision += 1

        self._drive(
            manager, session_id, lambda chosen: chosen.start_conversation(session_id), modelled
        )

    @rule(manager=_managers, session_id=_ids)
    def touch(self, manager: int, session_id: str) -> None:
        """Note that somebody is there."""

        def modelled(session: _Modelled) -> None:
            if session.status not in ("active", "idle") or session.expired(self._now):
                raise _RefusedError
            session.activity = self._now
            session.revision += 1

        self._drive(manager, session_id, lambda chosen: chosen.touch(session_id), modelled)

    # --- rules: changing and moving -------------------------------------------------------

    def _count(self, session: _Modelled) -> None:
        if session.status == "terminated":
            raise _RefusedError
        session.number += 1
        session.revision += 1

    @rule(manager=_managers, session_id=_ids)
    def update(self, manager: int, session_id: str) -> None:
        """Change data by a function."""
        self._drive(
            manager,
            session_id,
            lambda chosen: chosen.update(session_id, metadata=_one_more),
            self._count,
        )

    @rule(manager=_managers, session_id=_ids, off=st.integers(-1, 1))
    def update_at_revision(self, manager: int, session_id: str, off: int) -> None:
        """Change data if the session is at a revision; another one is told before any refusal."""
        session = self._model.get(session_id)
        revision = (1 if session is None else session.revision) + off
        if session is not None and off:
            chosen = self._managers[manager]
            _expect(
                SessionFsmError,
                lambda: chosen.update(session_id, expected_revision=revision, metadata={}),
                "RevisionConflictError",
            )
            return
        self._drive(
            manager,
            session_id,
            lambda chosen: chosen.update(
                session_id, expected_revision=revision, metadata=_one_more
            ),
            self._count,
        )

    @rule(manager=_managers, session_id=_ids, to=st.sampled_from(SessionStatus))
    def transition(self, manager: int, session_id: str, to: str) -> None:
        """Move a session by hand."""

        def modelled(session: _Modelled) -> None:
            match session.status, str(to):
                case "active", "idle" if not session.tasks:
                    session.move("idle", self._now)
                case "idle", "active" if not session.expired(self._now):
                    session.move("active", self._now)
                    session.activity = self._now
                case (("active" | "idle"), "terminating"):
                    session.move("terminating", self._now)
                    session.settle(self._now)
                case "terminating", "terminated" if not session.tasks:
                    session.move("terminated", self._now)
                case _:
                    raise _RefusedError

        self._drive(manager, session_id, lambda chosen: chosen.transition(session_id, to), modelled)

    # --- rules: ending --------------------------------------------------------------------

    @rule(manager=_managers, session_id=_ids)
    def terminate(self, manager: int, session_id: str) -> None:
        """End a session in good order."""

        def modelled(session: _Modelled) -> None:
            if session.status in ("active", "idle"):
                session.move("terminating", self._now)
            session.settle(self._now)

        self._drive(
            manager,
            session_id,
            lambda chosen: chosen.terminate(session_id, wait=False),
            modelled,
        )

    @rule(manager=_managers, session_id=_ids, cause=_causes)
    def fail(self, manager: int, session_id: str, cause: str) -> None:
        """End a session at once."""

        def modelled(session: _Modelled) -> None:
            if session.status == "terminated":
                return
            dropped = list(session.tasks)
            if session.status != "terminating":
                session.move("terminating", self._now)
            self._end_tasks(session, dropped)
            session.blame(cause, dropped)
            session.move("terminated", self._now)

        self._drive(manager, session_id, lambda chosen: chosen.fail(session_id, cause), modelled)

    # --- rules: time, upkeep, restarts ----------------------------------------------------

    @rule(seconds=st.sampled_from((1, 9, 10, 59, 60, 120)))
    def advance(self, seconds: int) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(manager=_managers)
    def sweep(self, manager: int) -> None:
        """Fire what is due."""
        for session in self._model.values():
            due = session.deadline
            if due is None or due > self._now:
                continue
            if session.status == "terminating":
                session.blame("the stop did not end within 10 s", list(session.tasks))
                session.tasks.clear()
                session.move("terminated", self._now)
            else:
                session.move("terminating", self._now)
                session.settle(self._now)
        self._stop_ended(manager)
        report = self._managers[manager].sweep()
        assert report.failed == ()
        assert report.next_deadline == self._next_deadline()

    @rule(manager=_managers)
    def recover(self, manager: int) -> None:
        """Clear away what managers that were closed have left."""
        dropped: list[str] = []
        for session in self._model.values():
            left = [task for task, owner in session.tasks.items() if owner in self._dead]
            self._end_tasks(session, left)
            dropped += left
            if session.worker in self._dead:
                session.worker = None
            if left and session.status == "active" and not session.tasks:
                session.move("idle", self._now)
            session.settle(self._now)
        report = self._managers[manager].recover()
        assert report.failed == ()
        assert sorted(report.dropped_tasks) == sorted(dropped)

    @rule(manager=_managers)
    def purge(self, manager: int) -> None:
        """Remove what has ended before now."""
        self._stop_ended(manager)
        buried = [
            session_id
            for session_id, session in self._model.items()
            if session.status == "terminated"
            and session.since < self._now
            and (session.worker is None or session.worker in self._dead)
        ]
        for session_id in buried:
            self._graves[session_id] = self._model.pop(session_id).revision + 1
        assert self._managers[manager].purge(ended_before=self._now) == len(buried)

    @rule(manager=_managers)
    def restart(self, manager: int) -> None:
        """Close a manager, and open another one in its place."""
        self._managers[manager].close()
        self._dead.add(self._owners[manager])
        self._managers[manager] = self._opened()
        self._owners[manager] = self._owners.pop()

    @rule(manager=_managers, session_id=_ids, other=_ids)
    def batch(self, manager: int, session_id: str, other: str) -> None:
        """Do several things in one transaction."""
        with self._managers[manager].batch():
            self._in_batch = True
            self.update(manager, session_id)
            self.terminate(manager, other)
            self.touch(manager, session_id)
        # Workers are stopped when the end of their sessions is durable.
        self._in_batch = False
        self._stop_ended(manager)

    @rule(manager=_managers, session_id=_ids, other=_ids)
    def batch_undone(self, manager: int, session_id: str, other: str) -> None:
        """Do several things in one transaction, and none of them after all."""
        chosen = self._managers[manager]
        with contextlib.suppress(_UndoneError), chosen.batch():
            for each in (session_id, other):
                with contextlib.suppress(SessionFsmError):
                    chosen.update(each, metadata=_one_more)
                with contextlib.suppress(SessionFsmError):
                    chosen.fail(each, "undone")
            raise _UndoneError

    # --- what must always hold ------------------------------------------------------------

    @invariant()
    def managers_show_what_the_model_says(self) -> None:
        """Every manager shows every session as the model has it, and no other."""
        for manager in self._managers:
            for session_id in ("a", "b", "c"):
                session, modelled = manager.find(session_id), self._model.get(session_id)
                assert (session is None) == (modelled is None)
                if session is not None and modelled is not None:
                    assert _shown(session) == _said(modelled)
            assert manager.next_deadline() == self._next_deadline()
            living = [each for each, it in sorted(self._model.items()) if it.status != "terminated"]
            assert [session.session_id for session in manager.list()] == living
            counted = {status: count for status, count in manager.counts().items() if count}
            statuses = [session.status for session in self._model.values()]
            assert counted == {status: statuses.count(status) for status in statuses}

    @invariant()
    def workers_are_stopped_once(self) -> None:
        """No worker was stopped twice, nor while its session is to go on."""
        running = {session.worker for session in self._model.values()} - self._dead
        for owner, worker in self._workers:
            assert worker.stops <= 1
            if owner not in running:
                assert worker.stops == 1

    def _next_deadline(self) -> datetime | None:
        found = (session.deadline for session in self._model.values())
        return min((each for each in found if each is not None), default=None)


class _UndoneError(Exception):
    """Ends a batch that is to be undone."""


def _one_more(metadata: Any) -> dict[str, Any]:
    return {**metadata, "n": metadata["n"] + 1}


def _expect(error: type[Exception], verb: Callable[[], object], name: str | None = None) -> None:
    try:
        verb()
    except error as fault:
        found = type(fault).__name__
    else:
        found = ""
    if found and name in (None, found):
        return
    raise AssertionError(f"it was accepted, where a {name or error.__name__} was due")


def _shown(session: Session) -> tuple[object, ...]:
    state = session.state
    return (
        str(session.status),
        session.revision,
        state.active_tasks,
        state.conversation_count,
        state.metadata["n"],
        state.error,
        state.status_since,
        state.last_activity_at,
    )


def _said(session: _Modelled) -> tuple[object, ...]:
    return (
        session.status,
        session.revision,
        tuple(session.tasks),
        session.conversations,
        session.number,
        session.error,
        session.since,
        session.activity,
    )
