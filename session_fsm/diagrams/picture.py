"""What a drawing of a lifecycle shows, before any format: words, in the lifecycle's own order.

Formats are given a `Picture` and nothing else, so that all of them show the same. Its texts are
single printable lines; what is special in a format, the format escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from ..guards import after_grace
from ..lifecycle import LIVE, ROLES, Lifecycle, Row
from .overlay import Overlay
from .path import Path, Step, path_of
from .words import day, moment, time_of_day
from .words import joined as joined
from .words import plain as plain

TIMED_SIGN: Final = "◷"
"""Stands before what fires by itself; a clock that most fonts have, unlike the emoji."""

ENDING_SIGN: Final = "■"
"""Stands before what is part of the way out."""

PERMITTED_SIGN: Final = "✓"
"""Stands before what is permitted now."""

MISSED_SIGN: Final = "✗"
"""Stands before what tests have not covered."""

HERE_SIGN: Final = "▶"
"""Stands at the current status."""


@attrs.frozen(kw_only=True)
class Move:
    """A row of the table in words, as a whole or from one of its sources.

    Attributes:
        trigger: What fires it.
        source: The statuses from which it may be fired, in words.
        target: The status that it leads to; None: the status stays.
        guards: The names of what must hold, without the guard of the deadline.
        due: When it fires by itself; None: by hand only.
        due_guard: The name of the deadline's own guard; None where there is no deadline.
        activity: Whether it counts as somebody working with the session.
        ending: Whether it is part of its sources' way out.
        why: The reason for the row; may be empty.
        count: How often it was fired from this source; None: nobody counted.
        covered: Whether a test fired it from this source; None: that isn't shown.
        permitted: Whether it may be fired now; None: that isn't shown, or is of another status.
        fires_at: The instant at which it fires by itself, in words; None: not known, or never.
        steps: Those of the path that it made from this source; may be empty.
        delay_seconds: How long after its status began it is due; None: by hand only, or that
            depends on more than the status.
    """

    trigger: str
    source: str
    target: str | None
    guards: tuple[str, ...]
    due: str | None
    due_guard: str | None
    activity: bool
    ending: bool
    why: str
    count: int | None = None
    covered: bool | None = None
    permitted: bool | None = None
    fires_at: str | None = None
    steps: tuple[Step, ...] = ()
    delay_seconds: float | None = None

    @property
    def signs(self) -> str:
        """The signs of what fires by itself and of what ends; empty for neither."""
        shown = ((TIMED_SIGN, self.due is not None), (ENDING_SIGN, self.ending))
        return " ".join(sign for sign, holds in shown if holds)

    @property
    def name(self) -> str:
        """The trigger behind its signs."""
        return f"{self.signs} {self.trigger}" if self.signs else self.trigger

    @property
    def conditions(self) -> tuple[str, ...]:
        """What must hold, and when it fires by itself; a line for each, may be empty."""
        joints = ("if", *("and" for _ in self.guards))
        guards = [f"{joint} {guard}" for joint, guard in zip(joints, self.guards, strict=False)]
        return (*guards, *(() if self.due is None else (f"at {self.due}",)))

    @property
    def mark(self) -> str:
        """The sign of what is permitted now, or was not covered; empty for neither."""
        if self.covered is False:
            return MISSED_SIGN
        return PERMITTED_SIGN if self.permitted else ""


@attrs.frozen(kw_only=True)
class Node:
    """A status.

    Attributes:
        key: Identifies it in a drawing: `s`, then ASCII letters, digits and `_` only.
        name: The status.
        initial: Whether a life begins here.
        final: Whether nothing leaves it.
        stays: The rows that may be fired here and leave the status as it is.
        count: How many are counted in it; None: nobody counted.
        current: Whether the session is in it now.
        visits: How long the session was in it, and since when it is, in words; may be empty.
        visited: Whether the path comes here; None: no path is shown.
    """

    key: str
    name: str
    initial: bool
    final: bool
    stays: tuple[Move, ...]
    count: int | None
    current: bool
    visits: tuple[str, ...]
    visited: bool | None


@attrs.frozen(kw_only=True)
class Edge:
    """All rows that lead from one status to another.

    Attributes:
        source: Where they may be fired.
        target: Where they lead; may be the source.
        moves: The rows, in the table's order; at least one.
        back: Whether the target comes before the source in the order of a life.
        count: How many moves along it are counted; None: nobody counted.
    """

    source: Node
    target: Node
    moves: tuple[Move, ...]
    back: bool
    count: int | None


@attrs.frozen(kw_only=True)
class Picture:
    """A lifecycle in words.

    Attributes:
        title: The name of the lifecycle.
        nodes: The statuses, in the order of a life.
        edges: The pairs of statuses with a row between them, in the order of the statuses.
        moves: The whole table, in its own order.
        cells: The same, each row once for each of its sources, with what is shown on top of it.
        roles: Each role that a manager may play, with the trigger that it fires.
        path: The history of a session; None: none is shown.
        permitted: Whether it is shown what is permitted.
        caption: What is said below the title; None: nothing.
    """

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    moves: tuple[Move, ...]
    cells: tuple[Move, ...]
    roles: tuple[tuple[str, str], ...]
    path: Path | None
    permitted: bool
    caption: str | None

    @property
    def counted(self) -> bool:
        """Whether traffic or sessions are counted."""
        found = (*(node.count for node in self.nodes), *(edge.count for edge in self.edges))
        return any(count is not None for count in found)

    @property
    def covered(self) -> bool:
        """Whether the rows that tests have covered are told from the others."""
        return any(move.covered is not None for move in self.cells)

    @property
    def missed(self) -> tuple[Move, ...]:
        """The rows that no test has fired, each from one source."""
        return tuple(move for move in self.cells if move.covered is False)

    @property
    def current(self) -> Node | None:
        """The status that the session is in; None: none is shown."""
        return next((node for node in self.nodes if node.current), None)

    @property
    def day(self) -> str | None:
        """The day to which instants without one belong, in words; None where there are none."""
        if self.path is None or not self.path.steps:
            return None
        return "times are UTC" if self.path.day is None else f"times are UTC, {self.path.day}"


def picture_of(lifecycle: Lifecycle, overlay: Overlay | None = None) -> Picture:
    """Put a lifecycle in words.

    Args:
        lifecycle: What is shown.
        overlay: What is shown on top of it; None: nothing.

    Raises:
        ValueError: The overlay tells of what the lifecycle doesn't have.
    """
    shown = Overlay() if overlay is None else overlay
    shown.check(lifecycle)
    path = None if shown.history is None else path_of(shown.history)
    rows = [(row, _in_words(lifecycle, row)) for row in lifecycle.rows]
    cells = [
        (row, source, _from_one(move, row.trigger, source, shown, path))
        for row, move in rows
        for source in lifecycle.sources(row)
    ]

    def between(source: str, target: str | None) -> tuple[Move, ...]:
        return tuple(move for row, start, move in cells if (start, row.target) == (source, target))

    nodes = {
        status: Node(
            key=_key(status, position),
            name=plain(status),
            initial=status == lifecycle.initial,
            final=status in lifecycle.final,
            stays=between(status, None),
            count=_count(shown.status_counts, status),
            current=status == shown.current,
            visits=() if path is None else path.stays.get(status, ()),
            visited=None if path is None else status in path.stays,
        )
        for position, status in enumerate(lifecycle.statuses)
    }
    order = list(nodes)
    return Picture(
        title=plain(lifecycle.name),
        nodes=tuple(nodes.values()),
        edges=tuple(
            Edge(
                source=nodes[source],
                target=nodes[target],
                moves=between(source, target),
                back=order.index(target) < order.index(source),
                count=_edge_count(shown, (source, target), between(source, target)),
            )
            for source, target in lifecycle.edges
        ),
        moves=tuple(move for _, move in rows),
        cells=tuple(move for _, _, move in cells),
        roles=tuple(
            (role, plain(lifecycle.roles[role])) for role in ROLES if role in lifecycle.roles
        ),
        path=path,
        permitted=shown.permitted is not None,
        caption=None if shown.caption is None else plain(shown.caption),
    )


def _from_one(move: Move, trigger: str, source: str, shown: Overlay, path: Path | None) -> Move:
    key = (trigger, source)
    permitted = fires_at = None
    if source == shown.current:
        permitted = None if shown.permitted is None else trigger in shown.permitted
        if shown.next_timed is not None and shown.next_timed[0] == trigger:
            fires_at = _instant(shown.next_timed[1], path)
    hits = _count(shown.coverage, key)
    return attrs.evolve(
        move,
        source=plain(source),
        count=_count(shown.traffic, key) if hits is None else hits,
        covered=None if hits is None else hits > 0,
        permitted=permitted,
        fires_at=fires_at,
        steps=() if path is None else path.at_row(trigger, source),
    )


def _instant(at: datetime, path: Path | None) -> str:
    return time_of_day(at) if path is not None and path.day == day(at) else moment(at)


def _count(counts: Mapping[Any, int] | None, key: object) -> int | None:
    return None if counts is None else counts.get(key, 0)


def _edge_count(shown: Overlay, edge: tuple[str, str], moves: tuple[Move, ...]) -> int | None:
    if shown.traffic is not None:
        return sum(move.count or 0 for move in moves)
    return _count(shown.counts, edge)


def _key(status: str, position: int) -> str:
    word = re.fullmatch(r"[A-Za-z0-9_]+", status)
    return f"s_{word.group()}" if word else f"s{position}"


def _in_words(lifecycle: Lifecycle, row: Row) -> Move:
    due = None
    if row.deadline is not None:
        due = plain(row.deadline.name)
        if row.deadline.grace is not None:
            due += f" ({_duration(lifecycle.graces[row.deadline.grace])})"
    return Move(
        trigger=plain(row.trigger),
        source=_sources(lifecycle, row),
        target=None if row.target is None else plain(row.target),
        guards=tuple(plain(guard.name) for guard in row.guards),
        due=due,
        due_guard=None if row.deadline is None else plain(row.conditions[-1].name),
        activity=row.activity,
        ending=row.ending,
        why=plain(row.why),
        delay_seconds=_delay_seconds(lifecycle, row),
    )


def _delay_seconds(lifecycle: Lifecycle, row: Row) -> float | None:
    grace = None if row.deadline is None else row.deadline.grace
    if row.deadline is None or grace is None or row.deadline.name != after_grace(grace).name:
        return None
    return lifecycle.graces[grace].total_seconds()


def _sources(lifecycle: Lifecycle, row: Row) -> str:
    if row.sources is LIVE:
        return f"every status but {joined(map(plain, lifecycle.final))}"
    return ", ".join(map(plain, lifecycle.sources(row)))


def _duration(length: timedelta) -> str:
    """Return a duration in seconds, or in the hours or days that it is exactly."""
    for unit, name in ((timedelta(days=1), "d"), (timedelta(hours=1), "h")):
        if length and not length % unit:
            return f"{length // unit} {name}"
    return f"{length.total_seconds():.10g} s"
