"""`sweep`, `recover`, `purge` and `verify`, on real stores."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from commanding import LATER, START, call, filled, started, terminal, url_of, usual_sessions

from session_fsm import SessionManager
from session_fsm.clock import ManualClock, instant_text

EXPIRED = START + timedelta(minutes=31)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the usual sessions."""
    return filled(tmp_path / "sessions.db", usual_sessions)


def ids(store: Path) -> list[str]:
    """The ids of all sessions of a store."""
    found = call("list", "--all", "--json", store=store).document
    return [each["session_id"] for each in found["sessions"]]


# --- sweep -----------------------------------------------------------------------------------


def test_cli_sweep_fires_what_is_due(store: Path) -> None:
    """An expired session is ended step by step; the next deadline is told beside the answer."""
    assert call("sweep", store=store).out == ""
    answer = call("sweep", store=store, at=EXPIRED)
    assert answer.code == 0
    assert answer.lines == [
        "at                    session  fired   status",
        "2026-03-02 12:31:00Z  calm     expire  idle → terminating",
        "2026-03-02 12:31:00Z  calm     finish  terminating → terminated",
    ]
    assert answer.err == "2 steps fired; nothing is due later\n"


def test_cli_sweep_says_when_to_sweep_again(store: Path) -> None:
    """Where nothing is due yet, nothing is done, and the next deadline is told."""
    answer = call("sweep", store=store)
    assert answer.err == ("0 steps fired; sweep again at 2026-03-02 12:30:00Z, in 5 min\n")
    assert call("sweep", "--json", store=store).document == {
        "fired": [],
        "next_deadline": instant_text(START + timedelta(minutes=30)),
        "failed": [],
    }


def test_cli_sweep_at_an_instant(store: Path) -> None:
    """`--at` takes the place of now, at any offset."""
    found = call("sweep", "--at", "2026-03-02T14:31:00+02:00", "--json", store=store).document
    assert [(each["session_id"], each["trigger"]) for each in found["fired"]] == [
        ("calm", "expire"),
        ("calm", "finish"),
    ]
    assert {each["at"] for each in found["fired"]} == {instant_text(EXPIRED)}


@pytest.mark.parametrize(
    "instant", ["2026-03-02T14:31:00", "2026-03-02", "tomorrow", "", "2026-02-30T00:00:00Z", "30d"]
)
def test_cli_sweep_refuses_what_is_no_instant(store: Path, instant: str) -> None:
    """A naive instant and what is none are wrong usage, and nothing is swept."""
    answer = call("sweep", "--at", instant, store=store)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("session-fsm: --at: ")
    assert call("show", "calm", "--json", store=store).document["status"] == "idle"


def test_cli_sweep_names_sessions_that_can_not_be_moved(store: Path) -> None:
    """A session that can't be read is named, the others are swept, and the exit code is 1."""
    with SessionManager(url_of(store), clock=ManualClock(START)) as manager:
        manager.create("zoe")
    damage(store, "UPDATE session SET state = 'nonsense' WHERE session_id = 'calm'")
    answer = call("sweep", store=store, at=EXPIRED)
    assert answer.code == 1
    note, fault = answer.err.splitlines()
    assert note == "2 steps fired; what was left is still due"
    assert fault.startswith("session-fsm: session 'calm' was left as it is: ")
    assert "can't be read" in fault
    assert [line.split()[2:4] for line in answer.lines[1:]] == [
        ["zoe", "expire"],
        ["zoe", "finish"],
    ]
    found = call("sweep", "--json", store=store, at=EXPIRED)
    assert found.code == 1
    assert [each["session_id"] for each in found.document["failed"]] == ["calm"]


def test_cli_sweep_says_a_failure_once(store: Path) -> None:
    """What the library logs does not stand on the terminal beside what the command says."""
    damage(store, "UPDATE session SET state = 'nonsense' WHERE session_id = 'calm'")
    answer = started("sweep", "--at", instant_text(EXPIRED), "--store", url_of(store))
    assert answer.code == 1
    assert answer.err.count("'calm' was left as it is") == 1
    assert answer.err.count("\n") == 2


# --- recover ---------------------------------------------------------------------------------


def test_cli_recover_clears_away_what_a_dead_owner_left(store: Path) -> None:
    """The task that nobody does any longer is dropped, and its session lives on."""
    answer = call("recover", store=store)
    assert answer.code == 0
    assert [line.split() for line in answer.lines] == [["session", "is"], ["busy", "lives", "on"]]
    assert answer.err == "1 session recovered, 1 task dropped\n"
    again = call("recover", store=store)
    assert (again.out, again.err) == ("", "0 sessions recovered, 0 tasks dropped\n")


def test_cli_recover_leaves_the_living_alone(store: Path) -> None:
    """What a manager that is open does is not touched; machines are told what was."""
    with SessionManager(url_of(store), clock=ManualClock(LATER)) as manager:
        manager.create("mine")
        manager.begin_task("mine", "work")
        assert call("recover", "--json", store=store).document == {
            "ended": [],
            "released": ["busy"],
            "dropped_tasks": ["turn-1"],
            "failed": [],
        }
        assert manager.get("mine").state.active_tasks == ("work",)


# --- purge -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "left"),
    [
        ("2026-03-02T12:00:01Z", ["busy", "calm"]),
        ("2026-03-02T14:00:01+02:00", ["busy", "calm"]),
        ("2026-03-02T12:00:00Z", ["busy", "calm", "done", "lost"]),
        ("24m", ["busy", "calm"]),
        ("1499s", ["busy", "calm"]),
        ("25m", ["busy", "calm", "done", "lost"]),
        ("1h", ["busy", "calm", "done", "lost"]),
        ("30d", ["busy", "calm", "done", "lost"]),
        ("2w", ["busy", "calm", "done", "lost"]),
    ],
)
def test_cli_purge_removes_what_ended_long_enough_ago(
    store: Path, before: str, left: list[str]
) -> None:
    """Instants and ages draw the line; what has not ended is never removed."""
    answer = call("purge", "--ended-before", before, store=store)
    assert answer.code == 0
    assert answer.out.startswith(f"{4 - len(left)} sessions removed that ended before 2026-0")
    assert ids(store) == left


def test_cli_purge_json_tells_how_many(store: Path) -> None:
    """Machines get the number, and the instant that an age meant."""
    found = call("purge", "--ended-before", "10m", "--yes", "--json", store=store).document
    assert found == {"purged": 2, "ended_before": "2026-03-02T12:15:00.000000Z"}


@pytest.mark.parametrize(
    "before",
    ["2026-03-02T12:00:00", "2026-03-02", "30", "d", "-1d", "1y", "1.5h", "999999999w", "٣d", ""],
)
def test_cli_purge_refuses_what_is_neither_instant_nor_age(store: Path, before: str) -> None:
    """Naive instants and odd ages are wrong usage, and nothing is removed."""
    answer = call("purge", "--ended-before", before, "--yes", store=store)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("session-fsm: --ended-before: ")
    assert len(ids(store)) == 4


def test_cli_purge_needs_to_be_told_when(store: Path) -> None:
    """There is no default age: what is removed is gone."""
    answer = call("purge", store=store)
    assert answer.code == 2
    assert "--ended-before" in answer.err
    assert len(ids(store)) == 4


@pytest.mark.parametrize(
    ("typed", "code", "left"),
    [("y\n", 0, 2), ("YES\n", 0, 2), ("n\n", 1, 4), ("\n", 1, 4), ("\x04", 1, 4)],
)
def test_cli_purge_asks_who_watches(store: Path, typed: str, code: int, left: int) -> None:
    """On a terminal the number is told and a yes is asked for; anything else removes nothing."""
    words = ("purge", "--ended-before", "2026-03-03T00:00:00Z", "--store", url_of(store))
    with terminal(*words) as screen:
        screen.read_until("[y/N] ")
        assert "Remove 2 sessions that ended before 2026-03-03 00:00:00Z, for ever?" in screen.seen
        screen.type(typed)
        assert screen.end() == code
        assert ("nothing was removed" in screen.seen) == bool(code)
    assert len(ids(store)) == left


@pytest.mark.parametrize("words", [("--yes",), ("-y",), ("--json",)])
def test_cli_purge_asks_nobody_who_has_said_yes(store: Path, words: tuple[str, ...]) -> None:
    """With `--yes`, and for machines, there is no question even on a terminal."""
    at = ("--ended-before", "2026-03-03T00:00:00Z")
    with terminal("purge", *at, *words, "--store", url_of(store)) as screen:
        assert screen.end() == 0
        assert "[y/N]" not in screen.seen
    assert len(ids(store)) == 2


def test_cli_purge_asks_nobody_who_can_not_answer(store: Path) -> None:
    """Where the standard input is no terminal there is no question, though somebody watches."""
    words = ("purge", "--ended-before", "2026-03-03T00:00:00Z", "--store", url_of(store))
    with terminal(*words, typed=subprocess.DEVNULL) as screen:
        assert screen.end() == 0
        assert "[y/N]" not in screen.seen
    assert len(ids(store)) == 2


# --- verify ----------------------------------------------------------------------------------


def damage(store: Path, statement: str) -> None:
    """Change a store behind the back of its triggers, which are there again afterwards."""
    with closing(sqlite3.connect(store)) as connection:
        query = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"
        triggers = dict(connection.execute(query).fetchall())
        for name in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(statement)
        for made in triggers.values():
            connection.execute(made)
        connection.commit()


def test_cli_verify_accepts_a_sound_store(store: Path) -> None:
    """A sound store is told as such, with what was looked at."""
    answer = call("verify", store=store)
    assert (answer.code, answer.out, answer.err) == (0, "ok: 4 sessions, 17 events\n", "")
    assert call("verify", "--json", store=store).document == {
        "ok": True,
        "problems": [],
        "sessions": 4,
        "events": 17,
        "locked": 0,
    }


def test_cli_verify_names_every_problem(store: Path) -> None:
    """Each problem is a line of the answer, their number stands beside it, the exit code is 1."""
    damage(store, "DELETE FROM session_event WHERE session_id = 'calm' AND revision = 2")
    damage(store, "UPDATE session SET state = 'nonsense' WHERE session_id = 'done'")
    answer = call("verify", store=store)
    assert answer.code == 1
    assert any("'calm'" in line for line in answer.lines)
    assert any("'done'" in line for line in answer.lines)
    assert answer.err.startswith(f"session-fsm: {len(answer.lines)} problems in ")
    found = call("verify", "--json", store=store)
    assert found.code == 1
    assert found.document["ok"] is False
    assert found.document["problems"] == answer.lines
