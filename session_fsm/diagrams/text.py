"""The lifecycle drawn in text, for terminals: boxes below each other, lines beside them.

A status is a box. Its first part has the rows that keep the status, its second one the rows that
leave it, each at the beginning of its line. All lines to a status come together in one lane and end
at its name. Where there are more lanes than columns for them, a row names its target instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

import attrs

from .glyphs import ASCII, UNICODE, Border, Glyphs
from .lanes import Lane, lanes_of
from .looks import told_of
from .path import in_one_line
from .picture import (
    ENDING_SIGN,
    HERE_SIGN,
    MISSED_SIGN,
    PERMITTED_SIGN,
    TIMED_SIGN,
    Move,
    Node,
    Picture,
)
from .width import columns, padded, wrapped
from .words import times

WIDTHS: Final = (80, 100)
"""Most columns of a drawing; the second where the first has no room for all lanes."""

NARROWEST_BOX: Final = 44
"""Columns that a box has at least, however many lanes there are beside it."""

LANE: Final = 3
"""Columns of a lane, with the space before it."""

FRAME: Final = 4
"""Columns of the sides of a box, with the space inside of them."""

GAP: Final = 2
"""Columns between a trigger and what is told of it."""

MARK: Final = 2
"""Columns before a trigger, where any has a mark."""

JOINT: Final = " · "
"""Stands between what is told in one line."""


def render(picture: Picture) -> str:
    """Draw a picture with box characters."""
    return _drawn(picture, UNICODE)


def render_ascii(picture: Picture) -> str:
    """Draw a picture with ASCII characters alone; others in names are written as escapes."""
    return _drawn(picture, ASCII)


@attrs.frozen(kw_only=True)
class _Line:
    """A line of a box; `position` tells where lanes begin or end."""

    text: str
    position: int | None = None
    timed: bool = False
    rule: bool = False


def _drawn(picture: Picture, glyphs: Glyphs) -> str:
    positions = _Positions(picture)
    lanes, width = _laid_out(positions)
    boxes = _Boxes(picture, glyphs, positions, lanes, width)
    lines = list(boxes.lines())
    places = {line.position: at for at, (line, _) in enumerate(lines) if line is not None}
    beside = _Beside(
        glyphs,
        [
            attrs.evolve(
                lane, entry=places[lane.entry], exits=tuple(places[each] for each in lane.exits)
            )
            for lane in lanes
        ],
    )
    drawn = [text + beside.at(at, line) for at, (line, text) in enumerate(lines)]
    legend = [part for words in _legend(picture, glyphs) for part in wrapped(words, WIDTHS[0])]
    return "".join(f"{line.rstrip()}\n" for line in (*drawn, "", *legend))


def _laid_out(positions: _Positions) -> tuple[list[Lane], int]:
    """Return the lanes, and the narrowest width that has room for all of them, if any has."""
    tried = [
        (lanes_of(positions.entries, positions.exits, (width - NARROWEST_BOX) // LANE), width)
        for width in WIDTHS
    ]
    wanted = sum(map(bool, positions.exits))
    return next((each for each in tried if len(each[0]) == wanted), tried[-1])


class _Positions:
    """Numbers for all places where lanes begin or end, from the top: statuses and their rows."""

    def __init__(self, picture: Picture) -> None:
        self.entries: list[int] = []
        self.exits: list[list[int]] = [[] for _ in picture.nodes]
        self.rows: dict[tuple[str, str], int] = {}
        order = {node.key: index for index, node in enumerate(picture.nodes)}
        position = 0
        for node in picture.nodes:
            self.entries.append(position)
            position += 1
            for move, target in leaving(picture, node):
                self.exits[order[target.key]].append(position)
                self.rows[node.key, move.trigger] = position
                position += 1


def leaving(picture: Picture, node: Node) -> Iterator[tuple[Move, Node]]:
    """Yield the rows that lead from a status to another or back to itself, with their targets."""
    for edge in picture.edges:
        if edge.source is node:
            yield from ((move, edge.target) for move in edge.moves)


class _Boxes:
    """The boxes of all statuses, of one width."""

    def __init__(
        self,
        picture: Picture,
        glyphs: Glyphs,
        positions: _Positions,
        lanes: list[Lane],
        width: int,
    ) -> None:
        self.picture = picture
        self.glyphs = glyphs
        self.positions = positions
        self.led = {position for lane in lanes for position in lane.exits}
        moves = [move for node in picture.nodes for move in self._moves(node)]
        self.mark = MARK if any(move.mark for move in moves) else 0
        widest = max((columns(self._name(move)) for move in moves), default=0)
        used = (max((lane.column for lane in lanes), default=-1) + 1) * LANE
        room = width - used - FRAME
        self.triggers = min(widest, room * 2 // 5)
        self.told = room - self.mark - self.triggers - GAP
        told = [
            *(self.mark + self.triggers + GAP + columns(words)
              for node in picture.nodes
              for move, target in self._rows(node)
              for words in self._told(node, move, target)),
            *(columns(self._title(node)) for node in picture.nodes),
            *(columns(words) for node in picture.nodes for words in self._visits(node)),
        ]  # fmt: skip
        self.inner = min(max(told, default=0), room)

    def _rows(self, node: Node) -> Iterator[tuple[Move, Node | None]]:
        yield from ((move, None) for move in node.stays)
        yield from leaving(self.picture, node)

    def _moves(self, node: Node) -> Iterator[Move]:
        yield from (move for move, _ in self._rows(node))

    # --- words ----------------------------------------------------------------------------

    def _name(self, move: Move) -> str:
        signs = f"{self.glyphs.sign(move.signs)} " if move.signs else ""
        return signs + self.glyphs.own(move.trigger)

    def _told(self, node: Node, move: Move, target: Node | None) -> Iterator[str]:
        if move.conditions:
            yield from self._conditions(move)
        if target is not None and self.positions.rows[node.key, move.trigger] not in self.led:
            yield f"leads to {self.glyphs.own(target.name)}"
        if words := JOINT.join(told_of(move, in_one_line(move.steps))):
            yield self.glyphs.sign(words)

    def _conditions(self, move: Move) -> Iterator[str]:
        lines = [self.glyphs.own(words) for words in move.conditions]
        told = " ".join(lines)
        yield from [told] if columns(told) <= self.told else lines

    def _title(self, node: Node) -> str:
        told = [self.glyphs.own(node.name)]
        if node.current:
            told.append(f"{HERE_SIGN} here now")
        if node.count is not None:
            told.append(f"{node.count:,} here")
        if node.final:
            told.append("final")
        return self.glyphs.sign(JOINT).join([told[0], *map(self.glyphs.sign, told[1:])])

    def _visits(self, node: Node) -> Iterator[str]:
        yield from (self.glyphs.sign(words) for words in node.visits)
        counts = [
            f"{self.glyphs.sign(times(edge.count))} to {self.glyphs.own(edge.target.name)}"
            for edge in self.picture.edges
            if edge.source is node and edge.count is not None and edge.moves[0].count is None
        ]
        yield from counts

    # --- lines ----------------------------------------------------------------------------

    def lines(self) -> Iterator[tuple[_Line | None, str]]:
        """Yield each line with its text; None: it belongs to no box."""
        for index, node in enumerate(self.picture.nodes):
            border = self._border(node)
            if node.initial:
                yield None, padded(f"   {self.glyphs.begin[0]}", self.inner + FRAME)
            elif index:
                yield None, " " * (self.inner + FRAME)
            top = border.flat * (self.inner + FRAME - 2)
            if node.initial:
                top = top[:2] + self.glyphs.begin[1] + top[3:]
            yield None, border.corners[0] + top + border.corners[1]
            for line in self._content(index, node):
                yield line, self._framed(border, line)
            flat = border.flat * (self.inner + FRAME - 2)
            yield None, border.corners[2] + flat + border.corners[3]

    def _framed(self, border: Border, line: _Line) -> str:
        if line.rule:
            flat = self.glyphs.box.flat * (self.inner + FRAME - 2)
            return border.tees[0] + flat + border.tees[1]
        right = border.upright
        if line.position in self.led:
            right = border.exit
        return f"{border.upright} {padded(line.text, self.inner)} {right}"

    def _border(self, node: Node) -> Border:
        if node.current:
            return self.glyphs.here
        return self.glyphs.final if node.final else self.glyphs.box

    def _content(self, index: int, node: Node) -> Iterator[_Line]:
        first, *more = wrapped(self._title(node), self.inner)
        yield _Line(text=first, position=self.positions.entries[index])
        for words in more:
            yield _Line(text=words)
        for words in self._visits(node):
            yield from (_Line(text=part) for part in wrapped(words, self.inner))
        for rows in (
            [(move, None) for move in node.stays],
            list(leaving(self.picture, node)),
        ):
            if rows:
                yield _Line(text="", rule=True)
            for move, target in rows:
                yield from self._row(node, move, target)

    def _row(self, node: Node, move: Move, target: Node | None) -> Iterator[_Line]:
        names = wrapped(self._name(move), self.triggers)
        room = self.inner - self.mark - self.triggers - GAP
        told = [part for words in self._told(node, move, target) for part in wrapped(words, room)]
        mark = self.glyphs.sign(move.mark)
        position = None if target is None else self.positions.rows[node.key, move.trigger]
        for name, words in zip_longest(names, told, fillvalue=""):
            start = padded(mark, self.mark) + padded(name, self.triggers + GAP)
            yield _Line(text=start + words, position=position, timed=move.due is not None)
            mark, position = "", None


class _Beside:
    """What stands beside the boxes: the lanes, and the lines from rows and to statuses."""

    def __init__(self, glyphs: Glyphs, lanes: list[Lane]) -> None:
        self.glyphs = glyphs
        self.lanes = lanes
        self.meets = {at: lane for lane in lanes for at in (lane.entry, *lane.exits)}

    def at(self, at: int, line: _Line | None) -> str:
        """Return what stands beside a line."""
        passing = {lane.column: lane for lane in self.lanes if lane.ends[0] <= at <= lane.ends[1]}
        if not passing:
            return ""
        mine = self.meets.get(at)
        cells: list[str] = []
        for column in range(max(passing) + 1):
            lane = passing.get(column)
            reached = mine is not None and column <= mine.column
            flat = " "
            if reached:
                flat = self.glyphs.timed if line is not None and line.timed else self.glyphs.by_hand
            cells.append(flat * (LANE - 1))
            if mine is not None and lane is mine:
                cells.append(self._turn(at, mine))
            elif lane is None:
                cells.append(flat)
            else:
                cells.append(self.glyphs.crossing if reached else self.glyphs.lane)
        drawn = "".join(cells)
        if mine is not None and at == mine.entry:
            drawn = self.glyphs.arrow + drawn[1:]
        return drawn

    def _turn(self, at: int, lane: Lane) -> str:
        first, last = lane.ends
        return self.glyphs.turns[0 if at == first else 2 if at == last else 1]


def _legend(picture: Picture, glyphs: Glyphs) -> Iterator[str]:
    def signed(*words: str) -> str:
        return glyphs.sign(JOINT.join(words))

    yield f"lifecycle {glyphs.own(picture.title)}"
    if picture.caption is not None:
        yield glyphs.own(picture.caption)
    yield signed(
        f"{TIMED_SIGN} fires by itself, ╌╌",
        f"{ENDING_SIGN} part of the way out",
        "if …: guards, all must hold",
    )
    yield "in a box: first the rows that keep the status, then those that leave it"
    told = []
    if picture.current is not None:
        told.append(f"{HERE_SIGN} here now")
    if picture.permitted:
        told.append(f"{PERMITTED_SIGN} permitted now")
    if picture.path is not None:
        told.append("#: number of the step")
    if picture.day is not None:
        told.append(picture.day)
    if picture.counted:
        told.append("×: moves counted")
    if picture.covered:
        told.append(f"×: fired by tests{JOINT}{MISSED_SIGN} not covered")
        told.append(f"{len(picture.missed)} of {len(picture.cells)} rows not covered")
    if told:
        yield signed(*told)
