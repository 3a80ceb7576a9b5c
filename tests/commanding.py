"""What the tests of the command line share: running it here, in a process, and on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import attrs

from session_fsm import SessionManager
from session_fsm.cli.lifecycles import LIFECYCLE_VARIABLE
from session_fsm.cli.options import KEY_FILE_VARIABLE, STORE_VARIABLE
from session_fsm.cli.program import run
from session_fsm.testing import ManualClock

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LATER = START + timedelta(minutes=25)
"""When the commands are run: five minutes before what was left at `START` expires."""

MALICE = "\x1b[31mred\x07\r\n\x9b2J\x7f\u202eturned\u2066\u200bhidden[bold]loud[/bold]:smile:"
"""What a terminal would obey: it has every sort of character that must not reach one."""
MALICE_SHOWN = (
    r"\x1b[31mred\x07\r\n\x9b2J\x7f\u202eturned\u2066\u200bhidden[bold]loud[/bold]:smile:"
)


@attrs.frozen
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of the standard output."""
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        """The JSON document that is the standard output."""
        return json.loads(self.out)


def call(*words: str, store: Path | str | None = None, at: datetime = LATER) -> Answer:
    """Run a command in this process, its outputs being no terminals; a store may be a URL."""
    url = url_of(store) if isinstance(store, Path) else store
    named = () if url is None else ("--store", url)
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    outside = mock.patch.dict(os.environ, environment(), clear=True)
    with outside, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*words, *named], clock=ManualClock(at))
    return Answer(code, _written(out), _written(err))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


def url_of(path: Path) -> str:
    """The URL of a store in a file."""
    return f"sqlite:///{path}"


def program(*words: str) -> list[str]:
    """The command as a process is started with it."""
    return [sys.executable, "-m", "session_fsm", *words]


def environment(**more: str) -> dict[str, str]:
    """The variables that a process is started with; nothing of it depends on who runs the tests."""
    unwanted = {
        *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
        *("GITHUB_ACTIONS", "PY_COLORS", "TERMINAL_WIDTH", "PYTHONUNBUFFERED"),
        *(STORE_VARIABLE, KEY_FILE_VARIABLE, LIFECYCLE_VARIABLE),
    }
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    root = str(Path(__file__).resolve().parent.parent)
    return {**kept, "TERM": "xterm-256color", "PYTHONPATH": root, **more}


def started(*words: str, **variables: str) -> Answer:
    """Run a command in a process of its own, its outputs being pipes."""
    done = subprocess.run(
        program(*words),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(**variables),
        text=True,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


# --- terminals -------------------------------------------------------------------------------


@attrs.define
class Terminal:
    """A terminal in which a command runs."""

    process: subprocess.Popen[bytes]
    _master: int
    seen: str = ""

    def read_until(self, text: str) -> None:
        """Read until a text has been shown."""
        while text not in self.seen:
            assert self._read(), f"ended without {text!r}: {self.seen}"

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Read the rest, and return the exit code."""
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux tells that nobody has the other end any longer
            return False
        self.seen += data.decode().replace("\r\n", "\n")
        return bool(data)


@contextlib.contextmanager
def terminal(
    *words: str,
    columns: int = 100,
    typed: Any = None,
    out: Any = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run a command in a terminal.

    Args:
        words: The command.
        columns: The width of the terminal.
        typed: What is the standard input instead of the terminal.
        out: What is the standard output instead of the terminal.
        variables: More variables of the environment.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        program(*words),
        stdin=slave if typed is None else typed,
        stdout=slave if out is None else out,
        stderr=slave,
        env=environment(**(variables or {})),
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def shown(*words: str, columns: int = 100, variables: Mapping[str, str] | None = None) -> Answer:
    """Run a command in a terminal, and return all that was shown as its output."""
    with terminal(*words, columns=columns, variables=variables) as screen:
        code = screen.end()
        return Answer(code, screen.seen, "")


STYLE = re.compile(r"\x1b\[[0-9;]*m")
COLOUR = re.compile(r"\x1b\[([0-9]+;)*(3[0-7]|9[0-7]|38;[0-9;]+)m")


def plain(text: str) -> str:
    """What was shown, without the codes for colours and weights."""
    return STYLE.sub("", text)


# --- stores ----------------------------------------------------------------------------------


def filled(path: Path, fill: Callable[[SessionManager, ManualClock], None]) -> Path:
    """Make a store with sessions at `START`, by a manager that is closed."""
    clock = ManualClock(START)
    with SessionManager(url_of(path), clock=clock) as manager:
        fill(manager, clock)
    return path


def usual_sessions(manager: SessionManager, clock: ManualClock) -> None:
    """One session in each status that a manager leaves one in: `busy`, `calm`, `done`, `lost`."""
    manager.create(
        "busy",
        config={"max_conversations": 5, "features": ("search", "code")},
        llm_config={"model": "large", "api_key": "sk-live-1"},
        metadata={"team": "blue", "nested": {"token": "t-2", "n": [1, 2]}},
    )
    manager.start_conversation("busy")
    manager.begin_task("busy", "turn-1")
    manager.create("calm")
    manager.begin_task("calm", "turn-1")
    manager.end_task("calm", "turn-1", reason="answered")
    manager.create("done")
    manager.terminate("done", reason="bye")
    manager.create("lost")
    manager.fail("lost", "the worker died")


def malicious_sessions(manager: SessionManager, clock: ManualClock) -> None:
    """Sessions with text in every field that takes free text, which a terminal would obey."""
    manager.create("evil", metadata={MALICE: MALICE}, llm_config={"model": MALICE})
    manager.begin_task("evil", "turn")
    manager.end_task("evil", "turn", reason=MALICE)
    manager.create("evil-end")
    manager.fail("evil-end", MALICE)


def line_of(text: str, beginning: str) -> str:
    """The one line of a text that begins with some words."""
    (found,) = (line for line in text.splitlines() if line.startswith(beginning))
    return found
