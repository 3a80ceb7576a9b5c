"""What the machine makes of a case: fired at it, and compared with what the table says.

The machine is asked in each of its ways: a `SessionMachine` that is kept, the function `step`, and
the dry run `explain`. All have to say the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ..errors import Refusal, SessionFsmError, TransitionError
from ..explain import explain
from ..lifecycle import Lifecycle
from ..machine import SessionMachine, step
from .reading import ACCEPTED, FAULT, Case, Outcome

_REVISION = 7
_ERRORS = {"guard": "GuardRejectedError"}
_OTHER_ERROR = "InvalidTransitionError"


def fired(case: Case, lifecycle: Lifecycle) -> tuple[Outcome, tuple[str, ...]]:
    """Fire a trigger at a state through the machine, in each of its ways.

    Returns:
        What came of it, and what its ways disagree on, in words; empty if they agree.
    """
    machine = SessionMachine(case.state, lifecycle, revision=_REVISION)
    refusal: Refusal | None = None
    faults: list[str] = []
    kind = ACCEPTED
    try:
        if machine.fire(case.trigger, at=case.at, **case.arguments) != machine.state:
            faults.append("fire returns another state than the machine holds")
    except Exception as error:  # noqa: BLE001 - whatever a broken machine raises is its outcome
        kind, refusal = _kind(error), getattr(error, "refusal", None)
        if isinstance(error, TransitionError) and error.session_id != case.state.session_id:
            faults.append("the error names another session")
    outcome = Outcome(kind=kind, state=machine.state, steps=machine.revision - _REVISION)
    if refusal is not None:
        outcome = attrs.evolve(
            outcome,
            target=refusal.target,
            failed_guards=tuple(failed.name for failed in refusal.failed_guards),
            permitted=refusal.permitted,
            next_timed=refusal.next_timed,
        )
    faults += _other_ways(case, lifecycle, outcome, refusal)
    return outcome, tuple(faults)


def _kind(error: Exception) -> str:
    if isinstance(error, TransitionError):
        due = _ERRORS.get(error.refusal.kind, _OTHER_ERROR)
        name = type(error).__name__
        return error.refusal.kind if name == due else f"{error.refusal.kind} as {name}"
    return FAULT if isinstance(error, SessionFsmError) else f"a {type(error).__name__}"


def _other_ways(
    case: Case, lifecycle: Lifecycle, outcome: Outcome, refusal: Refusal | None
) -> Iterator[str]:
    kind, state = ACCEPTED, case.state
    try:
        state = step(case.state, case.trigger, at=case.at, lifecycle=lifecycle, **case.arguments)
    except Exception as error:  # noqa: BLE001 - as above
        kind = _kind(error)
    if (kind, state) != (outcome.kind, outcome.state):
        yield f"step and fire differ: {kind}, {outcome.kind}"
    if outcome.kind == FAULT:
        return  # an effect may be at fault, and a dry run asks none
    dry = explain(case.state, case.trigger, at=case.at, lifecycle=lifecycle, **case.arguments)
    if dry != refusal:
        yield "explain and fire differ"


def differences(found: Outcome, due: Outcome) -> Iterator[str]:
    """Yield what is not as it has to be, in words; nothing if all is."""
    if found.kind != due.kind:
        yield f"{found.kind}, has to be {due.kind}"
        return
    if found.steps != due.steps:
        yield f"the revision rose by {found.steps}, not by {due.steps}"
    for field in attrs.fields(type(due.state)):
        is_it, has_to_be = getattr(found.state, field.name), getattr(due.state, field.name)
        if is_it != has_to_be:
            yield f"{field.name} is not what it has to be"
    for name in ("target", "failed_guards", "permitted", "next_timed"):
        if getattr(found, name) != getattr(due, name):
            yield f"{name} of the refusal is not what it has to be"
