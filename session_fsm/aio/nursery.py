"""Tasks with a parent: whoever opened the nursery waits for all of them at its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .calls import until_done

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Nursery:
    """The tasks of one parent. What one of them raises is logged, and harms no sibling.

    Threads: none but the loop's.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Begin a task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def insist(
        self, work: Callable[[], Coroutine[Any, Any, object]], name: str
    ) -> asyncio.Future[None]:
        """Begin a task that nobody can keep from beginning.

        A task that is cancelled before its first step never makes it. This one is begun again
        then; once it runs, it hears of cancellations itself.

        Returns:
            Done when the task is.
        """
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = False

        async def run() -> None:
            nonlocal begun
            begun = True
            await work()

        def begin(_: object = None) -> None:
            if not begun:
                self.spawn(run(), name).add_done_callback(begin)
            elif not ended.done():
                ended.set_result(None)

        begin()
        return ended

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            logger.error("task %r failed", task.get_name(), exc_info=fault)

    def let_go(self, task: asyncio.Task[Any]) -> None:
        """Wait no longer for a task that won't end."""
        self._tasks.discard(task)

    async def close(self) -> bool:
        """Wait for every task; returns whether this task was cancelled meanwhile."""
        cancelled = False
        while self._tasks:
            cancelled |= await until_done(*self._tasks)
            await asyncio.sleep(0)  # whoever is done is taken out by the loop
        return cancelled
