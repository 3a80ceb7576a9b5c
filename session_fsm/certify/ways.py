"""The ways that lead from status to status, found by walking the machine, not by reading the table.

Whether a status is stuck depends on what can be relied on: nobody can count on a guard to hold. So
the guards are switched off, and what the machine still does is what is certain: rows without
guards, and rows that time alone lets pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs

from ..errors import LifecycleError
from ..lifecycle import Lifecycle, Row
from ..machine import SessionMachine
from ..state import SessionState
from .findings import Claim, Findings
from .probes import arguments, due_at
from .reading import ACCEPTED
from .switches import AT, FAILS, HOLDS, Setting, Switched, due_switch, guard_switch
from .trying import fired
from .walk import Walked

BARE, TIMED, GUARDED = "unguarded", "timed", "timed and guarded"


@attrs.frozen
class Leg:
    """One move on a way.

    Attributes:
        trigger: What is fired.
        target: Where it leads.
        kind: `unguarded`; `timed`: its deadline alone lets it pass; `timed and guarded`: its other
            guards have to hold then; `ending`: on the way out, guards holding.
    """

    trigger: str
    target: str
    kind: str


Way = tuple[Leg, ...]


def ways_to_the_end(switched: Switched, findings: Findings) -> Mapping[str, Way]:
    """Return the surest way from each status that is not final to a final one, and walk it.

    A way without a guard is preferred to one on which guards of timed rows have to hold; among
    such, a shorter one, and then one that stands further up in the table.
    """
    lifecycle = switched.lifecycle
    legs = {status: tuple(_legs(switched, status)) for status in map(str, lifecycle.live)}
    final = frozenset(map(str, lifecycle.final))
    ways: dict[str, Way] = {}
    for status in legs:
        sure = {each: [leg for leg in found if leg.kind != GUARDED] for each, found in legs.items()}
        way = _way(status, sure, final) or _way(status, legs, final)
        if way is None:
            findings.add(Claim.ENDS, f"{status!r}", "no way to a final status was found")
            continue
        ways[status] = way
        end = _followed(switched, status, way)
        if end not in final:
            problem = f"its way {told(way)} ends in {end!r}"
            findings.add(Claim.ENDS, f"{status!r}", problem)
    return ways


def told(way: Way) -> str:
    """Put a way in words."""
    return ", ".join(f"{leg.trigger!r} → {leg.target!r}" for leg in way)


def _legs(switched: Switched, status: str) -> Iterator[Leg]:
    """Yield each move out of a status that can be relied on, as the machine makes it."""
    triggers = switched.lifecycle.triggers
    timed = [row for row in switched.reading.leaving[status] if row.deadline is not None]
    bare = dict(_moves(switched, status, {}, triggers))
    yield from (Leg(trigger, target, BARE) for trigger, target in bare.items())
    for row in timed:
        due = {due_switch(row): AT}
        guards = {guard_switch(guard): HOLDS for guard in row.guards}
        alone = dict(_moves(switched, status, due, (row.trigger,)))
        helped = dict(_moves(switched, status, {**due, **guards}, (row.trigger,)))
        if row.trigger in bare:
            continue
        if row.trigger in alone:
            yield Leg(row.trigger, alone[row.trigger], TIMED)
        elif row.trigger in helped:
            yield Leg(row.trigger, helped[row.trigger], GUARDED)


def _moves(
    switched: Switched, status: str, met: Setting, triggers: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Yield each trigger that leads elsewhere while nothing holds but what is said to be met."""
    switched.set(switched.setting(met, others=FAILS))
    for trigger in triggers:
        outcome, _ = fired(switched.case(status, trigger), switched.lifecycle)
        target = str(outcome.state.status)
        if outcome.kind == ACCEPTED and target != status:
            yield trigger, target


def _way(
    start: str, legs: Mapping[str, tuple[Leg, ...] | list[Leg]], final: frozenset[str]
) -> Way | None:
    """Return the shortest way to one of some statuses, or None."""
    found: dict[str, Way] = {start: ()}
    waiting = [start]
    for status in waiting:
        if status in final:
            return found[status]
        for leg in legs.get(status, ()):
            if leg.target not in found:
                found[leg.target] = (*found[status], leg)
                waiting.append(leg.target)
    return None


def _followed(switched: Switched, status: str, way: Way) -> str:
    """Fire a way through one machine, and return the status in which it ends."""
    machine = SessionMachine(switched.case(status, way[0].trigger).state, switched.lifecycle)
    for leg in way:
        here = str(machine.state.status)
        [row] = switched.reading.rows.get((leg.trigger, here), [None])[:1]
        switched.set(switched.setting(_met(row, leg.kind), others=FAILS))
        case = switched.case(here, leg.trigger)
        try:
            machine.fire(leg.trigger, at=case.at, **case.arguments)
        except Exception:  # noqa: BLE001 - whatever a broken machine raises, here the way ends
            break
    return str(machine.state.status)


def _met(row: Row | None, kind: str) -> Setting:
    if row is None or kind == BARE:
        return {}
    guards = {} if kind == TIMED else {guard_switch(guard): HOLDS for guard in row.guards}
    return guards if row.deadline is None else {**guards, due_switch(row): AT}


def ended(
    lifecycle: Lifecycle, ways: Mapping[str, Way], states: Iterable[SessionState]
) -> tuple[int, int]:
    """Send real states along the ways, each timed row fired when it is due by its own deadline.

    Returns:
        How many of them came to a final status, and how many there are that live. One may be held
        up where a clock doesn't run for it, or a guard of a timed row never holds.
    """
    living = [state for state in states if state.status not in lifecycle.final]
    return sum(_ends(lifecycle, ways, state) for state in living), len(living)


def _ends(lifecycle: Lifecycle, ways: Mapping[str, Way], state: SessionState) -> bool:
    machine = SessionMachine(state, lifecycle)
    for leg in ways.get(str(state.status), ()):
        row = lifecycle.find(leg.trigger, machine.state.status)
        if row is None:
            return False
        at = machine.state.updated_at if leg.kind == BARE else due_at(lifecycle, row, machine.state)
        if at is None:
            return False
        try:
            machine.fire(leg.trigger, at=at, **arguments(row)[0])
        except Exception:  # noqa: BLE001 - as above
            return False
    return machine.state.status in lifecycle.final


def ways_out(switched: Switched, findings: Findings) -> Mapping[str, Way]:
    """Return the way out of each status that has one: its ending rows, fired with guards holding.

    A manager goes it when it ends a session at once.
    """
    lifecycle = switched.lifecycle
    ways: dict[str, Way] = {}
    for status in map(str, lifecycle.live):
        try:
            rows = lifecycle.way_out(status)
        except LifecycleError:
            continue  # a lifecycle may do without; `terminate` refuses there
        way = tuple(Leg(row.trigger, str(row.target), "ending") for row in rows)
        ways[status] = way
        end = _followed(switched, status, way)
        if end not in lifecycle.final or end != way[-1].target:
            findings.add(Claim.WAY_OUT, f"{status!r}", f"{told(way)} ends in {end!r}")
    return ways


def check_walked(switched: Switched, walked: Walked, findings: Findings) -> None:
    """Hold what was seen on the walk against the claims about single statuses and rows."""
    lifecycle = switched.lifecycle
    final = frozenset(map(str, lifecycle.final))
    for each in walked.behaviours:
        where = f"{each.trigger!r} in {each.status!r}"
        if each.accepted and each.status in final:
            findings.add(Claim.FINAL, where, "is accepted, though the status is final")
        if not each.single:
            findings.add(Claim.SINGLE, where, "leads to several places, or for several reasons")
    for (trigger, status), rows in switched.reading.rows.items():
        if len(rows) > 1:
            findings.add(Claim.SINGLE, f"{trigger!r} in {status!r}", f"{len(rows)} rows have it")
    for status, leaving in switched.reading.leaving.items():
        if len(ending := [f"{row.trigger!r}" for row in leaving if row.ending]) > 1:
            problem = f"{' and '.join(ending)} are both the way out"
            findings.add(Claim.SINGLE, f"{status!r}", problem)
    reached = {str(lifecycle.initial)}
    while more := {end for start, end in walked.edges if start in reached} - reached:
        reached |= more
    for status in map(str, lifecycle.statuses):
        if status not in reached:
            findings.add(Claim.REACHED, f"{status!r}", "no moves of the machine lead here")
    for source, target in sorted(walked.edges ^ switched.reading.edges):
        has = "moves" if (source, target) in walked.edges else "never moves"
        findings.add(Claim.AGREES, f"{source!r} → {target!r}", f"the machine {has}")
