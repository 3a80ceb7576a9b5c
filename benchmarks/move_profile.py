"""Where a move spends its time, by function and by statement, whatever the functions are called."""

from __future__ import annotations

import cProfile
import pstats
import re
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import attrs

from .connections import noted

ROOT: Final = Path(__file__).resolve().parent.parent
Place = tuple[str, int, str]
"""File, line and name of a function, as `pstats` has them."""


@attrs.frozen
class Spent:
    """What one function, or one module, took.

    Attributes:
        name: Which; with its module, without the path of the machine.
        calls: How often it was called in a move.
        seconds: What it took itself in a move, without what it called.
    """

    name: str
    calls: float
    seconds: float


def profiled(act: Callable[[], object], moves: int) -> tuple[list[Spent], list[Spent]]:
    """Return what each module and each function took on this thread, the most first.

    The profiler makes every call dearer, a call of C least: the shares count, not the times.
    """
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(moves):
        act()
    profiler.disable()
    found: Mapping[Place, tuple[Any, ...]] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # not in its stubs
    functions = []
    calls_of: Counter[str] = Counter()
    modules: dict[str, float] = defaultdict(float)
    for place, (_, calls, own, *_) in found.items():
        functions.append(Spent(_told(place), calls / moves, own / moves))
        modules[_module(place)] += own / moves
        calls_of[_module(place)] += calls
    by_module = [Spent(name, calls_of[name] / moves, own) for name, own in modules.items()]
    return sorted(by_module, key=_own), sorted(functions, key=_own)


def _own(spent: Spent) -> tuple[float, str]:
    return -spent.seconds, spent.name


def _told(place: Place) -> str:
    _, _, name = place
    module = _module(place)
    # Where an object lies in memory is another place in each run.
    return re.sub(r" object at 0x[0-9a-f]+", "", name) if module == "C" else f"{module}: {name}"


def _module(place: Place) -> str:
    """Name a module as it is imported; all of what is written in C is one."""
    path = Path(place[0])
    if place[0] == "~":
        return "C"
    if path.is_relative_to(ROOT / "session_fsm"):
        return ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return path.stem if path.suffix else "made at run time"


_TIMES: Final[dict[str, float]] = defaultdict(float)
_CALLS: Final[Counter[str]] = Counter()


@contextmanager
def _clocked(sql: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - begin
        kind, *words = sql.split()
        kind = kind.upper()
        if kind in {"UPDATE", "INSERT", "DELETE"}:
            kind = f"{kind} {next((word for word in words if word.islower()), '')}"
        _TIMES[kind] += seconds
        _CALLS[kind] += 1


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, *arguments: Any) -> Self:
        with _clocked(sql):
            return super().execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> Self:
        with _clocked(sql):
            return super().executemany(sql, *arguments)


class _Connection(sqlite3.Connection):
    """Notes how long each sort of statement takes."""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return _Cursor(self).execute(sql, *arguments)

    def executemany(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        return _Cursor(self).executemany(sql, *arguments)

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_Cursor)

    def commit(self) -> None:
        with _clocked("COMMIT"):
            super().commit()


def statements(make: Callable[[], Callable[[], object]], moves: int) -> list[Spent]:
    """Return what each sort of statement takes in a move, in the order in which they came.

    Args:
        make: Opens a store, and returns what makes a move in it.
        moves: How many are made.

    Raises:
        RuntimeError: The store opens its connections in a way that is not seen here.
    """
    with noted(factory=_Connection):
        act = make()
        act()
        _TIMES.clear()
        _CALLS.clear()
        for _ in range(moves):
            act()
    if not _CALLS:
        raise RuntimeError("no statement was seen: the store does not call sqlite3.connect")
    return [Spent(kind, _CALLS[kind] / moves, seconds / moves) for kind, seconds in _TIMES.items()]


def rows(found: Iterable[Spent], whole: float) -> Iterator[tuple[str, str, str, str]]:
    """Yield what was spent, each with its share of the whole."""
    for each in found:
        share = f"{each.seconds / whole:.0%}"
        yield each.name, f"{each.calls:.1f}", f"{each.seconds * 1e6:.1f} µs", share
