"""The characters that drawings in text are made of: Unicode's box drawing, or ASCII alone."""

from __future__ import annotations

from typing import Final

import attrs

from .picture import ENDING_SIGN, HERE_SIGN, MISSED_SIGN, PERMITTED_SIGN, TIMED_SIGN


@attrs.frozen(kw_only=True)
class Border:
    """What a box is drawn with.

    Attributes:
        corners: Upper left, upper right, lower left, lower right.
        flat: Upper and lower side.
        upright: Left and right side.
        tees: Left and right end of a line across the box.
        exit: The right side where a line leads out of it.
    """

    corners: str
    flat: str
    upright: str
    tees: str
    exit: str


@attrs.frozen(kw_only=True)
class Glyphs:
    """The characters of a drawing.

    Attributes:
        box: The border of a status.
        final: That of a final one.
        here: That of the current one.
        by_hand: A line from a row that is fired by hand.
        timed: One from a row that fires by itself.
        lane: A line upwards or downwards.
        turns: Where a lane begins at the top, is joined, and ends at the bottom.
        crossing: Where a line crosses a lane that isn't its own.
        arrow: The head of a line, at a box.
        begin: Where a life begins, and the head of the line from there.
        signs: How signs are written, by the character that a picture has for them.
        ascii: Whether other characters are written as escapes.
    """

    box: Border
    final: Border
    here: Border
    by_hand: str
    timed: str
    lane: str
    turns: str
    crossing: str
    arrow: str
    begin: tuple[str, str]
    signs: dict[int, str]
    ascii: bool

    def own(self, text: str) -> str:
        """Return a text of the lifecycle as it is shown."""
        return text.encode("ascii", "backslashreplace").decode() if self.ascii else text

    def sign(self, text: str) -> str:
        """Return a text of the drawing itself as it is shown."""
        return text.translate(self.signs)


UNICODE: Final = Glyphs(
    box=Border(corners="╭╮╰╯", flat="─", upright="│", tees="├┤", exit="├"),
    final=Border(corners="╔╗╚╝", flat="═", upright="║", tees="╟╢", exit="╟"),
    here=Border(corners="┏┓┗┛", flat="━", upright="┃", tees="┠┨", exit="┠"),
    by_hand="─",
    timed="╌",
    lane="│",
    turns="╮┤╯",
    crossing="┼",
    arrow="◀",
    begin=("●", "▼"),
    signs={},
    ascii=False,
)
ASCII: Final = Glyphs(
    box=Border(corners="++++", flat="-", upright="|", tees="++", exit="+"),
    final=Border(corners="++++", flat="=", upright="|", tees="++", exit="+"),
    here=Border(corners="####", flat="#", upright="#", tees="##", exit="#"),
    by_hand="-",
    timed=".",
    lane="|",
    turns="+++",
    crossing="|",
    arrow="<",
    begin=("o", "v"),
    signs={
        ord(sign): plain
        for sign, plain in {
            TIMED_SIGN: "@",
            ENDING_SIGN: "*",
            PERMITTED_SIGN: "+",
            MISSED_SIGN: "!",
            HERE_SIGN: ">",
            "×": "x",
            "…": "...",
            "·": ";",
            "─": "-",
            "╌": ".",
            "┼": "|",
            "◀": "<",
        }.items()
    },
    ascii=True,
)
