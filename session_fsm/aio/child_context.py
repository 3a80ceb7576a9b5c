"""What a child is given: whose child it is, and how it is asked to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..stores import SessionStore
from .children import Inbox
from .verbs import SessionVerbs


class ChildContext:
    """What a child is given for one run.

    Attributes:
        session_id: The session that it runs for.
        name: The child's name.
        restarts: How often it was restarted before this run.
        manager: The manager of the session.
        owner_id: In whose name the manager's work is claimed in the store.
        stopping: Set when it is asked to stop.
        inbox: Messages for it; the same for all of its runs, so that none is lost by a restart.

    Threads: none but the loop's.
    """

    __slots__ = (
        "_on_ready",
        "inbox",
        "manager",
        "name",
        "owner_id",
        "restarts",
        "session_id",
        "stopping",
    )

    def __init__(
        self,
        *,
        session_id: str,
        name: str,
        restarts: int,
        manager: SessionVerbs,
        owner_id: str,
        inbox: Inbox,
        on_ready: Callable[[], None],
    ) -> None:
        self.session_id = session_id
        self.name = name
        self.restarts = restarts
        self.manager = manager
        self.owner_id = owner_id
        self.inbox = inbox
        self.stopping = asyncio.Event()
        self._on_ready = on_ready

    @property
    def store(self) -> SessionStore:
        """The store of the session; its calls may block."""
        return self.manager.store

    def ready(self) -> None:
        """Tell that the child can be worked with; twice is harmless."""
        self._on_ready()

    def ask_to_stop(self) -> None:
        """Ask the child to end by itself: `stopping` is set, and the inbox comes to its end."""
        self.stopping.set()
        self.inbox.close()
