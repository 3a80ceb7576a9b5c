"""The lifecycle as a Markdown document: the table, and what is known besides its rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..lifecycle import Lifecycle
from .looks import told_of
from .path import in_one_line
from .picture import Move, Picture, picture_of
from .words import joined, plain

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
    return HEADER, tuple(map(cells_of, picture_of(lifecycle).moves))


def escaped(text: str) -> str:
    """Return a text as it stands within a line of Markdown."""
    return SPECIAL.sub(lambda found: f"\\{found.group()}", text)


def cells_of(move: Move) -> tuple[str, ...]:
    """Return the cells of a row under the `HEADER`, as single printable lines."""
    due_guard = () if move.due_guard is None else (move.due_guard,)
    return (
        move.trigger,
        move.source,
        STAYS if move.target is None else move.target,
        "; ".join((*move.guards, *due_guard)),
        "" if move.due is None else f"at {move.due}",
        YES if move.activity else "",
        YES if move.ending else "",
        move.why,
    )


def overlay_rows(picture: Picture) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]] | None:
    """Return the table of what is shown on the rows, each from one source.

    Returns:
        The header, and each row with as many cells, in the table's order; None: there is nothing.
    """
    told = [(move, "; ".join(told_of(move, in_one_line(move.steps)))) for move in picture.cells]
    if picture.permitted:
        return ("trigger", "from", "permitted now", "so far, or next"), tuple(
            (move.trigger, move.source, YES if move.permitted else "", words)
            for move, words in told
            if move.permitted is not None or words
        )
    if not any(words for _, words in told):
        return None
    return ("trigger", "from", "fired by tests" if picture.covered else "fired"), tuple(
        (move.trigger, move.source, words) for move, words in told if words
    )


PATH_HEADER: Final = ("step", "at", "trigger", "from", "to", "reason")


def path_rows(picture: Picture) -> tuple[tuple[str, ...], ...]:
    """Return the steps of the path under the `PATH_HEADER`; empty if none is shown."""
    return tuple(
        (
            f"{step.number:,}",
            step.instant,
            "created" if step.trigger is None else plain(step.trigger),
            "" if step.source is None else plain(step.source),
            plain(step.target),
            step.reason,
        )
        for step in (() if picture.path is None else picture.path.steps)
    )


def sentences(picture: Picture) -> Iterator[str]:
    """Yield in words what is shown on top of the lifecycle; nothing if nothing is."""
    if picture.caption is not None:
        yield f"{picture.caption}."
    if picture.current is not None:
        since = f": {', '.join(picture.current.visits)}" if picture.current.visits else ""
        yield f"It is in {picture.current.name} now{since}."
    if picture.permitted:
        allowed = [move.trigger for move in picture.cells if move.permitted]
        yield f"Permitted now: {joined(allowed) if allowed else 'nothing'}."
    for move in picture.cells:
        if move.fires_at is not None:
            yield f"By itself, {move.trigger} is due {move.fires_at}."
    if picture.covered:
        missed = [f"{move.trigger} from {move.source}" for move in picture.missed]
        yield f"Tests fired {len(picture.cells) - len(missed)} of {len(picture.cells)} rows."
        if missed:
            yield f"Not covered: {joined(missed)}."
    if picture.day is not None:
        yield f"{picture.day[0].upper()}{picture.day[1:]}."


def _parts(picture: Picture) -> Iterator[str]:
    yield f"# {escaped(picture.title)}"
    yield " ".join(_sentences(picture))
    if told := " ".join(map(escaped, sentences(picture))):
        yield told
    yield _table(HEADER, map(cells_of, picture.moves), code=True)
    yield (
        f"“{STAYS}”: the status stays. All guards of a row must hold. What fires by itself may be"
        " fired by hand too, once it is due."
    )
    if picture.roles:
        roles = ", ".join(f"{role} → `{trigger}`" for role, trigger in picture.roles)
        yield f"What a manager does by itself or by a verb, and the trigger that it fires: {roles}."
    if (overlay := overlay_rows(picture)) is not None:
        yield _table(*overlay, code=True)
    if steps := path_rows(picture):
        yield _table(PATH_HEADER, steps)
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
