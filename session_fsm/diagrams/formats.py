"""The formats in which a lifecycle is shown: one module and one line here for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from os import PathLike, fspath
from pathlib import PurePath
from typing import Final

import attrs

from ..lifecycle import Lifecycle
from . import dot, markdown, mermaid, page, plantuml, png, scxml, svg, text
from .overlay import Event, Overlay
from .picture import Picture, picture_of


@attrs.frozen
class Format:
    """How a picture is written.

    Attributes:
        name: What it is called.
        ending: How the names of its files end, in lower case, with the dot.
        render: Writes a picture, as text or as bytes.
        source_of: Reads from a file what it was made from, as a digest, or None where that can't
            be told. None: its bytes follow from the lifecycle alone.
        source: What a file of a picture is made from, as the same digest. None as `source_of` is.
    """

    name: str
    ending: str
    render: Callable[[Picture], str | bytes]
    source_of: Callable[[bytes], str | None] | None = None
    source: Callable[[Picture], str] | None = None


FORMATS: Final[Mapping[str, Format]] = {
    known.name: known
    for known in (
        Format("mermaid", ".mmd", mermaid.render),
        Format("dot", ".dot", dot.render),
        Format("svg", ".svg", svg.render, svg.source_of, svg.source),
        Format("png", ".png", png.render, png.source_of, png.source),
        Format("markdown", ".md", markdown.render),
        Format("plantuml", ".puml", plantuml.render),
        Format("html", ".html", page.render, page.source_of, page.source),
        Format("text", ".txt", text.render),
        Format("ascii", ".ascii", text.render_ascii),
        Format("scxml", ".scxml", scxml.render),
    )
}
"""Each format by its name."""


def render(
    lifecycle: Lifecycle,
    format: str,
    *,
    counts: Mapping[tuple[str, str], int] | None = None,
    traffic: Mapping[tuple[str, str], int] | None = None,
    status_counts: Mapping[str, int] | None = None,
    coverage: Mapping[tuple[str, str], int] | None = None,
    current: str | None = None,
    permitted: Iterable[str] | None = None,
    next_timed: tuple[str, datetime] | None = None,
    history: Iterable[Event] | None = None,
    caption: str | None = None,
) -> str | bytes:
    """Show a lifecycle in a format, with one session, a fleet, or the coverage of tests on it.

    Args:
        lifecycle: What is shown, and nothing but it: the same lifecycle gives the same text
            everywhere, byte for byte.
        format: The name of one of the `FORMATS`.
        counts: The fleet: moves along each (source, target), shown at it; one that is left out
            is 0.
        traffic: The same by row, told apart by (trigger, source), those that keep the status too;
            instead of `counts`.
        status_counts: The fleet: how many are in each status, shown in it; one that is left out
            is 0.
        coverage: How often tests fired each (trigger, source); one that is left out is 0. A row
            that is 0 is shown in red, and said not to be covered.
        current: One session: its status, highlighted.
        permitted: One session: the triggers that would be accepted now, all from `current`.
        next_timed: One session: what fires by itself next in `current`, and when.
        history: One session: the steps of its life in order, as the manager's `history` has them;
            shown as a path, each with its number and its time.
        caption: What is said below the name of the lifecycle, such as whose session it is; one
            line.

    Returns:
        Text; bytes for `png`.

    Raises:
        ValueError: There is no such format, something is told that the lifecycle lacks or that
            can't be true of it, or a session, a fleet and coverage are mixed.
        DrawingError: Graphviz, which draws `svg` and `png`, is not installed or failed.
    """
    if format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; formats are {', '.join(FORMATS)}")
    overlay = Overlay(
        counts=counts,
        traffic=traffic,
        status_counts=status_counts,
        coverage=coverage,
        current=current,
        permitted=permitted,
        next_timed=next_timed,
        history=history,
        caption=caption,
    )
    return FORMATS[format].render(picture_of(lifecycle, overlay))


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
