"""Feeds that are followed on a loop; what is read, and from where on, is as with threads."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..session import FeedPage, PositionedEvent
from .desk import Desk


async def follow(
    desk: Desk,
    after: int | None,
    session_id: str | None,
    *,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> AsyncIterator[PositionedEvent]:
    """Yield events behind a position as they come; see `SessionVerbs.events`."""
    if after is None:
        after = await desk.following.position(session_id)
    while page := await _next_page(desk, after, session_id, timeout_seconds, poll_seconds):
        for event in page.events:
            yield event
        after = page.position


async def _next_page(
    desk: Desk,
    after: int,
    session_id: str | None,
    timeout_seconds: float | None,
    poll_seconds: float,
) -> FeedPage | None:
    """Return the next page that has events; None if none comes in time, or ever."""
    following, timing = desk.following, desk.timing
    page = await following.page(after, session_id)
    if page is None or page.events:
        return page
    end = None if timeout_seconds is None else timing.after(timeout_seconds)
    # Only while it waits: a reader that does not come back costs nobody anything.
    async with following.waiting(session_id, poll_seconds) as rung:
        while True:
            rung.clear()
            page = await following.page(page.position, session_id)
            if page is None or page.events:
                return page
            if end is None:
                await rung.wait()
            elif (left := timing.seconds_until(end)) > 0:
                await timing.wait_event(rung, left)
            else:
                return None
