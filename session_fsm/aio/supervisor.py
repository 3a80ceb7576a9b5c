"""The supervisor of a session: it starts the session's children, restarts them, and stops them.

One for one: a child that ends is restarted by itself, its siblings are not touched. Each child has
one task, which runs it again and again; the supervisor needs none of its own while all is well. So
nothing stands above the children that could die in their place, and no session's supervisor is
above another one's.

Source: restart words, intensity and order of stops follow Erlang's `supervisor`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

import attrs

from ..decisions import cause_in_words
from ..endings import ENDED_BEFORE_START
from ..starting import Claimed
from ..workers import DeferredWorker
from .child_context import ChildContext
from .children import Child, ChildStatus, Inbox, RestartLimit
from .timing import Timing, call_soon
from .verbs import SessionVerbs

logger = logging.getLogger(__name__)

LONGEST_CANCEL_SECONDS: Final = 5.0
"""Longest that a cancelled child is waited for, however long a stop may take."""


class Parent(Protocol):
    """Who has supervisors, and is told by them.

    Attributes:
        timing: What waits.
    """

    timing: Timing

    def in_name_of(self, owner_id: str) -> AbstractContextManager[None]:
        """Have what is done inside be done in the name of an owner, dead or alive."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Begin a task that the parent waits for at its end."""
        ...

    def insist(
        self, work: Callable[[], Coroutine[Any, Any, object]], name: str
    ) -> asyncio.Future[None]:
        """Begin a task that nobody can keep from beginning; returns what is done when it is."""
        ...

    def failed(self, supervisor: SessionSupervisor, cause: str) -> None:
        """Hear that a session has to be ended, because what runs for it has failed."""
        ...

    async def stopped(self, supervisor: SessionSupervisor, *, ends: bool) -> None:
        """Hear that nothing runs for the session any longer, but for what was abandoned.

        Args:
            supervisor: Whose children have stopped.
            ends: Whether the session is being ended, and waits for this.
        """
        ...


@attrs.define(eq=False)
class _Slot:
    """A child and what became of it.

    Attributes:
        ready: Done when it is ready first; holds what it failed by before, or None.
        is_over: Whether it has ended, and is not restarted.
        has_failed: Whether its last run has failed, and there will be no other.
    """

    child: Child
    inbox: Inbox
    ready: asyncio.Future[BaseException | str | None]
    task: asyncio.Task[None] | None = None
    context: ChildContext | None = None
    alive: bool = False
    restarts: int = 0
    error: str | None = None
    is_over: bool = False
    has_failed: bool = False

    @property
    def running(self) -> asyncio.Task[None] | None:
        """Its task, unless that is done."""
        return None if self.task is None or self.task.done() else self.task


class SessionSupervisor(DeferredWorker):
    """Runs the children of one session; `Session.worker` of a supervised one.

    Args:
        claimed: Whose children, and in whose name they run.
        children: In the order in which they are started; they are stopped in reverse.
        limit: How often they may be restarted.
        manager: Handed to the children.
        parent: Told when the session has to end, and when the children have stopped.
        start_seconds: How long a restarted child may take until it is ready.
        stop_seconds: How long all of them may take to stop.

    Attributes:
        claimed: As it was given.
        session_id: Whose children.
        owner_id: In whose name they run.
        failure: What the session was failed by, in words; None if it was not.
        abandoned: Names of the children that did not even end when they were cancelled.

    Threads: none but the loop's, except for `ask_to_stop`.
    """

    def __init__(
        self,
        claimed: Claimed,
        children: tuple[Child, ...],
        *,
        limit: RestartLimit,
        manager: SessionVerbs,
        parent: Parent,
        start_seconds: float,
        stop_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.claimed = claimed
        self.session_id = claimed.session_id
        self.owner_id = claimed.owner_id
        self.failure: str | None = None
        self.abandoned: tuple[str, ...] = ()
        self._loop = loop
        self._slots = tuple(_Slot(child, Inbox(), loop.create_future()) for child in children)
        self._limit = limit
        self._manager = manager
        self._parent = parent
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds
        self._cancel_seconds = min(LONGEST_CANCEL_SECONDS, stop_seconds / 10)
        self._restarted: deque[datetime] = deque()
        self._stopping: asyncio.Future[None] | None = None
        self._within_seconds: float | None = None
        self._ends = False
        self._hurried: asyncio.Future[None] = loop.create_future()
        self._is_active = False
        self._shown: Any = self

    def __repr__(self) -> str:
        told = ", ".join(
            f"{each.name} {'alive' if each.alive else 'down'}" for each in self.children
        )
        return f"<SessionSupervisor of {self.session_id!r}: {told}>"

    @property
    def alive(self) -> bool:
        """Whether any child runs, or will be restarted."""
        return any(slot.running for slot in self._slots)

    @property
    def children(self) -> tuple[ChildStatus, ...]:
        """How each child does, in the order in which they are started."""
        return tuple(
            ChildStatus(
                name=slot.child.name, alive=slot.alive, restarts=slot.restarts, error=slot.error
            )
            for slot in self._slots
        )

    def inbox(self, name: str | None = None) -> Inbox | None:
        """Return the inbox of a child, or of the first that takes messages; None if none does.

        One that has ended, and is not restarted, takes none.
        """
        for slot in self._slots:
            if slot.child.name == name:
                return slot.inbox
            if name is None and slot.child.reads_inbox and not slot.is_over:
                return slot.inbox
        return None

    @property
    def shown(self) -> Any:
        """What the session shows as its worker."""
        return self._shown

    def show(self, worker: Any) -> None:
        """Have the session show something else as its worker: what its start returned."""
        self._shown = worker

    # --- starting -------------------------------------------------------------------------

    async def start(self, until: datetime | None) -> BaseException | str | None:
        """Start the children, each when the one before it is ready.

        Args:
            until: When all of them have to be ready; None: any time.

        Returns:
            What the start failed by; None if all are ready. What was started runs on.
        """
        for slot in self._slots:
            name = f"{self.session_id}/{slot.child.name}"
            slot.task = self._parent.spawn(self._run(slot), name)
            if not await self._parent.timing.wait((slot.ready, slot.task), until=until):
                return f"child {slot.child.name!r} was not ready in time"
            _settle(slot.ready, self._why_not_ready())
            if (cause := slot.ready.result()) is not None:
                return cause
        return self.failure

    def _why_not_ready(self) -> str:
        """Say why a child was not ready that has told nothing, though its task is done."""
        if self.failure is not None:
            return self.failure
        if self._stopping is None:
            return "was cancelled"  # before it began, or it would have told
        return ENDED_BEFORE_START if self._ends else "its manager was closed"

    def activated(self) -> None:
        """Be told that the session is active: from now on a failure ends it."""
        self._is_active = True
        if self.failure is not None:
            self._parent.failed(self, self.failure)
        elif not self.alive:
            self.begin_to_stop()

    # --- running --------------------------------------------------------------------------

    async def _run(self, slot: _Slot) -> None:
        """Run a child until it is not to be restarted any longer."""
        try:
            await self._run_again(slot)
        finally:
            slot.is_over = self._stopping is None
            slot.inbox.close()  # nobody reads it any longer

    async def _run_again(self, slot: _Slot) -> None:
        while self._stopping is None:
            cause = await self._run_once(slot)
            if self._stopping is not None:
                return
            failed = cause is not None
            if failed and not slot.ready.done():
                _settle(slot.ready, cause)
                return  # the start has failed with it
            if slot.child.restart == "temporary" or not (
                failed or slot.child.restart == "permanent"
            ):
                if not slot.ready.done():
                    _settle(slot.ready, f"child {slot.child.name!r} ended before it was ready")
                    return
                slot.has_failed = failed
                self._ended(slot)
                return
            wait = self._next_backoff()
            if wait is None:
                self._fail(slot)
                return
            slot.restarts += 1
            await self._wait((), self._parent.timing.after(wait))

    async def _run_once(self, slot: _Slot) -> BaseException | str | None:
        """Run a child once; returns what it failed by, or None."""
        name, timing = slot.child.name, self._parent.timing
        context: ChildContext
        overdue, take_back = False, _nothing

        def on_ready() -> None:
            take_back()
            if slot.context is context:
                _settle(slot.ready, None)

        def is_waited_for() -> bool:
            return slot.context is context and slot.alive and self._stopping is None

        def on_overdue() -> None:
            nonlocal overdue, take_back
            if slot.task is not None and is_waited_for():
                overdue = True
                slot.task.cancel()
                take_back = timing.call_at(timing.after(self._cancel_seconds), on_ignored)

        def on_ignored() -> None:
            if is_waited_for():
                # Only the end of the session gets any further: it is abandoned then, and named.
                slot.error = "was not ready in time, and did not end when it was cancelled"
                self._fail(slot)

        if slot.child.signals_ready and slot.ready.done():
            take_back = timing.call_at(timing.after(self._start_seconds), on_overdue)
        context = ChildContext(
            session_id=self.session_id,
            name=name,
            restarts=slot.restarts,
            manager=self._manager,
            owner_id=self.owner_id,
            inbox=slot.inbox,
            on_ready=on_ready,
        )
        slot.context, slot.alive = context, True
        cause: BaseException | str | None = None
        try:
            if not slot.child.signals_ready:
                context.ready()
            with self._parent.in_name_of(self.owner_id):
                await slot.child.run(context)
        except asyncio.CancelledError:
            forget_cancellation()
            if self._stopping is None:
                cause = "was not ready in time" if overdue else "was cancelled"
        except KeyboardInterrupt:
            raise
        except BaseException as fault:  # noqa: BLE001 - be it SystemExit: it ends one session, not the loop
            cause = fault
        finally:
            take_back()
            slot.alive = False
        if cause is not None:
            slot.error = cause_in_words(cause)
            logger.warning(
                "child %r of session %r failed: %s",
                name,
                self.session_id,
                slot.error,
                exc_info=cause if isinstance(cause, BaseException) else None,
            )
        return cause

    def _next_backoff(self) -> float | None:
        """Return how long to wait before one more restart; None if there were too many."""
        now, limit = self._parent.timing.now(), self._limit
        window = timedelta(seconds=limit.max_seconds)
        while self._restarted and now - self._restarted[0] >= window:
            self._restarted.popleft()
        if len(self._restarted) >= limit.max_restarts:
            return None
        self._restarted.append(now)
        return limit.backoff(len(self._restarted))

    def _ended(self, slot: _Slot) -> None:
        """Note that a child has ended for good: with the last one, nothing is behind the session.

        If one has failed, so has the session. If all have ended well it lives on, and the claim of
        its worker is let go of: others may be started for it.
        """
        if any(other.running for other in self._slots if other is not slot):
            return
        if failed := [each for each in self._slots if each.has_failed]:
            self._fail(slot if slot.has_failed else failed[0])
        elif self._is_active:
            self.begin_to_stop()

    def _fail(self, slot: _Slot) -> None:
        if self.failure is None:
            told = "ended" if slot.error is None else f"failed: {slot.error}"
            often = f", after {slot.restarts} restarts" if slot.restarts else ""
            self.failure = f"child {slot.child.name!r} {told}{often}"
            if self._is_active:
                self._parent.failed(self, self.failure)

    # --- stopping -------------------------------------------------------------------------

    def ask_to_stop(self) -> None:
        """Begin to stop the children; on any thread, as often as anybody wants it."""
        call_soon(self._loop, self.begin_to_stop)

    def give_up(self, within_seconds: float) -> None:
        """Stop all children at the same time, and soon; on any thread, as `ask_to_stop`."""
        call_soon(self._loop, partial(self._give_up, within_seconds))

    def _give_up(self, within_seconds: float) -> None:
        if self._within_seconds is not None:
            return  # it is asked again and again
        if self._stopping is not None:
            self.hurry()
        self._within_seconds = within_seconds
        self.begin_to_stop(ends=False)

    def begin_to_stop(self, *, ends: bool = True) -> asyncio.Future[None]:
        """Begin to stop the children; returns what is done when that is.

        Args:
            ends: Whether the session is being ended, and waits for this; not if it lives on.
        """
        if self._stopping is None:
            self._ends = ends
            stop = partial(self._stop_and_tell, ends)
            self._stopping = self._parent.insist(stop, f"{self.session_id} stops")
        return self._stopping

    def hurry(self) -> None:
        """Have the children that are asked to stop be cancelled at once."""
        if not self._hurried.done():
            self._hurried.set_result(None)

    async def _stop_and_tell(self, ends: bool) -> None:
        await self._stop()
        await self._parent.stopped(self, ends=ends)

    async def _stop(self) -> None:
        """Stop the children in reverse order; whoever cancels this only hurries it on."""
        timing = self._parent.timing
        if self._within_seconds is not None:
            await self._ask_all(timing.after(self._within_seconds / 2))
        until = timing.after(self._stop_seconds * 0.8)  # the rest is for those who won't
        for slot in reversed(self._slots):
            if (task := slot.running) is None:
                continue
            if slot.alive and slot.context is not None:
                slot.context.ask_to_stop()
                waits = 0.0 if _is_cut_short(slot.child.run) else slot.child.stop_seconds
                await self._wait((task, self._hurried), min(until, timing.after(waits)))
            if not task.done():
                task.cancel()
                await self._wait((task,), min(until, timing.after(self._cancel_seconds)))
        until = timing.after(self._cancel_seconds)
        for task in [slot.running for slot in self._slots]:
            if task is not None:
                task.cancel()
        for slot in self._slots:
            if slot.running is not None:
                await self._wait((slot.running,), until)
        left = [slot for slot in self._slots if slot.running is not None]
        self.abandoned = tuple(slot.child.name for slot in left)
        if left:
            logger.error(
                "session %r: did not end when cancelled, and abandoned: %s",
                self.session_id,
                ", ".join(self.abandoned),
            )

    async def _ask_all(self, until: datetime) -> None:
        """Ask all children to stop, and cancel those that have not by an instant."""
        running = [slot for slot in self._slots if slot.running is not None]
        for slot in running:
            if slot.alive and slot.context is not None:
                slot.context.ask_to_stop()
        for slot in running:
            if slot.running is not None and not _is_cut_short(slot.child.run):
                await self._wait((slot.running, self._hurried), until)
        for slot in running:
            if slot.running is not None:
                slot.running.cancel()
        self.hurry()

    @property
    def abandoned_tasks(self) -> tuple[asyncio.Task[None], ...]:
        """The tasks of the children that were abandoned and still run."""
        running = (slot.running for slot in self._slots if slot.child.name in self.abandoned)
        return tuple(task for task in running if task is not None)

    async def _wait(self, tasks: tuple[asyncio.Future[None], ...], until: datetime) -> None:
        """Wait for tasks or an instant; who cancels the wait ends it, and nothing else."""
        try:
            await self._parent.timing.wait(tasks, until=until)
        except asyncio.CancelledError:
            forget_cancellation()


def _is_cut_short(run: object) -> bool:
    """Tell whether a child is cancelled as soon as it is asked to stop."""
    return bool(getattr(run, "is_cut_short", False))


def _settle(
    ready: asyncio.Future[BaseException | str | None], cause: BaseException | str | None
) -> None:
    if not ready.done():
        ready.set_result(cause)


def forget_cancellation() -> None:
    """Have this task go on although it was cancelled."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _nothing() -> None: ...
