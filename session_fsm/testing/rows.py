"""Which rows of a lifecycle a run of tests has fired, and how often each was refused.

Every step of a session comes by `SessionMachine.fire`: it is wrapped while a `RowRecorder` records,
and left as it was afterwards. Steps in other processes are not seen.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import attrs

from ..errors import TransitionError
from ..lifecycle import Lifecycle
from ..machine import SessionMachine
from ..state import SessionState

Told = dict[str, list[list[Any]]]
"""What was recorded, in plain words that another process can be sent."""


@attrs.frozen
class RowCoverage:
    """How often each row of a lifecycle was fired.

    Attributes:
        lifecycle: Whose rows.
        fired: How often, by (trigger, source), in the table's order; every row is there.
        refused: How often a guard of the row said no, in the same way.
    """

    lifecycle: Lifecycle = attrs.field(repr=lambda value: repr(value.name))
    fired: Mapping[tuple[str, str], int]
    refused: Mapping[tuple[str, str], int]

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """The rows that were never fired, by (trigger, source), in the table's order."""
        return tuple(key for key, number in self.fired.items() if not number)

    @property
    def percent(self) -> float:
        """The share of the rows that were fired, from 0 to 100."""
        every = len(self.fired)
        return 100.0 * (every - len(self.missing)) / every if every else 100.0

    @property
    def headline(self) -> str:
        """What was fired, in one line."""
        every = len(self.fired)
        return f"{every - len(self.missing)} of {every} rows were fired"


@attrs.define(eq=False)
class _Counts:
    lifecycle: Lifecycle
    fired: dict[tuple[str, str], int]
    refused: dict[tuple[str, str], int]


class RowRecorder:
    """Records the rows that are fired while it is entered, in every thread of this process.

    Args:
        lifecycles: Whose rows are recorded. A lifecycle that was derived from one of these, has its
            name and differs by graces alone, counts as the same.

    Example:
        >>> from session_fsm import SESSION_LIFECYCLE, SessionState, step
        >>> with RowRecorder([SESSION_LIFECYCLE]) as recorder:
        ...     state = step(SessionState.new("a"), "activate")
        >>> [coverage] = recorder.coverage()
        >>> coverage.fired["activate", "initializing"], coverage.headline
        (1, '1 of 23 rows were fired')
    """

    def __init__(self, lifecycles: Iterable[Lifecycle]) -> None:
        self._counts: dict[str, _Counts] = {}
        for lifecycle in lifecycles:
            rows = {(row.trigger, source): 0 for row, source in lifecycle.moves()}
            kept = _Counts(lifecycle, rows, dict(rows))
            self._counts.setdefault(_identity(lifecycle), kept)
        self._known: WeakKeyDictionary[Lifecycle, _Counts | None] = WeakKeyDictionary()
        self._counting = threading.Lock()
        self._fire: Callable[..., SessionState] | None = None

    # --- recording ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._fire is not None:
            raise RuntimeError("it is recording already")
        fire = self._fire = SessionMachine.fire

        @functools.wraps(fire)
        def recorded(
            machine: SessionMachine,
            /,
            trigger: str,
            *,
            at: datetime | None = None,
            **arguments: Any,
        ) -> SessionState:
            counts = self._counts_of(machine.lifecycle)
            if counts is None:
                return fire(machine, trigger, at=at, **arguments)
            source = machine.state.status
            try:
                after = fire(machine, trigger, at=at, **arguments)
            except TransitionError:
                self._count(counts.refused, trigger, source)
                raise
            self._count(counts.fired, trigger, source)
            return after

        SessionMachine.fire = recorded  # type: ignore[assignment, method-assign]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._fire is not None
        SessionMachine.fire = self._fire  # type: ignore[method-assign]
        self._fire = None

    def _counts_of(self, lifecycle: Lifecycle) -> _Counts | None:
        try:
            return self._known[lifecycle]
        except KeyError:
            found = self._known[lifecycle] = self._counts.get(_identity(lifecycle))
            return found

    def _count(self, counts: dict[tuple[str, str], int], trigger: str, source: str) -> None:
        with self._counting:
            if (trigger, source) in counts:
                counts[trigger, source] += 1

    # --- telling ------------------------------------------------------------------------------

    def coverage(self) -> tuple[RowCoverage, ...]:
        """Return what was recorded, for each lifecycle in the order given."""
        with self._counting:
            return tuple(
                RowCoverage(each.lifecycle, dict(each.fired), dict(each.refused))
                for each in self._counts.values()
            )

    def told(self) -> Told:
        """Return what was recorded as plain words and numbers, for another process to add."""
        with self._counting:
            return {
                name: [
                    [trigger, str(source), number, each.refused[trigger, source]]
                    for (trigger, source), number in each.fired.items()
                ]
                for name, each in self._counts.items()
            }

    def add(self, told: Told) -> None:
        """Add what another process has recorded of the same lifecycles."""
        with self._counting:
            for name, rows in told.items():
                for trigger, source, fired, refused in rows:
                    self._counts[name].fired[trigger, source] += fired
                    self._counts[name].refused[trigger, source] += refused


def _identity(lifecycle: Lifecycle) -> str:
    return f"{lifecycle.name}:{lifecycle.fingerprint}"


def table(coverage: RowCoverage) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a report on every row, each with whether the row was fired.

    Example:
        >>> from session_fsm import Lifecycle, Row
        >>> door = Lifecycle(("open", "shut"), "open", [Row("shut", "open", "shut")], name="door")
        >>> fired, refused = {("shut", "open"): 0}, {("shut", "open"): 2}
        >>> list(table(RowCoverage(door, fired, refused)))
        [('shut  open -> shut  never fired  2 refused', False)]
    """
    told = []
    for row, source in coverage.lifecycle.moves():
        number = coverage.fired[row.trigger, source]
        refused = coverage.refused[row.trigger, source]
        edge = f"{source!s} stays" if row.target is None else f"{source!s} -> {row.target!s}"
        times = f"{number} fired" if number else "never fired"
        told.append((row.trigger, edge, times, f"{refused} refused" if refused else ""))
    widths = [max(map(len, column)) for column in zip(*told, strict=True)]
    for words, number in zip(told, coverage.fired.values(), strict=True):
        line = "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=True))
        yield line.rstrip(), number > 0
