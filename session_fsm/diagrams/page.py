"""The lifecycle as one HTML page that needs nothing but itself: drawing, table, and what is told.

Where Graphviz isn't installed, the drawing is the one in text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from . import svg, text
from .graphviz import STAMP, digest, is_installed
from .looks import DARK, FAINT, HERE, HERE_FILL, INK, MISSED, PAPER, RULE
from .markdown import HEADER, PATH_HEADER, STAYS, cells_of, overlay_rows, path_rows, sentences
from .picture import Picture
from .words import joined

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may load nothing, and run nothing."""

NAMES: Final = {
    "paper": PAPER,
    "ink": INK,
    "faint": FAINT,
    "rule": RULE,
    "here": HERE,
    "here-fill": HERE_FILL,
    "missed": MISSED,
}

BEGIN: Final = "<figure>\n"
END: Final = "</figure>\n"
DRAWN: Final = re.compile(
    rf"{BEGIN}(?:<svg.*?</svg>\n|<pre>.*?</pre>\n){END}".replace("\n", r"\n"), re.DOTALL
)


def _variables(colors: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"--{name}: {color};" for name, color in colors)


STYLE: Final = f"""
:root {{ color-scheme: light dark; {_variables(NAMES.items())} }}
@media (prefers-color-scheme: dark) {{
:root {{ {_variables((name, DARK[color]) for name, color in NAMES.items())} }}
}}
body {{ background: var(--paper); color: var(--ink); margin: 2rem auto; max-width: 72rem;
  padding: 0 1rem; font: 16px/1.5 "DejaVu Sans", Verdana, sans-serif; }}
h1, h2 {{ line-height: 1.2; }}
figure {{ margin: 1.5rem 0; overflow-x: auto; }}
svg {{ display: block; margin: 0 auto; max-width: 100%; height: auto; }}
pre {{ font: 14px/1.2 "DejaVu Sans Mono", Menlo, Consolas, monospace; }}
section {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 0.9rem; }}
th, td {{ border-bottom: 1px solid var(--rule); padding: 0.35rem 0.7rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }}
th {{ color: var(--faint); white-space: nowrap; }}
td:first-child {{ font-weight: bold; white-space: nowrap; }}
.told {{ font-size: 1.1rem; }}
.faint {{ color: var(--faint); }}
tr.missed td {{ color: var(--missed); font-weight: bold; }}
tr.permitted td {{ background: var(--here-fill); }}
tr.permitted td:first-child {{ color: var(--here); }}
"""


def render(picture: Picture) -> str:
    """Write a picture as an HTML page.

    Raises:
        DrawingError: Graphviz is installed, and could not draw it.
    """
    if is_installed():
        drawn = svg.render(picture)
        drawing = drawn[drawn.index("<svg") :]
    else:
        drawing = f"<pre>{escaped(text.render(picture))}</pre>\n"
    return _page(picture, f"{BEGIN}{drawing.rstrip()}\n{END}")


def source(picture: Picture) -> str:
    """Return the digest of what the page of a picture is made from, its drawing included."""
    return digest(_page(picture, ""))


def source_of(data: bytes) -> str | None:
    """Return the digest of what a page was made from; None if it is broken or not ours."""
    try:
        page, cut = DRAWN.subn("", data.decode(), count=1)
    except UnicodeDecodeError:
        return None
    return digest(page) if cut else None


def escaped(words: str) -> str:
    """Return a text as it stands in HTML, in an attribute too."""
    return html.escape(words)


def _page(picture: Picture, drawing: str) -> str:
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{escaped(POLICY)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            f"<!-- {STAMP}: {svg.source(picture)} -->\n",
            f"<title>{escaped(picture.title)}: lifecycle</title>\n",
            f"<style>{STYLE}</style>\n</head>\n<body>\n",
            f"<h1>{escaped(picture.title)}</h1>\n",
            *(f"{line}\n" for line in _told(picture)),
            drawing,
            *(f"{line}\n" for line in _tables(picture)),
            "</body>\n</html>\n",
        )
    )


def _told(picture: Picture) -> Iterator[str]:
    for words in sentences(picture):
        yield f'<p class="told">{escaped(words)}</p>'


def _tables(picture: Picture) -> Iterator[str]:
    if (overlay := overlay_rows(picture)) is not None:
        marks = {(move.trigger, move.source): _class(move.covered, move.permitted)
                 for move in picture.cells}  # fmt: skip
        yield "<h2>By row</h2>"
        yield from _table(*overlay, classes=[marks[row[0], row[1]] for row in overlay[1]])
    if any(node.count is not None for node in picture.nodes):
        yield "<h2>In each status</h2>"
        counts = [(node.name, f"{node.count or 0:,}") for node in picture.nodes]
        yield from _table(("status", "here"), counts)
    if any(edge.count is not None for edge in picture.edges):
        yield "<h2>Moves</h2>"
        moves = [(e.source.name, e.target.name, f"{e.count or 0:,}") for e in picture.edges]
        yield from _table(("from", "to", "moves"), moves)
    if steps := path_rows(picture):
        yield "<h2>The way so far</h2>"
        yield from _table(PATH_HEADER, steps)
    yield "<h2>The table</h2>"
    yield from _table(HEADER, [cells_of(move) for move in picture.moves])
    yield (
        f'<p class="faint">“{STAYS}”: the status stays. All guards of a row must hold. What fires'
        " by itself may be fired by hand too, once it is due.</p>"
    )
    final = joined((node.name for node in picture.nodes if node.final), "or")
    yield f'<p class="faint">Nothing leaves {escaped(final)}.</p>'


def _class(covered: bool | None, permitted: bool | None) -> str:
    return "missed" if covered is False else "permitted" if permitted else ""


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, classes: Sequence[str] = ()
) -> Iterator[str]:
    yield "<section><table>"
    yield f"<thead>{_row('th', header)}</thead>"
    yield "<tbody>"
    for index, row in enumerate(rows):
        yield _row("td", row, classes[index] if classes else "")
    yield "</tbody></table></section>"


def _row(tag: str, cells: Sequence[str], kind: str = "") -> str:
    opening = f'<tr class="{kind}">' if kind else "<tr>"
    return f"{opening}{''.join(f'<{tag}>{escaped(cell)}</{tag}>' for cell in cells)}</tr>"
