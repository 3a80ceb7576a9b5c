"""The lifecycle as SVG, with the digest of what it was made from in a comment.

It has a ground of its own, so that it can be read on any page; where the reader's pages are dark,
so is it.
"""

from __future__ import annotations

import re
from typing import Final

from . import dot
from .graphviz import STAMP, digest, draw
from .looks import DARK
from .picture import Picture

COMMENT: Final = re.compile(rb"<!-- " + STAMP.encode() + rb": ([0-9a-f]{64}) -->")
END: Final = b"</svg>"
OPENING: Final = re.compile(r"<svg\b[^>]*>")

STYLE: Final = "".join(
    (
        "<style>@media (prefers-color-scheme: dark) {\n",
        *(
            f'[{name}="{light}"] {{ {name}: {dark} }}\n'
            for light, dark in DARK.items()
            for name in ("fill", "stroke")
        ),
        "}</style>",
    )
)
"""Puts another colour in the place of each, where the reader prefers dark pages."""


def render(picture: Picture) -> str:
    """Draw a picture as SVG.

    Raises:
        DrawingError: Graphviz is not installed, or could not draw it.
    """
    drawn = draw(dot.render(picture), "svg").decode()
    stamp = f"<!-- {STAMP}: {source(picture)} -->"
    return OPENING.sub(lambda found: f"{stamp}\n{found.group()}\n{STYLE}", drawn, count=1)


def source(picture: Picture) -> str:
    """Return the digest of what the drawing of a picture is made from."""
    return digest(dot.render(picture) + STYLE)


def source_of(data: bytes) -> str | None:
    """Return the digest of what an SVG was made from; None if it is cut off or not ours."""
    found = COMMENT.search(data)
    return found.group(1).decode() if found and data.rstrip().endswith(END) else None
