"""Managers against a plain model, by rules that Hypothesis picks; restarts are among them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from rules import SessionRules

from session_fsm import SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore


class MemoryRules(SessionRules):
    """Managers that share a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._store = MemoryStore()

    def open_manager(self, clock: ManualClock) -> SessionManager:
        """Open a manager on the one store."""
        return SessionManager(self._store, clock=clock)


class SqliteRules(SessionRules):
    """Managers that each open the same file."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory()

    def open_manager(self, clock: ManualClock) -> SessionManager:
        """Open a manager on the one file, with a store of its own."""
        path = Path(self._directory.name) / "sessions.db"
        return SessionManager(f"sqlite:///{path}", clock=clock)

    def teardown(self) -> None:
        """Check and close as all do, and remove the file."""
        try:
            super().teardown()
        finally:
            self._directory.cleanup()


TestManagerRulesMemory = MemoryRules.TestCase
TestManagerRulesMemory.settings = settings(max_examples=120, stateful_step_count=40)
TestManagerRulesSqlite = SqliteRules.TestCase
TestManagerRulesSqlite.settings = settings(max_examples=25, stateful_step_count=40)
