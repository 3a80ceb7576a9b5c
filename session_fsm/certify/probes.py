"""Real states, instants and arguments, for the walk through the guards as their author wrote them.

What a guard looks at can't be known, so the states differ in all that a state may hold, and more
are found by firing what is permitted from the first state on. Whether a guard was seen to hold and
to refuse among them is counted, and stands in the certificate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final

import attrs

from ..errors import SessionFsmError
from ..guards import Attempt
from ..lifecycle import Lifecycle, Row
from ..state import SessionConfig, SessionState
from .reading import Case, Reading

MOST_FOUND: Final = 4
"""Most states of one status that are found by firing."""

_TICK: Final = timedelta(microseconds=1)
_MOMENT: Final = timedelta(milliseconds=1)
_CREATED: Final = datetime(2026, 1, 1, tzinfo=UTC)
_LONG: Final = timedelta(days=1000)

_TASK: Final = "a"
_SAMPLES: Final[Mapping[str, tuple[Any, ...]]] = {
    "config": ({"timeout_minutes": 5}, {"max_conversations": None}, "none"),
    "llm_config": ({"model": "m"}, 1),
    "metadata": ({"note": "n"}, 1),
    "error": ("because", 1),
}
_ANY_SAMPLES: Final = (_TASK, "z", 1)


def states(lifecycle: Lifecycle, more: Iterable[SessionState] = ()) -> tuple[SessionState, ...]:
    """Return states of a lifecycle, by status; each status has some.

    Args:
        lifecycle: Whose states; all of them are valid in it.
        more: States that the caller wants to be among them.
    """
    found = [state for status in lifecycle.statuses for state in _made(lifecycle, status)]
    found += _reached(lifecycle)
    found += more
    order = list(lifecycle.statuses)
    return tuple(sorted(found, key=lambda state: order.index(state.status)))


def _made(lifecycle: Lifecycle, status: str) -> Iterator[SessionState]:
    # What a guard asks for often stands in its name, such as the feature that it requires.
    names = (guard.name for row in lifecycle.rows for guard in row.guards)
    features = tuple(sorted({word for name in names for word in re.findall(r"\w+", name)}))
    plain: dict[str, Any] = {
        "session_id": "real",
        "status": status,
        "created_at": _CREATED,
        "status_since": _CREATED + _MOMENT,
        "last_activity_at": _CREATED + 2 * _MOMENT,
        "updated_at": _CREATED + 3 * _MOMENT,
    }
    tasks: tuple[str, ...] = (_TASK, "b") if lifecycle.holds_tasks(status) else ()
    yield SessionState(**plain)
    yield SessionState(
        **plain,
        config=SessionConfig(
            max_conversations=None, timeout_minutes=None, features=features, recovery="restart"
        ),
        active_tasks=tasks,
        conversation_count=1000,
        metadata={"note": "n"},
        error="before",
    )
    yield SessionState(
        **plain,
        config=SessionConfig(max_conversations=1, timeout_minutes=1, recovery="end"),
        conversation_count=1,
        error="before",
    )
    if tasks:
        yield SessionState(**plain, active_tasks=tasks)
        yield SessionState(
            **plain, config=SessionConfig(max_conversations=1), active_tasks=tasks[:1]
        )


def _reached(lifecycle: Lifecycle) -> list[SessionState]:
    """Return states that the table leads to from the first one, a few for each status."""
    reading = Reading(lifecycle)
    first = SessionState.new("real", at=_CREATED, status=lifecycle.initial)
    found = [first]
    known = {_without_instants(first)}
    room = dict.fromkeys(map(str, lifecycle.statuses), MOST_FOUND)
    for state in found:
        for row in lifecycle.leaving(state.status):
            at = due_at(lifecycle, row, state) or state.updated_at + _MOMENT
            for given in arguments(row):
                case = Case(state=state, trigger=row.trigger, at=at, arguments=given)
                after = reading.outcome(case).state
                key = _without_instants(after)
                if key not in known and room[str(after.status)]:
                    known.add(key)
                    room[str(after.status)] -= 1
                    found.append(after)
    return found


def _without_instants(state: SessionState) -> SessionState:
    return attrs.evolve(
        state,
        created_at=_CREATED,
        status_since=_CREATED,
        last_activity_at=_CREATED,
        updated_at=_CREATED,
    )


def due_at(lifecycle: Lifecycle, row: Row, state: SessionState) -> datetime | None:
    """Return when a row is due by its own deadline, or None where no clock runs."""
    if row.deadline is None:
        return None
    shown = Attempt(state, state.updated_at, {}, lifecycle.graces)
    try:
        return row.deadline.at(shown, row.trigger)
    except SessionFsmError:
        return None


def instants(lifecycle: Lifecycle, state: SessionState) -> tuple[datetime, ...]:
    """Return instants at which a state is tried, in order, each once.

    They are those just before, at and just after each deadline of its status, and one before its
    last change, at it, soon after and long after.
    """
    last = state.updated_at
    found = {last - _MOMENT, last, last + _MOMENT, last + _LONG}
    for row in lifecycle.timed(state.status):
        due = due_at(lifecycle, row, state)
        if due is not None and _CREATED < due < datetime.max.replace(tzinfo=UTC) - _TICK:
            found |= {due - _TICK, due, due + _TICK}
    return tuple(sorted(found))


def arguments(row: Row | None) -> tuple[Mapping[str, Any], ...]:
    """Return what a trigger is fired with: all that is required, alone and with each option."""
    if row is None:
        return ({},)
    needed = [
        dict(zip(row.required, chosen, strict=True))
        for chosen in product(*(_samples(name) for name in row.required))
    ]
    optional = [{name: sample} for name in row.optional for sample in _samples(name)]
    return (*needed, *({**needed[0], **option} for option in optional))


def _samples(name: str) -> tuple[Any, ...]:
    return _SAMPLES.get(name, _ANY_SAMPLES)
