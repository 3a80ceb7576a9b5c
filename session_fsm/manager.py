"""The session manager: every verb of a session's life, over one store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from .clock import Clock, IdFactory, random_id
from .context import ContextLimits
from .contexts import ContextKeeper, Contexts
from .core import Core
from .decisions import BeginTask, Decision, Fire, MoveTo, Touch, Update, cause_in_words, with_writes
from .endings import Fail, FireDue, Terminate
from .errors import LifecycleError
from .explain import next_timed
from .items import Write
from .lifecycle import Lifecycle, with_graces
from .session import Session
from .state import SessionConfig, SessionState
from .stores import SessionStore, open_store
from .stores.spanning import SpanningStore, check_persistence
from .table import SESSION_LIFECYCLE
from .workers import Workers

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.2
"""How often a wait looks for what other processes did to a session."""


class SessionManager(ContextKeeper):
    """Creates, lists, moves, monitors, ends and recovers the sessions of one store.

    Args:
        store: A store's URL (see `session_fsm.stores`), opened and closed by the manager; or an
            open store, which stays its owner's.
        lifecycle: The table that the sessions obey.
        clock: What tells the time and waits; None: the store's, which is this machine's, or of a
            store that many machines share, the one that they share.
        new_id: Makes the ids of sessions that are created without one.
        auto_idle: Whether the end of the last task puts a session to rest.
        start_grace_seconds: Longest start; None: the lifecycle's own, 60.
        stop_grace_seconds: Longest stop; None: the lifecycle's own, 10.
        touch_resolution_seconds: A touch that is nearer to the last activity writes nothing.
        context_limits: How much the context of a session holds.
        new_owner_id: Makes the ids in whose name the manager works: one now, and another one each
            time that it was counted as dead. No two managers may ever have the same.

    Raises:
        ValueError: The URL names no known kind of store.
        StoreError: The store can't be opened.
        LifecycleError: The store knows another lifecycle by this name.

    Threads: safe. Verbs on one session take turns; verbs on two never wait for each other's lock.
    """

    def __init__(
        self,
        store: str | SessionStore = "memory://",
        *,
        lifecycle: Lifecycle = SESSION_LIFECYCLE,
        clock: Clock | None = None,
        new_id: IdFactory = random_id,
        auto_idle: bool = True,
        start_grace_seconds: float | None = None,
        stop_grace_seconds: float | None = None,
        touch_resolution_seconds: float = 0.0,
        context_limits: ContextLimits = ContextLimits(),  # noqa: B008 - frozen
        new_owner_id: IdFactory = random_id,
    ) -> None:
        graces = {"start": start_grace_seconds, "stop": stop_grace_seconds}
        lifecycle = with_graces(lifecycle, graces)
        self._opened = open_store(store, lifecycle=lifecycle) if isinstance(store, str) else None
        main = store if self._opened is None else self._opened
        if not isinstance(main, SessionStore):
            raise TypeError(f"a store is a URL or an open store, not {type(main).__name__}")
        if not 0 <= touch_resolution_seconds < 1e9:
            problem = f"expected at least 0 and less than 1e9, got {touch_resolution_seconds}"
            raise ValueError(f"touch_resolution_seconds: {problem}")
        if main.lifecycle.fingerprint != lifecycle.fingerprint:
            problem = f"the store holds sessions of {main.lifecycle.name!r} with other rows"
            raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
        self._main = main
        # A store that keeps nothing needs no other one for what is not to be kept.
        self._span: SessionStore = SpanningStore(main) if main.durable else main
        core = Core(
            self._span,
            lifecycle=lifecycle,
            clock=main.clock if clock is None else clock,
            auto_idle=auto_idle,
            owner_id=new_owner_id(),
        )
        super().__init__(core, Workers(core))
        self._contexts = Contexts(core, context_limits)
        self._new_id = new_id
        self._new_owner_id = new_owner_id
        self._touch = Touch(timedelta(seconds=touch_resolution_seconds))
        self._closing = threading.Lock()
        try:
            self._span.enlist(core.owner_id, self._lapsed)
        except BaseException:
            if self._opened is not None:
                self._opened.close()
            raise

    def _lapsed(self) -> None:
        """Go on as another owner, because this one is counted as dead: nothing of it may run on."""
        owner_id = self._core.owner_id
        logger.warning("owner %s was not heard of in time: what it runs is stopped", owner_id)
        self._workers.give_up(owner_id)
        with self._closing:
            if not self._core.closed:
                another = self._new_owner_id()
                self._span.enlist(another, self._lapsed)
                self._core.name.renew(another)
                # What it left is there for all to recover, this one included.
                self._span.dismiss(owner_id)

    @property
    def lifecycle(self) -> Lifecycle:
        """The table that the sessions obey, with this manager's graces."""
        return self._core.lifecycle

    @property
    def store(self) -> SessionStore:
        """The store that was opened or handed in."""
        return self._main

    # --- creating -------------------------------------------------------------------------

    def create(
        self,
        session_id: str | None = None,
        *,
        config: SessionConfig | Mapping[str, Any] | None = None,
        llm_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        start: Callable[[Session], Any] | None = None,
    ) -> Session:
        """Create a session, start what runs for it, and activate it.

        Args:
            session_id: 1 to 255 printable characters; None: a new id.
            config: How it may be used; None: the defaults.
            llm_config: JSON object; None: empty.
            metadata: JSON object; None: empty.
            start: Called with the stored session, with no lock held; what it returns is the
                session's worker. If that has a method `stop()`, it is called when the session
                ends.

        Returns:
            The session, active, with its worker.

        Raises:
            StateInvalidError: Every fault of the arguments; nothing was stored.
            SessionExistsError: The id is in use; nothing changed.
            SessionStartError: The start raised, or took so long that the session could not be
                activated; the session has ended, with the cause in its `error`.
            StoreError: It could not be stored.

        Threads: safe; `start` and `stop` run on this thread.
        """
        state = self._new_state(session_id, config, llm_config, metadata)
        if start is None:
            return self._starting.at_once(state)
        self._starting.check()
        claimed = self._starting.begin(state)
        try:
            worker = start(claimed.session)
        except BaseException as fault:
            error = self._starting.failed(claimed, fault)
            if isinstance(fault, Exception):
                raise error from fault
            raise
        return self._starting.done(claimed, worker)

    def _new_state(
        self,
        session_id: str | None,
        config: SessionConfig | Mapping[str, Any] | None,
        llm_config: Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
    ) -> SessionState:
        self._core.check_open()
        state = SessionState.new(
            self._new_id() if session_id is None else session_id,
            config=config,
            llm_config=llm_config,
            metadata=metadata,
            at=self._core.clock.now(),
            status=self.lifecycle.initial,
        )
        check_persistence(state.config, self._main)
        return state

    # --- moving ---------------------------------------------------------------------------

    def transition(
        self,
        session_id: str,
        to: str,
        *,
        expected_revision: int | None = None,
        reason: str | None = None,
        writes: Iterable[Write] = (),
        **arguments: Any,
    ) -> Session:
        """Move a session to a status, by the one hand-fired row that leads there.

        Args:
            session_id: Key of a stored session.
            to: The target: a status or its word.
            expected_revision: The revision that it must have; None: any.
            reason: Kept in the history.
            writes: What is written to tables of the session (`Put`, `Delete`, `Clear`), in one
                transaction with the move and before it; refused where `update` would be.
            **arguments: What the row takes.

        Returns:
            The session after the move, and after what follows from it by itself.

        Raises:
            SessionNotFoundError: There is no such session.
            RevisionConflictError: It is not at the expected revision.
            InvalidTransitionError: No such status, or no row leads there.
            GuardRejectedError: A guard said no.
            ItemConflictError: An item is not at the version that a write expects; nothing changed.
            LifecycleError: Two rows lead there; fire one by its trigger.
        """
        decision = with_writes(MoveTo(to, reason, arguments), writes)
        return self._change(session_id, decision, expected_revision)

    def fire(
        self,
        session_id: str,
        trigger: str,
        *,
        expected_revision: int | None = None,
        reason: str | None = None,
        writes: Iterable[Write] = (),
        **arguments: Any,
    ) -> Session:
        """Fire a trigger; arguments and errors as for `transition`."""
        decision = with_writes(Fire(trigger, reason, arguments), writes)
        return self._change(session_id, decision, expected_revision)

    def update(
        self,
        session_id: str,
        *,
        expected_revision: int | None = None,
        reason: str | None = None,
        writes: Iterable[Write] = (),
        **changes: Any,
    ) -> Session:
        """Change `config`, `llm_config`, `metadata` or `error` of a session.

        Args:
            session_id: Key of a stored session.
            expected_revision: The revision that it must have; None: any.
            reason: Kept in the history.
            writes: As for `transition`.
            **changes: New values; a function is called with the present value and returns the new
                one, again if another writer was first.

        Raises:
            SessionNotFoundError: There is no such session.
            RevisionConflictError: It is not at the expected revision.
            StateInvalidError: A field can't be updated, or a value is bad.
            InvalidTransitionError: The session has ended.
            ItemConflictError: An item is not at the version that a write expects; nothing changed.
        """
        decision = with_writes(Update(changes, reason), writes)
        return self._change(session_id, decision, expected_revision)

    def begin_task(
        self, session_id: str, task_id: str, *, timeout_seconds: float | None = None
    ) -> Session:
        """Begin a task; a session at rest wakes in the same commit.

        Args:
            session_id: Key of a stored session.
            task_id: 1 to 255 printable characters; tells it from the session's other tasks.
            timeout_seconds: After which it is dropped by a timed row, and named in the session's
                `error`, unless it was ended before; None: never.

        Raises:
            SessionNotFoundError: There is no such session.
            StateInvalidError: The id or the limit is bad.
            TransitionError: It has expired or ended, or the task is active already.
        """
        return self._change(session_id, BeginTask(task_id, timeout_seconds))

    def end_task(self, session_id: str, task_id: str, *, reason: str | None = None) -> Session:
        """End a task; with the last one the session rests, or ends if it is being ended.

        Raises:
            SessionNotFoundError: There is no such session.
            TransitionError: The task is not active.
        """
        trigger = self.lifecycle.role("end_task")
        return self._change(session_id, Fire(trigger, reason, {"task_id": task_id}))

    @contextmanager
    def task(
        self, session_id: str, task_id: str, *, timeout_seconds: float | None = None
    ) -> Iterator[Session]:
        """Hold a task for the length of a `with` block; it ends on any exit.

        One that was dropped, because of its time limit or because its session has ended, can't be
        ended any longer: that is refused at the end of the block.

        An exception of the block is kept as the reason of the task's end and raised again; trouble
        with ending the task is then logged, and never takes its place.
        """
        # Should this owner be counted as dead meanwhile, it is no longer its task to end.
        with self._core.name.acting(self._core.owner_id):
            session = self.begin_task(session_id, task_id, timeout_seconds=timeout_seconds)
            try:
                yield session
            except BaseException as fault:
                try:
                    self.end_task(session_id, task_id, reason=f"failed: {cause_in_words(fault)}")
                except Exception:
                    logger.exception("task %r of session %r was not ended", task_id, session_id)
                raise
            self.end_task(session_id, task_id)

    def start_conversation(self, session_id: str) -> Session:
        """Count one more conversation.

        Raises:
            SessionNotFoundError: There is no such session.
            TransitionError: It is not active, has expired, or has had as many as it may.
        """
        return self._change(session_id, Fire(self.lifecycle.role("count")))

    def touch(self, session_id: str) -> Session:
        """Note that somebody is there; written only if the last note is old enough.

        Raises:
            SessionNotFoundError: There is no such session.
            TransitionError: It has expired or ended.
        """
        return self._change(session_id, self._touch)

    # --- ending ---------------------------------------------------------------------------

    def terminate(
        self, session_id: str, *, reason: str | None = None, wait: bool = True
    ) -> Session:
        """End a session in good order: stop its worker, let its tasks end, then finish.

        Args:
            session_id: Key of a stored session; one that has ended is returned unchanged.
            reason: Kept in the history.
            wait: Whether to wait for tasks, up to the stop grace, after which they are dropped;
                False, or in a batch: return while they drain. Waiting is done by the clock, with
                no lock held.

        Raises:
            SessionNotFoundError: There is no such session.
            LifecycleError: No ending row leads out of its status.
        """
        with self._watching(session_id) as changed:
            session = self._change(session_id, Terminate(reason))
            # A batch is the store's one transaction: to wait in it would make everybody wait.
            if not wait or self._core.batches.mine is not None:
                return session
            ahead = self._ahead(session)
            while True:
                session, seconds = self._go_on_ending(session, ahead)
                if seconds is None:
                    return session
                self._core.clock.wait(changed, seconds)
                changed.clear()
                session = self.get(session_id)

    def _ahead(self, session: Session) -> timedelta:
        """Return by how much the instants of a session, and so its grace, are ahead of the clock.

        They are, where the clock went back.
        """
        return max(timedelta(0), session.state.updated_at - self._core.clock.now())

    def _go_on_ending(self, session: Session, ahead: timedelta) -> tuple[Session, float | None]:
        """Take a session that is on its way out as far as time lets it go.

        Returns:
            The session, and how long to wait at most before it is looked at again; None if it has
            ended.
        """
        while session.status not in self.lifecycle.final:
            now = self._core.clock.now() + ahead
            timed = next_timed(session.state, self.lifecycle)
            left = POLL_SECONDS if timed is None else (timed[1] - now).total_seconds()
            if left > 0:
                return session, min(left, POLL_SECONDS)
            session = self._change(session.session_id, FireDue(), at=now)
        return session, None

    @contextmanager
    def _watching(self, session_id: str) -> Iterator[threading.Event]:
        changed = threading.Event()
        unsubscribe = self._core.subscribe(lambda _: changed.set(), session_id)
        try:
            yield changed
        finally:
            unsubscribe()

    def fail(self, session_id: str, error: str | BaseException) -> Session:
        """End a session at once, by the legal way: its tasks are dropped and named in `error`.

        Args:
            session_id: Key of a stored session; one that has ended is returned unchanged.
            error: The cause.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        return self._change(session_id, Fail(cause_in_words(error)))

    # --- the store ------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make all that this thread does in a `with` block one transaction of the store.

        It is durable when the block ends, and undone if the block raises. Other threads and
        processes wait with their commits meanwhile, so keep it short. Whoever subscribed is told
        after it; workers are not started in it.
        """
        with self._core.batch():
            yield
        self._workers.stop_ended()

    def close(self) -> None:
        """Stop the workers that run here and let go of the store; twice is harmless.

        Sessions stay as they are. Tasks and workers that are left can be recovered.
        """
        with self._closing:
            if self._core.closed:
                return
            self._core.close()
        with ExitStack() as closing:
            if self._opened is not None:
                closing.callback(self._opened.close)
            if self._span is not self._main:
                closing.callback(self._span.close)
            closing.callback(self._span.dismiss, self._core.owner_id)
            self._workers.stop_all()

    def __enter__(self) -> Self:
        self._core.check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _change(
        self,
        session_id: str,
        decision: Decision,
        expected_revision: int | None = None,
        at: datetime | None = None,
        owner_id: str | None = None,
    ) -> Session:
        change = self._core.change(
            session_id, decision, expected_revision=expected_revision, at=at, owner_id=owner_id
        )
        return self._session(self._workers.act(change))
