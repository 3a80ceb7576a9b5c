"""Subjects in processes of their own, which take turns at a word from the first one.

A process holds one subject and its share of the callers. In a turn all processes of one subject
move at the same time, and those of the others wait.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final

import attrs

from .durable import opened
from .measuring import Record, Turn, in_turns
from .subjects import Subject

Kind = Callable[[str, int], Subject]
"""Makes a subject from the URL of a database and the number of callers; has a `name`."""

LONGEST_OPENING_SECONDS: Final = 300.0
LONGEST_END_SECONDS: Final = 60.0


@attrs.frozen
class Shape:
    """How many processes there are, and how many callers in all of them together."""

    processes: int
    callers: int

    @property
    def each(self) -> int:
        """How many callers each process has."""
        return self.callers // self.processes

    def __str__(self) -> str:
        callers = f"{self.callers} caller{'s' if self.callers > 1 else ''}"
        return f"{callers}, {self.processes} process{'es' if self.processes > 1 else ''}"


@attrs.frozen
class Together:
    """What came of one shape.

    Attributes:
        shape: It.
        records: The turns by subject.
        settings: What the durability of each rests on, by subject.
        missing: Why a subject has no record, by subject.
    """

    shape: Shape
    records: Mapping[str, Record]
    settings: Mapping[str, str]
    missing: Mapping[str, str]

    def ratio(self, of: str, to: str) -> float | None:
        """Return the ratio of the rates of two subjects; None if one is missing."""
        if of not in self.records or to not in self.records:
            return None
        return self.records[of].ratio_to(self.records[to])


def serve(pipe: Connection, kind: Kind, url: str, ids: Sequence[str]) -> None:
    """Open a subject, tell its settings, and take a turn for each number of seconds that comes.

    Ends with None, or with the process at the other end.
    """
    try:
        with (
            asyncio.Runner() as runner,
            opened(partial(kind, url, len(ids)), ids, runner) as (settings, turn, _),
        ):
            pipe.send(settings)
            while (seconds := pipe.recv()) is not None:
                pipe.send(turn(seconds))
    except EOFError:
        pass
    except Exception as fault:  # noqa: BLE001 - whatever keeps a peer from being measured
        pipe.send(RuntimeError(f"{type(fault).__name__}: {fault}".splitlines()[0]))


def measure(
    kinds: Sequence[Kind], url: str, shape: Shape, *, rounds: int, seconds: float
) -> Together:
    """Let subjects take turns of so many seconds on a database that is empty."""
    settings: dict[str, str] = {}
    missing: dict[str, str] = {}
    turns: dict[str, Callable[[], Turn]] = {}
    with ExitStack() as held:
        for kind in kinds:
            name: str = kind.name  # type: ignore[attr-defined]  # each kind has one
            mine = held.enter_context(_processes(kind, url, shape))
            told = [_answer(pipe) for pipe in mine]
            faults = [each for each in told if isinstance(each, Exception)]
            if faults:
                missing[name] = str(faults[0])
                continue
            settings[name] = " and ".join(dict.fromkeys(told))
            turns[name] = partial(_turn, mine, seconds)
        records = in_turns(turns, rounds)
    return Together(shape, records, settings, missing)


@contextmanager
def _processes(kind: Kind, url: str, shape: Shape) -> Iterator[list[Connection]]:
    """Start the processes of a subject, the first of which makes the tables; end them."""
    context = multiprocessing.get_context("spawn")
    pipes, started = [], []
    made: str = kind.__name__
    try:
        for number in range(shape.processes):
            ids = [f"{made}-{number}-{caller:03}" for caller in range(shape.each)]
            mine, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, kind, url, ids), daemon=True)
            process.start()
            theirs.close()
            pipes.append(mine)
            started.append(process)
            if number == 0:
                mine.poll(LONGEST_OPENING_SECONDS)
        yield pipes
    finally:
        for pipe in pipes:
            _ended(pipe)
        for process in started:
            process.join(LONGEST_END_SECONDS)
            process.kill()
            process.join()
            process.close()


def _ended(pipe: Connection) -> None:
    try:
        pipe.send(None)
    except OSError:  # it has ended already
        pass
    finally:
        pipe.close()


def _answer(pipe: Connection) -> Any:
    try:
        if not pipe.poll(LONGEST_OPENING_SECONDS):
            return TimeoutError(f"no answer in {LONGEST_OPENING_SECONDS:.0f} s")
        return pipe.recv()
    except EOFError:
        return RuntimeError("its process has died")


def _turn(pipes: Sequence[Connection], seconds: float) -> Turn:
    for pipe in pipes:
        pipe.send(seconds)
    return added([_checked(_answer(pipe)) for pipe in pipes])


def _checked(answer: Any) -> Turn:
    if isinstance(answer, Exception):
        raise answer
    assert isinstance(answer, Turn)
    return answer


def added(turns: Iterable[Turn]) -> Turn:
    """Return what processes did at the same time as one turn, as long as the longest of them."""
    turns = list(turns)
    latencies = [each for turn in turns for each in turn.latencies]
    longest = max(turn.seconds for turn in turns)
    return Turn(
        sum(turn.moves for turn in turns), longest, latencies, sum(turn.failures for turn in turns)
    )
