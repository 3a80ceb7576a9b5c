"""Processes that move the same sessions are told one story; see `linear` and `linearizability`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("linear.py")


def test_linear_of_eight_processes() -> None:
    """Eight processes on one file: every answer and refusal agrees with the histories."""
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, "--seconds", "4", "--sessions", "20"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"([\d,]+) calls, ([\d,]+) of them while another", done.stdout)
    assert found is not None
    calls, met = (int(number.replace(",", "")) for number in found.groups())
    # Callers who never meet would prove nothing.
    assert calls > met > 20
