"""What each part of a move costs, in memory and in SQLite, for one caller: `make profile`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from session_fsm import SessionManager

from . import move_parts, move_profile
from .callers import Move
from .measuring import (
    EXIT_NOT_DURABLE,
    NotDurableError,
    durable_fsync_seconds,
    machine_lines,
    show,
    table,
)
from .subjects import there_and_back

TOP = 15
"""Lines of each profile."""


def lines(given: argparse.Namespace, fsync: float) -> Iterator[str]:
    """Measure, and yield what came out as Markdown."""
    yield "# What a move is made of"
    yield ""
    yield "Measured by `make profile`; one caller."
    yield ""
    yield from machine_lines(given.directory, fsync, ("session_fsm", "orjson", "attrs", "cattrs"))
    with tempfile.TemporaryDirectory(dir=given.directory) as made, ExitStack() as held:
        directory = Path(made)
        in_memory, stored = move_parts.measure(directory, given.rounds)
        yield ""
        yield "## Parts, each measured alone"
        yield ""
        yield (
            f"Medians of {given.rounds} turns. The parts are measured by public calls and by the"
            " floor, which writes the same bytes by hand. What is left of the whole is all else:"
            " the decision, the fields of the event, the ids, the lock and the slot, the condition"
            " on the revision, the database's constraints and indexes, the telling of subscribers."
        )
        for name, parts in (("memory://", in_memory), ("sqlite, synchronous=FULL", stored)):
            yield ""
            yield from table((name, "a move", "share"), move_parts.rows(parts))
        yield ""
        yield "## Statements"
        yield ""
        yield (
            "Each on the clock, on whichever thread it runs; COMMIT has the wait for the disk."
            " Triggers of the database are in the statement that fires them."
        )
        yield ""

        def opened(name: str) -> Move:
            manager = held.enter_context(SessionManager(f"sqlite:///{directory / name}"))
            manager.create("a")
            return there_and_back(manager, "a")

        spent = move_profile.statements(lambda: opened("statements.db"), given.moves)
        head = ("", "calls", "a move", "share")
        whole = sum(each.seconds for each in spent)
        yield from table((("statement", *head[1:])), move_profile.rows(spent, whole))
        memory = held.enter_context(SessionManager())
        memory.create("a")
        for name, act in (
            ("memory://", there_and_back(memory, "a")),
            ("sqlite", opened("profile.db")),
        ):
            modules, functions = move_profile.profiled(act, given.moves)
            whole = sum(each.seconds for each in modules)
            yield ""
            yield f"## Profile, {name}"
            yield ""
            yield (
                "Without what it called; the profiler makes every call dearer, so that the shares"
                " count. Only the caller's thread is seen: where another one works for it, that"
                " stands as a wait for a lock."
            )
            for what, found in (("module", modules), ("function", functions)):
                yield ""
                rows = move_profile.rows(found[:TOP], whole)
                yield from table((what, *head[1:]), rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the parts of a move.")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="where files are")
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--rounds", type=int, default=50, help="turns of each part")
    parser.add_argument("--moves", type=int, default=1000, help="moves that are profiled")
    parser.add_argument("--quick", action="store_true", help="few of both")
    given = parser.parse_args(arguments)
    if given.quick:
        given.rounds, given.moves = 5, 100
    given.directory.mkdir(parents=True, exist_ok=True)
    try:
        fsync = durable_fsync_seconds(given.directory)
    except NotDurableError as refused:
        print(refused, file=sys.stderr)
        return EXIT_NOT_DURABLE
    show(lines(given, fsync), given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
