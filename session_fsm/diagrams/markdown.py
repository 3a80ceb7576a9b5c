"""The lifecycle as a Markdown document: the table, and what is known besides its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..lifecycle import Lifecycle
from .picture import Picture, joined, picture_of

HEADER: Final = (
    "trigger",
    "from",
    "to",
    "guards",
    "fires by itself",
    "activity",
    "way out",
    "why",
)
STAYS: Final = "–"
YES: Final = "yes"

SPECIAL: Final = re.compile(r"[\\`*\[\]<>&|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""What Markdown, or a forge's additions to it, would take for a sign within a line."""


def render(picture: Picture) -> str:
    """Write a picture as Markdown: a heading, some sentences, the table, and what is counted."""
    return "\n\n".join(_parts(picture)) + "\n"


def table_rows(lifecycle: Lifecycle) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the table of a lifecycle as it is printed.

    Returns:
        The header, and each row with as many cells, in the table's order. Cells are single
        printable lines, not escaped for any format; a cell may be empty.
    """
    return HEADER, tuple(_cells(picture_of(lifecycle)))


def escaped(text: str) -> str:
    """Return a text as it stands within a line of Markdown."""
    return SPECIAL.sub(lambda found: f"\\{found.group()}", text)


def _cells(picture: Picture) -> Iterator[tuple[str, ...]]:
    for move in picture.moves:
        due_guard = () if move.due_guard is None else (move.due_guard,)
        yield (
            move.trigger,
            move.source,
            STAYS if move.target is None else move.target,
            "; ".join((*move.guards, *due_guard)),
            "" if move.due is None else f"at {move.due}",
            YES if move.activity else "",
            YES if move.ending else "",
            move.why,
        )


def _parts(picture: Picture) -> Iterator[str]:
    yield f"# {escaped(picture.title)}"
    yield " ".join(_sentences(picture))
    yield _table(HEADER, _cells(picture), code=True)
    yield (
        f"“{STAYS}”: the status stays. All guards of a row must hold. What fires by itself may be"
        " fired by hand too, once it is due."
    )
    if picture.roles:
        roles = ", ".join(f"{role} → `{trigger}`" for role, trigger in picture.roles)
        yield f"What a manager does by itself or by a verb, and the trigger that it fires: {roles}."
    if any(edge.count is not None for edge in picture.edges):
        moves = ((e.source.name, e.target.name, f"{e.count or 0:,}") for e in picture.edges)
        yield _table(("from", "to", "moves"), moves)
    if any(node.count is not None for node in picture.nodes):
        yield _table(
            ("status", "here"), ((node.name, f"{node.count or 0:,}") for node in picture.nodes)
        )


def _sentences(picture: Picture) -> Iterator[str]:
    yield f"Statuses, in the order of a life: {_names(node.name for node in picture.nodes)}."
    yield f"It begins in {_names(node.name for node in picture.nodes if node.initial)}."
    yield f"Nothing leaves {_names((n.name for n in picture.nodes if n.final), 'or')}."


def _names(names: Iterable[str], last: str = "and") -> str:
    return joined(map(escaped, names), last)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, code: bool = False) -> str:
    lines = [header, ["---"] * len(header)]
    for first, *others in rows:
        # A trigger is an identifier: nothing in it ends a code span or a cell.
        lines.append([f"`{first}`" if code else escaped(first), *map(escaped, others)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
