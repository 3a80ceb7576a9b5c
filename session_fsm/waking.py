"""Whoever waits for what is committed: it is called, and looks into the store for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Bell:
    """Rings after each commit of a manager, and when that is closed.

    Who rings does nothing but make the calls: what was committed is neither told nor kept, so
    nobody who reads slowly, or not at all, costs whoever commits more than that.

    Attributes:
        any: Whether anybody listens.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._callbacks: tuple[tuple[object, Callable[[], object]], ...] = ()
        self._changing = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether anybody listens."""
        return bool(self._callbacks)

    def listen(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Have something called at each ring; returns what ends that.

        It is called on the thread that commits, and has to be quick and to raise nothing.
        """
        key = object()
        with self._changing:
            self._callbacks = (*self._callbacks, (key, callback))

        def end() -> None:
            with self._changing:
                self._callbacks = tuple(each for each in self._callbacks if each[0] is not key)

        return end

    def ring(self) -> None:
        """Call whoever listens."""
        for _, callback in self._callbacks:
            callback()
