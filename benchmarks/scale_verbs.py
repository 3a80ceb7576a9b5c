"""What is done to each store: the verbs whose cost may not grow with what is stored."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from session_fsm import SessionManager
from session_fsm.clock import ManualClock

from .measuring import Turn, counted
from .scale_stores import MEASURED_FROM, at_rest, id_of

PAGE: Final = 50
DUE: Final = 10
TIMES: Final = {"get": 50, "move": 20, "list": 10, "counts": 20}
"""How often a verb is called in one turn."""
CHUNK_BYTES: Final = 1 << 20


class Store:
    """An open store of so many sessions.

    Args:
        url: Of the store, which is changed.
        size: How many sessions there are.
        moves: How many moves will be asked for; none meets a session twice, so that each finds
            its session as one that was not used before.
        warm: Sees, before a turn, that what is stored lies in memory.
    """

    def __init__(
        self, url: str, size: int, *, moves: int, warm: Callable[[], object] = lambda: None
    ) -> None:
        self.size = size
        self._url = url
        self._warm = warm
        self._clock = ManualClock(MEASURED_FROM)
        self._manager = SessionManager(url, clock=self._clock)
        self._random = random.Random(size)  # noqa: S311 - the same ids each time, and no secret
        self._moved: Iterator[int] = iter(self._random.sample(range(size), moves))

    def close(self) -> None:
        """Let go of it."""
        self._manager.close()

    def verbs(self) -> dict[str, Callable[[], Turn]]:
        """Return what does one turn of each verb, after a call that does not count.

        Without that the first size of each round would pay for what all share.
        """
        warm = self._warm
        get = partial(counted, self._get, TIMES["get"])
        move = partial(counted, self._move, TIMES["move"])
        listed = partial(counted, self._list, TIMES["list"])
        counts = partial(counted, self._counts, TIMES["counts"])
        return {
            "get": _after(warm, self._get, turn=get),
            "move": _after(warm, turn=move),
            f"list({PAGE})": _after(warm, self._list, turn=listed),
            "counts": _after(self._counts, turn=counts),
            f"sweep({DUE} due)": _after(warm, turn=self._sweep),
            "open": _after(self._open, turn=self._open),
        }

    def _any(self) -> int:
        return self._random.randrange(self.size)

    def _get(self) -> None:
        self._manager.get(id_of(self._any()))

    def _move(self) -> None:
        number = next(self._moved)
        self._manager.fire(id_of(number), "resume" if at_rest(number) else "go_idle")

    def _list(self) -> None:
        after = id_of(self._random.randrange(self.size - PAGE))
        if len(self._manager.list(limit=PAGE, after=after)) != PAGE:
            raise RuntimeError(f"no whole page after {after}")

    def _counts(self) -> None:
        if sum(self._manager.counts().values()) != self.size:
            raise RuntimeError("the counts do not add up")

    def _sweep(self) -> Turn:
        """Plant sessions that fall due, sweep, and clear them away; the sweep alone is timed."""
        for number in range(DUE):
            self._manager.create(f"due-{number}", config={"timeout_minutes": 1})
        self._clock.advance(61)
        begin = time.perf_counter()
        report = self._manager.sweep()
        seconds = time.perf_counter() - begin
        ended = [event for event in report.fired if event.trigger == "finish"]
        self._clock.advance(1)
        purged = self._manager.purge(ended_before=self._clock.now())
        if (len(ended), purged) != (DUE, DUE):
            raise RuntimeError(f"{DUE} were due, {len(ended)} ended, {purged} were purged")
        return Turn(1, seconds)

    def _open(self) -> Turn:
        begin = time.perf_counter()
        other = SessionManager(self._url, clock=self._clock)
        seconds = time.perf_counter() - begin
        other.close()
        return Turn(1, seconds)


def read_through(path: Path) -> None:
    """See that the system has a file in memory: some take out what was not used lately."""
    with path.open("rb") as file:
        while file.read(CHUNK_BYTES):
            pass


def _after(*acts: Callable[[], object], turn: Callable[[], Turn]) -> Callable[[], Turn]:
    def made() -> Turn:
        for act in acts:
            act()
        return turn()

    return made
