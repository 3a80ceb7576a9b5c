"""The SQLite store names each row, table and rule that is not as it wrote it."""

from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from sqlite_files import plain, tamper

from session_fsm import (
    CorruptRecordError,
    SchemaVersionError,
    SessionManager,
)
from session_fsm.stores import SqliteStore
from session_fsm.testing.authors import END_OF_TIME, Author


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file may be made."""
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    """An empty store in a new file."""
    store = SqliteStore(path)
    yield store
    store.close()


STATE = "UPDATE session SET state = ? WHERE session_id = 'a'"


def changed(**fields: Any) -> str:
    """The expression of a state with some fields changed."""
    pairs = ", ".join(f"'$.{name}', json('{value}')" for name, value in fields.items())
    return f"UPDATE session SET state = json_set(state, {pairs}) WHERE session_id = 'a'"


@pytest.mark.parametrize(
    ("statement", "values", "problem"),
    [
        (STATE, ("",), "not JSON"),
        (STATE, ("{",), "not JSON"),
        (STATE, ("null",), "expected a JSON object"),
        (STATE, ("{}",), "session_id: missing"),
        (STATE, ('{"session_id": "a", "session_id": "a"}',), "stands twice"),
        (STATE.replace("?", "CAST(x'7bff7d' AS TEXT)"), (), "not UTF-8"),
        (STATE.replace("?", "state || 'x'"), (), "not JSON: Extra data"),
        (changed(status='"asleep"'), (), "status: unknown status 'asleep'"),
        (changed(status='"idle"'), (), "is listed as 'active', its state as 'idle'"),
        (changed(session_id='"b"'), (), "holds the state of 'b'"),
        (changed(session_id='""'), (), "session_id: 0 characters"),
        (changed(conversation_count="1.5"), (), "conversation_count: expected an integer"),
        (changed(extra="1"), (), "extra: unknown field"),
        (changed(format='"1"'), (), 'format: unknown format "1"'),
        (
            "UPDATE session SET status = 'idle' WHERE session_id = 'a'",
            (),
            "is listed as 'idle', its state as 'active'",
        ),
    ],
)
def test_sqlite_store_names_sessions_that_can_not_be_read(
    store: SqliteStore, path: Path, statement: str, values: tuple[Any, ...], problem: str
) -> None:
    """A session that can't be read is named wherever it is met, and never taken for absent."""
    author = Author(store)
    for session_id in ("a", "c"):
        author.write(session_id, "activate")
    tamper(path, statement, *values)
    with SessionManager(store) as manager:
        calls: list[Callable[[], object]] = [
            lambda: store.load("a"),
            lambda: store.page(store.lifecycle.statuses, 9, None),
            lambda: manager.find("a"),
            lambda: manager.get("a"),
            lambda: manager.update("a", error=None),
            manager.list,
            lambda: manager.create("a"),
        ]
        for call in calls:
            with pytest.raises(CorruptRecordError) as caught:
                call()
            assert caught.value.record == "session 'a'"
            assert problem in caught.value.problems[0]
        assert manager.get("c").revision == 2
        report = manager.verify()
        assert not report.ok
        assert any("session 'a'" in found and problem in found for found in report.problems)
        assert not any("'c'" in found for found in report.problems)


def test_sqlite_store_names_sessions_of_another_format(store: SqliteStore, path: Path) -> None:
    """A state of a format that is not known here is told apart from a broken one."""
    Author(store).write("a", "activate")
    tamper(path, changed(format="4"))
    for call in (lambda: store.load("a"), lambda: store.page(("active",), 9, None)):
        with pytest.raises(SchemaVersionError) as caught:
            call()
        assert (caught.value.found, caught.value.supported) == ("4 of session 'a'", "1, 2, 3")
    with SessionManager(store) as manager:
        assert any("format 4 of session 'a'" in found for found in manager.verify().problems)


@pytest.mark.parametrize("text", ["soon", "", "2026-01-01", "0"])
def test_sqlite_store_names_deadlines_that_can_not_be_read(
    store: SqliteStore, path: Path, text: str
) -> None:
    """A deadline that is none is told of with its session."""
    Author(store).write("a", "activate")
    tamper(path, "UPDATE session SET deadline_at = ?", text)
    at = END_OF_TIME.replace(tzinfo=UTC)
    calls: list[Callable[[], object]] = [store.next_deadline]
    if text and text < "9":
        calls.append(lambda: store.due(at, 9, None))
    for call in calls:
        with pytest.raises(CorruptRecordError, match="session 'a'"):
            call()


EVENT = "UPDATE session_event SET body = {} WHERE session_id = 'a' AND revision = 2"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("x''", "not JSON"),
        ("x'ff'", "not UTF-8"),
        ("CAST('[]' AS BLOB)", "expected a JSON object"),
        ("CAST('{\"format\": 1}' AS BLOB)", "not the fields of an event"),
        ("CAST(json_set(body, '$.session_id', 'b') AS BLOB)", "holds event 2 of session 'b'"),
        ("CAST(json_set(body, '$.revision', 3) AS BLOB)", "holds event 3 of session 'a'"),
        ("CAST(json_set(body, '$.at', 'now') AS BLOB)", "at: expected an instant"),
    ],
)
def test_sqlite_store_names_events_that_can_not_be_read(
    store: SqliteStore, path: Path, body: str, problem: str
) -> None:
    """An event that can't be read is named with its session; the session itself can be."""
    Author(store).write("a", "activate", "touch")
    tamper(path, EVENT.format(body).replace("json_set(body", "json_set(CAST(body AS TEXT)"))
    with pytest.raises(CorruptRecordError) as caught:
        store.history("a")
    assert caught.value.record == "event 2 of session 'a'"
    assert problem in caught.value.problems[0]
    assert store.load("a") is not None
    with SessionManager(store) as manager:
        found = manager.verify().problems
        assert any("event 2 of session 'a'" in each for each in found)


def test_sqlite_store_names_events_of_another_format(store: SqliteStore, path: Path) -> None:
    """An event of a format that is not known here is told apart from a broken one."""
    Author(store).write("a", "activate")
    body = "CAST(json_set(CAST(body AS TEXT), '$.format', 4) AS BLOB)"
    tamper(path, EVENT.format(body))
    with pytest.raises(SchemaVersionError) as caught:
        store.history("a")
    assert caught.value.found == "event 4 (event 2 of session 'a')"
    assert caught.value.supported == "1, 2, 3"


COPIED_EVENT = """
    INSERT INTO session_event SELECT NULL, session_id, 4, at, body, digest, ''
    FROM session_event WHERE session_id = 'a' AND revision = 3
"""


@pytest.mark.parametrize(
    "statement",
    [
        EVENT.format("CAST(replace(CAST(body AS TEXT), 'activate', 'activatE') AS BLOB)"),
        "UPDATE session_event SET digest = 'x' WHERE session_id = 'a' AND revision = 1",
        "UPDATE session_event SET digest = 'x' WHERE session_id = 'a' AND revision = 3",
        "DELETE FROM session_event WHERE session_id = 'a' AND revision = 1",
        "DELETE FROM session_event WHERE session_id = 'a' AND revision = 2",
        COPIED_EVENT,
        "DELETE FROM session WHERE session_id = 'a'",
        changed(conversation_count="5"),
        changed(metadata='{"x": true}'),
        changed(error='"made up"'),
    ],
)
def test_sqlite_store_is_verified(store: SqliteStore, path: Path, statement: str) -> None:
    """Whatever was changed, removed or added behind the triggers is found, with its session."""
    author = Author(store)
    author.write("a", "activate", "touch", metadata={"x": 1})
    author.write("b", "activate")
    with SessionManager(store) as manager:
        assert manager.verify().ok
        tamper(path, statement)
        report = manager.verify()
        assert not report.ok
        assert any("session 'a'" in found for found in report.problems)
        assert not any("'b'" in found for found in report.problems)


# --- its own check -------------------------------------------------------------------------------


def test_sqlite_store_checks_its_schema(store: SqliteStore, path: Path) -> None:
    """Each table, index and trigger that is missing, or was made otherwise, is named."""
    with plain(path) as connection:
        query = (
            "SELECT type, name, sql FROM sqlite_schema"
            " WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
        parts = connection.execute(query).fetchall()
        assert {kind for kind, _, _ in parts} == {"table", "index", "trigger"}
        for kind, name, sql in parts:
            if kind == "table":
                continue
            connection.execute(f"DROP {kind} {name}")
            assert store.check() == (f"database: {kind} {name} is missing",)
            if kind == "trigger":
                changed = sql.replace("session_fsm: ", "").replace("sessions + ", "sessions - ")
                changed = changed.replace("sessions - 1", "sessions - 2")
                changed = changed.replace("= OLD.session_id; END", "< OLD.session_id; END")
                changed = changed.replace("= OLD.session_id;\nEND", "< OLD.session_id;\nEND")
            else:
                changed = sql.replace("session_id)", "session_id DESC)").replace("(op", "(at, op")
                changed = changed.replace("expires_at)", "expires_at DESC)")
            assert changed != sql, name
            connection.execute(changed)
            assert store.check() == (f"database: {kind} {name} is not as it was made",)
            connection.execute(f"DROP {kind} {name}")
            connection.execute(sql)
        assert store.check() == ()
        connection.execute("DROP TABLE mark")
        assert store.check() == ("database: table mark is missing",)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "INSERT INTO legal_move VALUES ('session', 'active', 'terminated')",
            "legal_move is not as lifecycle 'session' has it",
        ),
        (
            "DELETE FROM legal_move WHERE source = 'idle' AND target = 'active'",
            "legal_move is not as lifecycle 'session' has it",
        ),
        (
            "UPDATE lifecycle_status SET is_final = 0 WHERE status = 'terminated'",
            "lifecycle_status is not as lifecycle 'session' has it",
        ),
        (
            "UPDATE session_count SET sessions = sessions + 1 WHERE status = 'active'",
            "1 sessions are 'active', 2 counted",
        ),
        (
            "UPDATE session_count SET sessions = 3 WHERE status = 'idle'",
            "0 sessions are 'idle', 3 counted",
        ),
        ("DELETE FROM session_count WHERE status = 'active'", "1 sessions are 'active', 0 counted"),
    ],
)
def test_sqlite_store_checks_its_rules_and_counts(
    store: SqliteStore, path: Path, statement: str, problem: str
) -> None:
    """Rules that are not those of the lifecycle, and counts that have drifted, are named."""
    Author(store).write("a", "activate")
    assert store.check() == ()
    with plain(path) as connection:
        assert connection.execute(statement).rowcount == 1
    assert store.check() == (f"database: {problem}",)
