"""Many callers at once: threads for what blocks, tasks of one event loop for what awaits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from .measuring import Turn

Move = Callable[[], object]
"""Makes one move of one caller's own session; raises if it was not made."""
AsyncMove = Callable[[], Awaitable[object]]

MOST_FAILURES_IN_A_TURN: Final = 1000
"""A caller whose moves fail at once would otherwise spin."""


def alone(move: Move, seconds: float) -> Turn:
    """Let one caller move for so long, on this thread."""
    begin = time.perf_counter()
    latencies, failures = _moves(move, begin + seconds)
    return Turn(len(latencies), time.perf_counter() - begin, latencies, failures)


def _moves(move: Move, end: float) -> tuple[list[float], int]:
    latencies: list[float] = []
    failures = 0
    while (before := time.perf_counter()) < end and failures < MOST_FAILURES_IN_A_TURN:
        try:
            move()
        except Exception:  # noqa: BLE001 - whatever a peer raises is a move that was not made
            failures += 1
        else:
            latencies.append(time.perf_counter() - before)
    return latencies, failures


class Threads:
    """Callers that are threads, each with a session of its own; they live for many turns."""

    def __init__(self, moves: Sequence[Move]) -> None:
        self._moves = moves
        self._pool = ThreadPoolExecutor(len(moves))

    def turn(self, seconds: float) -> Turn:
        """Let all move for so long, from the same instant on."""
        together = threading.Barrier(len(self._moves) + 1)

        def run(move: Move) -> tuple[list[float], int]:
            together.wait()
            return _moves(move, time.perf_counter() + seconds)

        running = [self._pool.submit(run, move) for move in self._moves]
        together.wait()
        begin = time.perf_counter()
        return _added([each.result() for each in running], begin)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class Tasks:
    """Callers that are tasks of one event loop, which lives for many turns."""

    def __init__(self, moves: Sequence[AsyncMove], runner: asyncio.Runner) -> None:
        self._moves = moves
        self._runner = runner

    def turn(self, seconds: float) -> Turn:
        """Let all move for so long."""
        return self._runner.run(self._turn(seconds))

    async def _turn(self, seconds: float) -> Turn:
        begin = time.perf_counter()

        async def run(move: AsyncMove) -> tuple[list[float], int]:
            latencies: list[float] = []
            failures = 0
            while (before := time.perf_counter()) < begin + seconds:
                if failures == MOST_FAILURES_IN_A_TURN:
                    break
                try:
                    await move()
                except Exception:  # noqa: BLE001 - whatever a peer raises is a move not made
                    failures += 1
                else:
                    latencies.append(time.perf_counter() - before)
            return latencies, failures

        return _added(await asyncio.gather(*(run(move) for move in self._moves)), begin)


def _added(found: Sequence[tuple[list[float], int]], begin: float) -> Turn:
    seconds = time.perf_counter() - begin
    latencies = [each for took, _ in found for each in took]
    return Turn(len(latencies), seconds, latencies, sum(failures for _, failures in found))
