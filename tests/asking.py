"""What the tests share that ask for many changes at one go."""

from __future__ import annotations

import contextvars
import threading
from types import SimpleNamespace
from typing import Any

from managing import HookedStore, House

from session_fsm import SESSION_LIFECYCLE, SessionManager
from session_fsm.decisions import Decision, Fire
from session_fsm.together import Asked, Together, _kind

NAMES = tuple(f"s{number}" for number in range(6))


class Asking:
    """A manager with sessions, and what came of the changes that were asked for together."""

    def __init__(self, house: House) -> None:
        self.store: HookedStore = house.store()
        self.manager: SessionManager = house.open(store=self.store)
        self.now = 0.0
        self.together = Together(self.manager._core, lambda: self.now)
        self.told: dict[str, Any] = {}
        self.threads: dict[str, int] = {}
        for name in NAMES:
            self.manager.create(name)

    def __call__(self, *asked: tuple[str, Decision], revision: int | None = None) -> dict[str, Any]:
        """Ask for changes, of kinds that are quick; returns what is told when that is done."""
        for _, decision in asked:
            trust(self.together, decision)

        def tell(each: Asked, came: object) -> None:
            assert each.session_id not in self.told
            self.told[each.session_id] = came
            self.threads[each.session_id] = threading.get_ident()

        context = contextvars.copy_context
        made = [Asked(name, decision, revision, context()) for name, decision in asked]
        self.together.make(made, tell)
        return dict(self.told)

    def is_at_hand(self, session_id: object) -> bool:
        """Tell whether a session is at hand for what is quick."""
        touch = fire("touch")
        trust(self.together, touch)
        return self.together.is_at_hand(session_id, touch)

    def status(self, name: str) -> str:
        """Return the stored status of a session, which nobody has locked."""
        self.manager.touch(name)
        return str(self.manager.get(name).status)


def trust(together: Together, decision: Decision) -> None:
    """Take a kind of decision for quick, in whichever status."""
    for status in SESSION_LIFECYCLE.statuses:
        state: Any = SimpleNamespace(status=status)
        together._quick.add(_kind(decision, state))


def fire(trigger: str, **arguments: Any) -> Decision:
    """Return the decision to fire a trigger."""
    return Fire(trigger, None, arguments)
