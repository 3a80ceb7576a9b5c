"""The program as a whole: help, exit codes, its outputs, and what it does without its extra."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from commanding import (
    LATER,
    call,
    environment,
    filled,
    plain,
    program,
    started,
    terminal,
    url_of,
    usual_sessions,
)

from session_fsm import SessionManager
from session_fsm.cli import program as program_module
from session_fsm.clock import ManualClock

COMMANDS = {
    "list": (),
    "counts": (),
    "show": ("calm",),
    "history": ("calm",),
    "explain": ("calm", "touch"),
    "terminate": ("calm",),
    "sweep": (),
    "recover": (),
    "purge": ("--ended-before", "30d"),
    "verify": (),
}
"""The commands that need a store, with words that do no harm."""
STORELESS = ("diagram", "table", "schema", "replay")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the usual sessions."""
    return filled(tmp_path / "sessions.db", usual_sessions)


# --- help ------------------------------------------------------------------------------------


def test_cli_help_names_every_command() -> None:
    """The help lists every command with what it is for; without any words it is printed too."""
    answer = call("--help")
    assert answer.code == 0
    names = [line.split()[1] for line in plain(answer.out).splitlines() if line[:2] == "│ "]
    assert {*COMMANDS, *STORELESS} <= set(names)
    bare = call()
    assert (bare.code, bare.out) == (2, answer.out)


@pytest.mark.parametrize("name", [*COMMANDS, *STORELESS])
def test_cli_help_of_each_command(name: str) -> None:
    """Each command says what it is for, and each of its options and arguments too."""
    group = typer.main.get_command(program_module.build())
    command = getattr(group, "commands")[name]  # noqa: B009 - typer keeps the type to itself
    answer = call(name, "--help")
    assert answer == call(name, "-h")
    assert (answer.code, answer.err) == (0, "")
    text = " ".join(plain(answer.out).replace("│", " ").split())
    assert text.startswith(f"Usage: session-fsm {name} ")
    assert command.help.split("\n\n")[0] in text
    assert "--json" in text
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.help.split()[0] in text


def test_cli_help_tells_units() -> None:
    """Options that are durations say in which unit they are."""
    assert "Minutes" in call("replay", "--help").out
    assert "Seconds" in call("replay", "--help").out
    assert "seconds, minutes, hours," in call("purge", "--help").out


def test_cli_version_is_that_of_the_package(repository: Path) -> None:
    """`--version` prints what setup.cfg says."""
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg", encoding="utf-8")
    answer = call("--version")
    assert (answer.code, answer.out) == (0, f"session-fsm {setup['metadata']['version']}\n")


# --- usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("frobnicate",),
        ("--frobnicate",),
        ("list", "--frobnicate"),
        ("list", "surplus"),
        ("list", "--limit", "0"),
        ("list", "--limit", "many"),
        ("list", "--limit"),
        ("list", "--all", "--status", "idle"),
        ("list", "--status", "asleep"),
        ("show",),
        ("table", "--format", "html"),
    ],
)
def test_cli_wrong_usage_is_told_in_one_line(store: Path, words: tuple[str, ...]) -> None:
    """What can't be meant is named in one line that points to the help, with exit code 2."""
    named = ("--store", url_of(store)) if words[0] in COMMANDS and words[-1] != "--limit" else ()
    answer = call(*words, *named)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("session-fsm: ")
    assert answer.err.endswith(" --help)\n")
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("name", list(COMMANDS))
def test_cli_commands_need_a_store(name: str) -> None:
    """A command about sessions asks for a store where none is named: exit code 2."""
    answer = call(name, *COMMANDS[name])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        "session-fsm: name a store: --store URL, or SESSION_FSM_STORE in the environment"
        f" (see session-fsm {name} --help)\n"
    )


@pytest.mark.parametrize("name", list(COMMANDS))
def test_cli_commands_make_no_store(tmp_path: Path, name: str) -> None:
    """A store that is not there is a failure, and neither a file nor a directory is made."""
    path = tmp_path / "typo.db"
    answer = call(name, *COMMANDS[name], store=path)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == f"session-fsm: there is no store '{path}'\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize(
    "url", ["sessions.db", "mysql://me:hunter2@host/db", "sqlite://x.db", "memory://me:hunter2@"]
)
def test_cli_commands_refuse_a_bad_url(name: str, url: str) -> None:
    """A URL that names no kind of store is wrong usage; a password in it is not repeated."""
    answer = call(name, *COMMANDS[name], "--store", url)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("session-fsm: --store: ")
    assert "hunter2" not in answer.err


def test_cli_option_wins_over_the_environment(store: Path, tmp_path: Path) -> None:
    """`SESSION_FSM_STORE` is taken where `--store` is not given."""
    absent = url_of(tmp_path / "absent.db")
    assert started("counts", SESSION_FSM_STORE="").code == 2
    assert started("counts", SESSION_FSM_STORE=url_of(store)).code == 0
    assert started("counts", SESSION_FSM_STORE=absent).code == 1
    assert started("counts", "--store", url_of(store), SESSION_FSM_STORE=absent).code == 0


@pytest.mark.parametrize("name", list(COMMANDS))
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_damaged_store_is_a_failure_in_one_line(
    tmp_path: Path, name: str, form: tuple[str, ...]
) -> None:
    """A file that is no store is named in one line, without a traceback; machines get nothing."""
    path = tmp_path / "notes.db"
    path.write_text("these are notes, and no database\n" * 100, encoding="utf-8")
    answer = call(name, *COMMANDS[name], *form, store=path)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("session-fsm: ")
    assert "notes.db" in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("name", [*COMMANDS, "diagram", "table", "schema"])
def test_cli_json_is_one_document(store: Path, name: str) -> None:
    """With `--json` the standard output is one JSON document, and nothing is said beside it."""
    named = () if name in STORELESS else ("--store", url_of(store))
    answer = call(name, *COMMANDS.get(name, ()), "--json", *named)
    assert (answer.code, answer.err) == (0, "") if name not in ("sweep", "recover") else answer
    assert isinstance(json.loads(answer.out), dict)


# --- outputs ---------------------------------------------------------------------------------


def crowd(manager: SessionManager, clock: ManualClock) -> None:
    """More sessions than fit into a pipe."""
    with manager.batch():
        for number in range(1500):
            manager.create(f"session-{number:04}-{'x' * 80}")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_cli_reader_that_goes_away_is_no_traceback(
    tmp_path: Path, form: tuple[str, ...], unbuffered: str
) -> None:
    """A reader that has had enough ends the command in silence."""
    store = filled(tmp_path / "crowd.db", crowd)
    with subprocess.Popen(
        program("list", "--limit", "5000", *form, "--store", url_of(store)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED=unbuffered),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_cli_reader_that_was_never_there(store: Path) -> None:
    """A pipe that is closed from the beginning is no traceback either."""
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        program("list", "--store", url_of(store)),
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, b"")


@pytest.mark.parametrize(
    "words", [("table",), ("schema",), ("diagram",), ("diagram", "--format", "png")]
)
def test_cli_output_that_can_not_be_written_is_a_failure(words: tuple[str, ...]) -> None:
    """A full disk is told in one line, with exit code 1."""
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            program(*words),
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert (run.returncode, run.stderr) == (1, b"session-fsm: No space left on device\n")


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [(">&-", "table", 0), ("2>&-", "show nobody --store memory://", 1), (">&- 2>&-", "frob", 2)],
)
def test_cli_closed_outputs_do_no_harm(closed: str, words: str, code: int) -> None:
    """A command whose outputs are closed does its work all the same."""
    run = subprocess.run(
        f'"$PYTHON" -m session_fsm {words} {closed}',
        shell=True,
        env=environment(PYTHON=sys.executable),
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (code, b"", b"")


def test_cli_speaks_ascii_where_it_has_to(store: Path) -> None:
    """Where the encoding has no arrows, they are escaped, and nothing fails."""
    words = ("history", "calm", "--store", url_of(store))
    answer = started(*words, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (answer.code, answer.err) == (0, "")
    assert r"active \u2192 idle" in answer.out


# --- interruption ----------------------------------------------------------------------------


def test_cli_interrupted_at_work(tmp_path: Path) -> None:
    """Ctrl-C while a log is read ends the command with exit code 130 and one line."""
    log = tmp_path / "endless.jsonl"
    os.mkfifo(log)
    with (
        subprocess.Popen(
            program("replay", str(log)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process,
        log.open("wb"),
    ):  # opened once the command reads, which is then left waiting
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"session-fsm: interrupted\n")


def test_cli_interrupted_at_a_question(store: Path) -> None:
    """Ctrl-C at a question is an interruption, and nothing is removed."""
    words = ("purge", "--ended-before", "2026-03-03T00:00:00Z", "--store", url_of(store))
    with terminal(*words) as screen:
        screen.read_until("[y/N] ")
        screen.process.send_signal(signal.SIGINT)
        assert screen.end() == 130
    assert "interrupted" in screen.seen.splitlines()[-1]
    assert "Traceback" not in screen.seen
    with SessionManager(url_of(store), clock=ManualClock(LATER)) as manager:
        assert manager.counts()["terminated"] == 2


# --- the extra -------------------------------------------------------------------------------

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r} or name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv[1:] = ["list"]
import session_fsm
from session_fsm.cli import main
main()
"""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_cli_without_its_extra_names_it(missing: str) -> None:
    """Without typer or rich, the command says in one line what to install, with exit code 1."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing)],
        capture_output=True,
        env=environment(),
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert "pip install 'session_fsm[cli]'" in run.stderr
    assert run.stderr.count("\n") == 1


def test_cli_does_not_take_another_fault_for_a_missing_extra() -> None:
    """A module of our own that is missing is a broken installation, and is said to be."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing="session_fsm.cli.program")],
        capture_output=True,
        env=environment(),
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "No module named 'session_fsm.cli.program'" in run.stderr
    assert "pip install" not in run.stderr
