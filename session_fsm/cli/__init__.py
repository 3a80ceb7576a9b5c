"""The command line: `session-fsm`, or `python -m session_fsm`; needs the extra `cli`.

| module | what it does |
|---|---|
| `text` | stored text, instants and durations as they may be shown to people |
| `output` | one answer of a command: tables for people, one JSON document for machines |
| `records` | what is stored, as JSON under stable keys |
| `options` | the options that commands share, and how their words are read |
| `lifecycles` | the lifecycle that `--lifecycle` names |
| `opening` | opening the store that a URL names |
| `sessions` | `list`, `show`, `history`, `counts`, `terminate` |
| `explaining` | `explain` |
| `upkeep` | `sweep`, `recover`, `purge`, `verify` |
| `pictures` | `diagram`, `table`, `schema` |
| `certificates` | `certify` |
| `replays` | `replay` |
| `program` | the commands put together; faults become exit codes |
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_EXTRA: Final = ("rich", "typer")


def main() -> None:
    """Run the command that the process was started with, and end the process with its exit code."""
    _mend_streams()
    try:
        from .program import run

        code = run()
    except ModuleNotFoundError as fault:
        if (fault.name or "").partition(".")[0] not in _EXTRA:
            raise
        needs = "the command line needs typer and rich: pip install 'session_fsm[cli]'"
        code = _failed(needs, 1)
    except KeyboardInterrupt:  # before the command began
        code = _failed("interrupted", 130)
    sys.exit(code)


def _failed(problem: str, code: int) -> int:
    print(f"session-fsm: {problem}", file=sys.stderr)
    return code


def _mend_streams() -> None:
    """Make both outputs take all that is said: one that is closed, and any encoding."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - till the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
