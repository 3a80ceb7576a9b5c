"""The lifecycle as a Mermaid state diagram, which forges and wikis draw where they show text.

Mermaid can't draw the lines of a state diagram in different ways, so signs alone tell rows apart.
Lines of a label are Markdown to it: whatever means something there, or to its own grammar, is
written as an entity (`#35;`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .picture import ENDING_SIGN, TIMED_SIGN, Edge, Move, Node, Picture, joined

BREAK: Final = "<br/>"

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


def _status(node: Node) -> Iterator[str]:
    yield escaped(node.name)
    if node.count is not None:
        yield f"{node.count:,} here"
    for move in node.stays:
        yield " ".join(_words(move))


def _label(edge: Edge) -> Iterator[str]:
    if edge.count is not None:
        yield f"{edge.count:,} ×"
    for move in edge.moves:
        yield from _words(move)


def _words(move: Move) -> Iterator[str]:
    guards = f" [{escaped(joined(move.guards))}]" if move.guards else ""
    yield escaped(move.name) + guards
    if move.due is not None:
        yield f"at {escaped(move.due)}"


def _legend(picture: Picture) -> Iterator[str]:
    yield f"lifecycle {escaped(picture.title)}"
    yield f"{TIMED_SIGN} fires by itself"
    yield f"{ENDING_SIGN} part of the way out"
    yield "[guards, all must hold]"
    yield "in a box, status stays"
    if picture.counted:
        yield "× moves counted"
