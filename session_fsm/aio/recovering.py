"""Taking over what dead nodes left: when asked, and now and then where many share a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import attrs

from ..decisions import cause_in_words
from ..errors import SessionStartError, StoreError
from ..session import RecoveryReport, Session
from ..starting import Claimed
from .calls import Calls, until_done
from .children import Child, checked_children
from .steps import SteppedManager
from .timing import Timing

logger = logging.getLogger(__name__)

Restart = Callable[[Session], Iterable[Child]]
"""Returns what runs for a session that was taken over from a dead owner."""
Run = Callable[[Claimed, tuple[Child, ...]], Awaitable[None]]
"""Starts children for a session whose worker was claimed."""


async def recover(
    inner: SteppedManager,
    calls: Calls,
    run: Run,
    restart: Restart | None,
    *,
    max_takeovers: int,
    all_: bool,
    is_closing: Callable[[], bool],
) -> RecoveryReport:
    """Clear away what dead owners left, and start children anew where that is wanted.

    Args:
        inner: The manager of threads.
        calls: Makes its calls.
        run: Starts the children of a session.
        restart: Returns the children of a session; None: none is started here.
        max_takeovers: A session that was taken over more often lately is ended.
        all_: Whether sessions that are to be started anew are taken, though nobody can here.
        is_closing: Tells whether nothing may be started any longer.

    Raises:
        ManagerClosedError: The manager was closed meanwhile. What was taken over is left by it as
            all else is, for others to start.
    """

    async def let_go(taken: tuple[RecoveryReport, tuple[Claimed, ...]]) -> None:
        if not is_closing():
            await _let_go(inner, calls, taken[1])

    report, claimed = await calls(
        partial(
            inner.recover_for,
            restarts=restart is not None,
            max_takeovers=max_takeovers,
            restarting=all_ or restart is not None,
        ),
        undo=let_go,
        in_vain=is_closing,
    )
    if restart is None:
        return report
    left = {each.session_id: each for each in claimed}
    begun = (_begun(inner, calls, run, restart, each, left) for each in claimed)
    ids = (each.session_id for each in claimed)
    try:
        became = dict(zip(ids, await asyncio.gather(*begun), strict=True))
    finally:
        # Who is cancelled before its first step never makes one.
        if left and not is_closing():
            never_begun = [left.pop(each) for each in tuple(left)]
            await until_done(asyncio.ensure_future(_let_go(inner, calls, never_begun)))
    told = {
        field: tuple(each for each, (what, _) in became.items() if what == field)
        for field in ("ended", "released", "restarted")
    }
    return attrs.evolve(
        report,
        ended=report.ended + told["ended"],
        released=report.released + told["released"],
        restarted=told["restarted"],
        failed=report.failed
        + tuple((each, why) for each, (what, why) in became.items() if what == "failed"),
    )


async def _let_go(inner: SteppedManager, calls: Calls, claimed: Iterable[Claimed]) -> None:
    for each in claimed:
        try:
            await calls(partial(inner.not_adopted, each))
        except StoreError as fault:
            # It is let go of when this node recovers the next time; the others are, now.
            logger.warning("session %r could not be let go of: %s", each.session_id, fault)


async def _begun(
    inner: SteppedManager,
    calls: Calls,
    run: Run,
    restart: Restart,
    claimed: Claimed,
    left: dict[str, Claimed],
) -> tuple[str, str]:
    """Start the children of a session; returns where a report tells what came of it, and why.

    What it has to do with is taken out of what is left.
    """
    session_id = claimed.session_id
    del left[session_id]
    try:
        try:
            children = checked_children(restart(claimed.session))
        except Exception as fault:
            logger.exception("session %r can't be started anew", session_id)
            error = await calls(partial(inner.restart_failed, claimed, fault))
            return _ended(error)
        if not children:
            await calls(partial(inner.not_adopted, claimed))
            return "released", ""
    except StoreError as fault:
        logger.warning("session %r could not be let go of: %s", session_id, fault)
        return "failed", cause_in_words(fault)
    try:
        await run(claimed, children)
    except SessionStartError as fault:
        logger.warning("%s", fault)
        return _ended(fault)
    except StoreError as fault:
        # It lives, and nothing runs for it: another node may read what this one can't.
        logger.warning("session %r was not started anew: %s", session_id, fault)
        return "released", ""
    return "restarted", ""


def _ended(error: SessionStartError) -> tuple[str, str]:
    return ("failed", str(error)) if error.lives else ("ended", "")


class Recoverer:
    """Recovers again and again.

    Args:
        recover: Takes over what is there to be taken.
        timing: What waits.
        every_seconds: How long it waits in between.

    Threads: none but the loop's.
    """

    def __init__(
        self, recover: Callable[[], Awaitable[object]], timing: Timing, *, every_seconds: float
    ) -> None:
        self._recover = recover
        self._timing = timing
        self._every_seconds = every_seconds

    async def run(self) -> None:
        """Recover, and wait, until cancelled."""
        while True:
            try:
                await self._recover()
            except Exception:
                # Be it the store that can't be reached: what was left is there the next time.
                logger.exception("nothing was recovered; it is tried again")
            await self._timing.wait((), until=self._timing.after(self._every_seconds))
