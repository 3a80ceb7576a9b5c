"""One look at all processes at a time, which serves everybody who waits for one when it begins.

To find what came from a process all processes of the machine are looked at. Many that end together
would look at many each, all at the same time, and keep everything else from running.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Collection
from typing import Final

from .families import Family, find_members
from .processes import ProcessHandle

logger = logging.getLogger(__name__)


def in_thread(call: Callable[[], object], name: str = "session_fsm worker") -> None:
    """Make a call in a thread of its own; here, if no more threads can be had."""
    try:
        threading.Thread(target=call, name=name).start()
    except RuntimeError:
        call()


class _Shared:
    """What was found in one look for some families."""

    def __init__(self, families: Collection[Family]) -> None:
        self._families = families
        self._found: dict[Family, tuple[ProcessHandle, ...]] | None = None

    def members(self, family: Family) -> tuple[ProcessHandle, ...]:
        if self._found is None:
            try:
                self._found = find_members(self._families)
            except OSError:
                self._found = {}  # what is too much for all together need not be for one
        found = self._found.pop(family, None)
        return find_members([family])[family] if found is None else found

    def close(self) -> None:
        """Let go of what nobody has asked for."""
        for handles in (self._found or {}).values():
            for handle in handles:
                handle.close()


class Look:
    """A look for what runs of one family.

    Attributes:
        family: Whose processes.

    Threads: those that look.
    """

    def __init__(self, looks: Looks, family: Family) -> None:
        self.family = family
        self.shared = _Shared((family,))
        self._all = looks

    def begin(self, call: Callable[[], object]) -> None:
        """Have something called which asks for the members; soon, and on another thread."""
        self._all.enter(self, call)

    def members(self) -> tuple[ProcessHandle, ...]:
        """Return a handle for each process that runs, to be closed by the caller.

        Raises:
            OSError: There are no descriptors left to look with.
        """
        return self.shared.members(self.family)


class Looks:
    """Looks for the processes of families, for all who ask at the same time together.

    Threads: safe. What is called is called one after the other, and should not wait.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Look, Callable[[], object]]] = []
        self._looks = False
        self._lock = threading.Lock()

    def look(self, family: Family) -> Look:
        """Return a look for what runs of a family; it is not begun."""
        return Look(self, family)

    def enter(self, look: Look, call: Callable[[], object]) -> None:
        """Have a look made, by whoever makes them now."""
        with self._lock:
            self._waiting.append((look, call))
            if self._looks:
                return
            self._looks = True
        in_thread(self._run, "session_fsm looks")

    def _run(self) -> None:
        while asked := self._next():
            shared = _Shared({look.family for look, _ in asked})
            for look, call in asked:
                look.shared = shared
                try:
                    call()
                except Exception:
                    logger.exception("what came from process %d was not seen to", look.family.pid)
            shared.close()

    def _next(self) -> list[tuple[Look, Callable[[], object]]]:
        with self._lock:
            # What has come to be since a look began is seen by the next one only.
            asked, self._waiting = self._waiting, []
            self._looks = bool(asked)
            return asked


LOOKS: Final = Looks()
"""The one of this process."""
os.register_at_fork(after_in_child=LOOKS.__init__)  # type: ignore[misc]  # no thread of it is there
