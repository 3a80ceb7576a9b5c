"""Drawing DOT with Graphviz, which comes with the extra `diagrams`.

Graphviz runs in a process of its own: it serves one thread at a time, writes its warnings to the
standard error of the process, and a fault in it or in its fonts would end the process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from typing import Final

import attrs

from ..errors import SessionFsmError

STAMP: Final = "Source-SHA256"
"""What a drawing calls the digest of the DOT that it was made from."""

SCRIPT: Final = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog="dot", args=sys.argv[2]))
"""


@attrs.define(kw_only=True, slots=False, eq=False)
class DrawingError(SessionFsmError):
    """A picture could not be drawn; formats that are text need no drawing.

    Attributes:
        problem: What is wrong, in words.
    """

    problem: str

    def __str__(self) -> str:
        return self.problem


def is_installed() -> bool:
    """Whether Graphviz is there to draw."""
    return importlib.util.find_spec("pygraphviz") is not None


def draw(source: str, kind: str, arguments: str = "") -> bytes:
    """Draw DOT.

    Args:
        source: The DOT.
        kind: What Graphviz calls the format, such as `svg`.
        arguments: What is said to Graphviz besides, such as `-Gdpi=144`.

    Raises:
        DrawingError: Graphviz is not installed, or could not draw it.
    """
    if not is_installed():
        raise DrawingError(
            problem=f"drawing {kind} needs Graphviz: pip install 'session_fsm[diagrams]'"
        )
    # Nothing of the lifecycle is in the command; -P keeps the current directory off the path.
    run = subprocess.run(  # noqa: S603 - this Python, running the script above
        [sys.executable, "-P", "-c", SCRIPT, kind, arguments],
        input=source.encode(),
        capture_output=True,
        check=False,
    )
    if run.returncode or not run.stdout:
        told = run.stderr.decode(errors="replace").strip() or f"exit code {run.returncode}"
        raise DrawingError(problem=f"Graphviz could not draw {kind}: {told.splitlines()[-1]}")
    return run.stdout


def digest(source: str) -> str:
    """Return the digest under which a drawing tells what DOT it was made from."""
    return hashlib.sha256(source.encode()).hexdigest()
