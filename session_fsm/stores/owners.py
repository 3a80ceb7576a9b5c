"""Who is alive: one lock file for each owner, held for as long as its process lives.

The operating system lets go of a lock when its process ends, by whatever means; nobody has to
notice a death, and no clock is asked. A lock that can be taken is the lock of a dead owner.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreUnavailableError


class OwnerLocks:
    """The lock files of the owners of one store.

    Args:
        directory: Where they lie; made if it is missing, for this user alone.

    Threads: safe.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process_id = os.getpid()
        self._held: dict[str, FileLock] = {}
        self._lock = threading.Lock()
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as fault:
            problem = f"can't make the directory of owners: {fault}"
            raise StoreUnavailableError(problem=problem) from fault

    def _path(self, owner_id: str) -> Path:
        if not owner_id or os.sep in owner_id or owner_id.startswith("."):
            raise StoreUnavailableError(problem=f"{owner_id!r} can't be the id of an owner")
        return self._directory / f"{owner_id}.lock"

    def take(self, owner_id: str) -> None:
        """Hold the lock of an owner from now on.

        Raises:
            StoreUnavailableError: Somebody else holds it, or it can't be made.
        """
        lock = FileLock(self._path(owner_id), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except (Timeout, OSError, ValueError) as fault:
            raise StoreUnavailableError(problem=f"owner {owner_id!r}: {fault}") from fault
        with self._lock:
            self._held[owner_id] = lock

    def drop(self, owner_id: str) -> None:
        """Let go of the lock of an owner of this process; of another one: nothing."""
        if os.getpid() != self._process_id:
            return  # a fork of the process that took them: they are not its own to let go of
        with self._lock:
            lock = self._held.pop(owner_id, None)
        if lock is not None:
            # Removed while it is held: nobody can take a file that is going away.
            with contextlib.suppress(OSError):
                self._path(owner_id).unlink()
            lock.release()

    def holds(self, owner_id: str) -> bool:
        """Tell whether an owner of this process lives."""
        return owner_id in self._held

    def is_alive(self, owner_id: str) -> bool:
        """Tell whether an owner lives."""
        with self._lock:
            if owner_id in self._held:
                return True
        path = self._path(owner_id)
        if not path.exists():
            return False
        probe = FileLock(path, timeout=0, thread_local=False)
        try:
            probe.acquire()
        except (Timeout, OSError):
            return True
        with contextlib.suppress(OSError):
            path.unlink()
        probe.release()
        return False

    def clear(self) -> None:
        """Remove the lock files of the dead; of those who have left work, too."""
        try:
            paths = list(self._directory.glob("*.lock"))
        except OSError:
            return  # the next time, then: it is only about tidiness
        for path in paths:
            self.is_alive(path.stem)

    def close(self) -> None:
        """Let go of every lock of this process."""
        with self._lock:
            held = list(self._held)
        for owner_id in held:
            self.drop(owner_id)
