"""Events are told on the loop, to whoever listens there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..manager import SessionManager
from ..session import SessionEvent
from ..telling import Subscriber, by_nobody, call
from .timing import call_soon


def check_hook(callback: object) -> None:
    """Accept what can be told of events on a loop.

    Raises:
        TypeError: It can't be called, or would have to be awaited.
    """
    if not callable(callback):
        raise TypeError(f"a subscriber is called; {type(callback).__name__} can't be")
    if inspect.iscoroutinefunction(callback):
        raise TypeError("a subscriber is called and not awaited; have it start a task")


class Listening:
    """Has events of one manager told on a loop, in the order in which they are told elsewhere.

    As long as nobody listens, the manager is not listened to, and no event crosses to the loop.

    Args:
        manager: Whose events.

    Threads: none but the loop's.
    """

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[str | None, dict[object, Subscriber]] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def subscribe(self, callback: Subscriber, session_id: str | None) -> Callable[[], None]:
        """Have a callback told of events, of one session or of all; returns what ends that.

        Raises:
            TypeError: It can't be called, or would have to be awaited.
        """
        check_hook(callback)
        if self._unsubscribe is None:
            self._unsubscribe = self._manager.subscribe(self._heard)
        key = object()
        self._listeners.setdefault(session_id, {})[key] = callback

        def unsubscribe() -> None:
            left = self._listeners.get(session_id, {})
            left.pop(key, None)
            if not left:
                self._listeners.pop(session_id, None)
            if not self._listeners and self._unsubscribe is not None:
                self._unsubscribe()
                self._unsubscribe = None

        return unsubscribe

    @contextmanager
    def changes(self, session_id: str) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever a session has changed here."""
        changed = asyncio.Event()
        unsubscribe = self.subscribe(lambda _: changed.set(), session_id)
        try:
            yield changed
        finally:
            unsubscribe()

    def _heard(self, event: SessionEvent) -> None:
        # What a call of the loop has changed is told before that call is answered: both go the
        # same way to the loop, one behind the other. A task that is begun there is in no callback.
        with by_nobody():
            call_soon(self._loop, self._tell, event)

    def _tell(self, event: SessionEvent) -> None:
        for key in (event.session_id, None):
            for callback in tuple(self._listeners.get(key, {}).values()):
                call(callback, event)
