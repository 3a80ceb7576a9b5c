"""What the database lets pass, found by attacking a real store file with plain SQL.

The store makes the file, its tables and its rules; everything else here goes past it, as anybody
could who has the file. No statement knows what is legal: which pairs of statuses pass is found by
trying all of them, and compared with the graph afterwards.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import Any

import attrs

from ..lifecycle import Lifecycle
from ..stores.sqlite import SqliteStore
from .findings import Claim, Findings

_INSERT = (
    "INSERT INTO session (session_id, lifecycle, revision, status, state, digest)"
    " VALUES (?, ?, ?, ?, '{}', '')"
)
_UPSERT = f"{_INSERT} ON CONFLICT DO UPDATE SET status = ?, revision = revision + 1"
_TAKE_ROW = (
    "INSERT INTO session (rowid, session_id, lifecycle, revision, status, state, digest)"
    " SELECT rowid, ?, ?, 1, ?, '{}', '' FROM session WHERE session_id = ?"
)
_MOVE_ALL = "UPDATE session SET status = ?, revision = revision + 1"
_MOVE = f"{_MOVE_ALL} WHERE session_id = ?"
_RENAME = "UPDATE session SET session_id = ?, revision = revision + 1 WHERE session_id = ?"
_CONVERT = "UPDATE session SET lifecycle = ?, revision = revision + 1 WHERE session_id = ?"
_RENUMBER = "UPDATE session SET rowid = ?, revision = revision + 1 WHERE session_id = ?"
_SKIP = "UPDATE session SET revision = revision + ? WHERE session_id = ?"
_DELETE_ALL = "DELETE FROM session"
_DELETE = f"{_DELETE_ALL} WHERE session_id = ?"
_CONFLICTS = ("", "OR ABORT ", "OR FAIL ", "OR IGNORE ", "OR REPLACE ", "OR ROLLBACK ")
_SETTINGS = ("recursive_triggers = OFF", "recursive_triggers = ON")
"""With the second, what a REPLACE removes is seen by triggers; the rules must not rest on it."""
_BEGUN = 3
"""The revision of every session before it is attacked."""

Sessions = dict[str, tuple[Any, ...]]
"""Each session by its id: row id, lifecycle, revision, status, and what else is stored of it."""


@attrs.frozen
class Attacked:
    """How many statements of a kind were tried.

    Attributes:
        what: What they tried, in words.
        admitted: How many the database let pass.
        refused: How many it refused, the file left as it was.
    """

    what: str
    admitted: int
    refused: int


@attrs.frozen
class Attack:
    """What the attacks on a store file showed.

    Attributes:
        edges: The pairs of different statuses of which a statement made one into the other.
        kinds: What was tried, by kind.
    """

    edges: frozenset[tuple[str, str]]
    kinds: tuple[Attacked, ...]


@attrs.frozen
class _Statement:
    """One attack, on the session that stands in `status`.

    Attributes:
        what: Its kind, in words.
        status: The status of the session that is attacked; the others must not change.
        sql: The statement.
        values: What it is given.
        after: The status that the session has to have afterwards, one revision on; the same word
            for a step that stays. `_GONE`: it has to be removed. `_MADE`: the session `new` has to
            be there. None: it has to be refused.
    """

    what: str
    status: str
    sql: str
    values: tuple[Any, ...] = ()
    after: str | None = None


_GONE, _MADE = "(gone)", "(made)"
_NEW = "new"


def attack(lifecycle: Lifecycle, findings: Findings) -> Attack:
    """Attack a store of a lifecycle, made for it in a directory that is thrown away.

    Raises:
        StoreError: The store could not be made.
    """
    with tempfile.TemporaryDirectory(prefix="session_fsm-") as directory:
        path = Path(directory, "certified.db")
        SqliteStore(path, lifecycle).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as sql:
            sql.execute("PRAGMA synchronous = OFF")  # it is thrown away at the end
            return _Attacker(sql, lifecycle, findings).attack()


def _id(status: str) -> str:
    return f"in {status}"


def _forms(sql: str) -> Iterator[str]:
    """Yield a statement with each way to go on after a conflict."""
    verb, rest = sql.split(" ", 1)
    for conflict in _CONFLICTS:
        yield f"{verb} {conflict}{rest}"


class _Attacker:
    """Whoever attacks a store file.

    Args:
        sql: A connection to the file; commits at once.
        lifecycle: The lifecycle of the sessions in it.
        findings: Where what is wrong is kept.
    """

    def __init__(self, sql: sqlite3.Connection, lifecycle: Lifecycle, findings: Findings) -> None:
        self._sql = sql
        self._findings = findings
        self._name = lifecycle.name
        self._initial = str(lifecycle.initial)
        self._final = frozenset(map(str, lifecycle.final))
        self._legal = frozenset((str(source), str(target)) for source, target in lifecycle.edges)
        self._statuses = [str(status) for status in lifecycle.statuses]
        self._edges: set[tuple[str, str]] = set()
        self._kinds: dict[str, list[int]] = {}
        self._begun: Sessions = {}

    def attack(self) -> Attack:
        """Put a session into each status, and try every statement on it."""
        self._settle()
        self._begun = self._sessions()
        for setting in _SETTINGS:
            self._sql.execute(f"PRAGMA {setting}")
            for statement in self._statements():
                self._try(statement)
        assert self._sessions() == self._begun  # whatever was let pass was undone
        kinds = (Attacked(what, *counted) for what, counted in self._kinds.items())
        return Attack(frozenset(self._edges), tuple(kinds))

    # --- where the sessions stand ---------------------------------------------------------

    def _settle(self) -> None:
        """Put a session into each status, along the graph, all at the same revision."""
        ways: dict[str, tuple[str, ...]] = {self._initial: ()}
        for status in (found := [self._initial]):
            for source, target in sorted(self._legal):
                if source == status and target not in ways:
                    ways[target] = (*ways[status], target)
                    found.append(target)
        for status in self._statuses:
            begun = (_id(status), self._name, _BEGUN - len(ways[status]), self._initial)
            self._sql.execute(_INSERT, begun)
            here = self._initial
            for target in ways[status]:
                try:
                    self._sql.execute(_MOVE, (target, _id(status)))
                except sqlite3.Error as fault:
                    self._found(f"{here!r} → {target!r}", f"is refused: {fault}")
                    break
                here = target
        self._statuses = [
            status
            for status in self._statuses
            if self._sessions().get(_id(status), ("",) * 4)[3] == status
        ]

    def _sessions(self) -> Sessions:
        rows = self._sql.execute(
            "SELECT session_id, rowid, lifecycle, revision, status, deadline_at, ended_at, state"
            " FROM session"
        )
        return {session_id: tuple(rest) for session_id, *rest in rows}

    # --- statements -----------------------------------------------------------------------

    def _statements(self) -> Iterator[_Statement]:
        for status in self._statuses:
            yield from self._moves(status)
            yield from self._changes(status)
            yield from self._inserts(status)
            yield from self._removals(status)

    def _moves(self, status: str) -> Iterator[_Statement]:
        key, stays = _id(status), status not in self._final
        for target in (*self._targets(), None):
            legal = stays if target == status else (status, target) in self._legal
            what = "update the status, from each to each"
            for sql in _forms(_MOVE):
                yield _Statement(what, status, sql, (target, key), target if legal else None)
            what = "insert with an update on conflict, from each to each"
            values = (key, self._name, 1, self._initial, target)
            yield _Statement(what, status, _UPSERT, values)
        yield _Statement("update all at once", status, _MOVE_ALL, (status,))

    def _targets(self) -> tuple[str, ...]:
        unknown = "(unknown)"
        while unknown in self._statuses:
            unknown += "?"
        return (*self._statuses, unknown)

    def _changes(self, status: str) -> Iterator[_Statement]:
        key = _id(status)
        others = [_id(each) for each in self._statuses if each != status]
        for what, update, values in (
            ("change the id", _RENAME, (_NEW, *others, None)),
            ("change the lifecycle", _CONVERT, (_NEW, None)),
            ("change the number of the row", _RENUMBER, (-1, 10**9)),
            ("change something without one step more", _SKIP, (0, -1, 2)),
        ):
            for value, sql in product(values, _forms(update)):
                yield _Statement(what, status, sql, (value, key))

    def _inserts(self, status: str) -> Iterator[_Statement]:
        name, initial, key = self._name, self._initial, _id(status)
        begins = _MADE if status == initial else None
        for sql in _forms(_INSERT):
            yield _Statement("insert in each status", status, sql, (_NEW, name, 1, status), begins)
            what = "insert under another lifecycle"
            yield _Statement(what, status, sql, (_NEW, f"{name}?", 1, status))
            what = "replace a session in each status by a new one"
            yield _Statement(what, status, sql, (key, name, 1, initial))
        for sql in _forms(_TAKE_ROW):
            what = "replace the row of a session in each status"
            yield _Statement(what, status, sql, (_NEW, name, initial, key))

    def _removals(self, status: str) -> Iterator[_Statement]:
        gone = _GONE if status in self._final else None
        yield _Statement("delete in each status", status, _DELETE, (_id(status),), gone)
        yield _Statement("delete all at once", status, _DELETE_ALL)

    # --- trying ---------------------------------------------------------------------------

    def _try(self, statement: _Statement) -> None:
        before = self._begun
        self._sql.execute("BEGIN")
        with suppress(sqlite3.Error):  # whether it was refused shows in what is stored
            self._sql.execute(statement.sql, statement.values)
        after = self._sessions()
        if self._sql.in_transaction:  # one kind of refusal has ended it
            self._sql.execute("ROLLBACK")
        counted = self._kinds.setdefault(statement.what, [0, 0])
        counted[0 if after != before else 1] += 1
        for session_id in before.keys() & after.keys():
            pair = (before[session_id][3], after[session_id][3])
            if pair[0] != pair[1]:
                self._edges.add(pair)
        due = self._due(statement, before)
        if after != due:
            let = "is refused" if after == before else "is let pass"
            shown = ", ".join(map(repr, statement.values))
            problem = let if (after == before) != (due == before) else "does something else"
            where = f"{statement.what}, in {statement.status!r}"
            self._found(where, problem, f"the statement is {statement.sql} with {shown}")

    def _due(self, statement: _Statement, before: Sessions) -> Sessions:
        if statement.after is None:
            return before
        key = _id(statement.status)
        rowid, lifecycle, revision, _, *rest = before[key]
        if statement.after == _GONE:
            return {each: row for each, row in before.items() if each != key}
        if statement.after == _MADE:
            number = max(row[0] for row in before.values()) + 1
            return {**before, _NEW: (number, self._name, 1, statement.status, None, None, "{}")}
        return {**before, key: (rowid, lifecycle, revision + 1, statement.after, *rest)}

    def _found(self, where: str, problem: str, case: str = "") -> None:
        self._findings.add(Claim.DATABASE, where, problem, case)
