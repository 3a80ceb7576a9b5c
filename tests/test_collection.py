"""The suite itself: workers that run it side by side have to collect the very same tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def collected(hash_seed: str) -> list[str]:
    """Return the ids of all tests, as a process of its own collects them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_collection_is_the_same_each_time() -> None:
    """No id of a test depends on the time, on hashes, or on anything else that differs."""
    first = collected("1")
    assert len(first) > 1000
    assert collected("2") == first
