"""Durable moves: one caller, and many at once, each subject on a file of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from .callers import AsyncMove, Move, Tasks, Threads, alone
from .measuring import Record, Turn, in_turns, table, told_seconds
from .peers import LangGraph, Xstate, XstateFull
from .peers_async import Adk, AdkFull, OpenAIAgents
from .subjects import Awaiting, Blocking, Floor, FloorUnsynced, Ours, OursAwaited, Subject

SUBJECTS: Final[Sequence[type[Subject]]] = (
    Ours, OursAwaited, Floor, FloorUnsynced, LangGraph, OpenAIAgents, Xstate, XstateFull, Adk,
    AdkFull,
)  # fmt: skip
ONE_BY_ONE: Final = f"{Floor.name}, one caller"
"""The floor with one caller, while others have many."""


@attrs.frozen
class Durable:
    """What came of the durable moves.

    Attributes:
        callers: How many moved at once.
        records: The turns by subject.
        settings: How each keeps its file, by subject.
        missing: Why a subject has no record, by subject.
    """

    callers: int
    records: Mapping[str, Record]
    settings: Mapping[str, str]
    missing: Mapping[str, str]

    def ratio(self, to: str) -> float | None:
        """Return the ratio of our rate to another one's; None if that is missing."""
        if to not in self.records:
            return None
        return self.records[Ours.name].ratio_to(self.records[to])


def measure(
    directory: Path,
    *,
    callers: int,
    rounds: int,
    seconds: float,
    subjects: Sequence[type[Subject]] = SUBJECTS,
) -> Durable:
    """Let the subjects take turns of so many seconds in a directory that is empty."""
    settings: dict[str, str] = {}
    missing: dict[str, str] = {}
    turns: dict[str, Callable[[], Turn]] = {}
    ids = [f"session-{number:04}" for number in range(callers)]
    with ExitStack() as held:
        runner = held.enter_context(asyncio.Runner())
        for subject in subjects:
            try:
                make = partial(subject, directory)  # type: ignore[call-arg]  # each takes one
                made = held.enter_context(opened(make, ids, runner))
            except Exception as fault:  # noqa: BLE001 - whatever keeps a peer from being measured
                missing[subject.name] = f"{type(fault).__name__}: {fault}"
                continue
            settings[subject.name], turn, one = made
            turns[subject.name] = _timed(turn, seconds)
            if subject is Floor and callers > 1:
                settings[ONE_BY_ONE] = settings[subject.name]
                turns[ONE_BY_ONE] = _timed(one, seconds)
        return Durable(callers, in_turns(turns, rounds), settings, missing)


_Timed = Callable[[float], Turn]


def _timed(turn: _Timed, seconds: float) -> Callable[[], Turn]:
    return lambda: turn(seconds)


@contextmanager
def opened(
    make: Callable[[], Subject], ids: Sequence[str], runner: asyncio.Runner
) -> Iterator[tuple[str, _Timed, _Timed]]:
    """Make a subject and a session for each caller, and let go of it at the end.

    Args:
        make: Makes the subject.
        ids: The ids of the sessions, one for each caller.
        runner: The event loop of what awaits.

    Yields:
        Its settings, what takes a turn with all callers, and what does so with the first alone.
    """
    subject = make()
    if isinstance(subject, Blocking):
        moves = [subject.mover(session_id) for session_id in ids]
        threads = Threads(moves)
        try:
            yield subject.settings, _blocking(moves, threads), lambda each: alone(moves[0], each)
        finally:
            threads.close()
            subject.close()
    else:
        assert isinstance(subject, Awaiting)
        try:
            runner.run(subject.prepare())
            awaited = [runner.run(_made(subject, session_id)) for session_id in ids]
            tasks = Tasks(awaited, runner)
            yield subject.settings, tasks.turn, Tasks(awaited[:1], runner).turn
        finally:
            runner.run(subject.close())


async def _made(subject: Awaiting, session_id: str) -> AsyncMove:
    return await subject.mover(session_id)


def _blocking(moves: Sequence[Move], threads: Threads) -> _Timed:
    return threads.turn if len(moves) > 1 else lambda seconds: alone(moves[0], seconds)


def lines(found: Durable) -> Iterator[str]:
    """Yield what was found as a table."""
    rows = [
        (
            name,
            found.settings[name],
            told_seconds(record.each_seconds),
            f"{record.rate:,.0f}",
            told_seconds(record.p95_seconds),
            f"{record.failures:,}",
            "" if name == Ours.name else f"{found.records[Ours.name].ratio_to(record):.2f} ×",
        )
        for name, record in found.records.items()
    ]
    head = ("", "journal, synchronous", "a move", "moves/s", "p95", "failed", "ours: rate")
    yield from table(head, rows)
    if found.missing:
        yield ""
        for name, reason in found.missing.items():
            yield f"- Not measured: {name} ({reason})"
