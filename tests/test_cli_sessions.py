"""`list`, `counts`, `show`, `history` and `terminate`, on real stores."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from commanding import (
    LATER,
    MALICE_SHOWN,
    START,
    call,
    filled,
    line_of,
    malicious_sessions,
    url_of,
    usual_sessions,
)

from session_fsm import SESSION_LIFECYCLE, SessionManager, loads, serialize
from session_fsm.clock import ManualClock, instant_text
from session_fsm.jsonvalue import dump_json


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the usual sessions."""
    return filled(tmp_path / "sessions.db", usual_sessions)


# --- list ------------------------------------------------------------------------------------


def test_cli_list_shows_sessions_that_have_not_ended(store: Path) -> None:
    """The table has a line for each, with what fires next, and nothing else is said."""
    answer = call("list", store=store)
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines == [
        "session  status  tasks  last activity  fires next",
        "busy     active      1  25 min ago",
        "calm     idle        0  25 min ago     expire in 5 min",
    ]


def test_cli_list_all_shows_ended_sessions_with_their_errors(store: Path) -> None:
    """With `--all`, every session is there, and a column for errors."""
    answer = call("list", "--all", store=store)
    assert [line.split()[:2] for line in answer.lines[1:]] == [
        ["busy", "active"],
        ["calm", "idle"],
        ["done", "terminated"],
        ["lost", "terminated"],
    ]
    assert line_of(answer.out, "lost").endswith("the worker died")


def test_cli_list_says_how_late_a_deadline_is(store: Path) -> None:
    """What should have fired and was not swept is told as late."""
    answer = call("list", store=store, at=START + timedelta(minutes=75))
    assert line_of(answer.out, "calm").endswith("expire, 45 min late")


def test_cli_list_json_has_whole_states(store: Path) -> None:
    """Each session comes with its revision, its next deadline, and a state that can be read."""
    answer = call("list", "--json", store=store)
    found = answer.document
    assert answer.code == 0
    assert found["next"] is None
    assert [each["session_id"] for each in found["sessions"]] == ["busy", "calm"]
    busy, calm = found["sessions"]
    assert (calm["status"], calm["revision"]) == ("idle", 5)
    assert calm["next_timed"] == {
        "trigger": "expire",
        "at": instant_text(START + timedelta(minutes=30)),
    }
    assert busy["next_timed"] is None
    with SessionManager(url_of(store)) as manager:
        assert loads(dump_json(calm["state"])) == manager.get("calm").state


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--status", "idle"], ["calm"]),
        (["--status", "terminated", "--status", "active"], ["busy", "done", "lost"]),
        (["--after", "busy"], ["calm"]),
        (["--all", "--after", "calm", "--limit", "1"], ["done"]),
        (["--status", "initializing"], []),
    ],
)
def test_cli_list_filters(store: Path, words: list[str], expected: list[str]) -> None:
    """Statuses, the page and its size choose what is listed, for people and machines alike."""
    found = call("list", *words, "--json", store=store).document
    assert [each["session_id"] for each in found["sessions"]] == expected
    answer = call("list", *words, store=store)
    assert [line.split()[0] for line in answer.lines[1:]] == expected
    assert answer.code == 0


def test_cli_list_goes_page_by_page(store: Path) -> None:
    """A page that is not the last names the way to the next, until all were listed."""
    seen: list[str] = []
    more: list[str] = []
    while True:
        found = call("list", "--all", "--limit", "1", *more, "--json", store=store).document
        seen += [each["session_id"] for each in found["sessions"]]
        if found["next"] is None:
            break
        more = ["--after", found["next"]]
    assert seen == ["busy", "calm", "done", "lost"]
    answer = call("list", "--limit", "1", store=store)
    assert answer.err == "there are more: --after busy\n"


def test_cli_list_of_an_empty_store_says_so(tmp_path: Path) -> None:
    """Where there is nothing, the standard output is empty, and a note says why."""
    store = filled(tmp_path / "empty.db", lambda manager, clock: None)
    answer = call("list", store=store)
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == "no sessions but ended ones in the lifecycle 'session'\n"
    expected = "no such sessions in the lifecycle 'session'\n"
    assert call("list", "--all", store=store).err == expected
    assert call("list", "--json", store=store).document == {"sessions": [], "next": None}


def test_cli_list_never_breaks_an_id(tmp_path: Path) -> None:
    """An id of any length stands in one line, whole."""
    name = "x" * 255
    store = filled(tmp_path / "long.db", lambda manager, clock: _end(manager, name))
    assert line_of(call("list", "--all", store=store).out, name).startswith(f"{name}  terminated")


def _end(manager: SessionManager, name: str) -> None:
    manager.create(name)
    manager.terminate(name)


# --- counts ----------------------------------------------------------------------------------


def test_cli_counts_has_every_status(store: Path) -> None:
    """Every status of the lifecycle is there, in its order, with its number."""
    expected = {"initializing": 0, "active": 1, "idle": 1, "terminating": 0, "terminated": 2}
    found = call("counts", "--json", store=store)
    assert list(found.document.items()) == list(expected.items())
    lines = call("counts", store=store).lines
    assert lines[0].split() == ["status", "sessions"]
    assert {name: int(number) for name, number in map(str.split, lines[1:])} == expected


# --- show ------------------------------------------------------------------------------------


def test_cli_show_tells_all_of_a_session(store: Path) -> None:
    """State, limits, what is permitted and what fires next are told, in UTC."""
    answer = call("show", "calm", store=store)
    assert (answer.code, answer.err) == (0, "")
    assert answer.lines == [
        "session          calm",
        "status           idle",
        "since            2026-03-02 12:00:00Z, 25 min ago",
        "revision         5",
        "created          2026-03-02 12:00:00Z, 25 min ago",
        "updated          2026-03-02 12:00:00Z, 25 min ago",
        "last activity    2026-03-02 12:00:00Z, 25 min ago",
        "tasks in flight  none",
        "conversations    0 of 100",
        "time-out         after 30 min",
        "permitted now    resume, terminate, touch, update",
        "fires next       expire at 2026-03-02 12:30:00Z, in 5 min",
    ]


def test_cli_show_tells_work_and_limits(store: Path) -> None:
    """Tasks, conversations, features and free fields are there when a session has them."""
    out = call("show", "busy", store=store).out
    assert line_of(out, "tasks in flight").endswith("turn-1")
    assert line_of(out, "conversations").endswith("1 of 5")
    assert line_of(out, "features").endswith("search, code")
    assert line_of(out, "llm_config").endswith('model: "large"')
    assert '                 nested: {"token": "***", "n": [1, 2]}\n' in out
    assert line_of(call("show", "lost", store=store).out, "error").endswith("the worker died")


def test_cli_show_tells_what_becomes_of_a_session(store: Path) -> None:
    """That a session is not simply released when its process dies is told, and only then."""
    with SessionManager(url_of(store), clock=ManualClock(LATER)) as manager:
        manager.create("sturdy", config={"recovery": "restart"})
    out = call("show", "sturdy", store=store).out
    assert line_of(out, "if its process dies").endswith("restart")
    assert "if its process dies" not in call("show", "busy", store=store).out
    found = call("show", "sturdy", "--json", store=store).document
    assert found["state"]["config"]["recovery"] == "restart"


def test_cli_show_permits_what_is_permitted_then(store: Path) -> None:
    """An expired session is shown with `expire` alone of its moves, though no sweep has run."""
    late = START + timedelta(minutes=31)
    found = call("show", "calm", "--json", store=store, at=late).document
    assert found["permitted"] == ["terminate", "expire", "update"]
    assert found["status"] == "idle"


def test_cli_show_json_mirrors_the_library(store: Path) -> None:
    """The keys are those of the library, the state is as it is serialized."""
    found = call("show", "calm", "--json", store=store).document
    with SessionManager(url_of(store), clock=ManualClock(LATER)) as manager:
        session = manager.get("calm")
        assert found == {
            "session_id": "calm",
            "status": "idle",
            "revision": session.revision,
            "next_timed": {"trigger": "expire", "at": "2026-03-02T12:30:00.000000Z"},
            "permitted": list(manager.permitted("calm")),
            "state": serialize(session.state),
        }


@pytest.mark.parametrize("words", [("show", "busy"), ("history", "busy"), ("list",)])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_secrets_aremasked(store: Path, words: tuple[str, ...], form: tuple[str, ...]) -> None:
    """No value of a key that looks like a secret is printed, for people or for machines."""
    answer = call(*words, *form, store=store)
    assert answer.code == 0
    assert "sk-live-1" not in answer.out
    assert "t-2" not in answer.out


@pytest.mark.parametrize("words", [("show", "busy"), ("history", "busy", "--json")])
def test_cli_secrets_are_revealed_on_request(store: Path, words: tuple[str, ...]) -> None:
    """With `--reveal` they are printed."""
    out = call(*words, "--reveal", store=store).out
    assert "sk-live-1" in out
    assert "t-2" in out


# --- history ---------------------------------------------------------------------------------


def test_cli_history_tells_each_step(store: Path) -> None:
    """Each event has its revision, its instant, its trigger, the move, its reason and changes."""
    answer = call("history", "calm", store=store)
    assert (answer.code, answer.err) == (0, "")
    at = "2026-03-02 12:00:00Z"
    assert answer.lines == [
        "revision  at                    event       status                 reason and changes",
        f"       1  {at}  created     initializing",
        f"       2  {at}  activate    initializing → active",
        f'       3  {at}  begin_task  active                 active_tasks = ["turn-1"]',
        f"       4  {at}  end_task    active                 answered; active_tasks = []",
        f"       5  {at}  go_idle     active → idle",
    ]


def test_cli_history_json_has_every_field(store: Path) -> None:
    """Events come with the fields of the library, digests among them."""
    found = call("history", "calm", "--json", store=store).document
    with SessionManager(url_of(store)) as manager:
        events = manager.history("calm")
    assert found["session_id"] == "calm"
    assert [each["digest"] for each in found["events"]] == [event.digest for event in events]
    assert found["events"][3] == {
        "session_id": "calm",
        "revision": 4,
        "kind": "changed",
        "trigger": "end_task",
        "source": "active",
        "target": "active",
        "at": "2026-03-02T12:00:00.000000Z",
        "reason": "answered",
        "changes": {"active_tasks": []},
        "digest": events[3].digest,
    }


def test_cli_history_of_a_purged_session_tells_what_is_left(store: Path) -> None:
    """A purged session has a history of one event, and nothing to show."""
    call("purge", "--ended-before", "0s", "--yes", store=store)
    (line,) = call("history", "done", store=store).lines[1:]
    assert line.split()[3] == "purged"
    assert call("show", "done", store=store).code == 1


def test_cli_history_of_a_compacted_session_tells_what_is_left(store: Path) -> None:
    """The checkpoint comes first, with how many events it stands for; secrets stay hidden in it."""
    call("compact", "busy", "--keep", "2", store=store)
    first, *kept = call("history", "busy", store=store).lines[1:]
    assert first.split() == [
        "2", "2026-03-02", "12:00:00Z", "checkpoint", "active", "stands", "for", "2", "events",
    ]  # fmt: skip
    assert [line.split()[3] for line in kept] == ["start_conversation", "begin_task"]
    [event, *_] = call("history", "busy", "--json", store=store).document["events"]
    assert event["changes"]["llm_config"] == {"model": "large", "api_key": "***"}
    shown = call("history", "busy", "--reveal", "--json", store=store).document["events"][0]
    assert shown["changes"]["llm_config"]["api_key"] == "sk-live-1"


# --- terminate -------------------------------------------------------------------------------


def test_cli_terminate_ends_a_session(store: Path) -> None:
    """The session is ended, and the reason is in its history."""
    answer = call("terminate", "calm", "--reason", "asked for", store=store)
    assert (answer.code, answer.out, answer.err) == (0, "calm is terminated\n", "")
    told = [(each["trigger"], each["reason"]) for each in _events(store, "calm")]
    assert told[-2:] == [("terminate", "asked for"), ("finish", None)]


def test_cli_terminate_json_returns_the_session(store: Path) -> None:
    """Machines get the session as it is afterwards."""
    found = call("terminate", "calm", "--json", store=store).document
    assert found["status"] == found["state"]["status"] == "terminated"
    assert found["revision"] == 7
    assert found["next_timed"] is None


def test_cli_terminate_leaves_an_ended_session_as_it_is(store: Path) -> None:
    """A session that has ended is told as such, and no step is added to it."""
    before = _events(store, "done")
    answer = call("terminate", "done", store=store)
    assert answer.code == 0
    assert answer.out == "done has been terminated since 2026-03-02 12:00:00Z\n"
    assert _events(store, "done") == before


def test_cli_terminate_without_waiting_leaves_tasks_in_flight(store: Path) -> None:
    """With `--no-wait` the session drains, and the tasks that it waits for are counted."""
    answer = call("terminate", "busy", "--no-wait", store=store)
    assert (answer.code, answer.out) == (0, "busy is terminating, 1 task in flight\n")
    found = call("show", "busy", "--json", store=store).document
    assert found["state"]["active_tasks"] == ["turn-1"]
    assert found["next_timed"]["trigger"] == "stop_timeout"


def test_cli_terminate_gives_up_waiting_after_the_grace(store: Path) -> None:
    """Tasks that don't end within the grace are dropped and named."""
    late = LATER + timedelta(seconds=11)
    call("terminate", "busy", "--no-wait", store=store)
    answer = call("terminate", "busy", store=store, at=late)
    assert answer.code == 0
    assert answer.out.startswith("busy is terminated: the stop did not end within 10 s")
    assert "turn-1" in answer.out


def _events(store: Path, session_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = call("history", session_id, "--json", store=store).document[
        "events"
    ]
    return events


# --- what is not there, and what must not be obeyed --------------------------------------------


@pytest.mark.parametrize("command", ["show", "history", "terminate"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_absent_session_is_a_failure(store: Path, command: str, form: tuple[str, ...]) -> None:
    """A session that is not there is named in one line, with exit code 1 and no output."""
    answer = call(command, "nobody", *form, store=store)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == "session-fsm: there is no session 'nobody'\n"


@pytest.mark.parametrize(
    "words",
    [
        ("list", "--all"),
        ("show", "evil"),
        ("show", "evil-end"),
        ("history", "evil"),
        ("history", "evil-end"),
        ("terminate", "evil", "--reason", "over"),
        ("sweep", "--at", "2030-01-01T00:00:00Z"),
    ],
)
def test_cli_stored_text_is_shown_not_obeyed(tmp_path: Path, words: tuple[str, ...]) -> None:
    """No character that a terminal obeys leaves a command; machines get it escaped, in ASCII."""
    store = filled(tmp_path / "evil.db", malicious_sessions)
    answer = call(*words, store=store)
    assert answer.code == 0
    for line in (answer.out + answer.err).split("\n"):
        assert line.isprintable()
    document = call(*words, "--json", store=store)
    assert document.out.isascii()
    assert document.out.replace("\n", "").isprintable()


def test_cli_stored_text_is_told_whole(tmp_path: Path) -> None:
    """Metadata, errors and reasons stand there as they are, what is special in them escaped."""
    store = filled(tmp_path / "evil.db", malicious_sessions)
    json_shown = MALICE_SHOWN.replace(r"\x1b", r"\u001b").replace(r"\x07", r"\u0007")
    assert line_of(call("show", "evil", store=store).out, "metadata").endswith(
        f'{MALICE_SHOWN}: "{json_shown}"'
    )
    assert MALICE_SHOWN in line_of(call("show", "evil-end", store=store).out, "error")
    assert MALICE_SHOWN in call("history", "evil", store=store).out
    found = call("show", "evil", "--json", store=store).document
    with SessionManager(url_of(store)) as manager:
        assert found["state"]["metadata"] == manager.get("evil").state.metadata


def test_cli_words_of_the_caller_are_shown_not_obeyed(store: Path) -> None:
    """An id, an option or a path that a terminal would obey is escaped in the message."""
    for words in (
        ("show", "\x1b[2J"),
        ("show", "--\x1b[2J"),
        ("list", "--status", "\x1b[2J"),
        ("list", "--after", "\udcff\x1b"),
        ("purge", "--ended-before", "\x1b\u202e"),
        ("\x1b[2J",),
    ):
        answer = call(*words, store=store)
        assert answer.code in (1, 2)
        assert answer.out == ""
        assert answer.err.removesuffix("\n").isprintable()
        assert answer.err.count("\n") == 1


def test_cli_statuses_are_those_of_the_lifecycle(store: Path) -> None:
    """`--status` takes every status of the table, and names them where another is given."""
    for status in SESSION_LIFECYCLE.statuses:
        assert call("list", "--status", status, store=store).code == 0
    answer = call("list", "--status", "sleeping", store=store)
    assert answer.code == 2
    assert all(status in answer.err for status in SESSION_LIFECYCLE.statuses)
