"""What the store in memory keeps of each id, and the events of all of them in one order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

from ..history import Sealed
from ..state import SessionState
from .records import Stored, StoredStep

Kept = Sealed | StoredStep
"""An event as it is kept: a tombstone or a checkpoint, or a step."""


class Life:
    """What is kept of one id.

    Attributes:
        state: Its state; None if it was purged, or was never there.
        revision: The revision of its last event.
        deadline_at: When its first timed row fires, or None.
        history: Its events, oldest first: a tombstone, perhaps, then steps.
        operations: The ids of the commits that made them; some that made what a checkpoint stands
            for may be left.
        stone_position: The position of its tombstone; 0 if there is none.
        removed: The highest position of an event of it that was removed; 0 if none was.
    """

    __slots__ = (
        "deadline_at",
        "history",
        "operations",
        "removed",
        "revision",
        "state",
        "stone_position",
    )

    def __init__(self) -> None:
        self.state: SessionState | None = None
        self.revision = 0
        self.deadline_at: datetime | None = None
        self.history: list[Kept] = []
        self.operations: list[str] = []
        self.stone_position = 0
        self.removed = 0

    @property
    def stored(self) -> Stored | None:
        """The session as it is stored; None if there is none."""
        if self.state is None:
            return None
        last = self.history[-1]
        assert isinstance(last, StoredStep)
        return Stored(self.state, self.revision, last)

    def position_of(self, each: Kept) -> int:
        """Return the position of one of its events; 0 of a checkpoint, which has none."""
        if isinstance(each, StoredStep):
            return each.position
        return self.stone_position if each.event.kind == "purged" else 0

    def behind(self, after: int, limit: int) -> list[tuple[int, Kept]]:
        """Return its first events behind a position, each with its own."""
        first = bisect_right(self.history, after, key=self.position_of)
        found = islice(self.history, first, first + limit)
        return [(self.position_of(each), each) for each in found]


def sealed(each: Kept) -> Sealed:
    """Return an event with its bytes, made if nobody has asked for them before."""
    return each.sealed if isinstance(each, StoredStep) else each


_CHUNK: Final = 1024


class EventLog:
    """The events of all ids, by position: in the order in which they were committed.

    What was removed leaves a hole of the size of a reference; where nothing but holes is left, even
    they go.

    Args:
        start: The position behind which the first event stands; a multiple of 1024.

    Attributes:
        newest: The position of the newest event; the start if there was none.
        removed: The highest position of an event that was removed; 0 if none was.

    Threads: its store's lock is held by whoever uses it.
    """

    def __init__(self, start: int = 0) -> None:
        self._start = start
        self.newest = start
        self.removed = 0
        self._last: list[Kept | None] = []
        self._chunks: dict[int, list[Kept | None]] = {start // _CHUNK: self._last}

    def add(self, steps: Iterable[StoredStep]) -> None:
        """Put in steps that are committed; each is told its position."""
        position, last = self.newest, self._last
        for step in steps:
            if not position % _CHUNK and last:
                last = self._next_chunk(position)
            position += 1
            step.position = position
            last.append(step)
        self.newest = position

    def add_stone(self, tombstone: Sealed) -> int:
        """Put in a tombstone; returns its position."""
        if not self.newest % _CHUNK and self._last:
            self._next_chunk(self.newest)
        self._last.append(tombstone)
        self.newest += 1
        return self.newest

    def _next_chunk(self, position: int) -> list[Kept | None]:
        self._last = self._chunks[position // _CHUNK] = []
        return self._last

    def behind(self, after: int, limit: int) -> list[tuple[int, Kept]]:
        """Return the first events behind a position, each with its own."""
        found: list[tuple[int, Kept]] = []
        position = max(after, self._start)
        while position < self.newest and len(found) < limit:
            number, index = divmod(position, _CHUNK)
            following = (number + 1) * _CHUNK
            chunk = self._chunks.get(number, ())
            for place, each in enumerate(islice(chunk, index, None), position + 1):
                if each is not None:
                    found.append((place, each))
                    if len(found) == limit:
                        break
            position = following
        return found

    def remove(self, positions: Sequence[int]) -> Callable[[], None]:
        """Take out events, oldest first; returns what puts them back."""
        before = self.removed
        taken = [(position, self._replace(position, None)) for position in positions]
        if positions:
            self.removed = max(before, positions[-1])

        def undo() -> None:
            self.removed = before
            for position, each in taken:
                self._replace(position, each)

        return undo

    def _replace(self, position: int, kept: Kept | None) -> Kept | None:
        number, index = divmod(position - 1, _CHUNK)
        if (chunk := self._chunks.get(number)) is None:
            chunk = self._chunks[number] = [None] * _CHUNK
        former, chunk[index] = chunk[index], kept
        if kept is None and chunk is not self._last and not any(chunk):
            del self._chunks[number]
        return former

    def cut(self, newest: int) -> None:
        """Forget whatever stands behind a position, as if it had never been put in."""
        number = max(newest - 1, self._start) // _CHUNK
        for later in range(number + 1, max(self.newest - 1, self._start) // _CHUNK + 1):
            self._chunks.pop(later, None)
        self._last = self._chunks[number]
        del self._last[newest - number * _CHUNK :]
        self.newest = newest
