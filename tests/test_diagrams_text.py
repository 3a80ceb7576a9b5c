"""Drawings in text: read back line by line, they have every row and edge, and fit a terminal."""

import re
from collections.abc import Iterator

import attrs
import pytest
from drawing import LIFECYCLES, ODD, ODD_WORDS, SANDBOX, WAYS, guard, plain, text

from session_fsm import SESSION_LIFECYCLE
from session_fsm.diagrams.glyphs import ASCII, UNICODE
from session_fsm.diagrams.lanes import lanes_of
from session_fsm.diagrams.width import columns, padded, wrapped
from session_fsm.lifecycle import LIVE, Lifecycle, Row

SIDES = "│┃║├┠╟"
LEAVES = "├┠╟"
CORNERS = "╭┏╔"
BETWEEN = r"[\s|│├┤┼╌─╮╯+.◀║┃#=-]+"
"""What may stand between two words of a line that was broken."""


@attrs.frozen
class Drawn:
    """A drawing, as a grid of single columns; behind a wide character stands an empty one."""

    lines: list[list[str]]

    @classmethod
    def read(cls, drawing: str) -> "Drawn":
        """Read a drawing; the legend below it is left out."""
        body = drawing[: drawing.index("\n\nlifecycle ")]
        grid = []
        for line in body.splitlines():
            row: list[str] = []
            for character in line:
                row += [character, *[""] * (columns(character) - 1)]
            grid.append(row)
        return cls(grid)

    @property
    def right(self) -> int:
        """The column of the right sides of all boxes."""
        top = next(line for line in self.lines if line and line[0] in CORNERS)
        return next(at for at, character in enumerate(top) if character in "╮┓╗")

    def at(self, line: int, column: int) -> str:
        """What stands in a place; a space beside and below everything."""
        if not 0 <= line < len(self.lines) or column >= len(self.lines[line]):
            return " "
        return self.lines[line][column]

    def boxes(self) -> Iterator[list[int]]:
        """The lines of each box that have text."""
        found: list[int] = []
        for number, line in enumerate(self.lines):
            if line and line[0] in "╰┗╚":
                yield found
                found = []
            elif line and line[0] in SIDES and line[1] == " ":
                found.append(number)

    def inside(self, line: int) -> str:
        """The text within a box."""
        return "".join(self.lines[line][2 : self.right - 1]).rstrip()

    def follow(self, line: int) -> int:
        """The line on which the arrow ends that begins on a line."""
        column = self.right + 1
        while self.at(line, column) in "─╌┼":
            column += 1
        turn = self.at(line, column)
        assert turn in "╮┤╯", f"line {line} leads to {turn!r}"
        ends = []
        for step, turned, last in ((1, "╮┤", "╯"), (-1, "╯┤", "╮")):
            if turn not in turned:
                continue
            at = line
            while True:
                at += step
                assert self.at(at, column) in "│┼┤" + last, f"broken lane at {at}, {column}"
                if self.at(at, column) in "┤" + last and self.at(at, self.right + 1) == "◀":
                    assert set(self.lines[at][self.right + 2 : column]) <= {"─", "┼"}
                    ends.append(at)
                if self.at(at, column) == last:
                    break
        (end,) = ends
        return end


def edges(drawing: str) -> list[tuple[str, str, str, bool]]:
    """Each arrow as it is seen: trigger, source, target, and whether it is dashed."""
    drawn = Drawn.read(drawing)
    boxes = list(drawn.boxes())
    names = {lines[0]: drawn.inside(lines[0]).split(" · ")[0] for lines in boxes}
    found = []
    for lines in boxes:
        for line in lines:
            if drawn.at(line, drawn.right) in LEAVES:
                trigger = re.sub(r"^[◷■✓✗ ]+", "", drawn.inside(line)).split("  ")[0]
                dashed = drawn.at(line, drawn.right + 1) == "╌"
                found.append((trigger, names[lines[0]], names[drawn.follow(line)], dashed))
    return found


def wide(statuses: int) -> Lifecycle:
    """A lifecycle where every status leads to every other one, by rows that are long too."""
    words = [f"status_{number}" for number in range(statuses)]
    return Lifecycle(
        statuses=(*words, "end"),
        initial=words[0],
        rows=(
            *(
                Row(f"to_{number}", [word for word in words if word != target], target)
                for number, target in enumerate(words)
            ),
            Row("wait", words[0], None, guards=(guard("nobody has come back for a while"),)),
            Row("end", LIVE, "end", ending=True),
        ),
        name="wide",
    )


# --- what is drawn -----------------------------------------------------------------------------


@LIFECYCLES
def test_diagrams_text_arrows_lead_where_rows_do(lifecycle: Lifecycle) -> None:
    """An eye that follows each line comes from each row to its target, and to nothing else."""
    assert sorted(edges(text(lifecycle, "text"))) == sorted(
        (row.trigger, source, row.target, row.deadline is not None)
        for row, source in lifecycle.moves()
        if row.target is not None
    )


@LIFECYCLES
@pytest.mark.parametrize("form", ["text", "ascii"])
def test_diagrams_text_has_every_word_in_its_box(lifecycle: Lifecycle, form: str) -> None:
    """A box has its status and all words of its rows, however they are broken into lines."""
    unicode = Drawn.read(text(lifecycle, "text"))
    boxes = list(unicode.boxes())
    assert [unicode.inside(lines[0]).split(" · ")[0] for lines in boxes] == [*lifecycle.statuses]
    drawn = text(lifecycle, form)
    for row in lifecycle.rows:
        for words in plain(lifecycle, row):
            shown = words.encode("ascii", "backslashreplace").decode() if form == "ascii" else words
            assert re.search(BETWEEN.join(map(re.escape, shown.split(" "))), drawn)


@LIFECYCLES
@pytest.mark.parametrize("form", ["text", "ascii"])
def test_diagrams_text_fits_a_terminal(lifecycle: Lifecycle, form: str) -> None:
    """No line is wider than 100 columns, 80 where that is enough; boxes are of one width."""
    lines = text(lifecycle, form).splitlines()
    assert max(map(columns, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)
    drawn = Drawn.read(text(lifecycle, "text"))
    inner = [line for lines in drawn.boxes() for line in lines]
    assert {drawn.at(line, drawn.right) for line in inner} <= set(SIDES)


@pytest.mark.parametrize("way", WAYS)
def test_diagrams_text_fits_a_terminal_with_more_on_it(way: str) -> None:
    """What is shown on top makes no line wider than 80 columns, and moves no arrow."""
    drawn = text(SESSION_LIFECYCLE, "text", **WAYS[way])
    assert max(map(columns, drawn.splitlines())) <= 80
    assert edges(drawn) == edges(text(SESSION_LIFECYCLE, "text"))


def test_diagrams_text_names_targets_where_lanes_are_too_many() -> None:
    """With more lanes than columns, a row names its target; every other one has its arrow."""
    lifecycle = wide(30)
    drawing = text(lifecycle, "text")
    assert max(map(columns, drawing.splitlines())) <= 100
    arrows = edges(drawing)
    named = re.findall(r"to_\d+ +leads to (\w+)", drawing)
    assert arrows
    assert named
    rows = [move for move in lifecycle.moves() if move[0].target is not None]
    assert len(arrows) + len(named) + drawing.count("leads to end") == len(rows)
    assert {target for _, _, target, _ in arrows}.isdisjoint(named)
    fitting = text(wide(15), "text")
    assert 80 < max(map(columns, fitting.splitlines())) <= 100
    assert "leads to" not in fitting


def test_diagrams_text_breaks_long_names() -> None:
    """Names longer than a line are broken, and nothing of them is lost."""
    long, trigger = "名" * 120, "t" * 200
    lifecycle = Lifecycle(
        statuses=(long, "end"),
        initial=long,
        rows=(
            Row(trigger, long, "end", guards=(guard("g" * 300),)),
            Row("leave", long, "end", ending=True),
        ),
    )
    drawing = text(lifecycle, "text")
    assert max(map(columns, drawing.splitlines())) <= 80
    body = drawing[: drawing.index("\n\nlifecycle")]
    assert [body.count(letter) for letter in "名gt"] == [120, 300, 200]
    assert len(edges(drawing)) == 2


def test_diagrams_text_marks_begin_end_and_here() -> None:
    """The dot stands above where a life begins; the final and the current box have own borders."""
    lines = text(SESSION_LIFECYCLE, "text", current="active").splitlines()
    assert lines[0] == "   ●"
    assert lines[1].startswith("╭──▼─")
    assert lines[2].startswith("│ initializing ")
    titles = {line[2:].split()[0]: line[0] for line in lines if line[:1] in ("│", "┃", "║")}
    assert (titles["active"], titles["idle"], titles["terminated"]) == ("┃", "│", "║")


def test_diagrams_text_ascii_is_the_same_drawing() -> None:
    """The drawing in ASCII has each character of the other one in its own way, in its place."""
    for lifecycle in (SESSION_LIFECYCLE, SANDBOX):
        unicode, ascii_ = text(lifecycle, "text"), text(lifecycle, "ascii")
        assert ascii_.isascii()
        body, other = (each[: each.index("\n\nlifecycle")] for each in (unicode, ascii_))
        assert [len(line) for line in body.splitlines()] == [len(x) for x in other.splitlines()]
        other_way = str.maketrans("●▼◀│║┼◷■╌─═·╭╮╰╯├┤╔╗╚╝╟╢", "ov<|||@*.-=;" + "+" * 12)
        assert body.translate(other_way) == other


def test_diagrams_text_ascii_escapes_names() -> None:
    """A name with other characters is told by their numbers, and stays another name than any."""
    drawing = text(ODD, "ascii")
    assert drawing.isascii()
    assert ODD_WORDS[-1].encode("ascii", "backslashreplace").decode() in drawing
    signs = "◷■×·"
    lifecycle = Lifecycle(
        statuses=(signs, "end"), initial=signs, rows=(Row("leave", signs, "end", ending=True),)
    )
    assert "\\u25f7\\u25a0\\xd7\\xb7" in text(lifecycle, "ascii")
    assert UNICODE.own(signs) == UNICODE.sign(signs) == signs
    assert ASCII.sign(signs) == "@*x;"


# --- lanes and widths ----------------------------------------------------------------------------


def test_diagrams_lanes_never_share_a_place() -> None:
    """Lanes in one column have no line in common; the short ones run next to the boxes."""
    entries, exits = (0, 3, 6, 9), ((9,), (1, 2), (4, 5), (1, 7))
    lanes = lanes_of(entries, exits, 9)
    places = [(lane.column, at) for lane in lanes for at in range(lane.ends[0], lane.ends[1] + 1)]
    assert len(places) == len(set(places))
    assert [(lane.entry, lane.exits, lane.column) for lane in lanes] == [
        (3, (1, 2), 0),
        (6, (4, 5), 0),
        (9, (1, 7), 1),
        (0, (9,), 2),
    ]
    assert [lane.entry for lane in lanes_of(entries, exits, 1)] == [3, 6]
    assert lanes_of(entries, exits, 0) == []
    assert lanes_of((0,), ((),), 9) == []


def test_diagrams_widths_are_those_of_a_terminal() -> None:
    """Ideographs are twice as wide, accents of their own take nothing."""
    assert [columns(each) for each in ("", "idle", "日本", "e\u0301", "◷■×")] == [0, 4, 4, 1, 3]
    assert padded("日", 4) == "日  "
    assert wrapped("", 5) == []
    assert wrapped("a bb ccc", 4) == ["a bb", "ccc"]
    assert wrapped("日本語 x", 4) == ["日本", "語 x"]
    assert wrapped("abcdefg h", 3) == ["abc", "def", "g h"]
