"""Feeds: what happened to sessions, in the order of the commits, from a position on.

A feed is read from the store, so it tells what other processes have done as well, and what was
done while nobody was reading. Who has read up to a position is known to nobody but the reader.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Final

from .core import Core
from .errors import FeedGapError, ManagerClosedError, StoreUnavailableError
from .jsonvalue import MAX_INTEGER
from .session import FeedPage, PositionedEvent
from .waking import wait_for_ring

POLL_SECONDS: Final = 0.2
"""How often a feed looks for what other processes did."""
FOLLOWED_AT_ONCE: Final = 100
"""Most events that a feed that is followed has in hand."""


def read_page(core: Core, after: int | None, session_id: str | None, limit: int) -> FeedPage:
    """Read events behind a position; see `SessionReader.read_events`."""
    core.check_open()
    check_position(after)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= MAX_INTEGER:
        raise ValueError(f"limit: expected a number of events from 1 on, got {limit!r}")
    if after is None:
        return FeedPage((), newest_position(core, session_id))
    place, gaps_are_known = abs(after), after <= 0
    told = core.store.feed(place, limit, session_id)
    if place > told.newest:
        raise FeedGapError(after=place, kept_from=told.newest, session_id=session_id)
    if place < told.removed and not gaps_are_known:
        raise FeedGapError(after=place, kept_from=told.removed, session_id=session_id)
    still_in_gaps = gaps_are_known and told.position < told.removed
    return FeedPage(told.events, -told.position if still_in_gaps else told.position)


def newest_position(core: Core, session_id: str | None) -> int:
    """Return the position behind all that was committed; see `SessionReader.position`."""
    core.check_open()
    return core.store.feed(0, 0, session_id).newest


def check_position(after: object) -> None:
    """Accept what may be a position, or None.

    Raises:
        TypeError: It is no integer.
        ValueError: No position is as high.
    """
    if after is None:
        return
    if isinstance(after, bool) or not isinstance(after, int):
        raise TypeError(f"after: a position is an integer, not {type(after).__name__}")
    if abs(after) > MAX_INTEGER:
        raise ValueError(f"after: no position is as high as {after}")


def check_waits(timeout_seconds: float | None, poll_seconds: float) -> None:
    """Accept how long a feed may wait.

    Raises:
        ValueError: A number is out of its range.
    """
    if not 0 < poll_seconds < 1e9:
        problem = f"expected more than 0 and less than 1e9, got {poll_seconds}"
        raise ValueError(f"poll_seconds: {problem}")
    if timeout_seconds is not None and not 0 <= timeout_seconds < 1e9:
        problem = f"expected at least 0 and less than 1e9, got {timeout_seconds}"
        raise ValueError(f"timeout_seconds: {problem}")


def follow(
    core: Core,
    after: int,
    session_id: str | None,
    *,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> Generator[PositionedEvent, None, None]:
    """Yield events behind a position as they come; see `SessionReader.events`."""
    while (page := _next_page(core, after, session_id, timeout_seconds, poll_seconds)) is not None:
        yield from page.events
        after = page.position


def _next_page(
    core: Core,
    after: int,
    session_id: str | None,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> FeedPage | None:
    """Return the next page that has events; None if none comes in time, or ever."""
    page = page_if_open(core, after, session_id)
    # In a batch nobody else can commit anything.
    if page is None or page.events or core.batches.mine is not None:
        return page if page is not None and page.events else None
    end = None
    if timeout_seconds is not None:
        end = core.clock.now() + timedelta(seconds=timeout_seconds)
    rung = threading.Event()
    # Only while it waits: a reader that does not come back costs nobody anything.
    end_listening = listen(core, rung.set, session_id)
    if end_listening is None:
        return None
    try:
        while True:
            rung.clear()
            page = page_if_open(core, page.position, session_id)
            if page is None or page.events:
                return page
            if end is not None and core.clock.now() >= end:
                return None
            wait_for_ring(rung, core.lookout, core.clock, poll_seconds=poll_seconds, end=end)
    finally:
        end_listening()


def listen(
    core: Core, callback: Callable[[], object], session_id: str | None
) -> Callable[[], None] | None:
    """Have something called when there may be more of a feed; returns its end, None once closed.

    Whoever listens reads the feed next, and has what others do looked for as it waits.
    """
    try:
        core.lookout.begin()
    except StoreUnavailableError:
        if core.closed:
            return None
        raise
    return core.bell.listen(callback, session_id)


def page_if_open(core: Core, after: int, session_id: str | None) -> FeedPage | None:
    """Read what a feed has in hand next; None once the manager is closed, else as `read_page`."""
    try:
        return read_page(core, after, session_id, FOLLOWED_AT_ONCE)
    except (ManagerClosedError, StoreUnavailableError):
        if core.closed:
            return None
        raise
