"""What a person sees: colours, tables that fit, a progress bar; and that pipes get none of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from commanding import (
    COLOUR,
    MALICE_SHOWN,
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

from session_fsm import SessionManager
from session_fsm.clock import ManualClock

SAMPLE = Path(__file__).resolve().parent.parent / "examples" / "sample_trace.jsonl.gz"
BAR = "━"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the usual sessions."""
    return filled(tmp_path / "sessions.db", usual_sessions)


# --- colours ---------------------------------------------------------------------------------


def test_cli_terminal_has_colours(store: Path) -> None:
    """On a terminal statuses are coloured; without the colours it is what a pipe gets."""
    words = ("list", "--all", "--store", url_of(store))
    screen = shown(*words)
    assert screen.code == 0
    assert COLOUR.search(screen.out)
    assert plain(screen.out).splitlines()[1].split()[:2] == ["busy", "active"]
    assert "\x1b" not in started(*words).out


@pytest.mark.parametrize(
    ("words", "variables"),
    [(("--no-color",), {}), ((), {"NO_COLOR": "1"}), ((), {"TERM": "dumb"})],
)
def test_cli_terminal_without_colours(
    store: Path, words: tuple[str, ...], variables: dict[str, str]
) -> None:
    """`--no-color`, `NO_COLOR` and a dumb terminal mean no colours, on both outputs."""
    screen = shown("list", "--all", *words, "--store", url_of(store), variables=variables)
    assert "terminated" in screen.out
    assert not COLOUR.search(screen.out)
    failed = shown("show", "nobody", *words, "--store", url_of(store), variables=variables)
    assert "there is no session 'nobody'" in failed.out
    assert not COLOUR.search(failed.out)


@pytest.mark.parametrize("words", [("list", "--all"), ("table",), ("counts",), ("verify",)])
def test_cli_pipe_gets_no_codes(store: Path, words: tuple[str, ...]) -> None:
    """Where nobody watches there is no escape code, whatever the terminal around could do."""
    named = () if words == ("table",) else ("--store", url_of(store))
    answer = started(*words, *named, COLUMNS="20")
    assert answer.code == 0
    assert "\x1b" not in answer.out + answer.err


def test_cli_json_has_no_codes_on_a_terminal(store: Path) -> None:
    """JSON is the same on a terminal and in a pipe."""
    words = ("history", "calm", "--json", "--store", url_of(store))
    assert shown(*words).out == started(*words).out


# --- tables ----------------------------------------------------------------------------------

UUID = "7d1f0f3c-6a2e-4d4f-9a43-0c2f0a9d1e55"


def one_with_a_long_error(manager: SessionManager, clock: ManualClock) -> None:
    """A session with an id and an error of the usual length."""
    manager.create(UUID)
    manager.fail(UUID, "the connection to the model was lost while a tool was running, twice")


@pytest.mark.parametrize("columns", [20, 60, 100, 200])
def test_cli_terminal_keeps_ids_whole(tmp_path: Path, columns: int) -> None:
    """However narrow the terminal is, an id stands in one piece, and nothing is cut off."""
    store = filled(tmp_path / "sessions.db", one_with_a_long_error)
    for words in (("list", "--all"), ("show", UUID)):
        screen = shown(*words, "--store", url_of(store), columns=columns)
        assert screen.code == 0
        assert UUID in plain(screen.out)
    told = " ".join(plain(shown("show", UUID, "--store", url_of(store), columns=80).out).split())
    assert "the connection to the model was lost while a tool was running, twice" in told


def test_cli_terminal_wraps_sentences_in_their_column(tmp_path: Path) -> None:
    """A long reason goes on below itself, within the width of the terminal."""
    store = filled(tmp_path / "sessions.db", one_with_a_long_error)
    screen = plain(shown("history", UUID, "--store", url_of(store), columns=120).out)
    lines = screen.splitlines()
    assert max(map(len, lines)) <= 120
    column = lines[0].index("reason and changes")
    followed = [line for line in lines if line.startswith(" " * column)]
    assert followed
    assert all(line[column] != " " for line in followed)


def test_cli_terminal_obeys_nothing_that_is_stored(tmp_path: Path) -> None:
    """On a terminal the only codes are our own styles; markup and emoji codes are shown."""
    store = filled(tmp_path / "evil.db", malicious_sessions)
    screen = shown("list", "--store", url_of(store))
    for words in (("list", "--all"), ("show", "evil"), ("history", "evil"), ("show", "evil-end")):
        screen = shown(*words, "--store", url_of(store), columns=300)
        assert screen.code == 0
        assert plain(screen.out).replace("\n", "").isprintable()
    assert MALICE_SHOWN in plain(
        shown("show", "evil-end", "--store", url_of(store), columns=300).out
    )


# --- the progress bar ------------------------------------------------------------------------


def test_cli_terminal_shows_progress() -> None:
    """Who watches sees how far the reading and the replay are; the bar is gone at the end."""
    screen = shown("replay", str(SAMPLE))
    assert screen.code == 0
    assert BAR in screen.out
    assert "reading" in plain(screen.out)
    bar, _, report = screen.out.rpartition("\x1b[2K")
    assert "\x1b[?25h" in bar
    assert BAR not in report
    assert plain(report).splitlines()[0].split() == ["store", "memory://"]


def test_cli_terminal_shows_progress_beside_a_piped_answer(tmp_path: Path) -> None:
    """The bar is on the standard error alone: the answer can be piped meanwhile."""
    path = tmp_path / "answer.txt"
    with path.open("wb") as file, terminal("replay", str(SAMPLE), out=file) as screen:
        assert screen.end() == 0
    assert BAR in screen.seen
    answer = path.read_text(encoding="utf-8")
    assert answer.startswith("store")
    assert "\x1b" not in answer


@pytest.mark.parametrize("words", [("--json",), ("--no-color",)])
def test_cli_progress_is_for_people(words: tuple[str, ...]) -> None:
    """Machines get no bar, though the standard error is a terminal; colours don't matter to it."""
    screen = shown("replay", str(SAMPLE), *words)
    assert (BAR in screen.out) == (words == ("--no-color",))


def test_cli_progress_is_not_for_pipes() -> None:
    """Where the standard error is no terminal there is no bar, even if colours are forced."""
    run = subprocess.run(
        program("replay", str(SAMPLE)),
        capture_output=True,
        env=environment(FORCE_COLOR="1"),
        check=True,
    )
    assert run.stderr == b""
    assert BAR.encode() not in run.stdout
