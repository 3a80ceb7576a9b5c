"""The three steps of a start: the session is created, what runs for it is started, it is activated.

Between the steps no lock is held, so the second may take its time. Whatever goes wrong in it ends
the session, by the legal way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from .changes import Change
from .core import Core
from .decisions import Adopt, Draft, Fire, cause_in_words
from .endings import Fail
from .errors import (
    FencedError,
    SessionStartError,
    StateInvalidError,
    StoreError,
    TransitionError,
)
from .session import Session, session_of
from .state import SessionState
from .stores.records import Work
from .workers import Workers

logger = logging.getLogger(__name__)

_WORKER = (Work("worker"),)


@attrs.frozen
class Claimed:
    """A session for which something is being started, and in whose name.

    Whoever that is may come to be counted as dead before the start is done: then nothing of it may
    be finished in another name, because the session may be somebody else's by then.

    Attributes:
        session: The session, as it was claimed.
        owner_id: In whose name.
    """

    session: Session
    owner_id: str

    @property
    def session_id(self) -> str:
        """Key of the session."""
        return self.session.session_id


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

    def check(self, what: str = "start") -> None:
        """Accept that something is about to be started.

        Args:
            what: By what.

        Raises:
            StateInvalidError: This thread is in a batch, which may be undone.
        """
        if self._core.batches.mine is not None:
            problem = f"{what}: what is started in a batch can't be undone"
            raise StateInvalidError(problems=(problem,))

    def is_run(self, session_id: str, *, besides: int) -> bool:
        """Tell whether a session has a worker here, or gets one; see `Workers.has`."""
        return self._workers.has(session_id, besides)

    def at_once(self, state: SessionState) -> Session:
        """Create a session for which nothing is started, and activate it, in one commit."""
        decision = None if self._activate is None else Fire(self._activate)
        change = self._core.create(state, decision)
        return session_of(change.state, change.revision, None)

    def begin(self, state: SessionState) -> Claimed:
        """Create a session for which something is about to be started.

        Where nothing activates it, its creation claims the worker.
        """
        owner_id = self._core.owner_id
        create = partial(self._core.create, state, owner_id=owner_id)
        if self._activate is None:
            return self._claimed(state.session_id, owner_id, partial(create, claims=_WORKER))
        change = create()
        return Claimed(session_of(change.state, change.revision, None), owner_id)

    def _claimed(self, session_id: str, owner_id: str, claim: Callable[[], Change]) -> Claimed:
        self._workers.expect(session_id)
        try:
            change = claim()
        except BaseException:
            self._workers.expect_no_longer(session_id)
            raise
        return Claimed(session_of(change.state, change.revision, None), owner_id)

    def restart(self, claimed: Claimed, *, start: Callable[[Session], Any]) -> None:
        """Start what runs for a session whose worker was taken over.

        Raises:
            SessionStartError: The start raised; the session has ended, with the cause.
            FencedError: The owner was counted as dead meanwhile; what was started was stopped.
        """
        try:
            worker = start(claimed.session)
        except BaseException as fault:
            self.let_go(claimed)
            error = self.failed(claimed, fault)
            if isinstance(fault, Exception):
                raise error from fault
            raise
        if worker is None:
            self.let_go(claimed)
        else:
            self._workers.add(claimed.session_id, worker, claimed.owner_id)
            try:
                self._workers.act(self._core.change(claimed.session_id, _nothing))
            except StoreError as fault:
                # It runs, and is claimed: nobody else may be given the session. If that has come to
                # be ended meanwhile, it waits for the worker, which the next sweep stops.
                logger.warning("session %r was not looked at again: %s", claimed.session_id, fault)
            except BaseException:
                self._workers.stop(claimed.session_id)  # nobody else does once a manager is closed
                raise

    def adopt(
        self,
        session_id: str,
        *,
        takes_over: Callable[[], bool] | None = None,
        owner_id: str | None = None,
    ) -> Claimed:
        """Claim the worker of a session that lives without one.

        Args:
            session_id: The session.
            takes_over: See `Adopt`.
            owner_id: In whose name; None: in that of this manager, as it is now.

        Raises:
            SessionSupervisedError: Something runs for it already.
            TransitionError: It is not to be worked with: it has expired, is ending, or has ended.
        """
        owner_id = owner_id or self._core.owner_id
        adopt = Adopt(takes_over)
        claim = partial(self._core.change, session_id, adopt, claims=_WORKER, owner_id=owner_id)
        return self._claimed(session_id, owner_id, claim)

    def let_go(self, claimed: Claimed) -> None:
        """Let go of the worker of a session, where none runs.

        Raises:
            StoreError: It could not be stored; it is let go of when others' are recovered.
        """
        session_id, owner_id = claimed.session_id, claimed.owner_id
        try:
            self._core.release(session_id, _WORKER, owner_id)
        except FencedError:
            raise
        except StoreError:
            self._workers.unmanned.append((session_id, owner_id))
            raise
        finally:
            self._workers.expect_no_longer(session_id)

    def done(self, claimed: Claimed, worker: Any) -> Session:
        """Activate a session for which something was started.

        Args:
            claimed: Whose start is done.
            worker: What was started; None if nothing runs on.

        Raises:
            SessionStartError: It could not be activated, and has ended. The worker was stopped, or
                was asked to.
            FencedError: The owner was counted as dead meanwhile; the worker was stopped.
        """
        session_id, owner_id = claimed.session_id, claimed.owner_id
        if worker is None:
            self._workers.expect_no_longer(session_id)
        runs = worker is not None and self._workers.add(session_id, worker, owner_id)
        if self._activate is None:
            if not runs:
                self.let_go(claimed)
            try:
                change = self._core.change(session_id, _nothing)
            except BaseException:
                if runs:
                    self._workers.stop(session_id)
                    self._workers.unmanned.append((session_id, owner_id))
                raise
        else:
            claims = _WORKER if runs else ()
            try:
                change = self._core.change(
                    session_id, Fire(self._activate), claims=claims, owner_id=owner_id
                )
            except BaseException as fault:
                self._workers.stop(session_id)
                if not isinstance(fault, TransitionError):
                    raise
                cause = f"started, but could not be activated: {fault.refusal.headline}"
                raise self.failed(claimed, cause) from fault
        change = self._workers.act(change)
        return session_of(change.state, change.revision, self._workers.get(session_id))

    def failed(self, claimed: Claimed, cause: BaseException | str) -> SessionStartError:
        """End a session whose start failed; returns what its creator is told."""
        session_id, owner_id = claimed.session_id, claimed.owner_id
        told = cause_in_words(cause)
        try:
            if self._activate is None:
                self.let_go(claimed)
            else:
                self._workers.expect_no_longer(session_id)
            failed = self._core.change(session_id, Fail(told), owner_id=owner_id)
            self._workers.act(failed)
        except Exception:
            # The start's own failure is what the caller must see.
            logger.exception("session %r failed to start and could not be ended", session_id)
            return SessionStartError(session_id=session_id, cause=told, lives=True)
        return SessionStartError(session_id=session_id, cause=told)


def _nothing(_: Draft) -> None: ...
