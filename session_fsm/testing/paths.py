"""Paths through a lifecycle, for tests that go each of them: all its rows, or all its ways to end.

A path begins where a life begins, and takes one row after the other. Which guards hold on the way
is left open, since nobody can read that from a table: `walk` goes a path, and asks for what it
takes. A path is a value of plain words, and pytest names the test of it by its triggers:

    @pytest.mark.parametrize("path", paths(ORDER))
    def test_order_goes_every_way(path):
        walk(path, arguments={"pay": {"cents": 450}})
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from .flow import Arc, cheapest_uses, circuit

_LONGEST_ID: Final = 72
"""Most characters in the id of a path that names all of its triggers."""


@attrs.frozen
class PathStep:
    """One row, taken from one of its sources.

    Attributes:
        trigger: What is fired.
        source: The status before.
        target: The status after; the source where the status stays.
        timed: Whether the row fires by itself.
    """

    trigger: str
    source: str
    target: str
    timed: bool = False


@attrs.frozen
class LifecyclePath:
    """Rows of a lifecycle, one after the other, from its initial status on.

    Attributes:
        lifecycle: Whose rows.
        steps: The rows with their sources; each begins in the status that the one before led to.
    """

    lifecycle: Lifecycle = attrs.field(repr=lambda value: repr(value.name))
    steps: tuple[PathStep, ...]

    def __attrs_post_init__(self) -> None:
        for number, step in enumerate(self.steps, 1):
            row = self.lifecycle.find(step.trigger, step.source)
            told = f"step {number}, {step.trigger!r} from {str(step.source)!r}"
            if row is None:
                raise ValueError(f"{told}: there is no such row")
            if step.target != (step.source if row.target is None else row.target):
                raise ValueError(f"{told}: does not lead to {str(step.target)!r}")
        places = (self.lifecycle.initial, *(step.target for step in self.steps))
        for number, (place, step) in enumerate(zip(places, self.steps, strict=False), 1):
            if step.source != place:
                problem = f"begins in {str(step.source)!r}, where {str(place)!r} was reached"
                raise ValueError(f"step {number}, {step.trigger!r}: {problem}")

    @property
    def triggers(self) -> tuple[str, ...]:
        """What is fired, in order."""
        return tuple(step.trigger for step in self.steps)

    @property
    def statuses(self) -> tuple[str, ...]:
        """The status at the beginning, and the one after each step."""
        return (self.lifecycle.initial, *(step.target for step in self.steps))

    @property
    def rows(self) -> frozenset[tuple[str, str]]:
        """The rows that are taken, by (trigger, source)."""
        return frozenset((step.trigger, step.source) for step in self.steps)

    @property
    def id(self) -> str:
        """A name for the test of this path: its triggers, or the ends of a long path."""
        words = "-".join(self.triggers)
        if len(words) <= _LONGEST_ID:
            return words or "nothing"
        first, last = self.triggers[0], self.triggers[-1]
        return f"{first}-to-{last}-in-{len(self.steps)}-steps"

    @property
    def __name__(self) -> str:
        # As pytest asks for it to name a parameter, without its being told how.
        return self.id

    def __str__(self) -> str:
        return " -> ".join(self.triggers) or "nothing"

    def __iter__(self) -> Iterator[PathStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)


def paths(lifecycle: Lifecycle = SESSION_LIFECYCLE) -> tuple[LifecyclePath, ...]:
    """Return the shortest set of paths that takes every row from each of its sources.

    Shortest is exact: no other set of paths from the initial status has fewer steps in all, and of
    those with as many none has fewer paths. It takes time polynomial in the rows. Rows that keep
    the status are taken in the table's order where it is first entered; but where no task can
    begin, one ends, or is given up by a clock, after the status was entered from another that may
    hold tasks.

    Args:
        lifecycle: Whose rows.

    Returns:
        The paths in the table's order; the same at every call.

    Example:
        >>> for path in paths()[1:]:
        ...     print(path)
        activate -> go_idle -> expire -> stop_timeout
        activate -> terminate -> end_task -> task_timeout
        activate -> expire
        abort
        start_timeout
    """
    numbers = {status: number for number, status in enumerate(lifecycle.statuses)}
    every = [
        PathStep(
            row.trigger,
            source,
            source if row.target is None else row.target,
            row.deadline is not None,
        )
        for row, source in lifecycle.moves()
    ]
    if not every:
        return ()  # it ends where it begins
    moves = [step for step in every if step.source != step.target]
    # A path begins anew at most once for each row: all of that together costs less than one step.
    begin_anew = 1
    one_step = len(every) + 1
    start = numbers[lifecycle.initial]
    arcs = [
        *(Arc(numbers[step.source], numbers[step.target], one_step, 1) for step in moves),
        *(Arc(number, start, begin_anew, 0) for number in numbers.values() if number != start),
    ]
    tour = circuit(arcs, cheapest_uses(arcs, len(numbers)), start)
    pieces: list[list[PathStep]] = [[]]
    for index in tour:
        if index < len(moves):
            pieces[-1].append(moves[index])
        else:
            pieces.append([])
    # The tour is closed: what follows the last beginning goes on with what came before the first.
    pieces[0] = [*pieces.pop(), *pieces[0]]
    order = {step: number for number, step in enumerate(every)}
    pieces.sort(key=lambda piece: [order[step] for step in piece])
    _put_in_stays([step for step in every if step.source == step.target], pieces, lifecycle)
    return tuple(LifecyclePath(lifecycle, tuple(piece)) for piece in pieces)


def _put_in_stays(
    stays: list[PathStep], pieces: list[list[PathStep]], lifecycle: Lifecycle
) -> None:
    """Put the rows that keep a status into paths, each where its status is entered.

    Where makes no difference to the length, so it is where a session can have what the row needs:
    a task ends, or is given up by a clock, in a status that was entered from one with tasks, and by
    hand, if there is such an entry; for all other rows, the first one will do.
    """
    entries: dict[str, list[tuple[int, int]]] = {lifecycle.initial: [(0, 0)]}
    for number, piece in enumerate(pieces):
        for place, step in enumerate(piece, 1):
            entries.setdefault(step.target, []).append((number, place))

    def without_tasks(entry: tuple[int, int]) -> tuple[bool, bool]:
        number, place = entry
        by = pieces[number][place - 1] if place else None
        return by is None or not lifecycle.holds_tasks(by.source), by is None or by.timed

    begins, ends = (lifecycle.roles.get(role, "") for role in ("begin_task", "end_task"))
    chosen: dict[tuple[int, int], list[PathStep]] = {}
    for stay in stays:
        entry = entries[stay.source][0]
        of_tasks = stay.trigger == ends or (stay.timed and lifecycle.holds_tasks(stay.source))
        if of_tasks and lifecycle.find(begins, stay.source) is None:
            entry = min(entries[stay.source], key=without_tasks)
        chosen.setdefault(entry, []).append(stay)
    for number, place in sorted(chosen, reverse=True):
        pieces[number][place:place] = chosen[number, place]


def simple_paths(
    lifecycle: Lifecycle = SESSION_LIFECYCLE, *, to: str | None = None
) -> tuple[LifecyclePath, ...]:
    """Return every path that enters no status twice, from the initial status to an end.

    Two rows between the same statuses make two paths; a row that keeps the status is on none. How
    many there are can grow exponentially with the statuses.

    Args:
        lifecycle: Whose rows.
        to: The status that the paths lead to; None: each of the final ones.

    Returns:
        The paths in the table's order, that of their first difference; for the initial status, the
        one without a step.

    Raises:
        LifecycleError: There is no such status.

    Example:
        >>> for path in simple_paths(to="idle"):
        ...     print(path)
        activate -> go_idle
    """
    ends = lifecycle.final if to is None else (lifecycle.status(to),)
    found: list[LifecyclePath] = []

    def go_on(status: str, steps: tuple[PathStep, ...]) -> None:
        if status in ends:
            found.append(LifecyclePath(lifecycle, steps))
            return
        entered = {lifecycle.initial, *(step.target for step in steps)}
        for row in lifecycle.leaving(status):
            if row.target is not None and row.target not in entered:
                timed = row.deadline is not None
                go_on(row.target, (*steps, PathStep(row.trigger, status, row.target, timed)))

    go_on(lifecycle.initial, ())
    return tuple(found)
