"""Which file a store has open, and in which process: what a connection can't see by itself.

SQLite goes on with the file that it opened, whatever happens to the name. A file that was removed
takes every later change with it; one that was replaced shows it to nobody who opens the name. So
the name is looked up again, around each commit.

A fork copies a connection, but none of the locks that it holds, while SQLite, in the child as well,
goes on believing that it holds them, and a new connection of the child to the same file shares that
belief: what it commits is lost as soon as another process removes the log. So in a child an
inherited file is refused, to the old store and to a new one, and inherited connections are never
closed, which could remove the log as well.

Source: "How To Corrupt An SQLite Database File", on forks and on unlinked or renamed files.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol
from weakref import WeakSet

from ..errors import StoreUnavailableError

FileKey = tuple[int, int]
"""Device and number of a file; no other file has both while this one is held open."""

_BESIDE: Final = ("-wal", "-shm")
"""What SQLite keeps beside a file while it is open: the log, and the index of the log."""


_SETTLED_SECONDS: Final = 0.05
"""Longer than any step of the clock that file systems take the times of directories from."""


class FileIdentity:
    """A file, its log and the index of that, as they were when the file was opened.

    To be made after the first transaction, which makes the log, and used while a connection is
    open: it keeps the numbers from being given to other files.

    Whoever removes or replaces a file changes the directory. So it is enough to look at that, as
    long as it is as it was when the files were looked at. Asking for the times of the log itself
    makes the next commit a quarter dearer: its next write has to be told apart from the last one.

    Args:
        path: The file.

    Attributes:
        key: Which file it is.

    Raises:
        StoreUnavailableError: One of the three is not there.

    Threads: safe; at worst, two look at the files at once.
    """

    __slots__ = ("_directory", "_known", "_seen", "_settled", "key")

    def __init__(self, path: Path) -> None:
        path = path.absolute()  # a process may go to another directory
        real = os.path.realpath(path)  # what a link leads to has the log beside it
        names = (str(path), *(f"{real}{suffix}" for suffix in _BESIDE))
        self._known = tuple((name, _key_of(name)) for name in names)
        self.key = self._known[0][1]
        # A link may be changed elsewhere: then the files are looked at each time.
        self._directory = None if path.is_symlink() else str(path.parent)
        self._seen: tuple[int, int, int] | None = None
        self._settled = 0.0

    def check(self) -> None:
        """Refuse to go on with what nobody else would find, so that nobody would see it either.

        Raises:
            StoreUnavailableError: The file, its log or the index is gone, or is another one.
        """
        seen = self._directory_now()
        if self._is_known(seen):
            return
        for name, key in self._known:
            if _key_of(name) != key:
                raise _replaced(name)
        if seen != self._seen:
            # Two changes within one step of the clock leave the same time behind.
            self._settled = time.monotonic() + _SETTLED_SECONDS
            self._seen = seen

    def check_file(self) -> None:
        """Do the same for the file alone, which is enough for reading."""
        if self._is_known(self._directory_now()):
            return
        name, key = self._known[0]
        if _key_of(name) != key:
            raise _replaced(name)

    def _directory_now(self) -> tuple[int, int, int] | None:
        """Return which directory there is, and when it was changed; None if that tells nothing."""
        if self._directory is None:
            return None
        try:
            found = os.stat(self._directory)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns

    def _is_known(self, seen: tuple[int, int, int] | None) -> bool:
        """Tell whether the files were looked at since the directory was last changed."""
        return seen is not None and seen == self._seen and time.monotonic() > self._settled


def file_key(path: Path) -> FileKey:
    """Return which file a path names now.

    Raises:
        StoreUnavailableError: None.
    """
    return _key_of(str(path.absolute()))


def _key_of(name: str) -> FileKey:
    try:
        found = os.stat(name)
    except OSError as fault:
        problem = f"{name} can't be found any longer: {fault.strerror}"
        raise StoreUnavailableError(problem=problem) from fault
    return found.st_dev, found.st_ino


def _replaced(name: str) -> StoreUnavailableError:
    problem = f"{name} is another file than the one that was opened; put that back, or open anew"
    return StoreUnavailableError(problem=problem)


def make_private(path: Path) -> None:
    """Make the file, empty and for this user alone, if it is missing.

    It is made under another name and linked: closing a descriptor of the file itself would drop
    the locks that SQLite holds on it in this process.
    """
    if path.exists():
        if not path.stat().st_size:
            path.chmod(0o600)  # made by somebody beforehand, and still empty
        return
    descriptor, other_name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(other_name, path)
    finally:
        os.unlink(other_name)


# --- forks ------------------------------------------------------------------------------------


class Inheritable(Protocol):
    """Something with open connections, which a child by fork must leave alone."""

    def disown(self) -> Iterable[FileKey]:
        """In a child: keep away from what is open from now on, and tell which files that is."""
        ...


_open: WeakSet[Inheritable] = WeakSet()
_inherited: set[FileKey] = set()


def mark_open(inheritable: Inheritable) -> None:
    """Have something told in each child by fork that it was inherited."""
    _open.add(inheritable)


def mark_closed(inheritable: Inheritable) -> None:
    """Have it told no longer."""
    _open.discard(inheritable)


def _disown_all() -> None:
    for inheritable in list(_open):
        _inherited.update(inheritable.disown())
    _open.clear()


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_disown_all)


def check_not_inherited(path: Path, key: FileKey) -> None:
    """Refuse a file that was open in the process that this one was forked from.

    Raises:
        StoreUnavailableError: It was.
    """
    if key in _inherited:
        raise inherited(path)


def inherited(path: Path) -> StoreUnavailableError:
    """Return the error of whoever comes to an inherited file."""
    problem = (
        f"{path} was opened by another process, of which this one is a fork: a child opens what"
        " its parent did not have open, or is started by spawn"
    )
    return StoreUnavailableError(problem=problem)


def keep_for_ever(connections: Iterable[Any]) -> None:
    """Keep connections from being closed, even by the end of the process: it closes descriptors."""
    import ctypes  # a child alone needs it

    for connection in connections:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
