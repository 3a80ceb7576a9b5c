"""A cluster keeps its promises while it is killed, paused and cut off; see `cluster`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("cluster.py")


def test_cluster_of_four_nodes() -> None:
    """Four nodes on one server: whatever befalls them, all were told one story, which is stored."""
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, "--seconds", "12", "--lease", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"([\d,]+) calls", done.stdout)
    assert found is not None
    # Nodes that do nothing would prove nothing, nor would a time in which nothing befalls them.
    assert int(found[1].replace(",", "")) > 300, done.stdout
    for kind in ("kill", "pause", "cut", "restart immediate", "restart fast"):
        assert re.search(rf"\d+ {kind}", done.stdout), done.stdout
