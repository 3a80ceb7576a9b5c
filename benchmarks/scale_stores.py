"""Stores of many sessions, filled once through the manager and kept for the next run.

A store of a size is the beginning of the next larger one. The files are kept by the layout of
their tables: a library that makes others fills new ones.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from session_fsm import SessionManager
from session_fsm.clock import ManualClock

FILLED_FROM: Final = datetime(2026, 1, 1, tzinfo=UTC)
MEASURED_FROM: Final = FILLED_FROM + timedelta(days=365)
"""Later than any session was made, and years before any of them is due."""
NEVER_DUE_MINUTES: Final = 10_000_000
IN_ONE_COMMIT: Final = 500


def id_of(number: int) -> str:
    """Return the id of a session that was filled in."""
    return f"session-{number:09}"


def at_rest(number: int) -> bool:
    """Tell whether it was put to rest after its creation: every fourth was."""
    return number % 4 == 0


def url_of(path: Path) -> str:
    """Return the URL of a store in a file, wherever that is seen from."""
    return f"sqlite:///{path.resolve()}"


def fill(manager: SessionManager, clock: ManualClock, numbers: range) -> None:
    """Create sessions, each with settings and a deadline of its own."""
    for number in numbers:
        clock.advance(0.001)
        manager.create(
            id_of(number),
            config={"timeout_minutes": NEVER_DUE_MINUTES},
            llm_config={"model": "large", "temperature": number % 10},
        )
        if at_rest(number):
            manager.fire(id_of(number), "go_idle")


def layout() -> str:
    """Return what tells the tables of this library from those of another version."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "empty.db")
        SessionManager(url_of(path)).close()
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
        rows += connection.execute("PRAGMA user_version").fetchall()
        connection.close()
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:8]


def filled(directory: Path, sizes: Sequence[int]) -> dict[int, Path]:
    """Return a file for each size, made where it is missing."""
    mark = layout()
    paths = {size: directory / f"{size}-{mark}.db" for size in sorted(sizes)}
    growing = directory / f"growing-{mark}.db"
    if all(path.exists() for path in paths.values()):
        return paths
    for old in (*directory.glob("growing-*"), *_of_other_layouts(directory, paths)):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    clock = ManualClock(FILLED_FROM)
    begin, have = time.perf_counter(), 0
    for size, path in paths.items():
        with SessionManager(url_of(growing), clock=clock) as manager:
            for number in range(have, size, IN_ONE_COMMIT):
                with manager.batch():
                    fill(manager, clock, range(number, min(size, number + IN_ONE_COMMIT)))
        have = size
        working_copy(growing, path)
        print(f"{size:,} filled in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    growing.unlink()
    shutil.rmtree(f"{growing}.owners", ignore_errors=True)
    return paths


def _of_other_layouts(directory: Path, paths: Mapping[int, Path]) -> list[Path]:
    """Return the stores of these sizes that this library would not read as they are meant."""
    found = (old for size in paths for old in directory.glob(f"{size}-????????.db"))
    return [old for old in found if old not in paths.values()]


def working_copy(source: Path, target: Path) -> Path:
    """Copy a store that nobody has open, all of it on disk when it is there under its name."""
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    return partial.replace(target)


def check_whole(path: Path) -> None:
    """Refuse a store with a session that its history does not rebuild.

    Raises:
        ValueError: `verify` has found something.
    """
    with SessionManager(url_of(path)) as manager:
        report = manager.verify()
    if not report.ok:
        raise ValueError(f"{path.name}: {'; '.join(report.problems[:3])}")
