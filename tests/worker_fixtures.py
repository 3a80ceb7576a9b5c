"""The fixture of tests that begin processes: none of them is left behind."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from worker_processes import Marked, children

from session_fsm.processes import MARKER


@pytest.fixture
def marked() -> Iterator[Marked]:
    """What the test has begun, by a mark that it inherits.

    None of it may be left at the end, running or to be reaped. By then the test's own patches are
    undone, or what it hides would not be seen here either.
    """
    marked = Marked(secrets.token_hex(16))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(MARKER, marked.token)
        before = children()
        yield marked
        told = []
        for handle in marked.handles():
            with closing(handle):
                told.append(Path(f"/proc/{handle.pid}/cmdline").read_bytes())
                handle.send(9)
        assert told == [], "processes were left running"
        assert children() == before, "processes were left to be reaped"
