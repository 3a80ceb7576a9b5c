"""A process of the operating system as the child of a session."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from ..processes import this_place
from .process_run import Plan, ProcessContext, Run

DEFAULT_LOG_BYTES: Final = 65536


class ProcessWorker:
    """Runs a process for a session; the `run` of a `Child`.

    The process leads a session and a group of its own. When it is asked to stop, or cancelled, the
    whole group and whatever else came from it get SIGTERM; what has not ended `term_seconds` later
    is killed, and so is at once what the process leaves when it ends by itself. Cancelled a second
    time, or after it was asked to stop, it waits no longer and kills. All is noted in the store, so
    that `reap_orphans` finds what is left should this process be killed.

    One may serve the children of many sessions at the same time; each has a process of its own.

    Args:
        argv: The program, looked for in the PATH of its environment, and its arguments.
        env: Its whole environment; None: that of this process. `SESSION_FSM_WORKER` is added.
        cwd: The directory that it runs in; None: that of this process.
        stdin: `none`: its input is empty; `pipe`: it gets what `send` is given.
        ready_line: It is ready once it has said this line, without its end; None: as soon as the
            program runs.
        term_seconds: How long it has to end once it was asked to; less than the child's own
            `stop_seconds`, or it is cancelled before.
        log_bytes: Most bytes of its output that are kept.

    Raises:
        ValueError, TypeError: An argument is bad.
        NotImplementedError: There is no `/proc` as Linux has it, or no Python to begin with.

    Attributes:
        takes_messages: False: what is sent to the session is not for it, and a sibling that reads
            its inbox gets it.

    Threads: none but that of the loop in which it is called, which may be any.
    """

    takes_messages: ClassVar[bool] = False

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: str = "none",
        ready_line: bytes | None = None,
        term_seconds: float = 3.0,
        log_bytes: int = DEFAULT_LOG_BYTES,
    ) -> None:
        this_place()
        if not sys.executable or getattr(sys, "frozen", False):
            raise NotImplementedError("processes are begun by a Python interpreter: none is here")
        if stdin not in ("none", "pipe"):
            raise ValueError(f"stdin: expected 'none' or 'pipe', got {stdin!r}")
        if isinstance(log_bytes, bool) or not isinstance(log_bytes, int) or log_bytes < 0:
            raise ValueError(f"log_bytes: expected a number from 0 on, got {log_bytes!r}")
        if isinstance(term_seconds, bool) or not 0 <= term_seconds < threading.TIMEOUT_MAX:
            raise ValueError(f"term_seconds: expected seconds from 0 on, got {term_seconds!r}")
        if ready_line is not None and (not isinstance(ready_line, bytes) or b"\n" in ready_line):
            raise ValueError("ready_line: expected the bytes of one line, without its end")
        self._plan = Plan(
            argv=_checked_argv(argv),
            environ=None if env is None else _checked_environ(env),
            cwd=None if cwd is None else os.fspath(cwd),
            pipe_stdin=stdin == "pipe",
            ready_line=ready_line,
            term_seconds=term_seconds,
            log_bytes=log_bytes,
        )
        self._running: dict[str, Run] = {}
        self._last: Run | None = None

    def __repr__(self) -> str:
        return f"<ProcessWorker {self._plan.argv[0]!r}, {len(self._running)} running>"

    async def __call__(self, context: ProcessContext) -> None:
        """Run a process until it ends, or is asked to stop.

        Raises:
            ProcessDiedError: It ended by itself, by a signal or with another code than 0.
            OSError: The program can't be run.
            StoreError: It could not be noted, and was not run.
        """
        run = Run(self._plan, context)
        self._running[context.session_id] = self._last = run
        try:
            await run.live()
        finally:
            if self._running.get(context.session_id) is run:
                del self._running[context.session_id]

    def log(self, session_id: str | None = None) -> bytes:
        """Return the end of what a process has said; it may run still.

        Args:
            session_id: Of which session's; None: of the one that was begun last.

        Returns:
            Standard output and error as they came, at most `log_bytes`; values of the environment
            whose name tells of a secret are starred out. Empty if nothing was said, or the process
            is not known any longer: of those that have ended, only the last one is.
        """
        run = self._run_of(session_id)
        return b"" if run is None else run.log()

    def process_id(self, session_id: str | None = None) -> int | None:
        """Return the number of a running process; None if none runs. Arguments as for `log`."""
        run = self._run_of(session_id)
        return None if run is None else run.process_id

    async def send(self, data: bytes, session_id: str | None = None) -> None:
        """Send bytes to the input of a running process, waiting until it takes them.

        Args:
            data: What is sent.
            session_id: As for `log`.

        Raises:
            BrokenPipeError: No process runs, or it reads no more.
            ValueError: Its input is no pipe.
        """
        if not self._plan.pipe_stdin:
            raise ValueError("its input is no pipe: give the worker stdin='pipe'")
        run = self._run_of(session_id)
        if run is None or run.feed is None:
            raise BrokenPipeError("no process runs")
        await run.feed.send(data)

    def _run_of(self, session_id: str | None) -> Run | None:
        if session_id is None:
            return self._last
        last = self._last
        is_last = last is not None and last.context.session_id == session_id
        return self._running.get(session_id, last if is_last else None)


def _checked_argv(argv: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    if isinstance(argv, str | bytes):
        raise TypeError("argv: expected a sequence of words, got one text")
    words = tuple(os.fspath(word) for word in argv)
    if not words or not words[0]:
        raise ValueError("argv: expected a program at least")
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"argv: expected texts, got {type(word).__name__}")
        if "\0" in word:
            raise ValueError("argv: no word may have U+0000")
    return words


def _checked_environ(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("env: expected names and values that are texts")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"env: {name!r} can't be in an environment")  # never its value
    return dict(env)
