"""The lifecycle as a PlantUML state diagram.

PlantUML reads texts as its own markup: whatever may mean something there, or to its grammar, is
written by its number (`<U+0023>`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from .words import joined, times

BREAK: Final = r"\n"

ROOM: Final = "<U+00A0>"
"""Keeps the words at an arrow off its line."""

MOST_STEPS: Final = 4
"""Most lines about the steps by one row on an arrow."""

HARMLESS: Final = re.compile(
    r"""[A-Za-z0-9]
    | [^\x00-\x7f]
    | (?<=.)[ ,/]
    | (?<=[ ])[+(]
    | (?<=[A-Za-z0-9])[)]
    | (?<=[A-Za-z0-9])[_-](?=[A-Za-z0-9])""",
    re.VERBOSE,
)
"""A character that is taken for itself where it stands; a text of its own may begin anywhere."""

STYLE: Final = (
    "hide empty description",
    "skinparam shadowing false",
    f"skinparam backgroundColor {PAPER}",
    "skinparam state {",
    f"  BackgroundColor {STATUS_FILL}",
    f"  BorderColor {BY_HAND}",
    f"  FontColor {INK}",
    f"  AttributeFontColor {INK}",
    f"  StartColor {INK}",
    f"  EndColor {INK}",
    "}",
    f"skinparam ArrowColor {BY_HAND}",
    f"skinparam ArrowFontColor {INK}",
    "skinparam legend {",
    f"  BackgroundColor {PAPER}",
    f"  BorderColor {PAPER}",
    f"  FontColor {INK}",
    "}",
)


def render(picture: Picture) -> str:
    """Write a picture as a PlantUML state diagram."""
    return "".join(f"{line}\n" for line in _lines(picture))


def escaped(text: str) -> str:
    """Return a text as it stands in a label."""
    return "".join(
        character if HARMLESS.match(text, position) else f"<U+{ord(character):04X}>"
        for position, character in enumerate(text)
    )


def _lines(picture: Picture) -> Iterator[str]:
    yield "@startuml"
    yield "' Made from the table of the lifecycle."
    yield from STYLE
    for node in picture.nodes:
        yield f'state "{escaped(node.name)}" as {node.key}{_ground(node)}'
        yield from (f"{node.key} : {words}" for words in _status(node))
    for node in picture.nodes:
        if node.initial:
            yield f"[*] --> {node.key}"
    for edge in picture.edges:
        label = BREAK.join(f"{ROOM}{words}{ROOM}" for words in _label(edge))
        yield f"{edge.source.key} {_arrow(edge)} {edge.target.key} : {label}"
    for node in picture.nodes:
        if node.final:
            yield f"{node.key} --> [*]"
    yield "legend"
    yield from _legend(picture)
    yield "endlegend"
    yield "@enduml"


def _ground(node: Node) -> str:
    if node.current:
        return f" {HERE_FILL}"
    return f" {FINAL_FILL}" if node.final else ""


def _arrow(edge: Edge) -> str:
    """Return the arrow of an edge, in the look of its rows; in that of the most urgent one."""
    looks = [look_of(move, walked=edge.source.visited) for move in edge.moves]
    urgent = [look for look in looks if look[0] in (MISSED, HERE)]
    taken = [
        look for look, move in zip(looks, edge.moves, strict=True) if move.steps and not urgent
    ]
    color, style = (urgent or taken or looks)[0]
    if not urgent and not taken and len(set(looks)) > 1:
        color, style = FAINT, "solid"
    weight = ",bold" if urgent or taken else ""
    # An arrow has one style: of a thick one, the dashes are left to the sign.
    dashes = ",dashed" if style == "dashed" and not weight else ""
    direction = "up" if edge.back else ""
    return f"-{direction}[{color}{dashes}{weight}]->"


def _colored(words: str, color: str) -> str:
    return words if color in (INK, BY_HAND) else f"<color:{color}>{words}</color>"


def _status(node: Node) -> Iterator[str]:
    if node.current:
        yield _colored(f"{HERE_SIGN} here now", HERE)
    if node.count is not None:
        yield f"{node.count:,} here"
    yield from map(escaped, node.visits)
    for move in node.stays:
        told = told_of(move, in_one_line(move.steps))
        name, *more = _words(move)
        yield " · ".join((" ".join((name, *more)), *_told(move, told)))


def _label(edge: Edge) -> Iterator[str]:
    if edge.count is not None:
        yield times(edge.count)
    for move in edge.moves:
        yield from _words(move)
        if edge.count is None or len(edge.moves) > 1:
            yield from _told(move, told_of(move, *shortened(move.steps, MOST_STEPS)))


def _told(move: Move, told: tuple[str, ...]) -> Iterator[str]:
    color = MISSED if move.covered is False else INK
    yield from (_colored(escaped(words), color) for words in told)


def _words(move: Move) -> Iterator[str]:
    mark = f"{move.mark} " if move.mark else ""
    guards = f" [{escaped(joined(move.guards))}]" if move.guards else ""
    yield _colored(mark + escaped(move.name), look_of(move)[0]) + guards
    if move.due is not None:
        yield f"at {escaped(move.due)}"


def _legend(picture: Picture) -> Iterator[str]:
    yield f"lifecycle {escaped(picture.title)}"
    if picture.caption is not None:
        yield escaped(picture.caption)
    if not picture.covered:
        yield _colored(f"{TIMED_SIGN} fires by itself", TIMED)
        yield _colored(f"{ENDING_SIGN} part of the way out", ENDING)
    else:
        yield f"{TIMED_SIGN} fires by itself"
        yield f"{ENDING_SIGN} part of the way out"
        yield _colored("× fired by tests", FAINT)
        yield _colored(f"{MISSED_SIGN} not covered", MISSED)
        yield f"{len(picture.missed)} of {len(picture.cells)} rows not covered"
    yield "[guards, all must hold]"
    yield "in a box, status stays"
    if picture.counted:
        yield "× moves counted"
    if picture.current is not None:
        yield _colored(f"{HERE_SIGN} here now", HERE)
    if picture.permitted:
        yield _colored(f"{PERMITTED_SIGN} permitted now", HERE)
    if picture.path is not None:
        yield escaped("#: number of the step")
    if picture.day is not None:
        yield escaped(picture.day)
