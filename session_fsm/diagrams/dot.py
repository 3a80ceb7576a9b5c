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

from .picture import ENDING_SIGN, TIMED_SIGN, Edge, Move, Node, Picture

INK: Final = "#1f2933"
FAINT: Final = "#5a6672"
RULE: Final = "#c3ccd5"
BY_HAND: Final = "#1f5f99"
TIMED: Final = "#9a5b00"
ENDING: Final = "#b3261e"

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

LETTERS: Final = {"fontname": FONT, "fontsize": "11", "fontcolor": INK}
GRAPH: Final = {"bgcolor": "white", "pad": "0.3", "nodesep": "0.35", "ranksep": "0.3",
                "labelloc": "b", **LETTERS}  # fmt: skip
BEGIN: Final = {"shape": "circle", "label": "", "width": "0.18", "style": "filled",
                "color": INK, "fillcolor": INK}  # fmt: skip
FIRST: Final = {"color": INK, "penwidth": "1.4"}
STATUS: Final = {"shape": "box", "style": "rounded,filled", "fillcolor": "#eaf2fa",
                 "color": BY_HAND, "penwidth": "1.4", "margin": "0.12,0.06"}  # fmt: skip
FINAL: Final = {"fillcolor": "#e9ecef", "color": INK, "peripheries": "2"}


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
        shape = {**STATUS, **FINAL} if node.final else STATUS
        yield f"  {node.key} [{_attributes(shape)}, label={_status(node)}]"
    for node in picture.nodes:
        if node.initial:
            yield f"  begin -> {node.key} [{_attributes(FIRST)}]"
    most = max((edge.count or 0 for edge in picture.edges), default=0)
    for edge in picture.edges:
        yield from _edge(edge, most)
    yield "}"


def _edge(edge: Edge, most: int) -> Iterator[str]:
    card = f'"{edge.source.key} to {edge.target.key}"'
    yield f"  {card} [shape=plain, label={_card(edge)}]"
    width = THINNEST
    if edge.count:
        width += (THICKEST - THINNEST) * math.log1p(edge.count) / math.log1p(most)
    above, below = (edge.target, edge.source) if edge.back else (edge.source, edge.target)
    into, out = ("back", "none") if edge.back else ("none", "forward")
    for color, style in dict.fromkeys(_look(move) for move in edge.moves):
        drawn = f'color="{color}", style={style}, penwidth={width:.1f}'
        yield f"  {above.key} -> {card} [dir={into}, {drawn}]"
        if above is below:
            yield f"  {above.key} -> {card} [dir=back, {drawn}]"
        else:
            yield f"  {card} -> {below.key} [dir={out}, {drawn}]"


def _look(move: Move) -> tuple[str, str]:
    color = ENDING if move.ending else TIMED if move.due is not None else BY_HAND
    return color, "solid" if move.due is None else "dashed"


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
    rows = [_centered(_text(node.name, TITLE, bold=True), span=2)]
    if node.count is not None:
        rows.append(_centered(_text(f"{node.count:,} here", NAME), span=2))
    if node.stays:
        rows.append("<HR/>")
    for move in node.stays:
        name = _text(move.name, SMALL, _look(move)[0] if move.signs else INK)
        rows.append(_row(name, _text(" ".join(_conditions(move)), SMALL, FAINT)))
    return f"<{_table(rows, padding=2)}>"


def _card(edge: Edge) -> str:
    parts = []
    if edge.count is not None:
        parts.append(_centered(_text(f"{edge.count:,} ×", NAME, bold=True)))
    for move in edge.moves:
        rows = [_row(_text(move.name, NAME, _look(move)[0], bold=True))]
        rows += [_row(_text(words, SMALL, FAINT)) for words in _conditions(move)]
        parts.append(_row(_table(rows)))
    border = f'BORDER="1" STYLE="ROUNDED" COLOR="{RULE}" BGCOLOR="white"'
    return f"<{_table(_ruled(parts), border, padding=4)}>"


def _ruled(rows: list[str]) -> list[str]:
    return [rows[0], *(part for row in rows[1:] for part in ("<HR/>", row))]


def _conditions(move: Move) -> list[str]:
    joints = ("if", *("and" for _ in move.guards))
    guards = [f"{joint} {guard}" for joint, guard in zip(joints, move.guards, strict=False)]
    return guards + ([] if move.due is None else [f"at {move.due}"])


def _legend(picture: Picture) -> str:
    lines = (
        _text("── fired by hand", SMALL, BY_HAND),
        _text(f"╌╌ {TIMED_SIGN} fires by itself", SMALL, TIMED),
        _text(f"── {ENDING_SIGN} part of the way out", SMALL, ENDING),
    )
    others = [
        _text("if …: guards, all must hold", SMALL, FAINT),
        _text("in a box: status stays", SMALL),
        _text("double border: final", SMALL),
    ]
    if picture.counted:
        others.append(_text("×: moves counted", SMALL))
    title = _text(f"lifecycle: {picture.title}", NAME, bold=True)
    rows = [_centered(row) for row in (title, GAP.join(lines), GAP.join(others))]
    return f"<{_table(['<TR><TD></TD></TR>', *rows], padding=3)}>"
