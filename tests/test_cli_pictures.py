"""`diagram`, `table` and `schema`: of any lifecycle, and with what is in a store."""

from __future__ import annotations

import base64
import re
import sqlite3
import subprocess
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from commanding import (
    LATER,
    START,
    call,
    environment,
    filled,
    malicious_sessions,
    plain,
    program,
    shown,
    started,
    terminal,
    url_of,
    usual_sessions,
)
from drawing import SANDBOX

from session_fsm import SESSION_LIFECYCLE, Session, SessionManager, json_schema
from session_fsm.cli.options import STORE_VARIABLE
from session_fsm.cli.pictures import one_session
from session_fsm.diagrams import FORMATS, render, table_rows
from session_fsm.testing import ManualClock

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "png"])
def test_cli_diagram_prints_text(format: str) -> None:
    """A diagram that is text comes out as it is rendered; Mermaid is what comes unasked."""
    answer = call("diagram", "--format", format)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == render(SESSION_LIFECYCLE, format)
    if format == "mermaid":
        assert call("diagram").out == answer.out


@pytest.mark.parametrize("format", list(FORMATS))
def test_cli_diagram_is_written_by_the_ending_of_the_file(tmp_path: Path, format: str) -> None:
    """Each format is chosen by the ending of the file, and written there; a file is replaced."""
    path = tmp_path / f"life{FORMATS[format].ending}"
    path.write_bytes(b"what was there before")
    answer = call("diagram", "--output", str(path))
    assert (answer.code, answer.out) == (0, f"{path} written\n")
    drawn = render(SESSION_LIFECYCLE, format)
    assert path.read_bytes() == (drawn if isinstance(drawn, bytes) else drawn.encode())


def test_cli_diagram_format_wins_over_the_ending(tmp_path: Path) -> None:
    """With `--format`, the file may be called anything."""
    path = tmp_path / "life.txt"
    assert call("diagram", "--format", "dot", "-o", str(path)).code == 0
    assert path.read_text(encoding="utf-8") == render(SESSION_LIFECYCLE, "dot")
    answer = call("diagram", "-o", str(tmp_path / "other.doc"))
    assert answer.code == 2
    assert answer.err.startswith("session-fsm: --output: no format of diagrams ends in '.doc'")
    assert not (tmp_path / "other.doc").exists()


def test_cli_diagram_png_goes_to_a_pipe() -> None:
    """A pipe gets the bytes of a PNG and nothing else."""
    run = subprocess.run(
        program("diagram", "--format", "png"),
        capture_output=True,
        check=True,
        env=environment(),
    )
    assert run.stdout.startswith(PNG)
    assert run.stdout.endswith(b"IEND\xaeB`\x82")
    assert run.stderr == b""


def test_cli_diagram_png_is_kept_off_a_terminal() -> None:
    """On a terminal a PNG is refused as wrong usage, and not a byte of it is shown."""
    with terminal("diagram", "--format", "png") as screen:
        assert screen.end() == 2
    assert "PNG" not in screen.seen
    assert "give --output FILE" in screen.seen


def test_cli_diagram_json(tmp_path: Path) -> None:
    """Machines get the text, the bytes in base64, or where the file is."""
    text = call("diagram", "--format", "dot", "--json").document
    drawn = render(SESSION_LIFECYCLE, "dot")
    assert text == {"format": "dot", "encoding": "text", "content": drawn}
    picture = call("diagram", "--format", "png", "--json").document
    assert (picture["format"], picture["encoding"]) == ("png", "base64")
    assert base64.b64decode(picture["content"]).startswith(PNG)
    path = str(tmp_path / "life.mmd")
    written = call("diagram", "-o", path, "--json").document
    assert written == {"format": "mermaid", "output": path}


@pytest.mark.parametrize("words", [("--format", "gif"), ("--format", "")])
def test_cli_diagram_unknown_format_is_wrong_usage(words: tuple[str, ...]) -> None:
    """A format that there is not is refused, and those that there are, are named."""
    answer = call("diagram", *words)
    assert (answer.code, answer.out) == (2, "")
    assert all(name in answer.err for name in FORMATS)


def test_cli_diagram_that_can_not_be_written_is_a_failure(tmp_path: Path) -> None:
    """A file that can't be written is named in one line, with exit code 1."""
    path = tmp_path / "missing" / "life.mmd"
    answer = call("diagram", "-o", str(path))
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"session-fsm: {path}: No such file or directory\n"


def test_cli_table_has_every_row() -> None:
    """Every cell of the table is there, a row in a line, in the table's order."""
    answer = call("table")
    header, rows = table_rows(SESSION_LIFECYCLE)
    assert (answer.code, answer.err) == (0, "")
    assert len(answer.lines) == len(rows) + 1
    for line, cells in zip(answer.lines, (header, *rows), strict=True):
        assert line.split() == " ".join(cells).split()


def test_cli_table_breaks_no_word_on_a_narrow_terminal() -> None:
    """Where the terminal is narrow, cells take several lines, and triggers and words stay whole."""
    screen = plain(shown("table", columns=120).out)
    assert max(map(len, screen.splitlines())) <= 120
    header, rows = table_rows(SESSION_LIFECYCLE)
    words = {word for row in (header, *rows) for cell in row for word in cell.split()}
    assert words == set(screen.split())


def test_cli_table_as_markdown_and_json() -> None:
    """Markdown is that of the diagrams; machines get every row with its names."""
    assert call("table", "--format", "markdown").out == render(SESSION_LIFECYCLE, "markdown")
    found = call("table", "--json").document
    assert found["lifecycle"] == "session"
    assert found["statuses"] == list(SESSION_LIFECYCLE.statuses)
    assert [tuple(edge) for edge in found["edges"]] == list(SESSION_LIFECYCLE.edges)
    assert [row["trigger"] for row in found["rows"]] == [
        row.trigger for row in SESSION_LIFECYCLE.rows
    ]
    assert found["rows"][6] == {
        "trigger": "expire",
        "from": ["active", "idle"],
        "to": "terminating",
        "guards": ["no active task", "deadline passed"],
        "fires_at": "last_activity_at + timeout_minutes",
        "activity": False,
        "ending": False,
        "required": [],
        "optional": [],
        "why": "nobody came back",
    }
    assert call("table", "--format", "html").code == 2


# --- what is in a store ------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a session in each status that a manager leaves one in."""
    return filled(tmp_path / "sessions.db", usual_sessions)


def test_cli_diagram_shows_the_fleet(store: Path) -> None:
    """With a store, statuses have their sessions and rows their traffic, as the manager counts."""
    answer = call("diagram", "--format", "text", store=store)
    with SessionManager(url_of(store), clock=ManualClock(LATER)) as manager:
        expected = render(
            SESSION_LIFECYCLE,
            "text",
            status_counts=manager.counts(),
            traffic=manager.traffic(),
            caption="4 sessions at 2026-03-02 12:25:00 UTC",
        )
    assert (answer.code, answer.out, answer.err) == (0, expected, "")
    assert "terminated · 2 here" in answer.out
    assert "4 ×" in answer.out, "all four were activated"


def test_cli_diagram_shows_the_fleet_of_a_replay(tmp_path: Path, repository: Path) -> None:
    """What a replay has left in a store is drawn like any other fleet, with the same traffic."""
    store = tmp_path / "replayed.db"
    sample = repository / "examples" / "sample_trace.jsonl.gz"
    replayed = call("replay", str(sample), "--json", store=store).document
    answer = call("diagram", "--format", "markdown", store=store)
    assert answer.code == 0
    for edge, number in replayed["edges"].items():
        source, target = edge.split("->")
        assert f"| {source} | {target} | {number:,} |" in answer.out


def test_cli_diagram_shows_one_session(store: Path) -> None:
    """With a session, its status, what is permitted, what is due, and its way are drawn."""
    answer = call("diagram", "--session", "calm", "--format", "text", store=store)
    assert (answer.code, answer.err) == (0, "")
    with SessionManager(url_of(store), clock=ManualClock(LATER)) as manager:
        expected = render(
            SESSION_LIFECYCLE,
            "text",
            history=manager.history("calm"),
            current="idle",
            permitted=manager.permitted("calm"),
            next_timed=("expire", START + timedelta(minutes=30)),
            caption="session calm at 2026-03-02 12:25:00 UTC",
        )
    assert answer.out == expected
    assert "idle · ▶ here now" in answer.out
    assert "#5 12:00:00" in answer.out


def test_cli_diagram_of_a_session_that_moves_on() -> None:
    """A session that moves between the two looks is drawn as it was at the first one."""

    class Restless(SessionManager):
        def get(self, session_id: str) -> Session:
            found = super().get(session_id)
            self.terminate(session_id)
            return found

    clock = ManualClock(START)
    with Restless(clock=clock) as manager:
        manager.create("a")
        shown = one_session(manager, "a", clock)
    assert [event.revision for event in shown["history"]] == [1, 2]
    drawn = render(SESSION_LIFECYCLE, "text", **shown)
    assert isinstance(drawn, str)
    assert "active · ▶ here now" in drawn


def test_cli_diagram_session_takes_the_store_of_the_environment(store: Path) -> None:
    """The variable names the store of a session; alone it adds nothing to a diagram."""
    named = {STORE_VARIABLE: url_of(store)}
    with_session = started("diagram", "--session", "calm", "--format", "text", **named)
    assert (with_session.code, with_session.err) == (0, "")
    assert "session calm at " in with_session.out
    assert started("diagram", **named).out == render(SESSION_LIFECYCLE, "mermaid")


@pytest.mark.parametrize("format", ["svg", "png", "html", "plantuml", "ascii"])
def test_cli_diagram_of_a_session_is_written_in_any_format(
    format: str, store: Path, tmp_path: Path
) -> None:
    """A session is drawn into a file by its ending, the fleet too, and each is another drawing."""
    path = tmp_path / f"life{FORMATS[format].ending}"
    drawn = []
    for words in ((), ("--session", "calm"), ("--session", "busy")):
        assert call("diagram", "-o", str(path), *words, store=store).code == 0
        drawn.append(path.read_bytes())
    assert len(set(drawn)) == 3


def test_cli_diagram_needs_a_store_for_a_session(tmp_path: Path, store: Path) -> None:
    """No store, a store that isn't there, and a session that isn't there are told apart."""
    assert call("diagram", "--session", "calm").code == 2
    missing = call("diagram", store=tmp_path / "no.db")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no store" in missing.err
    assert not (tmp_path / "no.db").exists()
    unknown = call("diagram", "--session", "nobody", store=store)
    assert (unknown.code, unknown.out) == (1, "")
    assert unknown.err == "session-fsm: there is no session 'nobody'\n"


def test_cli_diagram_keeps_terminals_safe(tmp_path: Path) -> None:
    """Reasons and ids that a terminal would obey are written as escapes."""
    store = filled(tmp_path / "sessions.db", malicious_sessions)
    answer = call("diagram", "--session", "evil", "--format", "markdown", store=store)
    assert answer.code == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\x9b\u202e\u2066\u200b]", answer.out)
    assert r"\\x1b" in answer.out


def test_cli_diagram_tells_what_it_can_not_show(store: Path) -> None:
    """Moves by rows that the table doesn't have are named, and so is a history that has some."""
    with closing(sqlite3.connect(store)) as database:
        database.execute("DROP TRIGGER session_event_is_written_once")
        database.execute(
            "UPDATE session_event SET body = CAST(json_set(CAST(body AS TEXT), '$.trigger', 'nap')"
            " AS BLOB) WHERE session_id = 'calm' AND revision = 5"
        )
        database.commit()
    fleet = call("diagram", "--format", "text", store=store)
    assert fleet.code == 0
    assert "1 move by rows that the lifecycle lacks left out: 'nap' from 'active'" in fleet.err
    one = call("diagram", "--session", "calm", store=store)
    assert (one.code, one.out) == (1, "")
    assert "event 5: no row 'nap' from 'active'; `verify` names all that is wrong" in one.err


# --- other lifecycles ----------------------------------------------------------------------------


def test_cli_pictures_are_of_any_lifecycle(repository: Path) -> None:
    """Diagram, table and schema show the lifecycle that is named, and refuse what is none."""
    named = ("--lifecycle", "drawing:SANDBOX")
    assert call("diagram", *named).out == render(SANDBOX, "mermaid")
    assert call("table", "--format", "markdown", *named).out == render(SANDBOX, "markdown")
    assert call("table", "--json", *named).document["lifecycle"] == "sandbox"
    assert call("schema", *named).document == json_schema(SANDBOX)
    for command in ("diagram", "table", "schema"):
        answer = call(command, "--lifecycle", "drawing:NOTHING")
        assert (answer.code, answer.out) == (2, "")
        assert "has no 'NOTHING'" in answer.err


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_schema_is_the_schema(form: tuple[str, ...]) -> None:
    """The schema is printed as the library has it."""
    answer = call("schema", *form)
    assert (answer.code, answer.err) == (0, "")
    assert answer.document == json_schema()
