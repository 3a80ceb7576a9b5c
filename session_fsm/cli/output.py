"""The answer of a command: tables in colour for people, one JSON document for machines.

Whatever text comes here is shown, never obeyed: it goes through `safe`, and rich's own markup,
emoji codes and highlighting are off. Colour is rich's business: none where the output is no
terminal, or `NO_COLOR` or `--no-color` forbids it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, Final, TextIO

import attrs
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from .text import safe

PROGRAM: Final = "session-fsm"

SENTENCE: Final = 24
"""Least width of a column with sentences."""
WORDS: Final = 12
"""Least width of a column with a few words."""

_WHOLE_WORD: Final = 40
"""Longest word that is not broken, wherever it stands, in cells of the terminal; a UUID has 36."""
_GAP: Final = 2
_PIECE: Final = 8192
"""Most characters that are written at once."""
_UNBOUNDED: Final = 1_000_000
"""Width where nobody watches: lines are for programs, which want them whole."""


@attrs.frozen
class Styled:
    """Text in a style of rich, such as `bold red`."""

    text: str
    style: str


Cell = str | int | Styled


@attrs.frozen
class Column:
    """A column of a table.

    Attributes:
        title: What stands above it.
        right: Whether it is set to the right, as numbers are.
        least: Its least width, below which it is not squeezed, where its text may be broken into
            several lines; None: it is never broken, so that an id can be read and copied.
    """

    title: str
    right: bool = False
    least: int | None = None


OnProgress = Callable[[int, int], None]
"""Told, again and again, how much is done and how much there is."""


class Bar:
    """The progress of long work, phase by phase; silent where nobody watches."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def phase(self, what: str) -> OnProgress:
        """Begin a phase of unknown length; what is returned tells how far it is."""
        progress = self._progress
        if progress is None:
            return _tell_nobody
        if self._task is None:
            progress.start()
        else:
            progress.remove_task(self._task)
        task = self._task = progress.add_task(what, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return tell

    def end(self) -> None:
        """Take the progress off the terminal, if there was any."""
        if self._progress is not None and self._task is not None:
            self._progress.stop()


def _tell_nobody(done: int, total: int) -> None:
    """Let progress pass unseen."""


class Screen:
    """Where one command prints its answer, and what it has to say besides.

    Args:
        as_json: Whether the answer is for machines: one JSON document on the standard output.
        no_color: Whether colours are off, whatever the terminal and the environment say.
    """

    def __init__(self, *, as_json: bool = False, no_color: bool = False) -> None:
        self.as_json = as_json
        self._out = _console(no_color=no_color, stderr=False)
        self._err = _console(no_color=no_color, stderr=True)

    @property
    def watched(self) -> bool:
        """Whether a person sees what is said on the standard error."""
        return _is_terminal(sys.stderr) and not self.as_json

    # --- the answer -----------------------------------------------------------------------

    def document(self, value: Any) -> None:
        """Print JSON, in ASCII, so that it is safe on any terminal and in any encoding."""
        self._write(json.dumps(_plain(value), indent=2, ensure_ascii=True, allow_nan=False) + "\n")

    def line(self, *parts: Cell) -> None:
        """Print one line."""
        self._print(_text(*parts))

    def text(self, text: str) -> None:
        """Print text that was made here, such as a diagram, as it is."""
        self._write(text)

    def facts(self, facts: Iterable[tuple[str, Cell]]) -> None:
        """Print names and values, one below the other."""
        self.rows((Column(""), Column("", least=SENTENCE)), facts)

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        """Print a table with a header."""
        header = [Styled(column.title, "bold") for column in columns]
        self.rows(columns, [header, *rows])

    def rows(self, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
        """Print a table without a header."""
        texts = [[_text(cell) for cell in row] for row in rows]
        widths = [max(map(_width, cells)) for cells in zip(*texts, strict=True)]
        _squeeze(widths, columns, texts, self._out.width)
        for row in texts:
            cells = [
                text.wrap(self._out, width, overflow="fold") if column.least else (text,)
                for column, width, text in zip(columns, widths, row, strict=True)
            ]
            for parts in zip_longest(*cells, fillvalue=Text()):
                self._print(_line(columns, widths, parts))

    def _print(self, line: Text) -> None:
        # Rich breaks no line here: where one is too long, the terminal does it, and what is
        # copied from there is whole.
        self._out.print(line, soft_wrap=True)

    def data(self, data: bytes) -> None:
        """Write bytes as they are."""
        sys.stdout.flush()
        left = memoryview(data)
        while left:
            left = left[sys.stdout.buffer.write(left) :]

    def _write(self, text: str) -> None:
        # An unbuffered output takes of a long text what fits into a pipe whose reader goes away,
        # and says so only to the next piece.
        for start in range(0, len(text), _PIECE):
            sys.stdout.write(text[start : start + _PIECE])

    # --- what is said besides -------------------------------------------------------------

    def note(self, *parts: Cell) -> None:
        """Say something on the standard error that is no part of the answer."""
        self._err.print(_text(*parts), soft_wrap=True)

    def fault(self, problem: str) -> None:
        """Say on the standard error, in one line, what went wrong."""
        self.note(Styled(f"{PROGRAM}: ", "bold red"), problem)

    def confirmed(self, question: str) -> bool:
        """Ask on the standard error; whether the answer was yes. No answer is a no."""
        self._err.print(_text(question, " [y/N] "), end="", soft_wrap=True)
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):
            self._err.print()
        return answer.strip().lower() in ("y", "yes")

    @contextmanager
    def progress(self) -> Iterator[Bar]:
        """Show on the standard error how far long work is, if a person watches."""
        if not self.watched:
            yield Bar(None)
            return
        progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self._err,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        bar = Bar(progress)
        try:
            yield bar
        finally:
            bar.end()


def _console(*, no_color: bool, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        no_color=no_color or None,
        width=None if _is_terminal(stream) else _UNBOUNDED,
    )


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _text(*parts: Cell) -> Text:
    text = Text()
    for part in parts:
        if isinstance(part, Styled):
            text.append(safe(part.text), part.style)
        else:
            text.append(f"{part:,}" if isinstance(part, int) else safe(part))
    return text


def _squeeze(
    widths: list[int], columns: Sequence[Column], texts: Sequence[Sequence[Text]], room: int
) -> None:
    """Make columns that may be broken narrower until all fit side by side, the widest first."""
    least = [
        width if column.least is None else max(column.least, _longest_word(cells))
        for column, width, cells in zip(columns, widths, zip(*texts, strict=True), strict=False)
    ]
    for _ in range(sum(widths) + _GAP * (len(widths) - 1) - room):
        spare = [(width, i) for i, width in enumerate(widths) if width > least[i]]
        if not spare:
            return
        widths[max(spare)[1]] -= 1


def _longest_word(cells: Iterable[Text]) -> int:
    """Return the width of the longest word, or of what is left of it when it has to be broken."""
    words = (cell_len(word) for cell in cells for word in cell.plain.split())
    return min(max(words, default=0), _WHOLE_WORD)


def _line(columns: Sequence[Column], widths: Sequence[int], parts: Sequence[Text]) -> Text:
    """Return one line of a table, nothing behind its last word."""
    line = Text()
    for column, width, part in zip(columns, widths, parts, strict=True):
        padding = " " * (width - _width(part))
        line.append(padding if column.right else "").append_text(part)
        line.append(("" if column.right else padding) + " " * _GAP)
    line.rstrip()
    return line


def _width(text: Text) -> int:
    return cell_len(text.plain)


def _plain(value: Any) -> Any:
    """Return JSON whose texts can be written in UTF-8, as names of files need not be."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
