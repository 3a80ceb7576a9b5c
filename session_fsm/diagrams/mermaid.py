"""The lifecycle as a Mermaid state diagram, which forges and wikis draw where they show text.

Mermaid can't draw the lines of a state diagram in different ways, so signs alone tell rows apart.
Lines of a label are Markdown to it: whatever means something there, or to its own grammar, is
written as an entity (`#35;`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .looks import HERE, HERE_FILL, INK, MISSED, told_of
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
from .words import joined, times

BREAK: Final = "<br/>"

MOST_STEPS: Final = 4
"""Most lines about the steps by one row on an arrow."""

HARMLESS: Final = re.compile(
    r"""[A-Za-z0-9]
    | [^\x00-\x7f]
    | (?<=.)[ ,/]
    | (?<=[ ])[+(]
    | (?<=[A-Za-z])\)
    | (?<=[A-Za-z0-9])[_-](?=[A-Za-z0-9])""",
    re.VERBOSE,
)
"""A character that is taken for itself where it stands; a text of its own may begin anywhere."""


def render(picture: Picture) -> str:
    """Write a picture as a Mermaid state diagram."""
    return "".join(f"{line}\n" for line in _lines(picture))


def escaped(text: str) -> str:
    """Return a text as it stands in a label."""
    return "".join(
        character if HARMLESS.match(text, position) else f"#{ord(character)};"
        for position, character in enumerate(text)
    )


def _lines(picture: Picture) -> Iterator[str]:
    yield "stateDiagram-v2"
    yield "    %% Made from the table of the lifecycle."
    yield "    direction TB"
    yield "    classDef final stroke-width:4px"
    if picture.current is not None:
        yield f"    classDef current fill:{HERE_FILL},stroke:{HERE},color:{INK},stroke-width:4px"
    if picture.missed:
        yield f"    classDef missed stroke:{MISSED},stroke-width:4px"
    for node in picture.nodes:
        yield from (f"    {node.key} : {words}" for words in _status(node))
    for node in picture.nodes:
        if node.initial:
            yield f"    [*] --> {node.key}"
            yield f"    note left of {node.key}"
            yield from (f"        {words}" for words in _legend(picture))
            yield "    end note"
    for edge in picture.edges:
        label = BREAK.join(_label(edge))
        yield f"    {edge.source.key} --> {edge.target.key} : {label}"
    for node in picture.nodes:
        if node.final:
            yield f"    {node.key} --> [*]"
            yield f"    class {node.key} final"
    if picture.current is not None:
        yield f"    class {picture.current.key} current"
    missed = {move.source for move in picture.missed}
    for node in picture.nodes:
        if node.name in missed:
            yield f"    class {node.key} missed"


def _status(node: Node) -> Iterator[str]:
    yield escaped(node.name)
    if node.current:
        yield f"{HERE_SIGN} here now"
    if node.count is not None:
        yield f"{node.count:,} here"
    yield from map(escaped, node.visits)
    for move in node.stays:
        told = told_of(move, in_one_line(move.steps))
        yield " · ".join((" ".join(_words(move)), *map(escaped, told)))


def _label(edge: Edge) -> Iterator[str]:
    if edge.count is not None:
        yield times(edge.count)
    for move in edge.moves:
        yield from _words(move)
        if edge.count is None or len(edge.moves) > 1:
            yield from map(escaped, told_of(move, *shortened(move.steps, MOST_STEPS)))


def _words(move: Move) -> Iterator[str]:
    mark = f"{move.mark} " if move.mark else ""
    guards = f" [{escaped(joined(move.guards))}]" if move.guards else ""
    yield mark + escaped(move.name) + guards
    if move.due is not None:
        yield f"at {escaped(move.due)}"


def _legend(picture: Picture) -> Iterator[str]:
    yield f"lifecycle {escaped(picture.title)}"
    if picture.caption is not None:
        yield escaped(picture.caption)
    yield f"{TIMED_SIGN} fires by itself"
    yield f"{ENDING_SIGN} part of the way out"
    yield "[guards, all must hold]"
    yield "in a box, status stays"
    if picture.counted:
        yield "× moves counted"
    if picture.covered:
        yield "× fired by tests"
        yield f"{MISSED_SIGN} not covered, its status red"
        yield f"{len(picture.missed)} of {len(picture.cells)} rows not covered"
    if picture.current is not None:
        yield f"{HERE_SIGN} here now"
    if picture.permitted:
        yield f"{PERMITTED_SIGN} permitted now"
    if picture.path is not None:
        yield escaped("#: number of the step")
    if picture.day is not None:
        yield escaped(picture.day)
