"""The three steps of a start: the session is created, what runs for it is started, it is activated.

Between the steps no lock is held, so the second may take its time. Whatever goes wrong in it ends
the session, by the legal way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .core import Core
from .decisions import Adopt, Draft, Fail, Fire, cause_in_words
from .errors import SessionStartError, StateInvalidError, StoreError, TransitionError
from .session import Session, session_of
from .state import SessionState
from .stores.records import Work
from .workers import DeferredWorker, Workers

logger = logging.getLogger(__name__)

_WORKER = (Work("worker"),)


class Starting:
    """Starts the sessions of one manager.

    Args:
        core: The sessions.
        workers: Where what runs for them is kept.

    Threads: safe.
    """

    def __init__(self, core: Core, workers: Workers) -> None:
        self._core = core
        self._workers = workers
        self._activate = core.lifecycle.roles.get("activate")

    def check(self) -> None:
        """Accept that something is about to be started.

        Raises:
            StateInvalidError: This thread is in a batch, which may be undone.
        """
        if self._core.in_batch:
            raise StateInvalidError(problems=("start: what is started in a batch can't be undone",))

    def at_once(self, state: SessionState) -> Session:
        """Create a session for which nothing is started, and activate it, in one commit."""
        decision = None if self._activate is None else Fire(self._activate)
        change = self._core.create(state, decision)
        return session_of(change.state, change.revision, None)

    def begin(self, state: SessionState) -> Session:
        """Create a session for which something is about to be started.

        Where nothing activates it, its creation claims the worker.
        """
        change = self._core.create(state, claims=_WORKER if self._activate is None else ())
        return session_of(change.state, change.revision, None)

    def restart(self, session: Session, owner_id: str, *, start: Callable[[Session], Any]) -> None:
        """Start what runs for a session whose worker was taken over, and claimed by an owner.

        Raises:
            SessionStartError: The start raised; the session has ended, with the cause.
            FencedError: The owner was counted as dead meanwhile; what was started was stopped.
        """
        session_id = session.session_id
        try:
            worker = start(session)
        except BaseException as fault:
            self._core.store.release(session_id, _WORKER, owner_id)
            error = self.failed(session_id, fault)
            if isinstance(fault, Exception):
                raise error from fault
            raise
        if worker is None:
            self._core.store.release(session_id, _WORKER, owner_id)
        else:
            self._workers.add(session_id, worker, owner_id)
            try:
                self._workers.act(self._core.change(session_id, _nothing))
            except StoreError as fault:
                # It runs, and is claimed: nobody else may be given the session. If that has come to
                # be ended meanwhile, the next sweep stops it.
                logger.warning("session %r was not looked at again: %s", session_id, fault)

    def adopt(self, session_id: str) -> Session:
        """Claim the worker of a session that lives without one.

        Raises:
            SessionSupervisedError: Something runs for it already.
            TransitionError: It is not to be worked with: it has expired, is ending, or has ended.
        """
        change = self._core.change(session_id, Adopt(), claims=_WORKER)
        return session_of(change.state, change.revision, None)

    def done(self, session_id: str, worker: Any) -> Session:
        """Activate a session for which something was started.

        Args:
            session_id: Whose start is done.
            worker: What was started; None if nothing runs on.

        Raises:
            SessionStartError: It could not be activated, and has ended. The worker was stopped, or
                was asked to.
            FencedError: The owner was counted as dead meanwhile; the worker was stopped.
        """
        # Who has the worker is who claims it, though this may be another owner's manager by then.
        deferred = isinstance(worker, DeferredWorker)
        owner_id = worker.owner_id if deferred else self._core.owner_id
        if worker is not None:
            self._workers.add(session_id, worker, owner_id)
        if self._activate is None:
            if worker is None:
                self._core.store.release(session_id, _WORKER, owner_id)
            change = self._core.change(session_id, _nothing)
        else:
            claims = () if worker is None else _WORKER
            try:
                change = self._core.change(
                    session_id, Fire(self._activate), claims=claims, owner_id=owner_id
                )
            except BaseException as fault:
                self._workers.stop(session_id)
                if not isinstance(fault, TransitionError):
                    raise
                cause = f"started, but could not be activated: {fault.refusal.headline}"
                raise self.failed(session_id, cause) from fault
        change = self._workers.act(change)
        return session_of(change.state, change.revision, self._workers.get(session_id))

    def failed(self, session_id: str, cause: BaseException | str) -> SessionStartError:
        """End a session whose start failed; returns what its creator is told."""
        error = SessionStartError(session_id=session_id, cause=cause_in_words(cause))
        try:
            if self._activate is None:
                self._core.store.release(session_id, _WORKER, self._core.owner_id)
            self._workers.act(self._core.change(session_id, Fail(error.cause)))
        except Exception:
            # The start's own failure is what the caller must see; recovery ends the session later.
            logger.exception("session %r failed to start and could not be ended", session_id)
        return error


def _nothing(_: Draft) -> None: ...
