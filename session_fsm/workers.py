"""What runs for sessions in this process, and is stopped when they end.

A worker is whatever a session's start returned. The store knows that it runs and for whom, so that
a session which another process ends waits for its worker to be stopped here.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from typing import Any

from .changes import Change
from .core import Core
from .decisions import StopDone
from .errors import SessionNotFoundError
from .session import SessionEvent
from .stores.records import Work

logger = logging.getLogger(__name__)


class DeferredWorker(ABC):
    """A worker that does not stop while whoever wants it to waits, but tells when it has.

    It is asked to stop, as often as anybody wants it to, and tells `Workers.stopped` once.
    """

    @property
    @abstractmethod
    def shown(self) -> Any:
        """What sessions show as their worker."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """Begin to stop, on whichever thread this is called; returns at once."""


class Workers:
    """The workers of one manager.

    Args:
        core: The sessions that they run for.

    Threads: safe; a worker is stopped once, by the thread that first wants it to end, with no lock
    held.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._running: dict[str, Any] = {}
        self._stopping: set[str] = set()
        self._taking = threading.Lock()
        self._process_id = os.getpid()

    def add(self, session_id: str, worker: Any) -> None:
        """Keep the worker of a session; one of an earlier session with this id is stopped."""
        if self._running.get(session_id) is worker:
            return
        self.stop(session_id)
        self._running[session_id] = worker

    def get(self, session_id: str) -> Any:
        """Return the worker of a session, or None."""
        worker = self._running.get(session_id)
        return worker.shown if isinstance(worker, DeferredWorker) else worker

    def act(self, change: Change) -> Change:
        """Stop the worker of a session that is being ended, then go on with its way out."""
        if not self._running:
            return change
        session_id, status = change.state.session_id, change.state.status
        if session_id not in self._running or not self._core.is_ending(status):
            return change
        if self._core.in_batch:
            return change  # it may be undone: `stop_ended` comes after it
        if not self.stop(session_id):
            return change
        return self._core.change(session_id, StopDone())

    def stop(self, session_id: str) -> bool:
        """Stop the worker of a session, if one runs here.

        Returns:
            Whether none runs any longer: False while another thread is stopping it, and while one
            that tells when it has stopped has not.
        """
        with self._taking:
            if session_id in self._stopping:
                return False
            worker = self._running.get(session_id)
            if isinstance(worker, DeferredWorker):
                worker.ask_to_stop()
                return False
            self._running.pop(session_id, None)
            stop = getattr(worker, "stop", None)
            if stop is None:
                return True
            self._stopping.add(session_id)
        try:
            stop()
        except Exception:
            # The session ends all the same: what won't stop must not keep it from ending.
            logger.exception("the worker of session %r did not stop in good order", session_id)
        finally:
            self._stopping.discard(session_id)
        return True

    def stopped(self, session_id: str, worker: DeferredWorker, error: str | None) -> None:
        """Note that a worker has stopped which was asked to, and go on with the way out.

        Args:
            session_id: Whose worker.
            worker: The one that has stopped; the session may have another one by now.
            error: What went wrong with stopping it; kept if the session has not ended yet.

        Raises:
            StoreError: It could not be stored that nothing runs any longer.
        """
        with self._taking:
            if self._running.get(session_id) is worker:
                del self._running[session_id]
        try:
            self._core.change(session_id, StopDone(error))
        except SessionNotFoundError:
            self._core.store.release(session_id, (Work("worker"),), self._core.owner_id)

    def stop_ended(self) -> tuple[tuple[SessionEvent, ...], tuple[tuple[str, str], ...]]:
        """Stop workers of sessions that were ended by a deadline, or by another process.

        Returns:
            The steps that could be made then; sessions with which it could not be gone on, each
            with the error in words.
        """
        events: list[SessionEvent] = []
        failed: list[tuple[str, str]] = []
        if self._core.in_batch:
            return (), ()
        for session_id in self._core.store.to_stop(self._core.owner_id):
            if not self.stop(session_id):
                continue
            try:
                events += self._core.change(session_id, StopDone()).events
            except SessionNotFoundError:
                work = (Work("worker"),)
                self._core.store.release(session_id, work, self._core.owner_id)
            except Exception as fault:
                # One session that can't be read or moved does not keep the others running.
                logger.exception("session %r can't be gone on with", session_id)
                failed.append((session_id, str(fault)))
        return tuple(events), tuple(failed)

    def stop_all(self) -> None:
        """Stop every worker; their sessions stay as they are."""
        if os.getpid() != self._process_id:
            return  # a fork of the process that runs them: they are not its own to stop
        for session_id in tuple(self._running):
            self.stop(session_id)
