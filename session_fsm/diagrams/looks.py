"""How rows look in drawings that have colours, and what is told of them there.

A colour never tells alone: a sign, a dash or a word says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .picture import Move
from .words import times

PAPER: Final = "white"
INK: Final = "#1f2933"
FAINT: Final = "#5a6672"
RULE: Final = "#c3ccd5"
BY_HAND: Final = "#1f5f99"
TIMED: Final = "#9a5b00"
ENDING: Final = "#b3261e"
HERE: Final = "#17722f"
MISSED: Final = "#d0021b"
STATUS_FILL: Final = "#eaf2fa"
FINAL_FILL: Final = "#e9ecef"
HERE_FILL: Final = "#dcf3e2"

DARK: Final[Mapping[str, str]] = {
    PAPER: "#11171d",
    INK: "#e4e9ee",
    FAINT: "#a5b1bd",
    RULE: "#5d6975",
    BY_HAND: "#7db8ee",
    TIMED: "#e3a84f",
    ENDING: "#f58a80",
    HERE: "#6fd08a",
    MISSED: "#ff6b6b",
    STATUS_FILL: "#17293b",
    FINAL_FILL: "#2a323b",
    HERE_FILL: "#143821",
}
"""What stands for each colour where the page is dark."""


def look_of(move: Move, *, walked: bool | None = None) -> tuple[str, str]:
    """Return the colour and the style, `solid` or `dashed`, of the line of a row.

    Args:
        move: The row, from one source.
        walked: Whether a path leads through its source; None: no path is shown.
    """
    color = ENDING if move.ending else TIMED if move.due is not None else BY_HAND
    if move.covered is not None:
        color = FAINT if move.covered else MISSED
    elif move.permitted:
        color = HERE
    elif walked is not None and not move.steps:
        color = RULE
    return color, "solid" if move.due is None else "dashed"


def told_of(move: Move, *steps: str) -> tuple[str, ...]:
    """Return what happened by a row, or will: counts, steps, and when it is due.

    Args:
        move: The row, from one source.
        *steps: Its steps in words; what is empty is left out.
    """
    counts = () if move.count is None else (times(move.count),)
    if move.covered is False:
        counts = ("not covered",)
    due = () if move.fires_at is None else (f"due {move.fires_at}",)
    return (*counts, *filter(None, steps), *due)
