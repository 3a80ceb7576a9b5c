"""The verbs of a manager, awaited: each is a call of the manager of threads, or a change like its.

What waits is written anew, by the loop's own means; what decides is not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from ..changes import Observer
from ..decisions import BeginTask, Decision, Fire, MoveTo, Update, cause_in_words, with_writes
from ..endings import Fail
from ..errors import Refusal
from ..feeds import POLL_SECONDS, check_position, check_waits
from ..hooks import entering, leaving
from ..items import Write
from ..keeper import MAX_TAKEOVERS
from ..lifecycle import Lifecycle
from ..manager import SessionManager as BlockingManager
from ..messages import Message, ToolCall
from ..session import (
    FeedPage,
    Page,
    PositionedEvent,
    RecoveryReport,
    Session,
    SessionEvent,
    SweepReport,
    VerifyReport,
)
from ..state import SessionConfig
from ..stores import SessionStore
from ..telling import Subscriber
from .calls import END_BEGUN, GONE_THROUGH, noted
from .children import Child, RestartLimit
from .contexts import ContextManager, say
from .desk import Desk, documented_by
from .feeds import follow
from .given import as_given, as_json, as_listed
from .listening import check_hook
from .tables import SessionTable
from .tasks import held

T = TypeVar("T")


@documented_by(BlockingManager)
class SessionVerbs(ABC):
    """What can be done with the sessions of an open manager.

    Threads: none but that of the manager's loop.
    """

    @property
    @abstractmethod
    def _desk(self) -> Desk:
        """What the verbs go by.

        Raises:
            ManagerClosedError: The manager is not open.
        """

    @property
    def lifecycle(self) -> Lifecycle:
        """The table that the sessions obey, with this manager's graces."""
        return self._desk.inner.lifecycle

    @property
    def store(self) -> SessionStore:
        """The store that was opened or handed in."""
        return self._desk.inner.store

    @abstractmethod
    async def create(
        self,
        session_id: str | None = None,
        *,
        config: SessionConfig | Mapping[str, Any] | None = None,
        llm_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        start: Callable[[Session], Awaitable[Any]] | None = None,
        children: Iterable[Child] = (),
        restarts: RestartLimit = RestartLimit(),  # noqa: B008 - frozen
    ) -> Session:
        """Create a session, start what runs for it, and activate it; see `SessionManager`."""

    # --- moving -----------------------------------------------------------------------------

    async def transition(
        self,
        session_id: str,
        to: str,
        *,
        expected_revision: int | None = None,
        reason: str | None = None,
        writes: Iterable[Write] = (),
        **arguments: Any,
    ) -> Session:
        decision = MoveTo(to, reason, _all_given(arguments))
        return await self._change(session_id, decision, expected_revision, writes)

    async def fire(
        self,
        session_id: str,
        trigger: str,
        *,
        expected_revision: int | None = None,
        reason: str | None = None,
        writes: Iterable[Write] = (),
        **arguments: Any,
    ) -> Session:
        decision = Fire(trigger, reason, _all_given(arguments))
        return await self._change(session_id, decision, expected_revision, writes)

    async def update(
        self,
        session_id: str,
        *,
        expected_revision: int | None = None,
        reason: str | None = None,
        writes: Iterable[Write] = (),
        **changes: Any,
    ) -> Session:
        decision = Update({name: _given(change) for name, change in changes.items()}, reason)
        waits = any(map(callable, changes.values()))
        return await self._change(session_id, decision, expected_revision, writes, waits=waits)

    def _change(
        self,
        session_id: str,
        decision: Decision,
        expected_revision: int | None,
        writes: Iterable[Write],
        *,
        waits: bool = False,
    ) -> Awaitable[Session]:
        if writes != ():
            made = with_writes(decision, as_listed(writes))
            waits, decision = waits or made is not decision, made
        return self._desk.change(session_id, decision, expected_revision, waits=waits)

    async def begin_task(
        self, session_id: str, task_id: str, *, timeout_seconds: float | None = None
    ) -> Session:
        return await self._desk.change(session_id, BeginTask(task_id, timeout_seconds))

    async def end_task(
        self, session_id: str, task_id: str, *, reason: str | None = None
    ) -> Session:
        trigger = self.lifecycle.role("end_task")
        return await self._desk.change(session_id, Fire(trigger, reason, {"task_id": task_id}))

    @asynccontextmanager
    async def task(
        self, session_id: str, task_id: str, *, timeout_seconds: float | None = None
    ) -> AsyncIterator[Session]:
        """Hold a task for the length of an `async with` block; it ends on any exit.

        An exception of the block, a cancellation among them, is kept as the reason of the task's
        end and raised again; trouble with ending the task is then logged, and never takes its
        place. If the task is ended from outside, by its time limit or because its session is, the
        block is cancelled.

        Args:
            session_id: Key of a stored session.
            task_id: Tells it from the session's other tasks.
            timeout_seconds: Its time limit, kept by the session; None: none.

        Raises:
            SessionNotFoundError: There is no such session.
            TransitionError: It has expired or ended, or the task is active already.
            TaskDroppedError: The task was ended from outside.
        """
        begin = partial(
            self._desk.inner.begin_task, session_id, task_id, timeout_seconds=timeout_seconds
        )
        async with held(self._desk, begin, session_id, task_id) as session:
            yield session

    async def start_conversation(self, session_id: str) -> Session:
        return await self._desk.change(session_id, Fire(self.lifecycle.role("count")))

    async def touch(self, session_id: str) -> Session:
        return await self._desk.change(session_id, self._desk.inner.touch_decision)

    # --- tables and context -----------------------------------------------------------------

    def table(self, session_id: str, name: str) -> SessionTable:
        """Return a table of a session, whose verbs are awaited; nothing is read or written.

        Items belong to the session: no other one sees them, and they are gone once it is purged.

        Args:
            session_id: Key of a stored session.
            name: 1 to 255 printable characters; it need not have been used before.

        Raises:
            StateInvalidError: The name can't be that of a table.
        """
        return SessionTable(self._desk, self._desk.inner.table(session_id, name))

    def context(self, session_id: str) -> ContextManager:
        """Return the context of a session, whose verbs are awaited; nothing is read or written.

        Args:
            session_id: Key of a stored session.
        """
        return ContextManager(self._desk, self._desk.inner.context(session_id))

    async def send_message(
        self,
        session_id: str,
        role: str,
        content: str,
        *,
        tool_calls: Iterable[ToolCall] = (),
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> Session:
        """Add a message to the context of a session, and hand it to its worker.

        It is refused by the table where no conversation could be started, but that those that are
        under way may go on at `max_conversations`. A session at rest wakes for it, and counts as
        active now, in one transaction with the message. Once that is durable the message is put
        into the inbox of the first of the session's children that takes messages, if they run
        here.

        Args:
            session_id: Key of a stored session.
            role: One of `session_fsm.messages.ROLES`.
            content: The text; may be empty.
            tool_calls: What the model wants to be called; of role `assistant` only.
            tool_call_id: Whose result it is; of role `tool`, and needed there.
            name: Who of several that play the role; None: not told.

        Returns:
            The session, active.

        Raises:
            SessionNotFoundError: There is no such session.
            StateInvalidError: It is no message, or the result of no call that waits for one.
            TransitionError: Nothing can be said in the session: it has expired, is ending, or has
                ended, or its start is not done.
            InboxFullError: The worker does not read what it has got; nothing was written.
            CorruptRecordError: Its context can't be read.
        """
        message = Message(
            role,
            content,
            at=self._desk.timing.now(),
            tool_calls=tool_calls,
            tool_call_id=tool_call_id,
            name=name,
        )
        return await say(self._desk, session_id, message)

    # --- ending -----------------------------------------------------------------------------

    async def terminate(
        self, session_id: str, *, reason: str | None = None, wait: bool = True
    ) -> Session:
        desk = self._desk
        with desk.listening.changes(session_id) as changed, noted() as note:

            async def came_to(session: Session) -> None:
                desk.expect(session)
                note.text = GONE_THROUGH if session.status in self.lifecycle.final else END_BEGUN

            begin = partial(desk.inner.terminate, session_id, reason=reason, wait=False)
            session = await desk.calls(begin, undo=came_to)
            await came_to(session)
            if not wait:
                return session
            ahead = desk.inner.ahead(session)
            while True:
                changed.clear()
                session, seconds = await desk.calls(
                    partial(desk.inner.go_on_ending, session_id, ahead),
                    undo=lambda told: came_to(told[0]),
                )
                if seconds is None:
                    return session
                await desk.timing.wait_event(changed, seconds)

    async def fail(self, session_id: str, error: str | BaseException) -> Session:
        return await self._desk.change(session_id, Fail(cause_in_words(error)))

    # --- looking ----------------------------------------------------------------------------

    async def get(self, session_id: str) -> Session:
        return await self._desk.do(self._desk.inner.get, session_id)

    async def find(self, session_id: str) -> Session | None:
        return await self._desk.do(self._desk.inner.find, session_id)

    async def list(
        self,
        *,
        status: str | Iterable[str] | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        words = as_listed(status)
        return await self._desk.do(self._desk.inner.list, status=words, limit=limit, after=after)

    async def counts(self) -> dict[str, int]:
        return await self._desk.do(self._desk.inner.counts)

    async def traffic(self) -> dict[tuple[str, str], int]:
        return await self._desk.do(self._desk.inner.traffic)

    async def explain(self, session_id: str, trigger: str, **arguments: Any) -> Refusal | None:
        return await self._desk.do(self._desk.inner.explain, session_id, trigger, **arguments)

    async def permitted(self, session_id: str, **arguments: Any) -> tuple[str, ...]:
        return await self._desk.do(self._desk.inner.permitted, session_id, **arguments)

    async def history(self, session_id: str) -> tuple[SessionEvent, ...]:
        return await self._desk.do(self._desk.inner.history, session_id)

    # --- feeds ------------------------------------------------------------------------------

    async def position(self, session_id: str | None = None) -> int:
        return await self._desk.do(self._desk.inner.position, session_id)

    async def read_events(
        self, after: int | None = 0, session_id: str | None = None, *, limit: int = 1000
    ) -> FeedPage:
        return await self._desk.do(self._desk.inner.read_events, after, session_id, limit=limit)

    def events(
        self,
        session_id: str | None = None,
        *,
        after: int | None = None,
        timeout_seconds: float | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> AsyncIterator[PositionedEvent]:
        """Yield what happens behind a position as it comes, and wait for more; for `async for`.

        What is yielded, and where it ends or begins, is as for `read_events`. It waits for what
        this manager commits, and looks for what other processes did. It ends when the manager is
        closed. However slowly it is read, it has little in hand and holds up nobody. Who is
        cancelled while waiting for an event misses none by going on from the last one's position.

        Args:
            session_id: Whose events; None: those of all sessions.
            after: The position of the last event that was dealt with; None: only what comes after
                the iteration was begun.
            timeout_seconds: Longest wait for the next event, by the manager's clock; then it ends.
                None: for ever.
            poll_seconds: How often it looks for what other processes did.

        Raises:
            FeedGapError: On the way: events were removed before they were read. It has ended then.
        """
        check_position(after)
        check_waits(timeout_seconds, poll_seconds)
        return follow(
            self._desk,
            after,
            session_id,
            timeout_seconds=timeout_seconds,
            poll_seconds=poll_seconds,
        )

    async def next_deadline(self) -> datetime | None:
        return await self._desk.do(self._desk.inner.next_deadline)

    def subscribe(self, callback: Subscriber, session_id: str | None = None) -> Callable[[], None]:
        """Have a callback told of every event that this manager commits from now on.

        It is called on the loop, after the commit, before the verb that committed it returns, in
        the order of the revisions of each session. What it raises is logged.

        Args:
            callback: Called with each event; not awaited.
            session_id: Only events of this session; None: of all.

        Returns:
            A function that ends it.
        """
        return self._desk.listening.subscribe(callback, session_id)

    def on_enter(self, status: str, hook: Subscriber) -> Callable[[], None]:
        check_hook(hook)
        return self.subscribe(entering(self.lifecycle, status, hook))

    def on_leave(self, status: str, hook: Subscriber) -> Callable[[], None]:
        check_hook(hook)
        return self.subscribe(leaving(self.lifecycle, status, hook))

    def observe(self, observer: Observer) -> Callable[[], None]:
        return self._desk.inner.observe(observer)

    # --- the store --------------------------------------------------------------------------

    async def sweep(self, *, at: datetime | None = None) -> SweepReport:
        return await self._desk.do(self._desk.inner.sweep, at=at)

    @abstractmethod
    async def recover(
        self,
        *,
        restart: Callable[[Session], Iterable[Child]] | None = None,
        max_takeovers: int = MAX_TAKEOVERS,
    ) -> RecoveryReport: ...

    async def purge(self, *, ended_before: datetime) -> int:
        return await self._desk.do(self._desk.inner.purge, ended_before=ended_before)

    async def compact(self, session_id: str, *, keep: int = 100) -> int:
        return await self._desk.do(self._desk.inner.compact, session_id, keep=keep)

    async def verify(self) -> VerifyReport:
        return await self._desk.do(self._desk.inner.verify)

    async def batch(self, work: Callable[[BlockingManager], T]) -> T:
        """Make all that a function does one transaction of the store.

        Args:
            work: Called in a thread, with a manager of the same sessions whose verbs are not
                awaited. What it does is durable when it returns, and undone if it raises. All
                others wait with their commits meanwhile, so it should be short.

        Returns:
            What the function returns.
        """
        inner = self._desk.inner

        def in_batch() -> T:
            with inner.batch():
                return work(inner)

        return await self._desk.do(in_batch)


def _all_given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: as_given(each) for name, each in arguments.items()}


def _given(change: Any) -> Any:
    return change if callable(change) else as_json(change)
