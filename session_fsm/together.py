"""Changes of many sessions, made at one go by one thread: decided one by one, written together.

Only what comes off at the first try is made so: a session that is known here and that nobody else
decides on, and a decision that accepts it, reads nothing, and takes no time. All else is left to
`Core.change`, on a thread that may wait; and so is what the store could not write together with
others. Where an answer was lost, a thread of its own finds out what became of it.

The sessions of a group are held until the group is written. So that none is held because of the
guards of another one, each kind of decision is made by itself until one of it was quick, and for a
while as soon as one was not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Final, TypeVar

from .changes import Change
from .core import Core
from .decisions import Decision, Draft
from .errors import RevisionConflictError, StoreUnavailableError
from .looks import in_thread
from .sharing import own_copy
from .slots import Plan
from .state import SessionState
from .stores.abc import NotTogetherError, Outcome
from .stores.records import Commit

SLOW_SECONDS: Final = 0.02
"""What takes longer is not quick, be it because something else keeps the interpreter busy."""
FIRST_REST_SECONDS: Final = 1.0
"""A kind of decision that was slow is not made with others for so long, however quick it is then.

Each time that it is slow again it is for twice as long.
"""
LONGEST_REST_SECONDS: Final = 60.0


class Asked:
    """A change that somebody asks for.

    Args:
        session_id: Of which session.
        decision: What is decided on it.
        expected_revision: The revision that it must have; None: any.
        context: That of whoever asks: all that is done for it is done in there.
    """

    __slots__ = ("context", "decision", "expected_revision", "session_id")

    def __init__(
        self, session_id: str, decision: Decision, expected_revision: int | None, context: Context
    ) -> None:
        self.session_id = session_id
        self.decision = decision
        self.expected_revision = expected_revision
        self.context = context

    def begin(self) -> bool:
        """Tell whether it is to be made at all; called when it is decided on."""
        return True


AskedT = TypeVar("AskedT", bound=Asked)
Came = Change | BaseException | None
"""What came of a change; None: nothing, and it is to be made by itself."""


class Together:
    """Makes changes of many sessions at one go.

    Args:
        core: Whose sessions.
        seconds: Tells what has passed.

    Threads: safe.
    """

    def __init__(self, core: Core, seconds: Callable[[], float] = monotonic) -> None:
        self._core = core
        self._seconds = seconds
        self._quick: set[object] = set()
        self._resting: dict[object, tuple[float, float]] = {}  # until when, and for how long

    def is_at_hand(self, session_id: object, decision: Decision) -> bool:
        """Tell whether a change may be made at the first try: its session is known here, and free.

        One that somebody decides on has no machine. Where somebody watches, none may: what is done
        for a change is to last as long as its span.
        """
        core = self._core
        if core.observer is not None or not core.store.commits_together:
            return False
        slot = core.slots.known(session_id) if isinstance(session_id, str) else None
        machine = None if slot is None else slot.machine
        if machine is None or _kind(decision, machine.state) not in self._quick:
            return False
        # What is not kept waits for no store that keeps the others.
        return machine.state.config.persistence_enabled is not False or not core.store.durable

    def make(self, asked: Iterable[AskedT], tell: Callable[[AskedT, Came], None]) -> None:
        """Make changes; each is durable when it is told.

        Args:
            asked: What is asked for.
            tell: Called once for each; on this thread, but for those that take longer: on another
                one, maybe later. It raises nothing.
        """
        plans: deque[tuple[AskedT, Plan]] = deque()
        made: list[tuple[AskedT, Plan, Came]] = []
        left: list[tuple[AskedT, Plan, Callable[[], None]]] = []
        try:
            for each in asked:
                plan = each.context.run(self._decide, each)
                if plan is None:
                    tell(each, None)
                else:
                    plans.append((each, plan))
            outcomes = self._committed([plan.commit for _, plan in plans])
            for outcome in outcomes:
                each, plan = plans.popleft()
                if (rest := self._rest(outcome)) is None:
                    made.append((each, plan, self._concluded(plan, outcome)))
                else:
                    left.append((each, plan, rest))
        finally:
            for _, plan in plans:
                plan.slot.unlock()
        # All that can be is let go of by now: whoever is told of one may want to change another.
        made += self._handed_on(left, tell)
        for each, plan, came in made:
            if plan.slot.outbox.held:
                # A batch has something to tell of it first, and may take long.
                in_thread(partial(self._tell, each, plan, came, tell))
            else:
                self._tell(each, plan, came, tell)
        self._core.slots.trim()

    def _decide(self, asked: Asked) -> Plan | None:
        """Decide on a session as far as that needs no wait; its slot stays locked then."""
        core = self._core
        if core.closed or core.observer is not None or not asked.begin():
            return None
        slot = core.slots.get(asked.session_id)
        if not slot.lock.acquire(blocking=False):
            return None
        plan = None
        try:
            slot.holder = threading.get_ident()
            machine = slot.machine
            if machine is None or slot.gone:
                return None
            decision = asked.decision
            if _kind(decision, machine.state) not in self._quick:
                return None
            revision = machine.revision
            if asked.expected_revision is not None and asked.expected_revision != revision:
                return None  # that is known of an older state, perhaps: it is read again
            # Whatever goes wrong from here on, the machine may have moved further than the store.
            slot.machine = None
            draft = core.draft(machine, core.clock.now(), core.owner_id, may_read=False)
            self.timed(decision)(draft)
            if draft.steps:
                planned = core.planned(slot, draft, machine, (revision, slot.tail), ())
                if not core.goes_on(planned.change):  # what follows has to be read
                    plan = planned
        except BaseException:  # noqa: BLE001 - raised again by whoever decides on what is fresh
            return None
        finally:
            if plan is None:
                slot.unlock()
        return plan

    def timed(self, decision: Decision) -> Decision:
        """Return a decision that notes whether it was quick."""

        def decide(draft: Draft) -> None:
            kind = _kind(decision, draft.state)
            begun, made = self._seconds(), False
            try:
                decision(draft)
                made = True
            finally:
                self._note(kind, begun, made=made)

        return decide

    def _note(self, kind: object, begun: float, *, made: bool) -> None:
        """Note whether a decision was quick.

        What is refused is never known to be: anything may be asked for.
        """
        now = self._seconds()
        until, rest = self._resting.get(kind, (0.0, 0.0))
        if now - begun > SLOW_SECONDS:
            self._quick.discard(kind)
            # Who was quick for long begins anew.
            again = now < until + LONGEST_REST_SECONDS and rest
            rest = min(2 * rest, LONGEST_REST_SECONDS) if again else FIRST_REST_SECONDS
            self._resting[kind] = (now + rest, rest)
        elif made and now >= until:
            self._quick.add(kind)

    def _committed(self, commits: Sequence[Commit]) -> Sequence[Outcome]:
        """Write commits; what goes wrong with all of them is the outcome of each."""
        if not commits:
            return ()
        try:
            outcomes = self._core.store.commit_all(commits)
            if len(outcomes) != len(commits):
                raise RuntimeError(f"{len(outcomes)} outcomes of {len(commits)} commits")
        except BaseException as fault:  # noqa: BLE001 - it is told
            return [own_copy(fault) for _ in commits]
        return outcomes

    def _rest(self, outcome: Outcome) -> Callable[[], None] | None:
        """Return what finds out whether a commit was made, where that is not known."""
        if callable(outcome):
            return outcome
        if isinstance(outcome, StoreUnavailableError) and outcome.operation_id is not None:
            return partial(_raise, outcome)
        return None

    def _concluded(self, plan: Plan, outcome: Outcome) -> Came:
        """Conclude what is known of a commit, and let go of its session."""
        try:
            if outcome is None:
                self._core.conclude(plan, None)
                return plan.change
            if isinstance(outcome, RevisionConflictError | NotTogetherError):
                return None  # it was not written, and may be by itself
            assert isinstance(outcome, BaseException)
            return outcome
        except BaseException as fault:  # noqa: BLE001 - it is told
            return fault
        finally:
            plan.slot.unlock()

    def _handed_on(
        self,
        left: Iterable[tuple[AskedT, Plan, Callable[[], None]]],
        tell: Callable[[AskedT, Came], None],
    ) -> list[tuple[AskedT, Plan, Came]]:
        """Have a thread for each finish what is left; returns what was finished on this one."""
        finished: list[tuple[AskedT, Plan, Came]] = []
        for each, plan, rest in left:
            # It holds its session, and may have to wait: nobody else is to wait for that.
            work = partial(self._finish, each, plan, rest, tell)
            plan.slot.holder = None  # this thread may come back to it before that one has begun
            try:
                threading.Thread(target=work, name="session_fsm finishes").start()
            except (RuntimeError, MemoryError):
                finished.append((each, plan, self._finished(each, plan, rest)))
        return finished

    def _finish(
        self,
        asked: AskedT,
        plan: Plan,
        rest: Callable[[], None],
        tell: Callable[[AskedT, Came], None],
    ) -> None:
        self._tell(asked, plan, self._finished(asked, plan, rest), tell)

    def _finished(self, asked: Asked, plan: Plan, rest: Callable[[], None]) -> Came:
        """Find out what became of a commit, and conclude it; its session is let go of."""
        plan.slot.holder = threading.get_ident()
        try:
            return asked.context.run(self._changed, plan, rest)
        except RevisionConflictError:
            return None
        except BaseException as fault:  # noqa: BLE001 - it is told
            return fault
        finally:
            plan.slot.unlock()

    def _changed(self, plan: Plan, rest: Callable[[], None]) -> Change:
        self._core.write(plan, rest)
        return plan.change

    def _tell(
        self, asked: AskedT, plan: Plan, came: Came, tell: Callable[[AskedT, Came], None]
    ) -> None:
        """Tell whoever has subscribed, and then whoever has asked."""
        try:
            if plan.slot.outbox:
                asked.context.run(self._core.tell, plan.slot)
        except BaseException as fault:  # noqa: BLE001 - an interrupt of whoever is told
            came = fault
        tell(asked, came)


def _kind(decision: Decision, state: SessionState) -> object:
    """Return what decisions have in common that ask the same guards."""
    for name in ("trigger", "target"):
        word = getattr(decision, name, None)
        if isinstance(word, str):
            return type(decision), word, state.status
    return type(decision), state.status


def _raise(fault: BaseException) -> None:
    try:
        raise fault
    finally:
        del fault  # or the traceback would hold itself
