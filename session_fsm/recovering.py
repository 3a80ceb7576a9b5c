"""What dead owners have left, and what becomes of it: each session is taken by one, by its policy.

The store tells who is dead, and where many machines share it, gives what a dead owner left to one
of those who ask. What becomes of a session then is decided by its table as everything else is: its
tasks are dropped, its half-made start or stop is ended, and where a worker was run for it, it is
put to rest, gets a new one here, or ends.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final, TypeVar

import attrs

from .changes import Change
from .core import Core
from .decisions import Decision, cause_in_words
from .endings import Recover
from .errors import (
    SessionNotFoundError,
    SessionStartError,
    SessionSupervisedError,
    TransitionError,
)
from .orphans import reap_orphans
from .session import Reaped, RecoveryReport
from .starting import Claimed, Starting
from .stores.abc import SessionStore
from .stores.records import StoredStep, Taken, Work

T = TypeVar("T")

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 100
"""Most sessions that are taken over at a time: what is not recovered yet waits for nobody else."""

_WORKER: Final = Work("worker")
_OWNER_DIED: Final = "its owner died"
_UNMANNED: Final = "its worker was claimed and did not run: the store did not answer in time"

Restart = Callable[[Claimed], object]
"""Starts a worker for a session that was claimed for that."""


def recover(
    core: Core,
    starting: Starting,
    waiting: deque[Taken],
    *,
    restart: Restart | None,
    max_takeovers: int,
    restarting: bool = True,
) -> RecoveryReport:
    """Clear away what dead owners left: first their processes, then their work, by session.

    Args:
        core: The sessions.
        starting: What claims the workers that are started anew.
        waiting: What this manager took over before, and could neither recover nor give back; what
            is left of this call is put there.
        restart: Called with each session whose worker is to be started anew, and was claimed for
            that; None: they are put to rest.
        max_takeovers: A session that was taken over more often lately is ended.
        restarting: Whether sessions whose worker is to be started anew are taken at all.
    """
    # Should it be counted as dead on the way, whatever is left is somebody else's.
    owner_id = core.owner_id
    tally = _Recovered(core, starting, owner_id, restart, max_takeovers)
    # Before anybody else can run something for these sessions.
    reaped = reap_orphans(core.store)
    seen: set[tuple[str, str]] = set()
    # Nobody else takes what this owner has: what could not even be given back is for the next call.
    held = (each for each in emptied(waiting) if each.holder_id == owner_id)
    in_hand = list(dict.fromkeys(held))
    take = partial(core.store.take_over, owner_id, BATCH_SIZE, restarting=restarting)
    try:
        in_hand += take()
        # A store may give less at a time than there is, or again what it gave before.
        while _recover_all(tally, in_hand, seen):
            core.check_open()  # its owner is dismissed when a manager is closed
            in_hand += take(passing_over=tally.not_recovered)
    finally:
        waiting.extend(in_hand + tally.kept)
    return tally.report(reaped)


def emptied(waiting: deque[T]) -> Iterator[T]:
    """Yield what is in there, and take it out; other threads may do the same."""
    with contextlib.suppress(IndexError):
        while True:
            yield waiting.popleft()


def _recover_all(tally: _Recovered, in_hand: list[Taken], seen: set[tuple[str, str]]) -> bool:
    """Recover what is in hand, and let go of each as it is done; tells whether there was news."""
    news = False
    while in_hand:
        each = in_hand[0]
        key = (each.session_id, each.owner_id)
        if key in seen:
            tally.core.give_back(each)
        else:
            seen.add(key)
            news = True
            tally.recover(each)
        del in_hand[0]
    return news


@attrs.define
class _Recovered:
    """What was done so far.

    Attributes:
        kept: What could not be recovered, and is nobody's to be given back to.
    """

    core: Core
    starting: Starting
    owner_id: str
    restart: Restart | None
    max_takeovers: int
    ended: dict[str, None] = attrs.field(factory=dict)
    released: dict[str, None] = attrs.field(factory=dict)
    restarted: dict[str, None] = attrs.field(factory=dict)
    dropped: list[str] = attrs.field(factory=list)
    failed: list[tuple[str, str]] = attrs.field(factory=list)
    kept: list[Taken] = attrs.field(factory=list)

    @property
    def not_recovered(self) -> tuple[str, ...]:
        """The sessions that could not be recovered."""
        return tuple(session_id for session_id, _ in self.failed)

    def report(self, reaped: tuple[Reaped, ...]) -> RecoveryReport:
        """Tell it."""
        others = self.ended | self.restarted
        return RecoveryReport(
            ended=tuple(self.ended),
            released=tuple(each for each in self.released if each not in others),
            restarted=tuple(self.restarted),
            dropped_tasks=tuple(self.dropped),
            failed=tuple(self.failed),
            reaped=reaped,
        )

    def recover(self, taken: Taken) -> None:
        """Clear away what a dead owner left in one session."""
        session_id = taken.session_id
        try:
            self._recover(taken)
        except SessionStartError as error:
            if error.lives:
                self.failed.append((session_id, str(error)))
            else:
                self.ended[session_id] = None
        except SessionNotFoundError:
            self.core.release(session_id, taken.work, taken.holder_id)
        except Exception as fault:
            # Be it the lifecycle's own code that fails: the dead have left other sessions as well.
            logger.exception("session %r was not recovered", session_id)
            self.failed.append((session_id, cause_in_words(fault)))
            if taken.owner_id:
                self.core.give_back(taken)
            else:
                self.kept.append(taken)

    def _recover(self, taken: Taken) -> None:
        core, session_id = self.core, taken.session_id
        left = _Left(core.store, self.starting, taken)
        error = self._error(taken)
        runs = _WORKER in taken.work and error is None and self._is_run_anew(taken)
        if runs and (claimed := self._adopted(taken, left)) is not None:
            assert self.restart is not None
            self.restart(claimed)
            self.restarted[session_id] = None
            return
        change = self._change(session_id, Recover(left, taken.holder_id, error))
        self.dropped += _tasks_ended(core, change.steps)
        final = change.state.status in core.lifecycle.final
        # Without a step, too, such as the worker of a session that rests.
        if change.steps or (left.last and not final):
            (self.ended if final else self.released)[session_id] = None

    def _change(self, session_id: str, decision: Decision) -> Change:
        return self.core.change(session_id, decision, owner_id=self.owner_id)

    def _error(self, taken: Taken) -> str | None:
        """Return what a session is to be ended with, because of what became of its owners."""
        if taken.attempts > self.max_takeovers:
            return f"its owner died, as {taken.attempts - 1} did before within an hour"
        ends = self.core.read(taken.session_id).state.config.recovery == "end"
        return (_OWNER_DIED if taken.owner_id else _UNMANNED) if ends else None

    def _is_run_anew(self, taken: Taken) -> bool:
        if self.restart is None:
            return False
        return self.core.read(taken.session_id).state.config.recovery == "restart"

    def _adopted(self, taken: Taken, left: _Left) -> Claimed | None:
        """Drop what a dead owner did in a session, and claim its worker; None if that is over."""
        session_id = taken.session_id
        rest = Recover(lambda: tuple(_without_worker(left())), taken.holder_id)
        self.dropped += _tasks_ended(self.core, self._change(session_id, rest).steps)
        try:
            return self.starting.adopt(
                session_id, takes_over=lambda: _WORKER in left(own=1), owner_id=self.owner_id
            )
        except (TransitionError, SessionSupervisedError):
            return None  # it has expired, is ending, or somebody else was first


def _without_worker(work: Iterable[Work]) -> Iterator[Work]:
    return (each for each in work if each != _WORKER)


@attrs.define
class _Left:
    """Tells what is left to be recovered in a session that was taken over.

    Attributes:
        last: What was told last.
    """

    store: SessionStore
    starting: Starting
    taken: Taken
    last: tuple[Work, ...] = ()

    def __call__(self, own: int = 0) -> tuple[Work, ...]:
        """Ask; of what this manager is starting, `own` does not count."""
        taken = self.taken
        if not taken.owner_id and self.starting.is_run(taken.session_id, besides=own):
            self.last = ()  # somebody else here has seen to it since
        elif taken.holder_id == taken.owner_id:
            dead = self.store.abandoned(taken.session_id)
            self.last = tuple(work for each in dead for work in each.work)
        else:
            held = self.store.work_of(taken.session_id, taken.holder_id)
            self.last = tuple(work for work in taken.work if work in held)
        return self.last


def _tasks_ended(core: Core, steps: tuple[StoredStep, ...]) -> list[str]:
    """Return the tasks that some steps ended: those whose list got shorter, in order."""
    if "end_task" not in core.lifecycle.roles:
        return []
    return [
        task
        for step in (each.step for each in steps)
        if step.before is not None
        for task in step.before.active_tasks
        if task not in step.after.active_tasks
    ]
