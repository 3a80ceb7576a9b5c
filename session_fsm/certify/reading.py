"""What the table says of a step, read from its rows alone.

This is the second opinion that the machine is compared with. It is slow and simple on purpose, and
shares neither the machine's look-ups nor its way of making states: rows are gone through one by
one, and a state is made by its constructor, which checks all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs

from ..errors import SessionFsmError
from ..guards import Attempt, Guard
from ..lifecycle import LIVE, Lifecycle, Row
from ..state import DATA_FIELDS, SessionState, fields_of

ACCEPTED = "accepted"
FAULT = "fault"


@attrs.frozen(kw_only=True)
class Case:
    """A trigger, fired at a state.

    Attributes:
        state: Where the session stands.
        trigger: What is fired; a trigger of the lifecycle or any other word.
        at: The instant, which may lie before the state's last change.
        arguments: What comes with the trigger.
    """

    state: SessionState
    trigger: str
    at: datetime
    arguments: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Outcome:
    """What came, or has to come, of a case.

    Attributes:
        kind: `accepted`; the kind of the refusal; `fault` where a guard or an effect is faulty.
        state: Where the session stands afterwards.
        steps: By how much the revision rose.
        target: The target of a refused move; None where the status would stay or is not known.
        failed_guards: The names of all guards that said no, in the row's order.
        permitted: With a refusal, what would be accepted instead.
        next_timed: With a refusal, what fires by itself next, and when.
    """

    kind: str
    state: SessionState
    steps: int = 0
    target: str | None = None
    failed_guards: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    next_timed: tuple[str, datetime] | None = None


class FaultError(Exception):
    """A guard, a deadline or an effect does what it must not do."""


class Reading:
    """A table, read row by row.

    Args:
        lifecycle: Whose table it is.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle
        self.rows: dict[tuple[str, str], list[Row]] = {}
        self.leaving: dict[str, list[Row]] = {str(status): [] for status in lifecycle.statuses}
        self.edges: set[tuple[str, str]] = set()
        for row in lifecycle.rows:
            for source in self.sources(row):
                self.rows.setdefault((row.trigger, source), []).append(row)
                self.leaving[source].append(row)
                if row.target is not None:
                    self.edges.add((source, str(row.target)))

    def sources(self, row: Row) -> tuple[str, ...]:
        """Return the statuses from which a row may be fired."""
        if row.sources is LIVE:
            final = self.lifecycle.final
            return tuple(str(each) for each in self.lifecycle.statuses if each not in final)
        return tuple(map(str, self.lifecycle.sources(row)))

    def outcome(self, case: Case) -> Outcome:
        """Return what has to come of a case."""
        state = case.state
        shown = Attempt(
            state, max(case.at, state.updated_at), case.arguments, self.lifecycle.graces
        )
        try:
            rows = self.rows.get((case.trigger, str(state.status)))
            if not rows:
                known = any(row.trigger == case.trigger for row in self.lifecycle.rows)
                return self._refused("wrong_status" if known else "unknown_trigger", shown)
            row = rows[0]
            failed = tuple(name for name, holds in self.conditions(row, shown) if not holds)
            if failed:
                return self._refused("guard", shown, row.target, failed)
            return Outcome(kind=ACCEPTED, state=self._after(row, shown), steps=1)
        except FaultError:
            return Outcome(kind=FAULT, state=state)

    def conditions(self, row: Row, shown: Attempt) -> Iterator[tuple[str, bool]]:
        """Yield the name of each condition of a row that can be asked, and whether it holds.

        The guard of the deadline is the last, where there is one.

        Raises:
            FaultError: A guard or the deadline is faulty.
        """
        for guard in row.guards:
            if all(name in shown.arguments for name in guard.needs):
                yield guard.name, _holds(guard, shown)
        if row.deadline is not None:
            due = _due(row, shown)
            yield row.conditions[-1].name, due is not None and shown.at >= due

    def _refused(
        self,
        kind: str,
        shown: Attempt,
        target: str | None = None,
        failed: tuple[str, ...] = (),
    ) -> Outcome:
        return Outcome(
            kind=kind,
            state=shown.state,
            target=target,
            failed_guards=failed,
            permitted=self._permitted(shown),
            next_timed=self._next_timed(shown),
        )

    def _permitted(self, shown: Attempt) -> tuple[str, ...]:
        found: list[str] = []
        for row in self.leaving[str(shown.state.status)]:
            with suppress(FaultError):  # a faulty row is told of besides, and permits nothing
                if all(holds for _, holds in self.conditions(row, shown)):
                    found.append(row.trigger)
        return tuple(found)

    def _next_timed(self, shown: Attempt) -> tuple[str, datetime] | None:
        found: list[tuple[str, datetime]] = []
        last = shown.state.updated_at
        for row in self.leaving[str(shown.state.status)]:
            with suppress(FaultError):
                due = None
                if row.deadline is not None:
                    due = _due(row, attrs.evolve(shown, at=last, arguments={}))
                if due is not None:
                    then = attrs.evolve(shown, at=max(due, last), arguments={})
                    if all(_holds(guard, then) for guard in row.guards):
                        found.append((row.trigger, due))
        return min(found, key=lambda timed: timed[1], default=None)

    def _after(self, row: Row, shown: Attempt) -> SessionState:
        fields = fields_of(shown.state)
        try:
            changes = {} if row.effect is None else row.effect(shown)
            if not set(changes) <= set(DATA_FIELDS):
                raise FaultError
            fields |= changes
            fields["updated_at"] = shown.at
            if row.target is not None:
                fields |= {"status": row.target, "status_since": shown.at}
            if row.activity:
                fields["last_activity_at"] = shown.at
            after = SessionState(**fields)
        except Exception as fault:  # an effect is its author's code, and may raise anything
            raise FaultError from fault
        ends_tasks = (self.lifecycle.roles.get("end_task", ""), str(after.status))
        if after.active_tasks and ends_tasks not in self.rows:
            raise FaultError
        return after


def _holds(guard: Guard, shown: Attempt) -> bool:
    try:
        answer = guard.check(shown)
    except Exception as fault:  # so is a guard
        raise FaultError from fault
    if answer is True or answer is False:
        return answer
    raise FaultError


def _due(row: Row, shown: Attempt) -> datetime | None:
    assert row.deadline is not None
    try:
        return row.deadline.at(shown, row.trigger)
    except SessionFsmError as fault:
        raise FaultError from fault
