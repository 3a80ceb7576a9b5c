"""In whose name a manager works: its own, which may come to be counted as dead and be replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class OwnName:
    """The name of a manager, as it is here and now.

    What has begun in one name goes on in it, wherever that is fixed for a thread or a task: when
    the manager has become another owner, what has run for the former one is refused what it writes,
    instead of writing in the name of the new one.

    Args:
        owner_id: The first name.

    Threads: safe.
    """

    def __init__(self, owner_id: str) -> None:
        self._newest = owner_id

    @property
    def now(self) -> str:
        """The name in which this thread or task works."""
        acting = _acting.get()
        return acting[1] if acting is not None and acting[0] is self else self._newest

    def renew(self, owner_id: str) -> None:
        """Go by another name from now on."""
        self._newest = owner_id

    @contextmanager
    def acting(self, owner_id: str) -> Iterator[None]:
        """Have what is done inside be done in a name, be it of somebody who is counted as dead."""
        token = _acting.set((self, owner_id))
        try:
            yield
        finally:
            _acting.reset(token)


_acting: ContextVar[tuple[OwnName, str] | None] = ContextVar("acting", default=None)
"""Whose name is fixed for this thread or task, and as what."""
