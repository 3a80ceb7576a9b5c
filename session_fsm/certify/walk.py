"""The machine, walked through every status, trigger, guard valuation and position of a deadline."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import attrs

from .findings import Claim, Findings
from .reading import ACCEPTED, Outcome
from .switches import FAILS, HOLDS, Setting, Switch, Switched, settings
from .trying import differences, fired


@attrs.frozen(kw_only=True)
class Behaviour:
    """What the machine does with a trigger in a status, as it was seen.

    Attributes:
        status: The status in which it was fired.
        trigger: What was fired.
        cases: How many settings were tried.
        accepted: In how many of them it was accepted.
        targets: The statuses that it led to; a status that stayed is None. Sorted, may be empty.
        needs: In words, each guard and deadline that it depends on, with the value that lets it
            pass; in the table's order, may be empty.
        activity: Whether it moved `last_activity_at`.
        effect: Whether the effect of a row ran.
        single: Whether it led to one place at most, and one set of conditions says when.
    """

    status: str
    trigger: str
    cases: int
    accepted: int
    targets: tuple[str | None, ...]
    needs: tuple[str, ...]
    activity: bool
    effect: bool
    single: bool


@attrs.frozen(kw_only=True)
class Walked:
    """What was walked through.

    Attributes:
        behaviours: By status, then by trigger, in the order of the lifecycle; an unknown trigger
            is the last of each status.
        settings: How many settings were tried in each status.
        complete: The statuses in which these were all there are.
        cases: How many cases were tried.
        accepted: How many of them were accepted.
    """

    behaviours: tuple[Behaviour, ...]
    settings: tuple[tuple[str, int], ...]
    complete: frozenset[str]
    cases: int
    accepted: int

    @property
    def edges(self) -> frozenset[tuple[str, str]]:
        """The pairs of statuses between which the machine was seen to move."""
        return frozenset(
            (each.status, target)
            for each in self.behaviours
            for target in each.targets
            if target is not None
        )


def unknown_trigger(triggers: Iterable[str]) -> str:
    """Return a word that is none of some triggers."""
    known = set(triggers)
    word = "unknown"
    while word in known:
        word += "_"
    return word


def walk(switched: Switched, findings: Findings) -> Walked:
    """Fire every trigger in every status under every setting of the guards and deadlines."""
    behaviours: list[Behaviour] = []
    sizes: list[tuple[str, int]] = []
    complete: set[str] = set()
    for status in map(str, switched.lifecycle.statuses):
        seen = walk_status(switched, status, findings)
        behaviours += seen
        sizes.append((status, seen[0].cases))
        if settings(switched.switches(status))[0]:
            complete.add(status)
    return Walked(
        behaviours=tuple(behaviours),
        settings=tuple(sizes),
        complete=frozenset(complete),
        cases=sum(each.cases for each in behaviours),
        accepted=sum(each.accepted for each in behaviours),
    )


def walk_status(switched: Switched, status: str, findings: Findings) -> tuple[Behaviour, ...]:
    """Fire every trigger in one status, and an unknown one at last, under every setting of it."""
    triggers = switched.lifecycle.triggers
    return tuple(
        walk_trigger(switched, status, trigger, findings)
        for trigger in (*triggers, unknown_trigger(triggers))
    )


def walk_trigger(switched: Switched, status: str, trigger: str, findings: Findings) -> Behaviour:
    """Fire one trigger in one status, under every setting of the latter."""
    switches = switched.switches(status)
    outcomes: list[tuple[Setting, Outcome]] = []
    for part, others in product(settings(switches)[1], (HOLDS, FAILS)):
        switched.set(switched.setting(part, others=others))
        outcomes.append((part, _tried(switched, status, trigger, part, findings)))
    return _behaviour(switched, status, trigger, outcomes, switches)


def _tried(
    switched: Switched, status: str, trigger: str, part: Setting, findings: Findings
) -> Outcome:
    case = switched.case(status, trigger)
    found, faults = fired(case, switched.lifecycle)
    due = switched.reading.outcome(case)
    for problem in (*differences(found, due), *faults):
        told = ", ".join(switch.told([value]) for switch, value in part.items())
        findings.add(Claim.AGREES, f"{trigger!r} in {status!r}", problem, told)
    return found


def _behaviour(
    switched: Switched,
    status: str,
    trigger: str,
    outcomes: list[tuple[Setting, Outcome]],
    switches: tuple[Switch, ...],
) -> Behaviour:
    before = switched.case(status, trigger).state
    passed = [(part, found.state) for part, found in outcomes if found.kind == ACCEPTED]
    stands = (before.status, before.status_since)
    targets = {
        None if (after.status, after.status_since) == stands else str(after.status)
        for _, after in passed
    }
    values = {switch: {part[switch] for part, _ in passed} for switch in switches}
    distinct = {tuple(part.values()) for part, _ in passed}
    met = {
        tuple(part.values())
        for part, _ in outcomes
        if passed and all(value in values[switch] for switch, value in part.items())
    }
    return Behaviour(
        status=status,
        trigger=trigger,
        cases=len(outcomes),
        accepted=len(passed),
        targets=tuple(sorted(targets, key=lambda target: target or "")),
        needs=tuple(
            switch.told(found)
            for switch, found in values.items()
            if passed and len(found) < len(switch.values)
        ),
        activity=any(after.last_activity_at != before.last_activity_at for _, after in passed),
        effect=any(after.conversation_count != before.conversation_count for _, after in passed),
        single=len(targets) < 2 and distinct == met,
    )
