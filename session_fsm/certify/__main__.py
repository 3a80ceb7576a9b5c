"""Certifies the lifecycle of sessions: `python -m session_fsm.certify [--check]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..errors import SessionFsmError
from ..table import SESSION_LIFECYCLE
from .certificate import certify
from .files import drift, path_of
from .text import render


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the certificate anew where it is stale, or tell that it is.

    Returns:
        The exit code: 1 if the lifecycle can't be certified, which leaves the file as it was, or
        if the file is stale and was not to be made, or could not be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m session_fsm.certify",
        description="Certify the lifecycle of sessions, in a file beside its diagrams.",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where the file is stale"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path("diagrams"), help="where the file is"
    )
    given = parser.parse_args(arguments)
    try:
        certificate = certify(SESSION_LIFECYCLE)
        for finding in certificate.findings:
            print(f"error: {finding.claim.value} But {finding}", file=sys.stderr)
        if certificate.findings:
            return 1
        path, text = path_of(SESSION_LIFECYCLE, given.directory), render(certificate)
        stale = drift(path, text)
        if stale is not None and given.check:
            print(f"{path} is stale: {stale}; run `make diagrams`", file=sys.stderr)
            return 1
        if stale is not None:
            path.write_bytes(text.encode())
            print(f"made {path}")
    except (SessionFsmError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
