"""Faults of the machine, made on purpose, and the account of what a manager has acknowledged.

Programs that run beside a test import this too. A fault is made by the real thing wherever it can
be had without rights (limits of a process, modes, signals, bytes of a file); a mount, which takes
rights, comes in addition where they are there, in a name space that ends with its process.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from session_fsm import Session, SessionManager

_NEW_MOUNTS, _NEW_USER = 0x00020000, 0x10000000
_READ_ONLY, _REMOUNT, _PRIVATE = 1, 32, (1 << 14) | (1 << 18)

PREAMBLE: Final = """
import os, resource, sqlite3, sys
from pathlib import Path
sys.path.insert(0, "tests")
from session_fsm import *
from session_fsm.stores import SqliteStore
from faulty import *
"""
"""What the programs of the tests begin with."""


class Ledger:
    """What managers have acknowledged; all of it must be found ever after, and nothing twice.

    Each change adds 1 to the counter in the metadata of its session.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def create(self, manager: SessionManager, session_id: str) -> Session:
        """Create a session whose counter stands at 0."""
        session = manager.create(session_id, metadata={"count": 0})
        self.counts[session_id] = 0
        return session

    def add(self, manager: SessionManager, session_id: str, *, ballast: int = 0) -> Session:
        """Count one more, with so many characters beside it."""

        def change(metadata: Any) -> dict[str, Any]:
            return {"count": metadata["count"] + 1, "ballast": "x" * ballast}

        session = manager.update(session_id, metadata=change)
        self.counts[session_id] += 1
        return session

    def check(self, manager: SessionManager) -> None:
        """Assert that a manager finds what was acknowledged, and nothing else."""
        listed = manager.list(status=manager.lifecycle.statuses, limit=1000)
        assert {each.session_id: each.state.metadata["count"] for each in listed} == self.counts
        report = manager.verify()
        assert report.ok, report.problems
        for session_id, count in self.counts.items():
            history = manager.history(session_id)
            assert sum(event.trigger == "update" for event in history) == count


def count_of(path: Path, session_id: str) -> int:
    """Return the counter of a session as a new manager reads it; the store verifies."""
    with SessionManager(f"sqlite:///{path}") as manager:
        report = manager.verify()
        assert report.ok, report.problems
        count: int = manager.get(session_id).state.metadata["count"]
        return count


@contextmanager
def plain(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else's, which commits at once and waits for nobody."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def copied(path: Path, target: Path) -> Path:
    """Copy a database and its log as a power cut would leave them; return where the copy is."""
    target.mkdir(parents=True)
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            shutil.copy(f"{path}{suffix}", target / f"{path.name}{suffix}")
    return target / path.name


# --- disks --------------------------------------------------------------------------------------


class Disk:
    """A disk that gets full and has room again, for the program that makes it.

    Args:
        way: `limit` (no file of this process may grow, as on a disk where a file can't) or `mount`
            (a small file system of its own, which is really full).
        directory: Empty; where it is.
    """

    def __init__(self, way: str, directory: Path) -> None:
        self.way = way
        self.directory = directory
        self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        self._ballast = directory / "ballast"
        if way == "mount":
            assert mount_small(directory)

    def fill(self, *, spare: int = 0) -> None:
        """Leave no more than so many bytes."""
        if self.way == "limit":
            largest = max(each.stat().st_size for each in self.directory.glob("*.db*"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest + spare, self._hard))
            return
        with self._ballast.open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(b"\x00" * 4096):
                pass
        os.truncate(self._ballast, self._ballast.stat().st_size - spare)

    def clear(self) -> None:
        """Make room."""
        if self.way == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._hard, self._hard))
        else:
            self._ballast.unlink()


@contextmanager
def limited(what: int, most: int) -> Iterator[None]:
    """Hold this process to a limit, as `resource.RLIMIT_…` names it."""
    before = resource.getrlimit(what)
    resource.setrlimit(what, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Keep this process from opening anything; what is open stays so."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    with limited(resource.RLIMIT_NOFILE, lowest_free):
        yield


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount_small(directory: Path, size: str = "8m") -> bool:
    """Mount a small file system for this process alone; tell whether that is allowed."""
    libc = _libc()
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_MOUNTS | (_NEW_USER if user else 0)):
        return False
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    if libc.mount(b"none", b"/", None, _PRIVATE, None):
        return False
    options = f"size={size},mode=0700".encode()
    failed: int = libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, options)
    return not failed


def remount(directory: Path, *, read_only: bool) -> None:
    """Make what `mount_small` mounted read-only, or writable again."""
    flags = _REMOUNT | (_READ_ONLY if read_only else 0)
    assert _libc().mount(b"tmpfs", os.fsencode(directory), b"tmpfs", flags, None) == 0


@functools.cache
def may_mount() -> bool:
    """Tell whether a process of this user may mount something for itself."""
    script = (
        "import sys, tempfile; from pathlib import Path; sys.path.insert(0, 'tests');"
        " from faulty import mount_small;"
        " sys.exit(not mount_small(Path(tempfile.gettempdir())))"
    )
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    return done.returncode == 0


def disks() -> tuple[str, ...]:
    """Return the ways to have a full disk here; the first is there on every machine."""
    return ("limit", "mount") if may_mount() else ("limit",)


def become_nobody() -> None:
    """Give up the rights of root, which no mode of a file binds."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
