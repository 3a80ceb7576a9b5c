"""The command `explain`: its answers, its exit codes, its arguments."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from commanding import START, call, filled, malicious_sessions, usual_sessions


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the usual sessions."""
    return filled(tmp_path / "sessions.db", usual_sessions)


def test_cli_explain_tells_why_not(store: Path) -> None:
    """What was asked, each reason, what is permitted, and what fires by itself."""
    answer = call("explain", "busy", "go_idle", store=store)
    assert (answer.code, answer.err) == (3, "")
    assert answer.lines == [
        "session        busy",
        "status         active",
        "trigger        go_idle",
        "answer         refused",
        "because        1 task is active: turn-1 (no active task)",
        "permitted now  terminate, begin_task, end_task, start_conversation, touch, update",
        "fires next     nothing",
    ]


def test_cli_explain_tells_every_guard(store: Path) -> None:
    """Each guard that says no has a line of its own, and a deadline is told as in `show`."""
    late = START + timedelta(minutes=31)
    answer = call("explain", "calm", "resume", store=store, at=late)
    assert answer.code == 3
    assert answer.lines[-3:] == [
        "because        expired at 2026-03-02T12:30:00+00:00 (not expired)",
        "permitted now  terminate, expire, update",
        "fires next     expire at 2026-03-02 12:30:00Z, 1 min ago",
    ]


def test_cli_explain_accepts(store: Path) -> None:
    """What would be accepted is told with where it leads, and has exit code 0."""
    answer = call("explain", "calm", "resume", store=store)
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines[-1] == "answer   accepted: leads to active"
    answer = call("explain", "calm", "touch", "--arg", "reason=hello", store=store)
    assert (answer.code, answer.lines[-1]) == (0, "answer   accepted: the status stays")


def test_cli_explain_json_of_what_is_accepted(store: Path) -> None:
    """Machines get the revision that was asked, and no refusal."""
    answer = call("explain", "calm", "resume", "--json", store=store)
    assert (answer.code, answer.err) == (0, "")
    assert answer.document == {
        "session_id": "calm",
        "revision": 5,
        "status": "idle",
        "trigger": "resume",
        "at": "2026-03-02T12:25:00.000000Z",
        "accepted": True,
        "missing_arguments": [],
        "refusal": None,
    }


def test_cli_explain_json_of_what_is_refused(store: Path) -> None:
    """Machines get every field of the refusal."""
    answer = call("explain", "calm", "explode", "--json", store=store)
    assert (answer.code, answer.err) == (3, "")
    assert answer.document["accepted"] is False
    assert answer.document["refusal"] == {
        "kind": "unknown_trigger",
        "trigger": "explode",
        "target": None,
        "status": "idle",
        "failed_guards": [],
        "permitted": ["resume", "terminate", "touch", "update"],
        "next_timed": {"trigger": "expire", "at": "2026-03-02T12:30:00.000000Z"},
        "broken": [],
    }


def test_cli_explain_takes_arguments(store: Path) -> None:
    """Arguments are shown to the guards, as text or as JSON."""
    words = ("explain", "busy", "begin_task", "--arg")
    assert call(*words, "task_id=turn-1", store=store).code == 3
    assert call(*words, 'task_id:="turn-1"', store=store).code == 3
    assert call(*words, "task_id=turn-2", store=store).code == 0
    assert call(*words, "task_id=a=b", store=store).code == 0
    update = ("explain", "busy", "update", "--arg", 'metadata:={"a": [1]}', "--arg", "error=x")
    assert call(*update, store=store).code == 0


def test_cli_explain_tells_which_argument_is_missing(store: Path) -> None:
    """Without an argument that the row needs, the answer is for the other guards alone."""
    answer = call("explain", "busy", "begin_task", store=store)
    assert (answer.code, answer.lines[-1]) == (0, "answer   accepted: the status stays")
    assert answer.err == "guards that need task_id were not asked: give --arg task_id=…\n"
    found = call("explain", "busy", "begin_task", "--json", store=store)
    assert (found.document["missing_arguments"], found.err) == (["task_id"], "")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["go_idle", "--arg", "x"], "--arg: expected NAME=TEXT or NAME:=JSON, got 'x'"),
        (["go_idle", "--arg", "=x"], "--arg: '' can't be an argument's name"),
        (["go_idle", "--arg", "two words=x"], "--arg: 'two words' can't be an argument's name"),
        (["go_idle", "--arg", "at=2026"], "--arg: 'at' can't be an argument's name"),
        (["go_idle", "--arg", "lifecycle=x"], "--arg: 'lifecycle' can't be an argument's name"),
        (["begin_task", "--arg", "task=x"], "--arg: 'begin_task' takes no argument 'task'; it"),
        (["go_idle", "--arg", "task_id=x"], "--arg: 'go_idle' takes no argument 'task_id'; it"),
        (["update", "--arg", "metadata:={"], "--arg: 'metadata' is no JSON: Expecting property"),
        (["begin_task", "--arg", "task_id=a", "--arg", "task_id=b"], "--arg: 'task_id' is given"),
        (["go_idle", "--arg", "reason=\udcff"], "--arg: no text: 'reason=\\udcff'"),
        (["go_\udcff"], "TRIGGER: no text: 'go_\\udcff'"),
    ],
)
def test_cli_explain_wrong_usage(store: Path, words: list[str], problem: str) -> None:
    """What can't be meant is named in one line, with exit code 2."""
    answer = call("explain", "busy", *words, store=store)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"session-fsm: {problem}")
    assert answer.err.count("\n") == 1


def test_cli_explain_bad_values_are_a_failure(store: Path) -> None:
    """A value that no state may hold is neither a yes nor a no."""
    answer = call("explain", "busy", "begin_task", "--arg", "task_id:=[]", store=store)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "session-fsm: task_id: expected a string, got []\n"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_explain_absent_session_is_a_failure(store: Path, form: tuple[str, ...]) -> None:
    """A session that is not there is a failure, which is another exit code than a refusal."""
    answer = call("explain", "nobody", "touch", *form, store=store)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "session-fsm: there is no session 'nobody'\n"


def test_cli_explain_shows_stored_text_and_does_not_obey_it(tmp_path: Path) -> None:
    """No character that a terminal obeys leaves the command, from the trigger's name neither."""
    store = filled(tmp_path / "evil.db", malicious_sessions)
    answer = call("explain", "evil", "\x1b[31mred", store=store)
    assert answer.code == 3
    for line in (answer.out + answer.err).split("\n"):
        assert line.isprintable()
