"""What runs for sessions in this process, and is stopped when they end.

A worker is whatever a session's start returned. The store knows that it runs and for whom, so that
a session which another process ends waits for its worker to be stopped here.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from typing import Any, Final

import attrs

from .changes import Change
from .core import Core
from .endings import StopDone
from .errors import FencedError, SessionFsmError, SessionNotFoundError
from .session import SessionEvent
from .stores.records import Work

logger = logging.getLogger(__name__)


class DeferredWorker(ABC):
    """A worker that does not stop while whoever wants it to waits, but tells when it has.

    It is asked to stop, as often as anybody wants it to, and tells `Workers.stopped` once.

    Attributes:
        owner_id: In whose name it was started.
        is_gone: Whether it is known to run no longer; it does not come back.
    """

    owner_id: str
    is_gone = False

    @property
    @abstractmethod
    def shown(self) -> Any:
        """What sessions show as their worker."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Begin to stop, on whichever thread this is called; returns at once."""

    @abstractmethod
    def give_up(self, within_seconds: float) -> None:
        """Stop at once, though the session lives on elsewhere; returns at once.

        Args:
            within_seconds: When nothing may run any longer.
        """


@attrs.frozen
class _Running:
    """A worker, and in whose name it was started."""

    worker: Any
    owner_id: str


SLOW_STOP_SECONDS: Final = 0.001
"""A worker that takes longer to stop is not waited for by the others that have to."""
LOOKS_SECONDS: Final = 1.0
"""How often whoever waits for workers to be gone looks whether the manager was closed."""


class Workers:
    """The workers of one manager.

    Args:
        core: The sessions that they run for.

    Attributes:
        unmanned: Sessions whose worker is claimed and does not run, because it could not be let go
            of, each with the owner who claims it.

    Threads: safe; a worker is stopped once, by the thread that first wants it to end, with no lock
    held.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._running: dict[str, _Running] = {}
        self._stopping: dict[str, int] = {}
        self._given_up: set[str] = set()
        self._expected: Counter[str] = Counter()
        self.unmanned: deque[tuple[str, str]] = deque()
        self._taking = threading.Lock()
        self._gone = threading.Condition(self._taking)
        self._process_id = os.getpid()

    def expect(self, session_id: str) -> None:
        """Expect a worker, which is about to be claimed and started.

        Until it is added, or is expected no longer, nobody takes its session for one without: it
        would be ended, and the worker would run on for nobody.
        """
        with self._taking:
            self._expected[session_id] += 1

    def expect_no_longer(self, session_id: str) -> None:
        """Expect a worker no longer, which came to nothing; harmless where it was added."""
        with self._taking:
            self._expected.subtract((session_id,))
            self._expected = +self._expected

    def add(self, session_id: str, worker: Any, owner_id: str) -> bool:
        """Keep the worker of a session; one of an earlier session with this id is stopped.

        Args:
            session_id: For which session it runs.
            worker: The worker.
            owner_id: In whose name it was started.

        Returns:
            Whether it is kept: not if it is known to run no longer.

        Raises:
            FencedError: That one is counted as dead by now; the worker was stopped, or was asked
                to.
        """
        if self._worker(session_id) is worker:
            return True
        if self._worker(session_id) is not None:
            self.stop(session_id)
        with self._taking:
            self._expected.pop(session_id, None)
            if isinstance(worker, DeferredWorker) and worker.is_gone:
                return False
            self._running[session_id] = _Running(worker, owner_id)
            too_late = owner_id in self._given_up
        if too_late:
            self._give_up(owner_id)
            raise FencedError(session_id=session_id, owner_id=owner_id)
        return True

    def get(self, session_id: str) -> Any:
        """Return the worker of a session, or None."""
        worker = self._worker(session_id)
        return worker.shown if isinstance(worker, DeferredWorker) else worker

    def has(self, session_id: str, besides: int = 0) -> bool:
        """Tell whether anything runs here for a session, or is being started or stopped.

        Args:
            session_id: The session.
            besides: How many that are being started do not count.
        """
        if session_id in self._running or session_id in self._stopping:
            return True
        return self._expected[session_id] > besides

    def _worker(self, session_id: str) -> Any:
        running = self._running.get(session_id)
        return None if running is None else running.worker

    def act(self, change: Change) -> Change:
        """Stop the worker of a session that is being ended, then go on with its way out."""
        if not self._running:
            return change
        session_id, status = change.state.session_id, change.state.status
        running = self._running.get(session_id)
        if running is None or not self._core.is_ending(status):
            return change
        if self._core.batches.mine is not None:
            return change  # it may be undone: `stop_ended` comes after it
        if not self.stop(session_id):
            return change
        try:
            return self._core.change(session_id, StopDone(), owner_id=running.owner_id)
        except SessionFsmError as fault:
            # What was asked for is made; that the worker has stopped is noted by the next sweep.
            logger.warning("session %r could not be gone on with: %s", session_id, fault)
            return change

    def stop(self, session_id: str) -> bool:
        """Stop the worker of a session, if one runs here.

        Returns:
            Whether none runs any longer: False while another thread is stopping it, while one that
            tells when it has stopped has not, and while one is being started.
        """
        with self._taking:
            if session_id in self._stopping:
                return False
            worker = self._worker(session_id)
            if worker is None and session_id in self._expected:
                return False
            if isinstance(worker, DeferredWorker):
                worker.ask_to_stop()
                return False
            self._running.pop(session_id, None)
            stop = getattr(worker, "stop", None)
            if stop is None:
                return True
            self._stopping[session_id] = threading.get_ident()
        try:
            stop()
        except Exception:
            # The session ends all the same: what won't stop must not keep it from ending.
            logger.exception("the worker of session %r did not stop in good order", session_id)
        finally:
            with self._taking:
                del self._stopping[session_id]
                self._gone.notify_all()
        return True

    def stopped(self, session_id: str, worker: DeferredWorker, error: str | None) -> None:
        """Note that a worker has stopped which was asked to, and go on with the way out.

        Args:
            session_id: Whose worker.
            worker: The one that has stopped; the session may have another one by now.
            error: What went wrong with stopping it; kept if the session has not ended yet.

        Raises:
            FencedError: Its owner is counted as dead; the session is somebody else's business.
            StoreError: It could not be stored that nothing runs any longer.
        """
        self.gone(session_id, worker)
        try:
            self._core.change(session_id, StopDone(error), owner_id=worker.owner_id)
        except SessionNotFoundError:
            self._core.release(session_id, (Work("worker"),), worker.owner_id)

    def gone(self, session_id: str, worker: DeferredWorker) -> None:
        """Note that a worker does not run any longer, though its session may live on."""
        with self._taking:
            worker.is_gone = True
            if self._worker(session_id) is worker:
                del self._running[session_id]
            self._gone.notify_all()

    def stop_ended(self) -> tuple[tuple[SessionEvent, ...], tuple[tuple[str, str], ...]]:
        """Stop workers of sessions that were ended by a deadline, or by another process.

        Returns:
            The steps that could be made then; sessions with which it could not be gone on, each
            with the error in words.
        """
        events: list[SessionEvent] = []
        failed: list[tuple[str, str]] = []
        if self._core.batches.mine is not None:
            return (), ()
        owner_id = self._core.owner_id
        for session_id in self._core.store.to_stop(owner_id):
            if not self.stop(session_id):
                continue
            try:
                events += self._core.change(session_id, StopDone(), owner_id=owner_id).events
            except SessionNotFoundError:
                self._core.release(session_id, (Work("worker"),), owner_id)
            except Exception as fault:
                # One session that can't be read or moved does not keep the others running.
                logger.exception("session %r can't be gone on with", session_id)
                failed.append((session_id, str(fault)))
        return tuple(events), tuple(failed)

    def stop_all(self) -> None:
        """Stop every worker; their sessions stay as they are.

        Those that other threads are stopping are waited for: they run until then.
        """
        if os.getpid() != self._process_id:
            return  # a fork of the process that runs them: they are not its own to stop
        for session_id in tuple(self._running):
            self.stop(session_id)
        me = threading.get_ident()
        with self._taking:
            while any(each != me for each in self._stopping.values()):
                self._gone.wait()

    def give_up(self, owner_id: str) -> None:
        """Stop what was started in the name of an owner who is counted as dead.

        Nothing is said of it to the store: the sessions are for others to take. All of it is
        stopped at the same time, because others may soon run the same. Returns when none of it runs
        any longer, or the manager is closed.
        """
        with self._taking:
            self._given_up.add(owner_id)
        while self._of(owner_id) or self._stopping:
            self._give_up(owner_id)
            with self._taking:
                if self._core.closed and not self._stopping and self._are_deferred(owner_id):
                    return  # those that stop on a loop may have none any longer
                if self._of(owner_id) or self._stopping:
                    self._gone.wait(LOOKS_SECONDS)

    def _are_deferred(self, owner_id: str) -> bool:
        return all(isinstance(worker, DeferredWorker) for _, worker in self._of(owner_id))

    def _give_up(self, owner_id: str) -> None:
        at_once: list[str] = []
        for session_id, worker in self._of(owner_id):
            if isinstance(worker, DeferredWorker):
                worker.give_up(self._core.store.margin_seconds)
            else:
                at_once.append(session_id)
        self._stop_together(at_once)

    def _stop_together(self, session_ids: list[str]) -> None:
        """Begin to stop the workers of sessions, so that none waits long for another one's stop."""

        def stop_some() -> None:
            while session_ids:
                try:
                    session_id = session_ids.pop()
                except IndexError:
                    return
                self.stop(session_id)

        while session_ids:
            thread = threading.Thread(target=stop_some, name="session_fsm stops", daemon=True)
            thread.start()
            thread.join(SLOW_STOP_SECONDS)

    def _of(self, owner_id: str) -> tuple[tuple[str, Any], ...]:
        return tuple(
            (session_id, running.worker)
            for session_id, running in tuple(self._running.items())
            if running.owner_id == owner_id
        )
