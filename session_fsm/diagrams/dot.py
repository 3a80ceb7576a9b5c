"""The lifecycle in DOT, the language of Graphviz.

The rows between two statuses stand on a card that their lines run through: Graphviz keeps nodes
apart and leads lines around them, which it doesn't promise for the labels of lines. A card has a
line for each kind of row on it. A life runs downwards: what leads back is laid out as if it led
forth, with its head at the other end.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from .looks import (
    BY_HAND,
    ENDING,
    FAINT,
    FINAL_FILL,
    HERE,
    HERE_FILL,
    INK,
    MISSED,
    PAPER,
    RULE,
    STATUS_FILL,
    TIMED,
    look_of,
    told_of,
)
from .path import in_one_line, shortened
from .picture import (
    ENDING_SIGN,
    HERE_SIGN,
    MISSED_SIGN,
    PERMITTED_SIGN,
    TIMED_SIGN,
    Edge,
    Move,
    Node,
    Picture,
)
from .words import times

FONT: Final = "DejaVu Sans,Verdana,sans-serif"
"""The second has the widths of the first: what was laid out with one fits with the other."""

PLACEHOLDER: Final = re.compile(r"(?<=\\)(?=[EGHLNT])")
NOTHING: Final = "&#8288;"
"""Has no width; keeps Graphviz from seeing `\\N` and its like, and putting a name in its place."""

SPACE: Final = "&#160;"
GAP: Final = SPACE * 4

SLACK: Final = 20
"""For so many letters one space more: browsers set a text up to 3 % wider than Graphviz does."""

TITLE, NAME, SMALL = 15, 12, 10
"""Sizes of letters, in points."""

THINNEST, THICKEST = 1.3, 4.5
"""Width of a line that nothing, and that most, went along."""

STRONG: Final = 2.6
"""Width of a line that is permitted now, or that was not covered."""

MOST_STEPS: Final = 5
"""Most lines about the steps by one row on a card."""

LETTERS: Final = {"fontname": FONT, "fontsize": "11", "fontcolor": INK}
GRAPH: Final = {"bgcolor": PAPER, "pad": "0.3", "nodesep": "0.35", "ranksep": "0.3",
                "labelloc": "b", **LETTERS}  # fmt: skip
BEGIN: Final = {"shape": "circle", "label": "", "width": "0.18", "style": "filled",
                "color": INK, "fillcolor": INK}  # fmt: skip
FIRST: Final = {"color": INK, "penwidth": "1.4"}
STATUS: Final = {"shape": "box", "style": "rounded,filled", "fillcolor": STATUS_FILL,
                 "color": BY_HAND, "penwidth": "1.4", "margin": "0.12,0.06"}  # fmt: skip
FINAL: Final = {"fillcolor": FINAL_FILL, "color": INK, "peripheries": "2"}
UNSEEN: Final = {"fillcolor": PAPER, "color": RULE}
CURRENT: Final = {"fillcolor": HERE_FILL, "color": HERE, "penwidth": "3"}


def render(picture: Picture) -> str:
    """Write a picture as DOT."""
    return "".join(f"{line}\n" for line in _lines(picture))


def escaped(text: str) -> str:
    """Return a text as it stands in an HTML-like label."""
    return PLACEHOLDER.sub(NOTHING, html.escape(text))


def _lines(picture: Picture) -> Iterator[str]:
    yield "// Made from the table of the lifecycle."
    yield "digraph lifecycle {"
    yield f"  graph [{_attributes(GRAPH)}, label={_legend(picture)}]"
    yield f"  node [{_attributes(LETTERS)}]"
    yield "  edge [arrowsize=0.8]"
    yield f"  begin [{_attributes(BEGIN)}]"
    for node in picture.nodes:
        yield f"  {node.key} [{_attributes(_shape(node))}, label={_status(node)}]"
    for node in picture.nodes:
        if node.initial:
            yield f"  begin -> {node.key} [{_attributes(FIRST)}]"
    most = max((edge.count or 0 for edge in picture.edges), default=0)
    for edge in picture.edges:
        yield from _edge(edge, most)
    yield "}"


def _shape(node: Node) -> Mapping[str, str]:
    final = FINAL if node.final else {}
    unseen = UNSEEN if node.visited is False else {}
    return {**STATUS, **final, **unseen, **(CURRENT if node.current else {})}


def _edge(edge: Edge, most: int) -> Iterator[str]:
    card = f'"{edge.source.key} to {edge.target.key}"'
    yield f"  {card} [shape=plain, label={_card(edge)}]"
    above, below = (edge.target, edge.source) if edge.back else (edge.source, edge.target)
    into, out = ("back", "none") if edge.back else ("none", "forward")
    widths: dict[tuple[str, str], float] = {}
    for move in edge.moves:
        look = look_of(move, walked=edge.source.visited)
        widths[look] = max(widths.get(look, THINNEST), _width(edge, move, most))
    for (color, style), width in widths.items():
        drawn = f'color="{color}", style={style}, penwidth={width:.1f}'
        yield f"  {above.key} -> {card} [dir={into}, {drawn}]"
        if above is below:
            yield f"  {above.key} -> {card} [dir=back, {drawn}]"
        else:
            yield f"  {card} -> {below.key} [dir={out}, {drawn}]"


def _width(edge: Edge, move: Move, most: int) -> float:
    if edge.count is not None:
        count = edge.count if move.count is None else move.count
        return THINNEST + (THICKEST - THINNEST) * math.log1p(count) / math.log1p(max(1, most))
    return STRONG if move.permitted or move.steps or move.covered is False else THINNEST


def _attributes(attributes: Mapping[str, str]) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in attributes.items())


# --- labels ----------------------------------------------------------------------------------


def _table(rows: list[str], attributes: str = 'BORDER="0"', padding: int = 1) -> str:
    drawn = f'CELLBORDER="0" CELLSPACING="0" CELLPADDING="{padding}"'
    return f"<TABLE {attributes} {drawn}>{''.join(rows)}</TABLE>"


def _row(*cells: str, span: int = 1, align: str = "LEFT") -> str:
    opening = f'<TD COLSPAN="{span}" ALIGN="{align}">'
    return f"<TR>{''.join(f'{opening}{cell}</TD>' for cell in cells)}</TR>"


def _centered(*cells: str, span: int = 1) -> str:
    # A text has its slack behind it; the same before it keeps it in the middle.
    return _row(*(f"{SPACE}{cell}" for cell in cells), span=span, align="CENTER")


def _text(text: str, size: int, color: str = INK, *, bold: bool = False) -> str:
    shown = escaped(text) + SPACE * (1 + len(text) // SLACK)
    shown = f"<B>{shown}</B>" if bold else shown
    return f'<FONT COLOR="{color}" POINT-SIZE="{size}">{shown}</FONT>'


def _status(node: Node) -> str:
    told = ["; ".join(told_of(move, in_one_line(move.steps))) for move in node.stays]
    span = 3 if any(told) else 2
    rows = [_centered(_text(node.name, TITLE, bold=True), span=span)]
    if node.current:
        rows.append(_centered(_text(f"{HERE_SIGN} here now", NAME, HERE, bold=True), span=span))
    if node.count is not None:
        rows.append(_centered(_text(f"{node.count:,} here", NAME), span=span))
    rows += [_centered(_text(words, SMALL), span=span) for words in node.visits]
    if node.stays:
        rows.append("<HR/>")
    for move, words in zip(node.stays, told, strict=True):
        cells = (
            _name(move, SMALL, bold=False),
            _text(" ".join(move.conditions), SMALL, FAINT),
            _text(words, SMALL, _told_in(move)),
        )
        rows.append(_row(*cells[:span]))
    return f"<{_table(rows, padding=2)}>"


def _card(edge: Edge) -> str:
    parts = []
    if edge.count is not None:
        parts.append(_centered(_text(times(edge.count), NAME, bold=True)))
    for move in edge.moves:
        rows = [_row(_name(move, NAME, bold=True))]
        rows += [_row(_text(words, SMALL, FAINT)) for words in move.conditions]
        if edge.count is None or len(edge.moves) > 1:
            told = told_of(move, *shortened(move.steps, MOST_STEPS))
            rows += [_row(_text(words, SMALL, _told_in(move), bold=True)) for words in told]
        parts.append(_row(_table(rows)))
    border = f'BORDER="1" STYLE="ROUNDED" COLOR="{RULE}" BGCOLOR="{PAPER}"'
    return f"<{_table(_ruled(parts), border, padding=4)}>"


def _ruled(rows: list[str]) -> list[str]:
    return [rows[0], *(part for row in rows[1:] for part in ("<HR/>", row))]


def _name(move: Move, size: int, *, bold: bool) -> str:
    color = INK if not bold and not move.signs and not move.mark else look_of(move)[0]
    name = f"{move.mark} {move.name}" if move.mark else move.name
    return _text(name, size, color, bold=bold or bool(move.mark))


def _told_in(move: Move) -> str:
    return MISSED if move.covered is False else INK


def _legend(picture: Picture) -> str:
    title = _text(f"lifecycle: {picture.title}", NAME, bold=True)
    others = [
        _text("if …: guards, all must hold", SMALL, FAINT),
        _text("in a box: status stays", SMALL),
        _text("double border: final", SMALL),
    ]
    if picture.counted:
        others.append(_text("×: moves counted", SMALL))
    caption = [] if picture.caption is None else [_text(picture.caption, NAME)]
    lines = [title, *caption, GAP.join(_lines_told(picture)), GAP.join(others)]
    if overlay := GAP.join(_overlay_told(picture)):
        lines.append(overlay)
    rows = [_centered(line) for line in lines]
    return f"<{_table(['<TR><TD></TD></TR>', *rows], padding=3)}>"


def _lines_told(picture: Picture) -> Iterator[str]:
    if picture.covered:
        yield _text("── fired by a test", SMALL, FAINT)
        yield _text(f"── {MISSED_SIGN} not covered", SMALL, MISSED)
        yield _text(f"╌╌ {TIMED_SIGN} fires by itself", SMALL)
        yield _text(f"{ENDING_SIGN} part of the way out", SMALL)
        return
    yield _text("── fired by hand", SMALL, BY_HAND)
    yield _text(f"╌╌ {TIMED_SIGN} fires by itself", SMALL, TIMED)
    yield _text(f"── {ENDING_SIGN} part of the way out", SMALL, ENDING)


def _overlay_told(picture: Picture) -> Iterator[str]:
    if picture.current is not None:
        yield _text(f"{HERE_SIGN} here now", SMALL, HERE)
    if picture.permitted:
        yield _text(f"── {PERMITTED_SIGN} permitted now", SMALL, HERE)
    if picture.path is not None:
        yield _text("── not taken", SMALL, FAINT)
        yield _text("#: number of the step", SMALL)
    if picture.day is not None:
        yield _text(picture.day, SMALL)
    if picture.covered:
        missed = f"{len(picture.missed)} of {len(picture.cells)} rows not covered"
        yield _text(missed, SMALL, MISSED if picture.missed else INK, bold=True)
