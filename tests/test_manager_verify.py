"""Verifying: whatever was changed behind the library's back is found, with its session."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from managing import START, HookedMemory, House, minutes, seconds, together

from session_fsm import SessionManager

pytest_plugins = ("manager_fixtures",)


def live(manager: SessionManager) -> None:
    """Let several sessions live through all that there is."""
    manager.create("a", metadata={"n": 1}, start=lambda _: object())
    manager.begin_task("a", "t")
    manager.update("a", metadata={"n": 2}, config={"timeout_minutes": 5})
    manager.end_task("a", "t")
    manager.create("b")
    manager.terminate("b")
    manager.create("c")
    manager.begin_task("c", "t")
    manager.fail("c", "boom")
    manager.create("d")
    manager.begin_task("d", "t")
    manager.terminate("d", wait=False)


def test_manager_verify_of_what_is_sound(house: House, manager: SessionManager) -> None:
    """What the library wrote is found to be sound, and every session and event was looked at."""
    assert manager.verify().ok
    live(manager)
    house.clock.advance(minutes(60))
    manager.sweep()
    for each in (manager, house.open()):
        report = each.verify()
        assert (report.ok, report.problems, report.sessions) == (True, (), 4)
        assert report.events == sum(len(manager.history(session_id)) for session_id in "abcd")
    manager.purge(ended_before=START + minutes(10_000))
    assert manager.verify().ok


def test_manager_verify_beside_writers(house: House) -> None:
    """What is being written meanwhile is no problem."""
    managers = [house.open(), house.open()]
    managers[0].create("a")

    def write() -> list[str]:
        for _ in range(40):
            managers[0].touch("a")
        return []

    def verify() -> list[str]:
        return [problem for _ in range(10) for problem in managers[1].verify().problems]

    assert together(write, verify) == [[], []]


# --- what is found in a file -----------------------------------------------------------------

Tamper = Callable[[sqlite3.Connection], object]


def _chained(previous: str, body: bytes) -> str:
    return hashlib.sha256(previous.encode() + b"\n" + body).hexdigest()


def _edit_state(session_id: str, change: Callable[[dict[str, Any]], object]) -> Tamper:
    def tamper(raw: sqlite3.Connection) -> None:
        query = "SELECT state FROM session WHERE session_id = ?"
        [text] = raw.execute(query, (session_id,)).fetchone()
        state = json.loads(text)
        change(state)
        raw.execute(
            "UPDATE session SET state = ? WHERE session_id = ?", (json.dumps(state), session_id)
        )

    return tamper


def _edit_event(revision: int, change: Callable[[dict[str, Any]], object]) -> Tamper:
    def tamper(raw: sqlite3.Connection) -> None:
        key = ("a", revision)
        query = "SELECT body FROM session_event WHERE session_id = ? AND revision = ?"
        [body] = raw.execute(query, key).fetchone()
        event = json.loads(body)
        change(event)
        update = "UPDATE session_event SET body = ? WHERE session_id = ? AND revision = ?"
        raw.execute(update, (json.dumps(event).encode(), *key))

    return tamper


def _run(statement: str) -> Tamper:
    return lambda raw: raw.execute(statement)


def _forge_a_move(raw: sqlite3.Connection) -> None:
    """Write a step that looks right in every row, digest included, but is no row of the table."""
    query = "SELECT revision, body, digest FROM session_event WHERE session_id = 'a'"
    revision, body, digest = raw.execute(f"{query} ORDER BY revision DESC").fetchone()
    event = json.loads(body)
    event |= {"revision": revision + 1, "kind": "moved", "trigger": "terminate", "changes": {}}
    event |= {"source": "idle", "target": "terminated"}
    forged = json.dumps(event).encode()
    raw.execute(
        "INSERT INTO session_event (session_id, revision, at, body, digest, operation_id)"
        " VALUES ('a', ?, ?, ?, ?, 'forged')",
        (revision + 1, event["at"], forged, _chained(digest, forged)),
    )
    state = json.loads(
        raw.execute("SELECT state FROM session WHERE session_id = 'a'").fetchone()[0]
    )
    state["status"] = "terminated"
    raw.execute(
        "UPDATE session SET state = ?, status = 'terminated', revision = ?, deadline_at = NULL,"
        " ended_at = ? WHERE session_id = 'a'",
        (json.dumps(state), revision + 1, event["at"]),
    )


def _insert_between(raw: sqlite3.Connection) -> None:
    """Make room in the chain and put a step there that the table knows."""
    query = "SELECT revision, body, at, digest FROM session_event WHERE session_id = 'a'"
    rows = raw.execute(f"{query} ORDER BY revision DESC").fetchall()
    for revision, body, _, _ in rows:
        if revision > 2:
            moved = json.dumps(json.loads(body) | {"revision": revision + 1}).encode()
            raw.execute(
                "UPDATE session_event SET revision = revision + 1, body = ?"
                " WHERE session_id = 'a' AND revision = ?",
                (moved, revision),
            )
    [(_, body, at, digest)] = [row for row in rows if row[0] == 2]
    event = json.loads(body)
    event |= {"revision": 3, "kind": "changed", "trigger": "touch", "source": "active"}
    forged = json.dumps(event | {"changes": {}}).encode()
    raw.execute(
        "INSERT INTO session_event (session_id, revision, at, body, digest, operation_id)"
        " VALUES ('a', 3, ?, ?, ?, 'forged')",
        (at, forged, _chained(digest, forged)),
    )
    raw.execute("UPDATE session SET revision = revision + 1 WHERE session_id = 'a'")


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_edit_state("a", lambda state: state.update(metadata={"n": 3})), "metadata"),
        (_edit_state("a", lambda state: state.update(error="x")), "error"),
        (_edit_state("a", lambda state: state.update(status="active")), "'active'"),
        (_edit_state("a", lambda state: state.update(conversation_count=9)), "conversation_count"),
        (_edit_state("a", lambda state: state.update(session_id="z")), "'z'"),
        (_edit_state("a", lambda state: state.pop("status")), "status"),
        (_run("UPDATE session SET state = 'x' WHERE session_id = 'a'"), "JSON"),
        (_run("UPDATE session SET revision = 99 WHERE session_id = 'a'"), "99"),
        (_run("UPDATE session SET revision = 3 WHERE session_id = 'a'"), "revision"),
        (_edit_event(5, lambda event: event.update(at="2026-03-01T12:00:01.000000Z")), "digest"),
        (_edit_event(5, lambda event: event.update(reason="other")), "digest"),
        (_edit_event(1, lambda event: event["changes"].update(metadata={})), "digest"),
        (_edit_event(5, lambda event: event.pop("at")), "event 5"),
        (_edit_event(5, lambda event: event.update(format=9)), "9"),
        (_run("DELETE FROM session_event WHERE session_id = 'a' AND revision = 4"), "revision 3"),
        (_run("DELETE FROM session_event WHERE session_id = 'a' AND revision = 1"), "revision 0"),
        (_run("DELETE FROM session_event WHERE session_id = 'a'"), "no living session"),
        (_run("DELETE FROM session_event WHERE session_id = 'a' AND revision = 6"), "revision 6"),
        (_run("UPDATE session SET revision = 99 WHERE session_id = 'a'"), "revision 99"),
        (_run("UPDATE session SET digest = 'x' WHERE session_id = 'a'"), "revision 6"),
        (
            _run("UPDATE session_event SET digest = 'x' WHERE session_id = 'a' AND revision = 3"),
            "digest",
        ),
        (_insert_between, "digest"),
        (_forge_a_move, "no row"),
        (_run("DELETE FROM session WHERE session_id = 'a'"), "not stored"),
        (_run("UPDATE session SET session_id = 'z' WHERE session_id = 'a'"), "'a'"),
        (_run("UPDATE session_count SET sessions = 7 WHERE status = 'idle'"), "7 counted"),
        (_run("DROP TRIGGER session_moves_legally"), "session_moves_legally"),
    ],
)
def test_manager_verify_finds(file_house: House, tamper: Tamper, words: str) -> None:
    """A change of a snapshot, of an event, of the chain or of the schema is named."""
    manager = file_house.open()
    live(manager)
    assert manager.verify().ok
    with closing(sqlite3.connect(file_house.path)) as raw, raw:
        made = raw.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        kept = dict(made)
        for name in kept:
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("CREATE TRIGGER session_moves_legally AFTER INSERT ON mark BEGIN SELECT 1; END")
        tamper(raw)
        raw.execute("DROP TRIGGER IF EXISTS session_moves_legally")
        lost = "session_moves_legally" if words == "session_moves_legally" else None
        for name, sql in kept.items():
            if name != lost:
                raw.execute(sql)
    report = file_house.open().verify()
    assert not report.ok
    assert words in "\n".join(report.problems)
    if lost is None and words != "7 counted":
        assert any("session 'a'" in problem for problem in report.problems)
    assert not any(
        f"session '{other}'" in problem for other in "bcd" for problem in report.problems
    )


def test_manager_verify_in_memory_finds(tmp_path: Path) -> None:
    """A store in memory is verified by the same rules."""
    house = House("memory", tmp_path)
    manager = house.open()
    live(manager)
    store = house.store()
    assert isinstance(store, HookedMemory)
    del store._lives["a"].history[3]
    report = manager.verify()
    assert not report.ok
    assert "session 'a'" in report.problems[0]
    house.close()


def test_manager_verify_counts_what_it_looked_at(manager: SessionManager) -> None:
    """A tombstone is an event, and no session."""
    manager.create("a")
    manager.terminate("a")
    manager.create("b")
    manager.purge(ended_before=START + seconds(1))
    report = manager.verify()
    assert (report.sessions, report.events) == (1, 3)
