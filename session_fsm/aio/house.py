"""All that an open manager has on its loop: threads, supervisors, the sweeper, whoever listens."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, NoReturn

from ..errors import (
    FencedError,
    ManagerClosedError,
    SessionFsmError,
    SessionNotFoundError,
    StoreError,
)
from ..keeper import MAX_TAKEOVERS
from ..session import RecoveryReport, Session, session_of
from ..starting import Claimed
from .calls import ENDED, LEFT_ALONE, NOT_ENDED, Calls, Note, noted, until_done
from .child_context import ChildContext
from .children import Child, RestartLimit
from .contexts import LoopPost
from .desk import Desk
from .nursery import Nursery
from .recovering import Recoverer, Restart, recover
from .steps import SteppedManager
from .supervisor import SessionSupervisor, forget_cancellation
from .timing import Timing
from .verbs import SessionVerbs

logger = logging.getLogger(__name__)

DEFAULT_START_SECONDS: Final = 60.0
DEFAULT_STOP_SECONDS: Final = 10.0
"""For lifecycles that have no such grace."""
RETRY_SECONDS: Final = 0.5
"""First wait before the store is asked again to note an end; doubled for each further one."""
LONGEST_RETRY_SECONDS: Final = 30.0

Start = Callable[[Session], Awaitable[Any]]


class House(Desk):
    """What an open manager has on its loop.

    Args:
        inner: The manager of threads.
        calls: Makes its calls.
        timing: What waits.
        poll_seconds: Longest sleep of the sweeper.

    Threads: none but the loop's.
    """

    def __init__(
        self, inner: SteppedManager, calls: Calls, timing: Timing, *, poll_seconds: float
    ) -> None:
        super().__init__(inner, calls, timing, poll_seconds=poll_seconds)
        loop = asyncio.get_running_loop()
        inner.post = LoopPost(inner)
        self._nursery = Nursery()
        self._supervisors: set[SessionSupervisor] = set()
        self._closing: asyncio.Future[None] = loop.create_future()
        self._close_task: asyncio.Task[None] | None = None
        self._lasting: set[asyncio.Task[None]] = set()
        self._go_on_with(self.sweeper.run)

    def _go_on_with(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin what lasts until the manager is closed, whoever cancels all tasks there are."""
        task = asyncio.get_running_loop().create_task(run())
        self._lasting.add(task)

        def ended(_: asyncio.Task[None]) -> None:
            self._lasting.discard(task)
            if not task.cancelled():
                logger.error("%s has failed", task.get_name(), exc_info=task.exception())
            elif not self._closing.done():
                self._go_on_with(run)

        task.add_done_callback(ended)

    def begin_to_recover(self, manager: SessionVerbs, restart: Restart | None) -> None:
        """Begin to take over what dead nodes have left, where many of them share the store."""
        lease_seconds = self.inner.store.lease_seconds
        if lease_seconds is None:
            return
        recoverer = Recoverer(
            partial(self.recover, manager, restart, MAX_TAKEOVERS, all_=False),
            self.timing,
            every_seconds=lease_seconds / 3,
        )
        self._go_on_with(recoverer.run)

    # --- creating -------------------------------------------------------------------------

    async def create(
        self,
        begin: Callable[[], Claimed],
        manager: SessionVerbs,
        start: Start | None,
        children: tuple[Child, ...],
        restarts: RestartLimit,
    ) -> Session:
        """Create a session, start its children, and activate it.

        Who cancels this has the session ended: nobody has asked for it any longer.

        Args:
            begin: Creates the session; called in a thread.
            manager: Handed to the children.
            start: Returns the worker; there are no children then.
            children: The children.
            restarts: How often they may be restarted.
        """
        if self._closing.done():
            raise ManagerClosedError()
        with noted() as note:
            return await self._create(note, begin, manager, start, children, restarts)

    async def _create(
        self,
        note: Note,
        begin: Callable[[], Claimed],
        manager: SessionVerbs,
        start: Start | None,
        children: tuple[Child, ...],
        restarts: RestartLimit,
    ) -> Session:
        undo = partial(self._begun_in_vain, note)
        claimed = await self.calls(begin, undo=undo, in_vain=self._closing.done)
        session = claimed.session
        started = None if start is None else _Started(start, session, self.calls)
        if started is not None:
            children = (Child("start", started, restart="temporary", signals_ready=True),)
        supervisor = self._supervisor(claimed, manager, children, restarts)
        if started is not None:
            started.show = supervisor.show
        async with self._or_ended(supervisor, "its creation was cancelled", note):
            await self._start(supervisor, session, self.inner.deadline_of(session))
            return await self._activate(supervisor)

    async def supervise(
        self,
        session_id: str,
        manager: SessionVerbs,
        children: tuple[Child, ...],
        restarts: RestartLimit,
    ) -> Session:
        """Start children for a session that lives without any; arguments as for `create`.

        Who cancels this has the session failed, as one whose children have.
        """
        if self._closing.done():
            raise ManagerClosedError()
        with noted() as note:
            adopt = partial(self.inner.adopt, session_id)
            undo = partial(self._adopted_in_vain, note)
            claimed = await self.calls(adopt, undo=undo, in_vain=self._closing.done)
            return await self._run(note, claimed, manager, children, restarts)

    async def _run(
        self,
        note: Note,
        claimed: Claimed,
        manager: SessionVerbs,
        children: tuple[Child, ...],
        restarts: RestartLimit,
    ) -> Session:
        """Start children for a session whose worker was claimed."""
        session = claimed.session
        supervisor = self._supervisor(claimed, manager, children, restarts)
        seconds = self.inner.grace_seconds("start", DEFAULT_START_SECONDS)
        async with self._or_ended(supervisor, "its start was cancelled", note, lived=True):
            cause = await self._begin(supervisor, session, self.timing.after(seconds))
            if cause is not None and not isinstance(cause, StoreError):
                await self._fail_start(supervisor, cause)
        if cause is not None:
            # What can't be read here may be by another version, with the key, or later: it is
            # no reason to lose a session that lives.
            note.text = LEFT_ALONE
            if await until_done(supervisor.begin_to_stop()):
                raise asyncio.CancelledError
            raise cause
        supervisor.activated()
        return session_of(session.state, session.revision, supervisor.shown)

    async def recover(
        self, manager: SessionVerbs, restart: Restart | None, max_takeovers: int, *, all_: bool
    ) -> RecoveryReport:
        """Take over what dead owners left, and start children anew; see `recovering.recover`."""
        run = partial(self._run_anew, manager)
        return await recover(
            self.inner,
            self.calls,
            run,
            restart,
            max_takeovers=max_takeovers,
            all_=all_,
            is_closing=self._closing.done,
        )

    async def _run_anew(
        self, manager: SessionVerbs, claimed: Claimed, children: tuple[Child, ...]
    ) -> None:
        with noted() as note:
            await self._run(note, claimed, manager, children, RestartLimit())

    async def _start(
        self, supervisor: SessionSupervisor, session: Session, until: datetime | None
    ) -> None:
        """Start the children of a session, or end it.

        Raises:
            SessionStartError: One of them has failed, or was not ready in time.
        """
        cause = await self._begin(supervisor, session, until)
        if cause is not None:
            await self._fail_start(supervisor, cause)

    async def _begin(
        self, supervisor: SessionSupervisor, session: Session, until: datetime | None
    ) -> BaseException | str | None:
        """Start the children of a session; returns what the start has failed by, or None."""
        self._supervisors.add(supervisor)
        self.inner.attach(session.session_id, supervisor)
        self.expect(session)
        return await supervisor.start(until)

    async def _fail_start(
        self, supervisor: SessionSupervisor, cause: BaseException | str
    ) -> NoReturn:
        error = await self._give_up(supervisor, cause)
        raise error from (cause if isinstance(cause, BaseException) else None)

    @asynccontextmanager
    async def _or_ended(
        self, supervisor: SessionSupervisor, cause: str, note: Note, *, lived: bool = False
    ) -> AsyncIterator[None]:
        """End the session of a supervisor if what is done in a block is cancelled.

        One that lived before is left as all else is, if that is because the manager is closed.
        """

        async def give_up() -> None:
            try:
                await self._give_up(supervisor, cause)
            finally:
                await self._note_end(note, supervisor.session_id)

        try:
            yield
        except asyncio.CancelledError:
            if lived and self._closing.done():
                note.text = LEFT_ALONE
                await until_done(supervisor.begin_to_stop(ends=False))
            else:
                await until_done(self.insist(give_up, f"{supervisor.session_id} ends"))
            raise

    async def _note_end(self, note: Note, session_id: str) -> None:
        """Note whether a session that was to be ended has ended."""
        note.text = NOT_ENDED
        with contextlib.suppress(Exception):
            session = await self.calls(partial(self.inner.get, session_id))
            if session.status in self.inner.lifecycle.final:
                note.text = ENDED

    async def _adopted_in_vain(self, note: Note, claimed: Claimed) -> None:
        note.text = LEFT_ALONE
        await self.calls(partial(self.inner.not_adopted, claimed))

    def _supervisor(
        self,
        claimed: Claimed,
        manager: SessionVerbs,
        children: tuple[Child, ...],
        restarts: RestartLimit,
    ) -> SessionSupervisor:
        return SessionSupervisor(
            claimed,
            children,
            limit=restarts,
            manager=manager,
            parent=self,
            start_seconds=self.inner.grace_seconds("start", DEFAULT_START_SECONDS),
            stop_seconds=self.inner.grace_seconds("stop", DEFAULT_STOP_SECONDS),
        )

    async def _begun_in_vain(self, note: Note, claimed: Claimed) -> None:
        closed = self._closing.done()
        cause = "its manager was closed" if closed else "its creation was cancelled"
        await self.calls(partial(self.inner.start_failed, claimed, cause))
        await self._note_end(note, claimed.session_id)

    async def _activate(self, supervisor: SessionSupervisor) -> Session:
        worker = None if supervisor.shown is None else supervisor
        try:
            session = await self.calls(partial(self.inner.started, supervisor.claimed, worker))
        except Exception:
            await until_done(supervisor.begin_to_stop())
            raise
        self.expect(session)
        supervisor.activated()
        return session

    async def _give_up(
        self, supervisor: SessionSupervisor, cause: BaseException | str
    ) -> BaseException:
        """End a session whose start has come to nothing, and stop what was started."""
        failed = partial(self.inner.start_failed, supervisor.claimed, cause)
        error = await self.calls(failed)
        if await until_done(supervisor.begin_to_stop()):
            raise asyncio.CancelledError
        return error

    # --- what supervisors tell ------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Begin a task that is waited for when the manager is closed."""
        return self._nursery.spawn(work, name)

    def insist(
        self, work: Callable[[], Coroutine[Any, Any, object]], name: str
    ) -> asyncio.Future[None]:
        """Begin a task that nobody can keep from beginning; returns what is done when it is."""
        return self._nursery.insist(work, name)

    def failed(self, supervisor: SessionSupervisor, cause: str) -> None:
        """End a session, because what runs for it has failed."""
        name = f"{supervisor.session_id} fails"
        fail = partial(self.inner.worker_failed, supervisor.session_id, cause, supervisor.owner_id)
        self.insist(lambda: self._go_through_with(fail, name), name)

    async def stopped(self, supervisor: SessionSupervisor, *, ends: bool) -> None:
        """Note that nothing runs for a session any longer, but for what was abandoned."""
        for task in supervisor.abandoned_tasks:
            self._nursery.let_go(task)
        self._supervisors.discard(supervisor)
        if ends:
            error = None
            if supervisor.abandoned:
                error = f"did not stop, and abandoned: {', '.join(supervisor.abandoned)}"
            session_id = supervisor.session_id
            note = partial(self.inner.worker_stopped, session_id, supervisor, error)
            await self._go_through_with(note, f"{session_id} has stopped")
        else:
            self.inner.worker_gone(supervisor.session_id, supervisor)

    async def _go_through_with(self, work: Callable[[], object], name: str) -> None:
        """Make a call that must not be lost; again and again, until the manager is closed."""
        wait, cancelled = RETRY_SECONDS, 0
        while True:
            try:
                await self.calls(work)
                return
            except (SessionNotFoundError, ManagerClosedError):
                return
            except FencedError as fault:
                logger.warning("%s: %s", name, fault)
                return
            except asyncio.CancelledError:
                # Whoever cancels all tasks there are has not ended this session with that.
                cancelled += 1
                if cancelled > 2:
                    raise
                forget_cancellation()
                continue
            except Exception as fault:
                if self._closing.done():
                    logger.exception("%s: not noted, and left to be recovered", name)
                    return
                level = logging.WARNING if isinstance(fault, SessionFsmError) else logging.ERROR
                logger.log(level, "%s: tried again in %g s", name, wait, exc_info=fault)
            await self.timing.wait((self._closing,), until=self.timing.after(wait))
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)

    # --- closing --------------------------------------------------------------------------

    def begin_to_close(self) -> asyncio.Task[None]:
        """Begin to stop everything; returns the task that does it."""
        if self._close_task is None:
            self._close_task = asyncio.get_running_loop().create_task(self._close())
        return self._close_task

    def hurry(self) -> None:
        """Have what is being stopped be cancelled at once."""
        for supervisor in self._supervisors:
            supervisor.hurry()

    async def _close(self) -> None:
        self._closing.set_result(None)
        for task in tuple(self._lasting):
            task.cancel()
            await until_done(task)
        for supervisor in tuple(self._supervisors):
            supervisor.begin_to_stop(ends=False)
        await self._nursery.close()
        await self.following.close()
        await self.calls.close(self.inner.close)


class _Started:
    """The child that a start is: it holds what was started until that is to be stopped.

    Attributes:
        is_cut_short: Whether there is no worker yet: a start knows of no stop, and is cancelled.
        show: Called with the worker.
    """

    def __init__(self, start: Start, session: Session, calls: Calls) -> None:
        self._calls = calls
        self._start = start
        self._session = session
        self.is_cut_short = True
        self.show: Callable[[Any], None] = lambda _: None

    async def __call__(self, context: ChildContext) -> None:
        """Start; then wait for the stop."""
        worker = await self._start(self._session)
        self.is_cut_short = False
        self.show(worker)
        context.ready()
        if worker is None:
            return
        await context.stopping.wait()
        stop = getattr(worker, "stop", None)
        if stop is None:
            return
        if inspect.iscoroutinefunction(stop):
            await stop()
            return
        stopped = await self._calls(stop)
        if inspect.isawaitable(stopped):
            await stopped
