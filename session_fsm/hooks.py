"""Hooks by status: subscribers that are called when a session enters one, or leaves it."""

from __future__ import annotations

from .lifecycle import Lifecycle
from .session import SessionEvent
from .telling import Subscriber


def entering(lifecycle: Lifecycle, status: str, hook: Subscriber) -> Subscriber:
    """Return a subscriber that calls a hook with each event that leads into a status.

    Raises:
        LifecycleError: There is no such status.
        TypeError: The hook can't be called.
    """
    entered = _checked(lifecycle, status, hook)

    def told(event: SessionEvent) -> None:
        if event.target == entered and event.kind in ("created", "moved"):
            hook(event)

    return told


def leaving(lifecycle: Lifecycle, status: str, hook: Subscriber) -> Subscriber:
    """Return a subscriber that calls a hook with each move out of a status; errors as above."""
    left = _checked(lifecycle, status, hook)

    def told(event: SessionEvent) -> None:
        if event.source == left and event.kind == "moved":
            hook(event)

    return told


def _checked(lifecycle: Lifecycle, status: str, hook: Subscriber) -> str:
    if not callable(hook):
        raise TypeError(f"a hook is called; {type(hook).__name__} can't be")
    return lifecycle.status(status)
