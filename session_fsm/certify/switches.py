"""A lifecycle whose guards are switches, so that the machine can be walked through all of them.

What a guard asks is its author's business, and which states make it hold can't be known. So each
guard is given a switch in place of its function, each deadline an instant that can be set, and each
effect a stamp that shows that it ran. All else stays: rows, names, order, roles. The machine is
built from it as from any lifecycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from math import prod
from typing import Any, Final

import attrs

from ..guards import Attempt, Deadline, Guard
from ..lifecycle import Lifecycle, Row
from ..state import SessionState
from .reading import Case, Reading

MOST_SETTINGS: Final = 4096
"""Most settings of one status that are all tried; beyond it, those that differ in one or two."""

HOLDS, FAILS = "holds", "fails"
BEFORE, AT, AFTER, NEVER = "before", "at", "after", "never"
POSITIONS: Final = (AT, AFTER, BEFORE, NEVER)
"""Where an instant lies: at, after or before a deadline; `never`: no clock runs."""
DUE: Final = frozenset((AT, AFTER))

_TICK: Final = timedelta(microseconds=1)
_CREATED: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SINCE, _ACTIVE, _UPDATED, _AT = (_CREATED + timedelta(hours=hours) for hours in (1, 2, 3, 4))
_DUE: Final = {BEFORE: _AT + _TICK, AT: _AT, AFTER: _AT - _TICK, NEVER: None}
STAMP: Final = {"conversation_count": 1}
"""What every effect changes in a switched lifecycle."""


@attrs.frozen
class Switch:
    """A guard, or the deadline of a row.

    Attributes:
        name: Of the guard, or of the row's trigger.
        values: What it may be set to, the first of them so that a row passes, the last so that
            it does not.
    """

    name: str
    values: tuple[str, ...]

    def told(self, chosen: Iterable[str]) -> str:
        """Put in words that it has one of some values."""
        found = set(chosen)
        if self.values == POSITIONS:
            due = "due" if found == DUE else " or ".join(v for v in self.values if v in found)
            return f"{self.name!r} {due}"
        return self.name if HOLDS in found else f"not {self.name}"


Setting = Mapping[Switch, str]


def guard_switch(guard: Guard) -> Switch:
    """Return the switch of a guard; guards of one name share it."""
    return Switch(guard.name, (HOLDS, FAILS))


def due_switch(row: Row) -> Switch:
    """Return the switch of a row's deadline."""
    return Switch(row.trigger, POSITIONS)


class Switched:
    """A lifecycle, and another one like it whose guards and deadlines are set from here.

    Args:
        lifecycle: What it is made from.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._setting: Setting = {}
        self.lifecycle = attrs.evolve(lifecycle, rows=[self._row(row) for row in lifecycle.rows])
        self.reading = Reading(self.lifecycle)
        self._switches = _switches(self.lifecycle.rows)

    def _row(self, row: Row) -> Row:
        deadline = row.deadline
        if deadline is not None:
            deadline = Deadline(deadline.name, self._due(due_switch(row)), deadline.grace)
        return attrs.evolve(
            row,
            guards=[self._guard(guard) for guard in row.guards],
            deadline=deadline,
            effect=None if row.effect is None else _stamped,
        )

    def _guard(self, guard: Guard) -> Guard:
        switch = guard_switch(guard)

        def check(attempt: Attempt) -> bool:
            return self._setting[switch] == HOLDS

        return Guard(guard.name, check, "switched off", guard.needs)

    def _due(self, switch: Switch) -> Callable[[Attempt], datetime | None]:
        def find(attempt: Attempt) -> datetime | None:
            return _DUE[self._setting[switch]]

        return find

    def set(self, setting: Setting) -> None:
        """Give every guard and deadline its value."""
        self._setting = setting

    def switches(self, status: str) -> tuple[Switch, ...]:
        """Return what the rows of a status ask for, in the table's order, each once."""
        return _switches(self.reading.leaving[status])

    def setting(self, chosen: Setting, *, others: str) -> Setting:
        """Return a setting of the whole lifecycle.

        Args:
            chosen: The values of some switches.
            others: `holds` or `fails`: whether all others let rows pass.
        """
        index = 0 if others == HOLDS else -1
        rest = {switch: switch.values[index] for switch in self._switches}
        return {**rest, **chosen}

    def case(self, status: str, trigger: str) -> Case:
        """Return the case of a trigger in a status; all its instants differ, so each can be told.

        The trigger comes with what its row requires; a switch doesn't look at it.
        """
        rows = self.reading.rows.get((trigger, status), ())
        required = rows[0].required if rows else ()
        return Case(
            state=SessionState(
                session_id="switched",
                status=self.lifecycle.status(status),
                created_at=_CREATED,
                status_since=_SINCE,
                last_activity_at=_ACTIVE,
                updated_at=_UPDATED,
            ),
            trigger=trigger,
            at=_AT,
            arguments=dict.fromkeys(required, "given"),
        )


def _stamped(attempt: Attempt) -> Mapping[str, Any]:
    return STAMP


def _switches(rows: Iterable[Row]) -> tuple[Switch, ...]:
    found: dict[Switch, None] = {}
    for row in rows:
        found |= dict.fromkeys(map(guard_switch, row.guards))
        if row.deadline is not None:
            found[due_switch(row)] = None
    return tuple(found)


def settings(switches: Sequence[Switch]) -> tuple[bool, tuple[Setting, ...]]:
    """Return the settings of some switches that are tried.

    Returns:
        Whether these are all there are, and the settings. Where there are more than
        `MOST_SETTINGS`, they are those that differ in at most two switches from all letting rows
        pass, or from none doing so.
    """
    if prod(len(switch.values) for switch in switches) <= MOST_SETTINGS:
        return True, tuple(
            dict(zip(switches, chosen, strict=True))
            for chosen in product(*(switch.values for switch in switches))
        )
    found = {tuple(setting.values()): setting for setting in _near(switches)}
    return False, tuple(found.values())


def _near(switches: Sequence[Switch]) -> Iterator[Setting]:
    for index in (0, -1):
        base = {switch: switch.values[index] for switch in switches}
        yield base
        for two in combinations(switches, 2):
            for chosen in product(*(switch.values for switch in two)):
                yield {**base, **dict(zip(two, chosen, strict=True))}
