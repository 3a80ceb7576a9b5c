"""Work in progress, as the states of sessions show it, and what of it a change begins and ends."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from .lifecycle import Lifecycle
from .state import SessionState
from .stores.records import Work

_NONE: Final[frozenset[Work]] = frozenset()


def work_of(state: SessionState | None, lifecycle: Lifecycle) -> frozenset[Work]:
    """Return the work that a state itself shows to be in progress."""
    if state is None:
        return frozenset()
    work = {Work("task", task) for task in state.active_tasks}
    return work_in(state.status, lifecycle).union(work)


def work_in(status: str, lifecycle: Lifecycle) -> frozenset[Work]:
    """Return the work that a status itself shows to be in progress."""
    if status == lifecycle.initial and "activate" in lifecycle.roles:
        return frozenset({Work("start")})
    return frozenset({Work("stop")} if status in lifecycle.drains else ())


def in_order(work: Collection[Work]) -> tuple[Work, ...]:
    """Return work as it is written: in one order."""
    return tuple(sorted(work, key=lambda each: (each.kind, each.item)))


class ShownWork:
    """Tells what work a change begins and ends, as quickly as can be; each change is asked.

    Args:
        lifecycle: The lifecycle of the sessions.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._in = {status: work_in(status, lifecycle) for status in lifecycle.statuses}

    def changed(
        self,
        before: SessionState | None,
        after: SessionState,
        claims: Collection[Work],
        let_go: Collection[Work],
    ) -> tuple[tuple[Work, ...], tuple[Work, ...]]:
        """Return the work that a change begins, and the work that it ends, as they are written.

        Args:
            before: The state before it; None: there was none.
            after: The state after it.
            claims: What is begun besides.
            let_go: What is ended besides.
        """
        begun, ended = self._shown(before, after)
        if claims:
            begun = begun.union(claims)
        if let_go:
            ended = ended.union(let_go)
        return in_order(begun) if begun else (), in_order(ended) if ended else ()

    def _shown(
        self, before: SessionState | None, after: SessionState
    ) -> tuple[frozenset[Work], frozenset[Work]]:
        shown = self._in
        if (
            before is not None
            and before.active_tasks is after.active_tasks
            and shown[before.status] == shown[after.status]
        ):
            return _NONE, _NONE
        old, new = work_of(before, self._lifecycle), work_of(after, self._lifecycle)
        return new - old, old - new
