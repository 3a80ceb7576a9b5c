"""The formats in which a lifecycle is shown: one module and one line here for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from pathlib import PurePath
from typing import Final

import attrs

from ..lifecycle import Lifecycle
from . import dot, markdown, mermaid, png, svg
from .picture import Picture, picture_of


@attrs.frozen
class Format:
    """How a picture is written.

    Attributes:
        name: What it is called.
        ending: How the names of its files end, in lower case, with the dot.
        render: Writes a picture, as text or as bytes.
        source_of: Reads from a file which DOT it was made from, as a digest, or None where that
            can't be told. None: its bytes follow from the lifecycle alone.
    """

    name: str
    ending: str
    render: Callable[[Picture], str | bytes]
    source_of: Callable[[bytes], str | None] | None = None


FORMATS: Final[Mapping[str, Format]] = {
    known.name: known
    for known in (
        Format("mermaid", ".mmd", mermaid.render),
        Format("dot", ".dot", dot.render),
        Format("svg", ".svg", svg.render, svg.source_of),
        Format("png", ".png", png.render, png.source_of),
        Format("markdown", ".md", markdown.render),
    )
}
"""Each format by its name."""


def render(
    lifecycle: Lifecycle,
    format: str,
    *,
    counts: Mapping[tuple[str, str], int] | None = None,
    status_counts: Mapping[str, int] | None = None,
) -> str | bytes:
    """Show a lifecycle in a format.

    Args:
        lifecycle: What is shown, and nothing but it: the same lifecycle gives the same DOT,
            Mermaid and Markdown everywhere.
        format: `mermaid`, `dot`, `svg`, `png` or `markdown`.
        counts: Moves along each (source, target), shown at it; one that is left out is 0.
        status_counts: How many are in each status, shown in it; one that is left out is 0.

    Returns:
        Text; bytes for `png`.

    Raises:
        ValueError: There is no such format, or something is counted that the lifecycle lacks.
        DrawingError: Graphviz, which draws `svg` and `png`, is not installed or failed.
    """
    if format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; formats are {', '.join(FORMATS)}")
    picture = picture_of(lifecycle, counts=counts, status_counts=status_counts)
    return FORMATS[format].render(picture)


def format_of(path: str | PathLike[str]) -> str:
    """Return the name of the format that a file has by the ending of its name.

    Raises:
        ValueError: No format has this ending.
    """
    ending = PurePath(fspath(path)).suffix.lower()
    for known in FORMATS.values():
        if known.ending == ending:
            return known.name
    endings = ", ".join(known.ending for known in FORMATS.values())
    raise ValueError(f"no format of diagrams ends in {ending!r}; endings are {endings}")
