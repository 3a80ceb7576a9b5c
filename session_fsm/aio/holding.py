"""The tasks that blocks hold here: one that another process has ended is looked for, now and then.

What is committed here is told at once. What others commit to a session that has such a task is
noted by whoever looks for that, and once in each sweep the noted sessions are looked at together:
idle ones cost nothing, however many there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from .calls import Calls
from .steps import SteppedManager

logger = logging.getLogger(__name__)

Drop = Callable[[str], None]
"""Is told why a task is not to be worked on any longer."""


class Holding:
    """The tasks of the blocks of one manager.

    Args:
        inner: The manager of threads.
        calls: Makes its calls.

    Threads: none but the loop's.
    """

    def __init__(self, inner: SteppedManager, calls: Calls) -> None:
        self._inner = inner
        self._calls = calls
        self._held: dict[str, dict[object, tuple[str, Drop]]] = {}
        self._ends: dict[str, Callable[[], None]] = {}
        self._noted: set[str] = set()

    def hold(self, session_id: str, task_id: str, drop: Drop) -> Callable[[], None]:
        """Have it told if others end a task that was begun here; returns what ends that.

        `SteppedManager.begin_to_listen` was called before the task was begun.
        """
        key = object()
        held = self._held.setdefault(session_id, {})
        if not held:
            # Called on whatever thread commits, or looks for commits.
            self._ends[session_id] = self._inner.listen(
                partial(self._noted.add, session_id), session_id
            )
        held[key] = (task_id, drop)
        self._noted.add(session_id)  # it may have been ended before it was listened for

        def let_go() -> None:
            held.pop(key, None)
            if not held and self._held.get(session_id) is held:
                del self._held[session_id]
                self._ends.pop(session_id)()
                self._noted.discard(session_id)

        return let_go

    async def look(self) -> None:
        """Look whether others have ended tasks that are held here."""
        if not self._held:
            return
        noted: set[str] = set()
        try:
            await self._calls(self._inner.look)
            while self._noted:
                noted.add(self._noted.pop())
            asked = {each: tuple(self._held.get(each, {}).items()) for each in noted}
            wanted = {each: {task for _, (task, _) in held} for each, held in asked.items()}
            ended = await self._calls(partial(self._inner.ended_tasks, wanted)) if noted else {}
        except BaseException as fault:
            # Be it the store that can't be reached: it is looked at again with the next sweep.
            self._noted |= noted
            if not isinstance(fault, Exception):
                raise
            logger.exception("it was not seen whether others have ended tasks")
            return
        for session_id, held in asked.items():
            for key, (task_id, drop) in held:
                cause = ended.get((session_id, task_id))
                if cause is not None and key in self._held.get(session_id, {}):
                    drop(cause)
