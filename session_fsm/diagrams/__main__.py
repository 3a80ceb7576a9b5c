"""Makes the files that show the table of sessions: `python -m session_fsm.diagrams [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..table import SESSION_LIFECYCLE
from .files import stale, write
from .graphviz import DrawingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Make stale files anew, or name them.

    Returns:
        The exit code: 1 if a file is stale and was not to be made, or could not be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m session_fsm.diagrams",
        description="Show the lifecycle of sessions in every format, each in a file.",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail and name what is stale"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path("diagrams"), help="where the files are"
    )
    given = parser.parse_args(arguments)
    try:
        if given.check:
            found = stale(SESSION_LIFECYCLE, given.directory)
            for path in found:
                print(f"{path} is stale or missing: run `make diagrams`", file=sys.stderr)
            return 1 if found else 0
        for path in write(SESSION_LIFECYCLE, given.directory):
            print(f"made {path}")
    except (DrawingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
