"""A task for the length of a block: it ends with the block, and the block ends with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final

from ..decisions import cause_in_words
from ..errors import TaskDroppedError, TransitionError
from ..session import Session, SessionEvent
from .calls import TASK_ENDED, TASK_NOT_ENDED, Note, put_note, until_done
from .desk import Desk

RETRY_SECONDS: Final = 0.5
"""Wait before a task that is due is looked at again."""

logger = logging.getLogger(__name__)


@asynccontextmanager
async def held(
    desk: Desk, begin: Callable[[], Session], session_id: str, task_id: str
) -> AsyncIterator[Session]:
    """Hold a task for the length of a block.

    Args:
        desk: Makes the calls.
        begin: Begins the task; called in a thread.
        session_id: Whose task.
        task_id: The task.

    Raises:
        TaskDroppedError: Somebody else has ended it; the block was cancelled.
    """
    # Should this owner be counted as dead meanwhile, it is no longer its task to end.
    owner_id = desk.inner.owner_id

    async def end(reason: str | None) -> None:
        with desk.inner.in_name_of(owner_id):
            session = await desk.calls(
                partial(desk.inner.end_task, session_id, task_id, reason=reason)
            )
        desk.expect(session)

    note = Note()

    async def end_whatever(reason: str) -> None:
        note.text = TASK_ENDED
        try:
            await end(reason)
        except Exception:
            note.text = TASK_NOT_ENDED
            logger.exception("task %r of session %r was not ended", task_id, session_id)

    cut = asyncio.timeout(None)
    dropped: list[str] = []

    def drop(cause: str) -> None:
        if not dropped:
            dropped.append(cause)
            cut.reschedule(asyncio.get_running_loop().time())

    begun: Session | None = None
    early: list[SessionEvent] = []

    def heard(event: SessionEvent) -> None:
        if begun is None:
            early.append(event)
        elif event.revision > begun.revision and task_id not in event.changes.get(
            "active_tasks", (task_id,)
        ):
            drop(event.reason or f"{event.trigger} was fired")

    async def keep_limit(due: datetime) -> None:
        """See that the task is dropped when it is due, be it by somebody who is not heard here."""
        await desk.timing.sleep_until(due)
        while not dropped:
            try:
                await desk.calls(desk.inner.sweep)
                session = await desk.calls(partial(desk.inner.get, session_id))
                if task_id not in session.state.active_tasks:
                    drop("its time limit was passed")
            except Exception:
                logger.exception(
                    "task %r of session %r is due, and not dropped", task_id, session_id
                )
            await desk.timing.sleep_until(desk.timing.after(RETRY_SECONDS))

    def begin_and_listen() -> Session:
        desk.inner.begin_to_listen()
        with desk.inner.in_name_of(owner_id):
            return begin()

    # It may be dropped before its begin is known here, so it is listened for that from before.
    unsubscribe = desk.listening.subscribe(heard, session_id)
    try:
        session = await desk.calls(
            begin_and_listen, undo=lambda _: end_whatever("failed: never begun")
        )
    except BaseException as fault:
        unsubscribe()
        if note.text is not None and isinstance(fault, asyncio.CancelledError):
            put_note(fault, note.text)
        raise
    begun = session
    desk.expect(session)
    due = dict(session.state.task_deadlines).get(task_id)
    keeping = None if due is None else asyncio.ensure_future(keep_limit(due))
    let_go = desk.holding.hold(session_id, task_id, drop)
    try:
        async with cut:
            for event in early:
                heard(event)
            try:
                yield session
            finally:
                unsubscribe()
                let_go()
                if keeping is not None:
                    keeping.cancel()
    except BaseException as fault:
        if dropped:
            if isinstance(fault, TimeoutError) and cut.expired():
                raise _dropped(session_id, task_id, dropped[0]) from None
            note.text = TASK_ENDED  # and the block's own trouble comes first
        else:
            ending = asyncio.ensure_future(end_whatever(f"failed: {cause_in_words(fault)}"))
            await until_done(ending)
        if note.text is not None and isinstance(fault, asyncio.CancelledError):
            fault.add_note(note.text)  # beside what a call in the block has told of itself
        raise
    if dropped:
        raise _dropped(session_id, task_id, dropped[0])
    ending = asyncio.ensure_future(end(None))
    was_cancelled = await until_done(ending)
    try:
        ending.result()
    except TransitionError as refused:
        # Another process has ended it, and that was not looked for since.
        raise TaskDroppedError(
            session_id=session_id, task_id=task_id, cause=refused.refusal.headline
        ) from refused
    if was_cancelled:
        cancelled = asyncio.CancelledError()
        cancelled.add_note(TASK_ENDED)
        raise cancelled


def _dropped(session_id: str, task_id: str, cause: str) -> TaskDroppedError:
    return TaskDroppedError(session_id=session_id, task_id=task_id, cause=cause)
