"""A replay in a process of its own, to be killed: it tells each position that it has come to.

    python replay_process.py LOG FILE ROWS_PER_BATCH AFTER STATEMENT

It stands still before one of the statements that it sends to the database once it has told the
position AFTER, or, if AFTER is -1, from the beginning. STATEMENT is a number, counted from 1 (0: it
never stands still), or `commit`, or `committed`: the statement that comes after a commit.
"""

from __future__ import annotations

import sqlite3
import sys
from typing import Any

from session_fsm.replay import read_log, replay
from session_fsm.stores import open_store


class Halt:
    """Watches statements, and stands still before one of them."""

    def __init__(self, after: int, statement: str) -> None:
        self._after = after
        self._awaited = statement
        self._watching = after < 0
        self._seen = 0
        self._committing = False

    def at(self, position: int) -> None:
        """Tell the position; from the right one on, statements are watched."""
        say(f"at {position}")
        self._watching = self._watching or position >= self._after

    def statement(self, text: str) -> None:
        """Note a statement that is about to be run."""
        if not self._watching:
            return
        self._seen += 1
        met = {str(self._seen)}
        if self._committing:
            met.add("committed")
        self._committing = text == "COMMIT"
        if self._committing:
            met.add("commit")
        if self._awaited in met:
            say("halted")
            sys.stdin.readline()


def say(what: str) -> None:
    """Say one thing to whoever started the process."""
    print(what, flush=True)


def main(log: str, file: str, rows_per_batch: str, after: str, statement: str) -> None:
    """Replay a log into a file."""
    halt = Halt(int(after), statement)
    connect = sqlite3.connect

    def connect_and_count(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(halt.statement)
        return connection

    sqlite3.connect = connect_and_count  # type: ignore[assignment]  # a tap, in this process only
    rows = read_log([log])
    say("read")
    store = open_store(f"sqlite:///{file}")
    size = int(rows_per_batch)
    replay(rows, store, rows_per_batch=size, on_progress=lambda done, _: halt.at(done))
    store.close()
    say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
