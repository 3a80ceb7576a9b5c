"""Other processes for tests: programs that are talked to line by line, and killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parent.parent


class Program:
    """A Python program that runs in a process of its own; warnings are errors there too.

    It says a line by `print(…, flush=True)` and hears one by `input()`.

    Args:
        source: What it runs, indented as one likes.
        *arguments: What it finds in `sys.argv[1:]`.
        **options: As `subprocess.Popen` takes them.
    """

    def __init__(self, source: str, *arguments: object, **options: Any) -> None:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(source)]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            **options,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def say(self, line: str = "") -> None:
        """Send it a line."""
        print(line, file=self._in, flush=True)

    def hear(self) -> str:
        """Return the next line that it says; empty if it says no more."""
        return self._out.readline().rstrip("\n")

    def rest(self) -> list[str]:
        """Return all other lines that it says until it ends by itself, which must be well."""
        lines = self._out.read().splitlines()
        assert self._process.wait(60) == 0
        return lines

    def left(self) -> list[str]:
        """Return the whole lines that it had said and nobody heard, once it has ended."""
        return [line for line in self._out.read().splitlines(keepends=True) if line[-1] == "\n"]

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, by the signal that nothing can handle."""
        self._process.kill()
        self._process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._in.close()
        self._out.close()
