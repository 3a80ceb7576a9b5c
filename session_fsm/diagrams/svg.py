"""The lifecycle as SVG, with the digest of its DOT in a comment."""

from __future__ import annotations

import re
from typing import Final

from . import dot
from .graphviz import STAMP, digest, draw
from .picture import Picture

COMMENT: Final = re.compile(rb"<!-- " + STAMP.encode() + rb": ([0-9a-f]{64}) -->")
END: Final = b"</svg>"


def render(picture: Picture) -> str:
    """Draw a picture as SVG.

    Raises:
        DrawingError: Graphviz is not installed, or could not draw it.
    """
    source = dot.render(picture)
    drawn = draw(source, "svg").decode()
    return drawn.replace("<svg", f"<!-- {STAMP}: {digest(source)} -->\n<svg", 1)


def source_of(data: bytes) -> str | None:
    """Return the digest of the DOT that an SVG was made from; None if it is cut off or not ours."""
    found = COMMENT.search(data)
    return found.group(1).decode() if found and data.rstrip().endswith(END) else None
