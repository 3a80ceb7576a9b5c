"""What a store does on each heartbeat, so that nobody who reads has a year of it to do first.

Counts are put together, and events get their positions. Whoever reads would do both by the way, and
does where this has not come to it: nothing rests on it.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

from ..errors import StoreError
from .postgres_connection import Connections
from .postgres_counts import tidy
from .postgres_faults import has_no_right
from .postgres_feed import TRY_LOCK, number

logger = logging.getLogger(__name__)

AT_ONCE: Final = 1_000
"""Most events that are numbered in one transaction: each of them is short."""
_LONGEST_REST: Final = 60
"""Most heartbeats for which it rests after something went wrong, again and again."""
_IS_BEHIND: Final = "SELECT EXISTS (SELECT 1 FROM {s}.session_event WHERE position IS NULL)"


class Tending:
    """Does what would wait for the next reader.

    Args:
        connections: Those that renew leases: of their own, and soon given up.

    Threads: safe. It has one, from the first heartbeat on, which no heartbeat waits for.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._duties = [self._tidy, self._number]
        self._due = threading.Event()
        self._closing = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._rest = 0

    def nudge(self) -> None:
        """Have it done; does not wait, and never raises."""
        if self._rest > 0:
            self._rest -= 1
            return
        with self._starting:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._run, name="session_fsm tend", daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError) as fault:  # no thread can be had
                    logger.warning("left to whoever reads next: %s", fault)
                    return
                self._thread = thread
        self._due.set()

    def tend(self) -> bool:
        """Do it; returns whether nothing went wrong.

        What the role may not do is left to others, from then on.
        """
        done = True
        for duty in list(self._duties):
            try:
                duty()
            except StoreError as fault:
                if has_no_right(fault.__cause__):
                    self._duties.remove(duty)
                else:
                    logger.debug("left to whoever reads next: %s", fault)
                    done = False
        return done

    def _tidy(self) -> None:
        tidy(self._connections)

    def _number(self) -> None:
        connections, numbered = self._connections, AT_ONCE
        sql = connections.sql
        while numbered == AT_ONCE and not self._closing.is_set():
            behind = connections.read(lambda link: link.execute(sql(_IS_BEHIND)).fetchone())
            if behind != (True,):
                return
            numbered = connections.write(lambda link: number(link, sql, AT_ONCE, lock=TRY_LOCK))

    def _run(self) -> None:
        while True:
            self._due.wait()
            if self._closing.is_set():
                return
            self._due.clear()
            self._failures = 0 if self.tend() else self._failures + 1
            # What takes too long today may do so tomorrow: it is tried ever more rarely.
            self._rest = min(2**self._failures - 1, _LONGEST_REST)

    def close(self) -> None:
        """End the thread, once it has done what it does; twice is harmless."""
        with self._starting:
            self._closing.set()
        self._due.set()
        if self._thread is not None:
            self._thread.join()
