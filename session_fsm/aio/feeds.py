"""Feeds that are followed on a loop; what is read, and from where on, is as with threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from ..errors import ManagerClosedError
from ..session import FeedPage, PositionedEvent
from .desk import Desk
from .timing import call_soon


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
        after = await desk.do(desk.inner.position, session_id)
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
    page = await _read(desk, after, session_id)
    if page is None or page.events:
        return page
    loop, timing = asyncio.get_running_loop(), desk.timing
    end = None if timeout_seconds is None else timing.after(timeout_seconds)
    rung = asyncio.Event()
    # Only while it waits: a reader that does not come back costs nobody anything.
    end_listening = desk.inner.when_committed(partial(call_soon, loop, rung.set))
    try:
        while True:
            rung.clear()
            page = await _read(desk, page.position, session_id)
            if page is None or page.events:
                return page
            left = poll_seconds
            if end is not None:
                left = min(left, timing.seconds_until(end))
                if left <= 0:
                    return None
            await timing.wait_event(rung, left)
    finally:
        end_listening()


async def _read(desk: Desk, after: int, session_id: str | None) -> FeedPage | None:
    try:
        return await desk.calls(partial(desk.inner.page_if_open, after, session_id))
    except ManagerClosedError:
        return None
