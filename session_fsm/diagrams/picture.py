"""What a drawing of a lifecycle shows, before any format: words, in the lifecycle's own order.

Formats are given a `Picture` and nothing else, so that all of them show the same. Its texts are
single printable lines; what is special in a format, the format escapes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final, TypeVar

import attrs

from ..lifecycle import LIVE, ROLES, Lifecycle, Row

Key = TypeVar("Key")

TIMED_SIGN: Final = "◷"
"""Stands before what fires by itself; a clock that most fonts have, unlike the emoji."""

ENDING_SIGN: Final = "■"
"""Stands before what is part of the way out."""

UNSEEN: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Categories of characters that break a line, turn its direction, or can't be seen."""


@attrs.frozen(kw_only=True)
class Move:
    """A row of the table in words.

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

    @property
    def signs(self) -> str:
        """The signs of what fires by itself and of what ends; empty for neither."""
        shown = ((TIMED_SIGN, self.due is not None), (ENDING_SIGN, self.ending))
        return " ".join(sign for sign, holds in shown if holds)

    @property
    def name(self) -> str:
        """The trigger behind its signs."""
        return f"{self.signs} {self.trigger}" if self.signs else self.trigger


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
    """

    key: str
    name: str
    initial: bool
    final: bool
    stays: tuple[Move, ...]
    count: int | None


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
        roles: Each role that a manager may play, with the trigger that it fires.
    """

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    moves: tuple[Move, ...]
    roles: tuple[tuple[str, str], ...]

    @property
    def counted(self) -> bool:
        """Whether anything is counted."""
        found = (*(node.count for node in self.nodes), *(edge.count for edge in self.edges))
        return any(count is not None for count in found)


def picture_of(
    lifecycle: Lifecycle,
    *,
    counts: Mapping[tuple[str, str], int] | None = None,
    status_counts: Mapping[str, int] | None = None,
) -> Picture:
    """Put a lifecycle in words.

    Args:
        lifecycle: What is shown.
        counts: Moves along each (source, target); one that is left out is 0. None: not counted.
        status_counts: How many are in each status; one that is left out is 0. None: not counted.

    Raises:
        ValueError: A count is for an edge or a status that the lifecycle doesn't have.
    """
    edges = _counted("edge", lifecycle.edges, counts)
    statuses = _counted("status", lifecycle.statuses, status_counts)
    in_words = [_in_words(lifecycle, row) for row in lifecycle.rows]
    rows = list(zip(lifecycle.rows, in_words, strict=True))

    def between(source: str, target: str | None) -> tuple[Move, ...]:
        return tuple(
            move for row, move in rows if row.target == target and source in lifecycle.sources(row)
        )

    nodes = {
        status: Node(
            key=_key(status, position),
            name=plain(status),
            initial=status == lifecycle.initial,
            final=status in lifecycle.final,
            stays=between(status, None),
            count=statuses[status],
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
                count=edges[source, target],
            )
            for source, target in lifecycle.edges
        ),
        moves=tuple(in_words),
        roles=tuple(
            (role, plain(lifecycle.roles[role])) for role in ROLES if role in lifecycle.roles
        ),
    )


def plain(text: str) -> str:
    r"""Return a text as one printable line, what can't be seen written as an escape.

    >>> print(plain("two\nlines"))
    two\nlines
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii") if _unseen(character) else character
        for character in text
    )


def joined(words: Iterable[str], last: str = "and") -> str:
    """Return words as a list to be read: `a, b and c`."""
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end


def _unseen(character: str) -> bool:
    # The last two of each plane are no characters, and XML has no way to write them.
    return unicodedata.category(character) in UNSEEN or ord(character) & 0xFFFE == 0xFFFE


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
    )


def _sources(lifecycle: Lifecycle, row: Row) -> str:
    if row.sources is LIVE:
        return f"every status but {joined(map(plain, lifecycle.final))}"
    return ", ".join(map(plain, lifecycle.sources(row)))


def _duration(length: timedelta) -> str:
    return f"{length.total_seconds():.10g} s"


def _counted(
    what: str, known: Iterable[Key], counts: Mapping[Key, int] | None
) -> Mapping[Key, int | None]:
    counted = {key: None if counts is None else counts.get(key, 0) for key in known}
    if unknown := [key for key in counts or () if key not in counted]:
        raise ValueError(f"there is no {what} {unknown[0]!r} to be counted")
    return counted
