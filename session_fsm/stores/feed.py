"""What was read of the feed of a store, made into events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from ..errors import StoreError
from ..session import PositionedEvent, SessionEvent, positioned
from .records import Fed


@attrs.frozen
class FeedRows:
    """What was read, as of one moment; see `Fed`.

    Attributes:
        rows: Events, each as its position, and behind that whatever it is read from.
        newest: The position of the newest event.
        removed: The highest position of an event that was removed.
    """

    rows: tuple[tuple[Any, ...], ...]
    newest: int
    removed: int


def fed(found: FeedRows, limit: int, read: Callable[..., SessionEvent]) -> Fed:
    """Return what was read as events, up to one that can't be read.

    Args:
        found: What was read.
        limit: Most events that were asked for.
        read: Makes an event of what is in a row behind the position; may raise `StoreError`.

    Raises:
        StoreError: The first of them can't be read.
    """
    events: list[PositionedEvent] = []
    for position, *row in found.rows:
        try:
            events.append(positioned(position, read(*row)))
        except StoreError:
            if not events:
                raise
            return Fed(tuple(events), events[-1].position, found.newest, found.removed)
    position = events[-1].position if len(events) == limit > 0 else found.newest
    return Fed(tuple(events), position, found.newest, found.removed)
