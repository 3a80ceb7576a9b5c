"""Logs are read whole: rows in the order of time, and each fault with its file and line."""

import gzip
import json
import os
import runpy
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_fsm.replay.lines import CutOffError, LineEnd, read_contents, split_lines
from session_fsm.replay.reading import Fault, Log, read_log
from session_fsm.replay.rows import LogRow, RowKind

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "sample_trace.jsonl.gz"
TRANSCRIPTS = ROOT / "tests" / "data" / "claude_code"
START = 1767615451


def event(second: float = 0, session: str = "a", event: str = "response", **more: Any) -> bytes:
    """An event line with its line break."""
    row = {"ts": START + second, "session": session, "event": event, **more}
    return json.dumps(row).encode() + b"\n"


def write(path: Path, *lines: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(b"".join(lines))
    return path


def places(rows: Iterable[LogRow]) -> list[tuple[str, int]]:
    """The file and line of each row."""
    return [(Path(row.file).name, row.line) for row in rows]


def only_fault(log: Log, path: Path, line: int | None) -> str:
    """The problem of a log's only fault, which must stand at a place."""
    (fault,) = log.faults
    assert (fault.file, fault.line) == (str(path), line)
    return fault.problem


# --- rows -----------------------------------------------------------------------------------


def test_reading_row_has_all_that_a_replay_needs(tmp_path: Path) -> None:
    """A row has its instant, session, event, kind and place, and says whether it is a prompt."""
    path = write(tmp_path / "log", event(0.459, event="request"), event(1, event="interrupt"))
    log = read_log([path])
    assert log.faults == ()
    assert log.rows == (
        LogRow(
            at=datetime(2026, 1, 5, 12, 17, 31, 459000, tzinfo=UTC),
            session="a",
            event="request",
            kind=RowKind.BEGIN,
            request=True,
            file=str(path),
            line=1,
        ),
        LogRow(
            at=datetime(2026, 1, 5, 12, 17, 32, tzinfo=UTC),
            session="a",
            event="interrupt",
            kind=RowKind.END,
            request=False,
            file=str(path),
            line=2,
        ),
    )
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        log.rows[0].line = 2  # type: ignore[misc]  # that it can't be set is what is tested


def test_reading_rows_come_in_the_order_of_time(tmp_path: Path) -> None:
    """Rows of all files are in one order of time; on a tie, files and lines keep theirs."""
    first = write(tmp_path / "z", event(5), event(7), event(5, "b"))
    second = write(tmp_path / "a", event(5, "c"), event(4, "c"))
    assert places(read_log([first, second]).rows) == [
        ("a", 2),
        ("z", 1),
        ("z", 3),
        ("a", 1),
        ("z", 2),
    ]
    assert places(read_log([second, first]).rows)[:2] == [("a", 2), ("a", 1)]


def test_reading_late_rows_are_counted_before_sorting(tmp_path: Path) -> None:
    """Late is a row that stands behind a later one of its own session in its own file."""
    path = write(
        tmp_path / "log",
        event(10),
        event(3, "b"),  # another session
        event(9.999),  # late
        event(10),  # a tie is not late
        event(8),  # late
        event(9),  # late: the latest counts, not the row before
        event(11),
    )
    assert read_log([path]).late_rows == 3
    other = write(tmp_path / "other", event(1))  # another file of the same session
    assert read_log([path, other]).late_rows == 3


def test_reading_repeats_no_text(tmp_path: Path) -> None:
    """Rows share the text of their session and event, so that a million of them fit."""
    path = write(tmp_path / "log", *(event(second, "a-session") for second in range(3)))
    rows = read_log([path]).rows
    assert len({id(row.session) for row in rows}) == len({id(row.event) for row in rows}) == 1
    assert not hasattr(rows[0], "__dict__")


# --- files and directories ------------------------------------------------------------------


def test_reading_directory_is_all_logs_below_it(tmp_path: Path) -> None:
    """A directory stands for its logs at any depth, sorted, whatever else lies there."""
    (tmp_path / "b" / "deep").mkdir(parents=True)
    write(tmp_path / "b" / "deep" / "1.jsonl", event())
    write(tmp_path / "c.jsonl", event())
    write(tmp_path / "a.jsonl.gz", gzip.compress(event()))
    write(tmp_path / "notes.txt", b"no log")
    write(tmp_path / "b" / "x.json", b"no log")
    log = read_log([tmp_path])
    assert log.faults == ()
    assert places(log.rows) == [("a.jsonl.gz", 1), ("1.jsonl", 1), ("c.jsonl", 1)]


def test_reading_transcripts_directory() -> None:
    """A directory of transcripts is read with its sub-agents, in one order of time."""
    log = read_log([TRANSCRIPTS])
    assert log.faults == ()
    assert len({row.file for row in log.rows}) == 3
    assert len({row.session for row in log.rows}) == 2
    assert [row.at for row in log.rows] == sorted(row.at for row in log.rows)


def test_reading_directory_without_logs_is_a_fault(tmp_path: Path) -> None:
    """A directory with no log below it is reported, and what else was named is read."""
    (tmp_path / "empty").mkdir()
    path = write(tmp_path / "log", event())
    log = read_log([tmp_path / "empty", path])
    problem = only_fault(log, tmp_path / "empty", None)
    assert problem == ("a directory without logs: nothing below it is named *.jsonl or *.jsonl.gz")
    assert len(log.rows) == 1


def test_reading_file_named_twice_is_read_once(tmp_path: Path) -> None:
    """No row counts twice because its file was named twice, in whatever way."""
    path = write(tmp_path / "log.jsonl", event())
    (tmp_path / "link.jsonl").symlink_to(path)
    log = read_log([path, tmp_path, str(path), tmp_path / "." / "log.jsonl"])
    assert places(log.rows) == [("log.jsonl", 1)]


def test_reading_named_files_need_no_suffix(tmp_path: Path) -> None:
    """A file that is named is read whatever its name is, and its content tells what it is."""
    plain = write(tmp_path / "plain.gz", event())
    packed = write(tmp_path / "packed.txt", gzip.compress(event(1)))
    log = read_log([plain, packed])
    assert log.faults == ()
    assert places(log.rows) == [("plain.gz", 1), ("packed.txt", 1)]


def test_reading_nothing_gives_nothing() -> None:
    """No path is an empty log without a fault."""
    log = read_log([])
    assert (log.rows, log.faults, log.late_rows) == ((), (), 0)


def test_reading_missing_file_is_a_fault(tmp_path: Path) -> None:
    """A file that is not there is reported as a whole, and the rest is read."""
    path = write(tmp_path / "log", event())
    log = read_log([tmp_path / "gone", path])
    assert only_fault(log, tmp_path / "gone", None) == "can't be opened: No such file or directory"
    assert len(log.rows) == 1


def test_reading_unreadable_paths_are_faults(tmp_path: Path) -> None:
    """A path that the system refuses is reported in the system's words, never raised."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    path = write(tmp_path / "log", event())
    log = read_log([loop, path / "below", f"{path}\x00", path])
    assert [fault.line for fault in log.faults] == [None, None, None]
    assert all(fault.problem.startswith("can't be opened: ") for fault in log.faults)
    assert len(log.rows) == 1


def test_reading_error_in_the_middle_keeps_what_came_before() -> None:
    """When a file fails while it is read, the lines before are kept and the failure is told."""
    # Linux gives every process a file that opens but fails to be read: its own memory at 0.
    seen: list[int] = []
    with pytest.raises(CutOffError, match=r"^can't be read further: ") as caught:
        list(read_contents("/proc/self/mem", seen.append))
    assert seen == []
    assert caught.value.problem == str(caught.value)

    def failing() -> Iterable[bytes]:
        yield b"one\ntw"
        raise CutOffError("the disk is gone")

    lines = split_lines(failing(), 100)
    assert [(line.data, line.end) for line in (next(lines), next(lines))] == [
        (b"one", LineEnd.BREAK),
        (b"tw", LineEnd.DAMAGE),
    ]
    with pytest.raises(CutOffError, match="the disk is gone"):
        next(lines)


# --- gzip -----------------------------------------------------------------------------------


def test_reading_gzip_of_many_members_and_padding(tmp_path: Path) -> None:
    """Members one behind the other are one file, and zeros behind them are padding."""
    whole = b"".join(event(second) for second in range(5))
    members = [gzip.compress(whole[start : start + 100]) for start in range(0, len(whole), 100)]
    log = read_log([write(tmp_path / "log", *members, bytes(100_000))])
    assert log.faults == ()
    assert [row.line for row in log.rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("removed", [1, 8, 9, 1000])
def test_reading_truncated_gzip_keeps_the_rows_before(tmp_path: Path, removed: int) -> None:
    """Where a gzip stream ends too early, its rows are kept, and one fault tells the line."""
    whole = [event(second, noise=sha256(b"%d" % second).hexdigest()) for second in range(2000)]
    packed = gzip.compress(b"".join(whole))
    path = write(tmp_path / "log", packed[:-removed])
    log = read_log([path])
    line = len(log.rows) + 1
    assert only_fault(log, path, line) == "truncated gzip stream: the file ends too early"
    assert [row.line for row in log.rows] == list(range(1, line))
    # The checksum and the length are the last 8 bytes: without them no row is lost.
    assert line == 2001 if removed <= 8 else 1900 < line <= 2001


def test_reading_truncated_gzip_gives_all_that_is_in_it(tmp_path: Path) -> None:
    """Wherever a gzip stream is cut off, all that can be unpacked of it is handed out."""
    packed = gzip.compress(bytes(500_000))  # a byte of it stands for a thousand, or more
    for end in range(20, len(packed)):
        path = write(tmp_path / "log", packed[:end])
        pieces: list[bytes] = []
        with pytest.raises(CutOffError, match="truncated"):
            pieces.extend(read_contents(str(path), lambda _: None))
        assert b"".join(pieces) == zlib.decompressobj(31).decompress(packed[:end])


def test_reading_gzip_cut_in_its_header_is_one_fault(tmp_path: Path) -> None:
    """A gzip file without content is a truncated one, not an empty one besides."""
    path = write(tmp_path / "log", gzip.compress(event())[:5])
    problem = only_fault(read_log([path]), path, None)
    assert problem == "truncated gzip stream: the file ends too early"


def test_reading_damaged_gzip_keeps_the_rows_before(tmp_path: Path) -> None:
    """Behind a damage nothing can be unpacked: what came before is kept and the place is told."""
    whole = [event(second, noise=sha256(b"%d" % second).hexdigest()) for second in range(4000)]
    packed = bytearray(gzip.compress(b"".join(whole)))
    packed[-4:] = b"\0\0\0\0"  # a wrong length: every row can be unpacked
    path = write(tmp_path / "log", bytes(packed))
    log = read_log([path])
    assert only_fault(log, path, 4001).startswith("damaged gzip stream: ")
    assert len(log.rows) == 4000
    middle = len(packed) // 2
    packed[middle : middle + 64] = bytes(64)
    write(path, bytes(packed))
    log = read_log([path])
    assert any(fault.problem.startswith("damaged gzip stream: ") for fault in log.faults)
    assert len(log.rows) > 1900


def test_reading_rubbish_behind_gzip_is_a_fault(tmp_path: Path) -> None:
    """What follows a gzip stream and is none is reported, and the stream is read."""
    path = write(tmp_path / "log", gzip.compress(event()), b"rubbish")
    log = read_log([path])
    assert only_fault(log, path, 2).startswith("damaged gzip stream: ")
    assert len(log.rows) == 1


# --- lines ----------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=5) | st.sampled_from((b"\n", b"\n\n", b"a\n", b"\nb"))),
    st.integers(0, 6),
)
def test_reading_lines_do_not_depend_on_the_pieces(pieces: list[bytes], limit: int) -> None:
    """However contents are cut into pieces, their lines are the same; empty ones only count."""
    whole = b"".join(pieces)
    *broken, rest = whole.split(b"\n")
    expected = [(line, LineEnd.BREAK) for line in broken]
    if rest:
        expected.append((rest, LineEnd.FILE))
    assert [(line.number, line.data, line.end) for line in split_lines(pieces, limit)] == [
        (number, data if len(data) <= limit else None, end)
        for number, (data, end) in enumerate(expected, start=1)
        if data
    ]


def test_reading_lines_that_are_too_long_are_never_held() -> None:
    """A line beyond the bound is passed over in pieces: a terabyte of it would do no harm."""

    def contents() -> Iterable[bytes]:
        for _ in range(10_000):
            yield bytes(1024)
        yield b"\nnext"

    tracemalloc.start()
    try:
        first, second = split_lines(contents(), 4096)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert (first.number, first.data, first.end) == (1, None, LineEnd.BREAK)
    assert (second.number, second.data, second.end) == (2, b"next", LineEnd.FILE)


def test_reading_too_long_line_is_a_fault(tmp_path: Path) -> None:
    """A line beyond the bound is reported with its number; the lines around it are rows."""
    path = write(tmp_path / "log", event(0), event(1, padding="x" * 5000), event(2))
    log = read_log([path], max_line_bytes=1000)
    assert only_fault(log, path, 2) == "a line of more than 1000 bytes is not looked at"
    assert [row.line for row in log.rows] == [1, 3]


def test_reading_takes_other_line_breaks_blank_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    """What other systems put around the rows is no fault, and lines count as in an editor."""
    row = event().rstrip(b"\n")
    path = write(tmp_path / "log", b"\xef\xbb\xbf", row, b"\r\n\r\n  \n", row, b"\n\n", row)
    log = read_log([path])
    assert log.faults == ()
    assert [row.line for row in log.rows] == [1, 4, 6]


BAD_LINES = {
    "no JSON": (b"{not json}", "not JSON: "),
    "cut in the middle of a file": (b'{"ts": 17676', "not JSON: "),
    "two values": (b"{} {}", "not JSON: Extra data at column 4"),
    "a key twice": (b'{"ts":1,"ts":2}', 'the key "ts" stands twice in one object'),
    "a key twice, deep": (b'{"a":[{"b":1,"b":1}]}', 'the key "b" stands twice in one object'),
    "NaN": (b'{"ts":NaN,"session":"a","event":"x"}', "NaN is no JSON number"),
    "infinite": (b'{"ts":-Infinity}', "-Infinity is no JSON number"),
    "too large a float": (b'{"ts":1e999,"session":"a","event":"x"}', "ts: Infinity lies outside"),
    "too many digits": (b'{"ts":' + b"9" * 5000 + b"}", "a number with too many digits"),
    "an array": (b"[1,2]", "expected a JSON object, got [1, 2]"),
    "a number": (b"5", "expected a JSON object, got 5"),
    "null": (b"null", "expected a JSON object, got null"),
    "not UTF-8": (b'{"ts":1,"session":"\xff"}', "not UTF-8: invalid start byte at byte 19"),
    "half a pair": (b'{"ts":1,"session":"\\ud800","event":"x"}', 'session: "\\ud800" has'),
    "nested deep": (b"[" * 100_000 + b"]" * 100_000, "not read: nested too deeply"),
    "an object nested deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not read: nested too"),
    "zeros": (bytes(20), "not JSON: "),
    "another format": (b'{"type":"summary","summary":"x"}', "ts: expected seconds since 1970, it"),
}


@pytest.mark.parametrize(("line", "problem"), BAD_LINES.values(), ids=BAD_LINES)
def test_reading_bad_line_costs_that_line_alone(tmp_path: Path, line: bytes, problem: str) -> None:
    """A bad line in the middle is one fault with file and line, and the rest is read."""
    path = write(tmp_path / "log", event(0), line + b"\n", event(2))
    log = read_log([path])
    assert only_fault(log, path, 2).startswith(problem)
    assert [row.line for row in log.rows] == [1, 3]


@pytest.mark.parametrize(("line", "problem"), BAD_LINES.values(), ids=BAD_LINES)
def test_reading_bad_line_before_the_first_row(tmp_path: Path, line: bytes, problem: str) -> None:
    """A bad line counts as one even where no line before it has told what the file is."""
    path = write(tmp_path / "log", line + b"\n", event(1), event(2))
    if line.startswith(b'{"type"'):  # which tells that the file is a transcript
        log = read_log([path])
        assert [fault.line for fault in log.faults] == [2, 3]
        return
    log = read_log([path])
    assert only_fault(log, path, 1).startswith(problem)
    assert [row.line for row in log.rows] == [2, 3]


def test_reading_truncated_last_line(tmp_path: Path) -> None:
    """A last line that is no JSON and has no line break was cut off; a whole one is a row."""
    path = write(tmp_path / "log", event(0), event(1)[:-10])
    log = read_log([path])
    assert only_fault(log, path, 2).startswith("truncated last line: not JSON: ")
    assert [row.line for row in log.rows] == [1]
    write(path, event(0), event(1).rstrip(b"\n"))
    assert (len(read_log([path]).rows), read_log([path]).faults) == (2, ())


def test_reading_every_fault_is_told(tmp_path: Path) -> None:
    """All faults of all files are told in their order, and print as file, line and problem."""
    first = write(tmp_path / "a", event(0), b"x\n", event(1), b"[]\n")
    second = write(tmp_path / "b", b'{"ts":1,"event":"x"}\n', event(2))
    log = read_log([first, second, tmp_path / "c"])
    assert [(Path(fault.file).name, fault.line) for fault in log.faults] == [
        ("a", 2),
        ("a", 4),
        ("b", 1),
        ("c", None),
    ]
    assert str(log.faults[1]) == f"{first}:4: expected a JSON object, got []"
    assert str(log.faults[3]) == f"{tmp_path / 'c'}: can't be opened: No such file or directory"
    assert len(log.rows) == 3


# --- what is no log -------------------------------------------------------------------------

NO_LOGS = {
    "text": (b"Dear diary,\n\ntoday nothing ran.\n" * 50, "none of its 100 lines"),
    "binary": (bytes(range(256)) * 500, "none of its "),
    "one line": (b"hello", "its only line"),
    "another log": (b'{"level":"info","msg":"up"}\n{"level":"info","msg":"down"}\n', "none of"),
    "bookkeeping of nobody": (b'{"type":"mode","mode":"x"}\n', "its only line"),
    "truncated only line": (b'{"ts":17676', "its only line"),
    "array": (json.dumps([{"ts": 1, "session": "a", "event": "x"}]).encode(), "its only line"),
    "UTF-16": (event().decode().encode("utf-16"), "none of its 2 lines"),
}


@pytest.mark.parametrize(("content", "problem"), NO_LOGS.values(), ids=NO_LOGS)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_reading_no_log_is_one_fault(
    tmp_path: Path, content: bytes, problem: str, pack: Any
) -> None:
    """A file of which no line is recognized is one fault for the file, not one for each line."""
    path = write(tmp_path / "log", pack(content))
    good = write(tmp_path / "good", event())
    log = read_log([path, good])
    found = only_fault(log, path, None)
    assert found.startswith(f"not a log: {problem}")
    assert "(event lines or Claude Code transcript); line 1: " in found
    assert len(log.rows) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \n\r\n", gzip.compress(b""), b"\xef\xbb\xbf"],
    ids=["nothing", "blank lines", "gzip", "byte order mark"],
)
def test_reading_empty_file_is_a_fault(tmp_path: Path, content: bytes) -> None:
    """A file without any line, packed or not, is reported as empty."""
    path = write(tmp_path / "log", content)
    assert only_fault(read_log([path]), path, None) == "empty: there is no line in it"


def test_reading_no_log_in_a_truncated_gzip_is_both(tmp_path: Path) -> None:
    """That a file is cut off does not hide that what is there is no log."""
    text = "".join(f"line {number} of a diary\n" for number in range(999))
    path = write(tmp_path / "log", gzip.compress(text.encode())[:-4])
    faults = read_log([path]).faults
    assert [fault.line for fault in faults] == [None, 1000]
    assert faults[0].problem.startswith("not a log: none of its 999 lines")
    assert faults[1].problem.startswith("truncated gzip stream")


def test_reading_format_is_told_by_the_first_line_that_is_recognized(tmp_path: Path) -> None:
    """One file has one format: lines of another one are faults of that file."""
    transcript = json.dumps(
        {
            "type": "assistant",
            "sessionId": "t",
            "timestamp": "2026-03-02T09:00:00Z",
            "message": {"model": "m"},
        }
    ).encode()
    delta = b'{"type":"file-history-delta","timestamp":"2026-03-02T09:00:00Z"}'
    path = write(tmp_path / "log", b"x\n", delta, b"\n", transcript, b"\n", event(), transcript)
    log = read_log([path])
    # The second line is recognized by nobody, and is bookkeeping once the third has told.
    assert [fault.line for fault in log.faults] == [1, 4]
    assert log.faults[1].problem.startswith("type: expected a text, it is missing")
    assert [row.line for row in log.rows] == [3, 5]
    other = write(tmp_path / "other", event(), transcript, b"\n", event())
    both = read_log([path, other])
    assert [fault.line for fault in both.faults] == [1, 4, 2]
    assert len(both.rows) == 4


# --- digest and progress --------------------------------------------------------------------


def test_reading_digest_is_of_the_contents(tmp_path: Path) -> None:
    """The digest tells the same input, however named and packed, and no other one."""
    lines = [event(second) for second in range(3)]
    plain = write(tmp_path / "plain", *lines)
    packed = write(tmp_path / "packed", gzip.compress(b"".join(lines)))
    head = write(tmp_path / "head", lines[0])
    tail = write(tmp_path / "tail", *lines[1:])
    changed = write(tmp_path / "changed", *lines[:-1], lines[-1].replace(b"a", b"b"))
    longer = write(tmp_path / "longer", *lines, event(3))
    digest = read_log([plain]).digest
    assert len(digest) == 64
    assert read_log([packed]).digest == digest
    others = [[changed], [longer], [head], [head, tail], [tail, head], [plain, head], []]
    assert len({digest, *(read_log(paths).digest for paths in others)}) == 8


def test_reading_progress_reaches_the_end(tmp_path: Path) -> None:
    """Progress counts up through the bytes of all files, as they lie on the disk."""
    big = write(tmp_path / "big", *(event(second, pad="x" * 1000) for second in range(300)))
    packed = write(tmp_path / "packed", gzip.compress(event()))
    total = big.stat().st_size + packed.stat().st_size
    told: list[tuple[int, int]] = []
    read_log([big, packed], on_progress=lambda done, of: told.append((done, of)))
    assert told == sorted(told)
    assert len(told) > 3
    assert told[-1] == (total, total)
    assert {of for _, of in told} == {total}


def test_reading_error_of_the_progress_callback_is_not_swallowed(tmp_path: Path) -> None:
    """A caller's own mistake reaches the caller: it is no fault of the input."""
    path = write(tmp_path / "log", event())

    def fail(done: int, total: int) -> None:
        raise ValueError(f"{done} of {total}")

    with pytest.raises(ValueError, match="of"):
        read_log([path], on_progress=fail)


# --- whole traces ---------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Figures:
    """What is in a trace, counted by other means."""

    rows: int
    sessions: int
    requests: int


SAMPLE_FIGURES = Figures(rows=2706, sessions=25, requests=120)
SHARED_FIGURES = Figures(rows=99_790, sessions=277, requests=1_903)
TRACES = {"sample": (SAMPLE, SAMPLE_FIGURES)}
if shared := os.environ.get("SESSION_FSM_TRACE"):
    TRACES["shared"] = (Path(shared), SHARED_FIGURES)


@pytest.mark.parametrize(("path", "figures"), TRACES.values(), ids=TRACES)
def test_reading_trace_whole(path: Path, figures: Figures) -> None:
    """Every row of a good trace is read, in the order of time, without a fault."""
    log = read_log([path])
    assert log.faults == ()
    assert log.late_rows == 0
    assert (
        Figures(
            rows=len(log.rows),
            sessions=len({row.session for row in log.rows}),
            requests=sum(row.request for row in log.rows),
        )
        == figures
    )
    assert [row.line for row in log.rows] == list(range(1, figures.rows + 1))
    assert all(row.at.tzinfo is UTC for row in log.rows)


def test_reading_sample_is_what_its_script_makes(tmp_path: Path) -> None:
    """The sample is made by the script beside it, byte for byte, and says so again."""
    script = runpy.run_path(str(ROOT / "examples" / "make_sample.py"))
    script["main"](tmp_path / "one.gz")
    script["main"](tmp_path / "two.gz")
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    # Another build of zlib may pack it otherwise: what must not differ is the content.
    made = gzip.decompress((tmp_path / "one.gz").read_bytes())
    assert made == gzip.decompress(SAMPLE.read_bytes()) == script["sample_bytes"]()


def test_reading_sample_shows_every_rule() -> None:
    """The sample has each kind of row, and each way in which a session goes on or ends."""
    rows = read_log([SAMPLE]).rows
    assert set(Counter(row.kind for row in rows)) == set(RowKind)
    assert rows[-1].at - rows[0].at > timedelta(days=1)
    by_session: dict[str, list[LogRow]] = {}
    for row in rows:
        by_session.setdefault(row.session, []).append(row)
    assert len(by_session) >= 25

    def after_exit(session: str) -> list[RowKind]:
        kinds = [row.kind for row in by_session[f"sample-{session}"]]
        return kinds[kinds.index(RowKind.EXIT) + 1 :]

    assert RowKind.BEGIN not in after_exit("exit-idle")
    assert after_exit("back-after-exit").count(RowKind.EXIT) == 2
    in_flight = [row.kind for row in by_session["sample-exit-in-flight"]]
    last_turn = in_flight[: in_flight.index(RowKind.EXIT)]
    assert last_turn[::-1].index(RowKind.BEGIN) < last_turn[::-1].index(RowKind.END)
    assert RowKind.END not in {row.kind for row in by_session["sample-no-end-rows"]}
    dotted = by_session["sample-back-on-the-dot"]
    gaps = {later.at - row.at for row, later in pairwise(dotted)}
    assert timedelta(minutes=30) in gaps
    assert rows[-1].session == "sample-open-in-flight-at-end"
    assert rows[-1].kind is RowKind.BEGIN
    assert rows[-1].at - by_session["sample-open-idle-at-end"][-1].at < timedelta(minutes=30)


def test_reading_fault_is_data() -> None:
    """Faults compare by what they say, so that two readings of one input can be compared."""
    fault = Fault(file="a", line=None, problem="empty")
    assert fault == Fault(file="a", line=None, problem="empty")
    assert str(fault) == "a: empty"
