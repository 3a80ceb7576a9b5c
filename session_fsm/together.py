"""Changes of many sessions, made at one go by one thread: decided one by one, written together.

Only what comes off at the first try is made so: a session that is known here and that nobody else
decides on, and a decision that it accepts. Refusals, and whatever has to be read or waited for, are
left to `Core.change`, on a thread that may wait; and so is what the store could not write together
with others, on a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import Context
from copy import copy
from functools import partial
from typing import TypeVar

from .changes import Change
from .core import Core
from .decisions import Decision
from .errors import RevisionConflictError, SessionFsmError
from .looks import in_thread
from .slots import Plan
from .stores.abc import Outcome


class Asked:
    """A change that somebody asks for.

    Args:
        session_id: Of which session.
        decision: What is decided on it; it waits for nothing.
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


AskedT = TypeVar("AskedT", bound=Asked)
Came = Change | BaseException | None
"""What came of a change; None: nothing, and it is to be made by itself."""


def is_at_hand(core: Core, session_id: object) -> bool:
    """Tell whether a session may be changed at the first try: it is known here, and free.

    Where somebody watches, none is: what is done for a change is to last as long as its span.
    """
    if core.observer is not None or not core.store.commits_together:
        return False
    slot = core.slots.known(session_id) if isinstance(session_id, str) else None
    return slot is not None and slot.machine is not None


def change_together(
    core: Core, asked: Iterable[AskedT], tell: Callable[[AskedT, Came], None]
) -> None:
    """Make changes; each is durable when it is told.

    Args:
        core: Whose sessions.
        asked: What is asked for.
        tell: Called once for each; on this thread, but for those that take longer: on another one,
            maybe later.
    """
    plans: list[tuple[AskedT, Plan]] = []
    for each in asked:
        plan = each.context.run(_decide, core, each)
        if plan is None:
            tell(each, None)
        else:
            plans.append((each, plan))
    if not plans:
        return
    try:
        outcomes = core.store.commit_all([plan.commit for _, plan in plans])
        answered = list(zip(plans, outcomes, strict=True))
    except BaseException as fault:  # noqa: BLE001 - it is told to all of them
        for each, plan in plans:
            plan.slot.unlock()
            tell(each, copy(fault) if isinstance(fault, SessionFsmError) else fault)
        return
    made: list[tuple[AskedT, Plan]] = []
    for (each, plan), outcome in answered:
        if outcome is None and not core.goes_on(plan.change):
            core.conclude(plan, None)
            plan.slot.unlock()
            made.append((each, plan))
        elif isinstance(outcome, RevisionConflictError):
            plan.slot.unlock()
            tell(each, None)
        else:
            # It holds its session, and may have to wait: nobody else is to wait for that.
            in_thread(partial(_finish, core, each, plan, outcome, tell))
    # First all are let go of: whoever is told of one may want to change another one.
    for each, plan in made:
        tell(each, _told(core, each, plan, plan.change))
    core.slots.trim()


def _decide(core: Core, asked: Asked) -> Plan | None:
    """Decide on a session as far as that needs no wait; its slot stays locked then."""
    slot = core.slots.get(asked.session_id)
    if core.closed or not slot.lock.acquire(blocking=False):
        return None
    plan = None
    try:
        slot.holder = threading.get_ident()
        machine = slot.machine
        if machine is None or slot.gone:
            return None
        revision = machine.revision
        if asked.expected_revision is not None and asked.expected_revision != revision:
            return None  # that is known of an older state, perhaps: it is read again
        # Whatever goes wrong from here on, the machine may have moved further than the store.
        slot.machine = None
        draft = core.draft(machine, core.clock.now(), core.owner_id)
        asked.decision(draft)
        if draft.steps:
            plan = core.planned(slot, draft, machine, (revision, slot.tail), ())
    except BaseException:  # noqa: BLE001 - raised again by whoever decides on what is fresh
        return None
    finally:
        if plan is None:
            slot.unlock()
    return plan


def _finish(
    core: Core,
    asked: AskedT,
    plan: Plan,
    outcome: Outcome,
    tell: Callable[[AskedT, Came], None],
) -> None:
    """Do what is left to do for a change that was decided; on a thread of its own."""
    came: Came
    plan.slot.holder = threading.get_ident()
    try:
        came = asked.context.run(_finished, core, plan, outcome)
    except RevisionConflictError:
        came = None
    except BaseException as fault:  # noqa: BLE001 - it is told
        came = fault
    finally:
        plan.slot.unlock()
    tell(asked, _told(core, asked, plan, came))


def _finished(core: Core, plan: Plan, outcome: Outcome) -> Change:
    if outcome is None:
        core.conclude(plan, None)
    else:
        core.write(plan, outcome if callable(outcome) else partial(_raise, outcome))
    if not core.goes_on(plan.change):
        return plan.change
    return core.gone_on(plan.slot, plan.change, None, plan.commit.owner_id)


def _told(core: Core, asked: Asked, plan: Plan, came: Came) -> Came:
    """Tell whoever has subscribed, before whoever has asked."""
    if not plan.slot.outbox:
        return came
    try:
        asked.context.run(core.tell, plan.slot)
    except BaseException as fault:  # noqa: BLE001 - an interrupt of whoever is told
        return fault
    return came


def _raise(fault: BaseException) -> None:
    raise fault
