"""What the store in memory looks sessions up by: their status, and when they are due.

A move is noted at once and sorted in when somebody asks, so that it does not cost by what is
stored, and asking costs by what was moved since.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime

from sortedcontainers import SortedList


class StatusIndex:
    """The ids in each status, in order.

    Args:
        status_of: Returns the status that a session has now, or None if it is not there.
    """

    def __init__(self, status_of: Callable[[str], str | None]) -> None:
        self._status_of = status_of
        self._counts: dict[str, int] = {}
        self._sorted: dict[str, SortedList] = {}
        self._unsorted: dict[str, str | None] = {}

    def move(self, session_id: str, before: str | None, after: str | None) -> None:
        """Note that a session has another status; None: it is not there."""
        counts = self._counts
        if before is not None:
            counts[before] -= 1
        if after is not None:
            counts[after] = counts.get(after, 0) + 1
        if session_id not in self._unsorted:
            self._unsorted[session_id] = before

    def counts(self) -> dict[str, int]:
        """Return how many sessions are in each status that has some."""
        return {status: count for status, count in self._counts.items() if count}

    def page(self, status: str, limit: int, after: str | None) -> list[str]:
        """Return the first ids in a status, behind one."""
        self._sort()
        ids = self._sorted.get(status)
        if ids is None:
            return []
        start = 0 if after is None else ids.bisect_right(after)
        return list(ids.islice(start, start + limit))

    def every(self, status: str) -> Iterator[str]:
        """Yield the ids in a status, in order."""
        self._sort()
        return iter(self._sorted.get(status, ()))

    def _sort(self) -> None:
        leaving: dict[str, list[str]] = {}
        coming: dict[str, list[str]] = {}
        for session_id, before in self._unsorted.items():
            after = self._status_of(session_id)
            if before == after:
                continue
            if before is not None:
                leaving.setdefault(before, []).append(session_id)
            if after is not None:
                coming.setdefault(after, []).append(session_id)
        self._unsorted.clear()
        for status, ids in leaving.items():
            for each in ids:
                self._sorted[status].remove(each)
        for status, ids in coming.items():
            self._sorted.setdefault(status, SortedList()).update(ids)


class DeadlineIndex:
    """The sessions by their deadlines.

    Args:
        deadline_of: Returns the deadline that a session has now, or None.
    """

    def __init__(self, deadline_of: Callable[[str], datetime | None]) -> None:
        self._deadline_of = deadline_of
        self._heap: list[tuple[datetime, str]] = []
        self._most = 64
        self._unsorted: dict[str, None] = {}

    def move(self, session_id: str) -> None:
        """Note that a session has another deadline, perhaps."""
        self._unsorted[session_id] = None

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        """Return deadlines at or before an instant, with their sessions, in order, behind one."""
        found: list[tuple[datetime, str]] = []
        kept: list[tuple[datetime, str]] = []
        while len(found) < limit and (entry := self.first()) and entry[0] <= at:
            heapq.heappop(self._heap)
            if kept and kept[-1] == entry:
                continue
            kept.append(entry)
            if after is None or entry > after:
                found.append(entry)
        for entry in kept:
            heapq.heappush(self._heap, entry)
        return tuple(found)

    def first(self) -> tuple[datetime, str] | None:
        """Return the earliest deadline and its session, or None."""
        self._sort()
        # Entries that hold no longer are dropped on the way.
        while self._heap:
            deadline_at, session_id = self._heap[0]
            if self._deadline_of(session_id) == deadline_at:
                return deadline_at, session_id
            heapq.heappop(self._heap)
        return None

    def _sort(self) -> None:
        if not self._unsorted:
            return
        for session_id in self._unsorted:
            if (deadline_at := self._deadline_of(session_id)) is not None:
                heapq.heappush(self._heap, (deadline_at, session_id))
        self._unsorted.clear()
        if len(self._heap) > self._most:
            # Half of the entries are stale by now, perhaps: keep those that still hold.
            self._heap = [each for each in set(self._heap) if self._deadline_of(each[1]) == each[0]]
            heapq.heapify(self._heap)
            self._most = 64 + 2 * len(self._heap)
