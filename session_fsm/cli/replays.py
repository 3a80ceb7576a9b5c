"""The command that drives the sessions of real logs through the lifecycle: replay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..diagrams import render
from ..fields import MAX_TIMEOUT_MINUTES
from ..replay import Fault, Log, Report, read_log, replay
from ..stores import MemoryStore
from ..table import SESSION_LIFECYCLE
from .opening import StoreMissingError, check_there, file_of, opened_store
from .options import STORE_VARIABLE, AsJson, KeyFile, NoColor, UsageError
from .output import Bar, Cell, Column, OnProgress, Screen, Styled
from .pictures import diagram_format, write_diagram
from .text import counted, duration

_MEMORY: Final = "memory://"
_MOST_FAULTS: Final = 20
"""Most faults of a log that are named one by one to people."""
_MOST_QUIET_SECONDS: Final = 1e9


def replay_logs(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="Logs, plain or gzip, or directories, which stand for the *.jsonl and *.jsonl.gz"
            " below them.",
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            envvar=STORE_VARIABLE,
            metavar="URL",
            show_default="memory://",
            help="Where the sessions are kept; made if it is missing. A replay that was interrupted"
            " goes on from there.",
        ),
    ] = None,
    timeout_minutes: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_TIMEOUT_MINUTES,
            metavar="MINUTES",
            help="Minutes after the last activity at which a session expires.",
        ),
    ] = 30,
    quiet_gap_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Seconds without a row after which a turn counts as ended that no row has ended.",
        ),
    ] = 120.0,
    diagram: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Draw the lifecycle with the number of moves along each edge; the format follows"
            " from the ending of the name.",
        ),
    ] = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> None:
    """Drive the sessions of real logs through the lifecycle, each at its own times, and report.

    That is the lifecycle of a session, whose triggers the rows of a log stand for; it takes no
    other.
    Takes the transcripts of Claude Code (projects/**/*.jsonl) and event lines. What can't be read
    is named with file and line, the rest is replayed, and the exit code is 1.
    """
    screen = Screen(as_json=as_json, no_color=no_color)
    if not quiet_gap_seconds <= _MOST_QUIET_SECONDS:  # neither is what is no number at all
        problem = f"expected at most {_MOST_QUIET_SECONDS:,.0f} seconds, got {quiet_gap_seconds}"
        raise UsageError("--quiet-gap-seconds", problem)
    format = None if diagram is None else diagram_format("--diagram", diagram)
    url = store or _MEMORY
    _check(url, key_file)
    with screen.progress() as bar:
        log = read_log(paths, on_progress=bar.phase("reading"))
        report, where = _replayed(
            log,
            url,
            key_file=key_file,
            timeout_minutes=timeout_minutes,
            quiet_gap_seconds=quiet_gap_seconds,
            on_progress=_then_verifying(bar),
        )
    if diagram is not None and format is not None:
        write_diagram(diagram, render(SESSION_LIFECYCLE, format, counts=report.moves()))
    if as_json:
        screen.document(report.as_dict() | {"store": where, "faults": _fault_records(log.faults)})
    else:
        _print_report(screen, report, where)
        if diagram is not None:
            screen.note(f"{diagram} written")
    _print_faults(screen, log.faults)
    if not report.verified:
        screen.fault(f"{counted(len(report.problems), 'problem')} found in the store")
    if log.faults or not report.verified:
        raise typer.Exit(1)


def _check(url: str, key_file: Path | None) -> None:
    """Name a URL that is no good before hours of reading; no store is made by that."""
    if file_of(url) is None:
        with contextlib.suppress(StoreMissingError):
            check_there(url)
            opened_store(url, key_file=key_file).close()


def _replayed(
    log: Log,
    url: str,
    *,
    key_file: Path | None,
    timeout_minutes: int,
    quiet_gap_seconds: float,
    on_progress: OnProgress,
) -> tuple[Report, str]:
    """Replay a log into the store that a URL names; one without rows, into none that is kept.

    A store that was fed once takes nothing but the same input again: a misspelt path must not be
    the input that it knows.
    """
    store = opened_store(url, key_file=key_file) if log.rows else MemoryStore(SESSION_LIFECYCLE)
    try:
        report = replay(
            log,
            store,
            timeout_minutes=timeout_minutes,
            quiet_gap_seconds=quiet_gap_seconds,
            on_progress=on_progress,
        )
        return report, store.url
    finally:
        store.close()


def _then_verifying(bar: Bar) -> OnProgress:
    replaying = bar.phase("replaying")

    def tell(done: int, total: int) -> None:
        replaying(done, total)
        if done == total:
            bar.phase("verifying")

    return tell


# --- faults ----------------------------------------------------------------------------------


def _fault_records(faults: tuple[Fault, ...]) -> list[dict[str, Any]]:
    return [{"file": each.file, "line": each.line, "problem": each.problem} for each in faults]


def _print_faults(screen: Screen, faults: tuple[Fault, ...]) -> None:
    for fault in faults[:_MOST_FAULTS]:
        screen.fault(str(fault))
    if len(faults) > _MOST_FAULTS:
        screen.fault(f"and {len(faults) - _MOST_FAULTS:,} more")


# --- the report, for people ------------------------------------------------------------------


def _print_report(screen: Screen, report: Report, where: str) -> None:
    screen.facts(_totals(report, where))
    screen.line()
    columns = (Column(""), Column(""), Column("", right=True))
    screen.rows(columns, _counts(report))
    for problem in report.problems:
        screen.line(Styled("problem: ", "red"), problem)


def _totals(report: Report, where: str) -> Iterator[tuple[str, Cell]]:
    rate = report.rows_per_second
    speed = "" if rate is None else f", {rate:,.0f} a second"
    yield "store", where
    yield "rows", f"{report.rows:,}{speed}"
    yield "requests", report.requests
    successors = counted(report.successors, "successor")
    yield "sessions", f"{report.sessions:,}, {successors} among them"
    yield "most open at once", report.peak_open
    yield "late rows", report.late_rows
    yield "trailing rows", report.trailing_rows
    yield "verified", Styled("yes", "bold green") if report.verified else Styled("no", "bold red")


def _counts(report: Report) -> Iterator[tuple[Cell, Cell, Cell]]:
    moves = {f"{source} → {target}": n for (source, target), n in report.moves().items()}
    spent = {status: duration(each) for status, each in report.seconds_in_status.items()}
    yield from _group("ended", report.ended)
    yield from _group("moves", moves)
    yield from _group("time in", spent)
    yield from _group("refusals", report.refusals)
    yield from _group("findings", report.findings)


def _group(
    name: str, values: Mapping[str, Cell] | Mapping[str, int]
) -> Iterator[tuple[Cell, Cell, Cell]]:
    """Yield a row for each value, the name of the group at the first alone."""
    if not values:
        yield name, "none", ""
    for what, value in values.items():
        yield name, what, value
        name = ""
