"""Logs are read: files become rows in the order of time, and every fault names file and line.

A bad line costs that line and a bad file that file: the rest is read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import attrs

from ..jsonvalue import JsonError, parse_json, shown
from .files import log_files
from .formats import FORMATS, Format, RowError
from .lines import CutOffError, Line, LineEnd, read_contents, split_lines
from .rows import REQUEST, LogRow, kind_of

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Longest line that is looked at, in bytes."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_KNOWN: Final = " or ".join(format.name for format in FORMATS)

Progress = Callable[[int, int], None]
"""Told, again and again, how many bytes of the input were read and how many there are."""


@attrs.frozen(kw_only=True)
class Fault:
    """Something that could not be read."""

    file: str
    line: int | None
    """Counted from 1; None if it is about the whole file."""
    problem: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.problem}"


@attrs.frozen(kw_only=True)
class Log:
    """What was read."""

    rows: tuple[LogRow, ...]
    """In the order of time; rows of the same instant in the order of the input."""
    late_rows: int
    """How many rows stand in their file after a later row of their session."""
    faults: tuple[Fault, ...]
    """Those of the paths, then those of the files in their order; empty if all was read."""
    digest: str
    """SHA-256 over the unpacked contents of the files in their order, in hexadecimal."""


def read_log(
    paths: Iterable[str | os.PathLike[str]],
    *,
    on_progress: Progress | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Log:
    """Read the logs at some paths, of any format, plain or gzip.

    Args:
        paths: Files, and directories, which stand for the logs below them; see
            `files.log_files`.
        on_progress: Told how far the reading is.
        max_line_bytes: Longest line that is looked at; a longer one is a fault.

    Returns:
        All that could be read. Bad input raises nothing: it is in `Log.faults`.
    """
    faults: list[Fault] = []
    files = log_files(
        paths, lambda file, problem: faults.append(Fault(file=file, line=None, problem=problem))
    )
    total, done = sum(map(_size, files)), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if on_progress is not None:
            on_progress(done, total)

    rows: list[LogRow] = []
    late_rows = 0
    digest = hashlib.sha256()
    words: dict[str, str] = {}
    for file in files:
        reader = _FileReader(file, words, max_line_bytes)
        digest.update(reader.read(count))
        rows += reader.rows
        faults += reader.faults
        late_rows += reader.late_rows
    rows.sort(key=attrgetter("at"))
    return Log(
        rows=tuple(rows), late_rows=late_rows, faults=tuple(faults), digest=digest.hexdigest()
    )


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except (OSError, ValueError):
        return 0  # the fault is reported where the file is read


class _FileReader:
    """Reads one file, once."""

    def __init__(self, file: str, words: dict[str, str], max_line_bytes: int) -> None:
        self.rows: list[LogRow] = []
        self.faults: list[Fault] = []
        self.late_rows = 0
        self._file = file
        self._words = words  # one copy of each id and event, however many rows have it
        self._max_line_bytes = max_line_bytes
        self._latest: dict[str, datetime] = {}
        self._format: Format | None = None
        # The lines before the first that a format recognizes, with what is wrong with each if the
        # file turns out to be of the first, the second, … of the formats.
        self._strangers: list[tuple[int, tuple[str | None, ...]]] = []

    def read(self, on_bytes: Callable[[int], None]) -> bytes:
        """Read the file into the public attributes, and return the digest of its contents."""
        digest = hashlib.sha256()
        contents = _hashed(read_contents(self._file, on_bytes), digest)
        number, damage = None, None
        try:
            for line in split_lines(contents, self._max_line_bytes):
                number = line.number
                self._take(line)
        except CutOffError as fault:
            damage = fault.problem
        if self._format is None and (self._strangers or damage is None):
            self._fault(None, self._no_log())
        if damage is not None:
            self._fault(number, damage)
        return digest.digest()

    def _take(self, line: Line) -> None:
        try:
            value = _value_of(line, self._max_line_bytes)
            if value is None:
                return
            if self._format is None:
                self._format = next((each for each in FORMATS if each.recognizes(value)), None)
                if self._format is None:
                    problems = tuple(_problem(each, value) for each in FORMATS)
                    self._strangers.append((line.number, problems))
                    return
                self._settle(FORMATS.index(self._format))
            self._add(line.number, self._format, value)
        except RowError as fault:
            if line.end is LineEnd.DAMAGE:
                return  # the damage is the fault, not the line that it broke
            if self._format is None:
                self._strangers.append((line.number, (str(fault),) * len(FORMATS)))
            else:
                self._fault(line.number, str(fault))

    def _settle(self, index: int) -> None:
        """Report the lines before the first that was recognized as what they are."""
        for number, problems in self._strangers:
            if (problem := problems[index]) is not None:
                self._fault(number, problem)
        self._strangers.clear()

    def _add(self, number: int, format: Format, value: Mapping[str, Any]) -> None:
        if (entry := format.entry(value)) is None:
            return
        session = self._words.setdefault(entry.session, entry.session)
        latest = self._latest.get(session)
        if latest is not None and entry.at < latest:
            self.late_rows += 1
        else:
            self._latest[session] = entry.at
        self.rows.append(
            LogRow(
                at=entry.at,
                session=session,
                event=self._words.setdefault(entry.event, entry.event),
                kind=kind_of(entry.event, entry.fields),
                request=entry.event == REQUEST,
                file=self._file,
                line=number,
            )
        )

    def _fault(self, line: int | None, problem: str) -> None:
        self.faults.append(Fault(file=self._file, line=line, problem=problem))

    def _no_log(self) -> str:
        if not self._strangers:
            return "empty: there is no line in it"
        number, problems = self._strangers[0]
        what = next((each for each in problems if each is not None), "nothing that is a row")
        count = len(self._strangers)
        lines = "its only line is" if count == 1 else f"none of its {count} lines is"
        return f"not a log: {lines} of a known format ({_KNOWN}); line {number}: {what}"


def _hashed(contents: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for piece in contents:
        digest.update(piece)
        yield piece


def _value_of(line: Line, max_line_bytes: int) -> Mapping[str, Any] | None:
    """Return the JSON object that is a line; None for a blank line. Raises `RowError`."""
    data = line.data
    if data is None:
        raise RowError(f"a line of more than {max_line_bytes} bytes is not looked at")
    if line.number == 1:
        data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data or data.isspace():
        return None
    try:
        value = parse_json(data)
    except JsonError as fault:
        # A line of a log has no lines of its own.
        problem = str(fault).replace(" line 1 column ", " column ")
        if line.end is LineEnd.FILE:
            problem = f"truncated last line: {problem}"
        raise RowError(problem) from None
    if not isinstance(value, dict):
        raise RowError(f"expected a JSON object, got {shown(value)}")
    return value


def _problem(format: Format, value: Mapping[str, Any]) -> str | None:
    """Say what a format has against a line that it did not recognize; None for nothing."""
    try:
        format.entry(value)
    except RowError as fault:
        return str(fault)
    return None
