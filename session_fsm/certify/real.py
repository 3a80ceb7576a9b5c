"""The machine, walked with the guards, deadlines and effects as their author wrote them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

import attrs

from ..clock import instant_text
from ..guards import Attempt
from ..lifecycle import Lifecycle, Row
from ..state import DATA_FIELDS, SessionState, fields_of
from .findings import Claim, Findings
from .probes import arguments, instants
from .reading import ACCEPTED, Case, FaultError, Outcome, Reading
from .trying import differences, fired
from .walk import unknown_trigger


@attrs.frozen(kw_only=True)
class Asked:
    """How often a guard or a deadline was seen to let pass, and to refuse.

    Attributes:
        name: Of the guard; `due` behind a trigger for its deadline.
        held: In how many cases it let the row pass.
        refused: In how many it did not.
    """

    name: str
    held: int
    refused: int


@attrs.frozen(kw_only=True)
class Tried:
    """What was tried with real states.

    Attributes:
        states: How many states, of all statuses together.
        cases: How many cases.
        outcomes: How many cases came to what, by its name, sorted.
        asked: Each guard, by name, and each deadline, in the table's order.
        changes: For each trigger and status, the fields that the row's effect was seen to change,
            in the order of the fields; those alone that changed something.
        digest: SHA-256 over each case and what came of it, in hex.
    """

    states: int
    cases: int
    outcomes: tuple[tuple[str, int], ...]
    asked: tuple[Asked, ...]
    changes: tuple[tuple[str, str, tuple[str, ...]], ...]
    digest: str


def try_states(lifecycle: Lifecycle, states: tuple[SessionState, ...], findings: Findings) -> Tried:
    """Fire every trigger at every state, at each instant that matters, with sample arguments."""
    reading = Reading(lifecycle)
    log = _Log(reading)
    for case in _cases(lifecycle, states):
        found, faults = fired(case, lifecycle)
        for problem in (*differences(found, reading.outcome(case)), *faults):
            where = f"{case.trigger!r} in {str(case.state.status)!r}"
            findings.add(Claim.AGREES, where, problem, _in_words(case))
        log.keep(case, found)
    return log.tried(len(states))


def _cases(lifecycle: Lifecycle, states: Iterable[SessionState]) -> Iterator[Case]:
    triggers = (*lifecycle.triggers, unknown_trigger(lifecycle.triggers))
    for state in states:
        tried_at = instants(lifecycle, state)
        for trigger in triggers:
            row = lifecycle.find(trigger, state.status)
            # What no row permits depends on no instant; what is said instead does, a little.
            for at in tried_at if row is not None else (tried_at[0], tried_at[-1]):
                for given in arguments(row):
                    yield Case(state=state, trigger=trigger, at=at, arguments=given)


def _in_words(case: Case) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in case.arguments.items())
    return f"fired at {instant_text(case.at)} with {given or 'no argument'} at {case.state!r}"


class _Log:
    """Counts what comes of cases, and digests it."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._hash = hashlib.sha256()
        self._outcomes: Counter[str] = Counter()
        self._changes: dict[tuple[str, str], set[str]] = {}
        self._held: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def keep(self, case: Case, found: Outcome) -> None:
        """Keep what came of a case, and what each condition of its row says by itself."""
        self._outcomes[found.kind] += 1
        status = str(case.state.status)
        told = [status, case.trigger, instant_text(case.at), repr(dict(case.arguments)), found.kind]
        told += found.failed_guards
        if found.kind == ACCEPTED:
            before, after = fields_of(case.state), fields_of(found.state)
            told += [f"{name}={after[name]}" for name in after if before[name] != after[name]]
            if changed := {name for name in DATA_FIELDS if before[name] != after[name]}:
                self._changes.setdefault((case.trigger, status), set()).update(changed)
        self._hash.update("\n".join((*told, "")).encode())
        for row in self._reading.rows.get((case.trigger, status), ())[:1]:
            for name, holds in self._answers(row, case):
                (self._held if holds else self._refused)[name] += 1

    def _answers(self, row: Row, case: Case) -> Iterator[tuple[str, bool]]:
        lifecycle = self._reading.lifecycle
        at = max(case.at, case.state.updated_at)
        shown = Attempt(case.state, at, case.arguments, lifecycle.graces)
        with suppress(FaultError):
            answers = tuple(self._reading.conditions(row, shown))
            yield from zip(_names(row), (holds for _, holds in answers), strict=True)

    def tried(self, states: int) -> Tried:
        """Return all that was kept, of so many states."""
        names = dict.fromkeys(name for row in self._reading.lifecycle.rows for name in _names(row))
        return Tried(
            states=states,
            cases=self._outcomes.total(),
            outcomes=tuple(sorted(self._outcomes.items())),
            asked=tuple(
                Asked(name=name, held=self._held[name], refused=self._refused[name])
                for name in names
            ),
            changes=tuple(
                (trigger, status, tuple(name for name in DATA_FIELDS if name in changed))
                for (trigger, status), changed in sorted(self._changes.items())
            ),
            digest=self._hash.hexdigest(),
        )


def _names(row: Row) -> tuple[str, ...]:
    due = () if row.deadline is None else (f"{row.trigger!r} due",)
    return (*(guard.name for guard in row.guards), *due)
