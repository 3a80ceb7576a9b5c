"""Lifecycles that differ from another one by one small fault, by the kind of the fault."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from session_fsm import Guard, Lifecycle, Row

Change = Callable[[Row], Iterable[Row]]
"""Returns what takes the place of a row."""


@attrs.frozen
class Mutation:
    """One small fault of one row.

    Attributes:
        kind: Its kind, in words.
        name: The trigger of the row, and what is wrong with it.
        number: Which row of the table it is.
        change: What it does to the row.
    """

    kind: str
    name: str
    number: int
    change: Change

    def __call__(self, lifecycle: Lifecycle) -> Lifecycle:
        """Return a lifecycle with the fault; LifecycleError where there can't be such a one."""
        rows = list(lifecycle.rows)
        rows[self.number : self.number + 1] = self.change(rows[self.number])
        triggers = {row.trigger for row in rows}
        roles = {role: name for role, name in lifecycle.roles.items() if name in triggers}
        return attrs.evolve(lifecycle, rows=rows, roles=roles)


def mutations(lifecycle: Lifecycle) -> Iterator[Mutation]:
    """Yield every small fault that a row of a lifecycle may have, in the table's order."""
    for number, row in enumerate(lifecycle.rows):
        for kind, what, change in _changes(lifecycle, row):
            yield Mutation(kind, f"{row.trigger} {what}".strip(), number, change)


def _changes(lifecycle: Lifecycle, row: Row) -> Iterator[tuple[str, str, Change]]:
    yield "row dropped", "", lambda row: []
    sources = lifecycle.sources(row)
    for source in sources if len(sources) > 1 else ():
        left = tuple(each for each in sources if each != source)
        yield "source dropped", f"from {source}", _with(sources=left)
    for source in lifecycle.live:
        if source not in sources:
            yield "source added", f"from {source}", _with(sources=(*sources, source))
    for target in (*lifecycle.statuses, None):
        if target != row.target:
            yield "retargeted", f"to {target or 'where it stands'}", _with(target=target)
    for position, guard in enumerate(row.guards):
        yield "guard removed", f"without {guard.name!r}", _guards(position)
        yield "guard turned", f"not {guard.name!r}", _guards(position, turned(guard))
    if row.deadline is not None:
        yield "deadline removed", "", _with(deadline=None)
    yield "activity flipped", "", _with(activity=not row.activity)
    yield "ending flipped", "", _with(ending=not row.ending)
    if row.effect is not None:
        yield "effect dropped", "", _with(effect=None)


KINDS = (
    "row dropped",
    "source dropped",
    "source added",
    "retargeted",
    "guard removed",
    "guard turned",
    "deadline removed",
    "activity flipped",
    "ending flipped",
    "effect dropped",
)
"""Every kind of fault."""


def _with(**changes: Any) -> Change:
    return lambda row: [attrs.evolve(row, **changes)]


def _guards(position: int, *instead: Guard) -> Change:
    def change(row: Row) -> list[Row]:
        guards = (*row.guards[:position], *instead, *row.guards[position + 1 :])
        return [attrs.evolve(row, guards=guards)]

    return change


def turned(guard: Guard) -> Guard:
    """Return a guard of the same name that holds where the other one doesn't."""
    return attrs.evolve(guard, check=lambda attempt: not guard.check(attempt))
