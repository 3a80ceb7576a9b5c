"""What comes of decisions, and whoever watches that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from .explain import next_timed
from .history import Step
from .items import Written
from .lifecycle import Lifecycle
from .session import SessionEvent
from .state import SessionState
from .stores.records import StoredStep, Tail


def stored_steps(
    steps: Iterable[Step], revision: int, tail: Tail, lifecycle: Lifecycle
) -> tuple[StoredStep, ...]:
    """Return steps as they are stored.

    Args:
        steps: In order.
        revision: The one that the session had before them.
        tail: What the first of them is chained to.
        lifecycle: Tells when they let something be due.
    """
    stored: list[StoredStep] = []
    for number, step in enumerate(steps, revision + 1):
        timed = next_timed(step.after, lifecycle)
        tail = StoredStep(step, number, tail, None if timed is None else timed[1])
        stored.append(tail)
    return tuple(stored)


class Change:
    """What came of a decision.

    Attributes:
        state: The state of the session now.
        revision: Its revision now.
        steps: The steps that were made; empty if there was nothing to do.
        written: What came of each write to a table that was made without a step.
    """

    __slots__ = ("revision", "state", "steps", "written")

    def __init__(
        self,
        state: SessionState,
        revision: int,
        steps: tuple[StoredStep, ...] = (),
        written: tuple[Written, ...] = (),
    ) -> None:
        self.state = state
        self.revision = revision
        self.steps = steps
        self.written = written

    @property
    def events(self) -> tuple[SessionEvent, ...]:
        """The events of the steps."""
        return tuple(step.sealed.event for step in self.steps)


class Observer(Protocol):
    """Watches what a manager does to sessions; what it raises comes out of the manager's verbs.

    Threads: called on those of whoever uses the manager.
    """

    def begin(self, counts: Callable[[], dict[str, int]]) -> None:
        """Hear that the watch begins; called once, before all else.

        Args:
            counts: Tells how many sessions are in each status; on any thread. Errors as for
                `SessionManager.counts`.
        """
        ...

    def around(self, session_id: str, decision: object, make: Callable[[], Change]) -> Change:
        """Make a change, by one call of `make`, and return or raise what comes of it.

        Args:
            session_id: Whose change.
            decision: What is decided on; its `trigger`, or the name of its class, says what.
            make: Decides, commits, and tells subscribers.
        """
        ...

    def committed(self, steps: Sequence[StoredStep], seconds: float | None) -> None:
        """Hear of steps that are durable now.

        Args:
            steps: In the order in which they were made; none for what was written to tables alone.
            seconds: How long it took to write them; None: that is not known, as they were a whole
                batch's, or written with others.
        """
        ...
