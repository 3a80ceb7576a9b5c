"""Whether a store that was written to until its writer was killed has all that was acknowledged.

Nothing is opened here: what the writer said and what the histories hold are compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from operations import READS, UNTAGGED, Chain, Operation, chains, fits, half_done

from session_fsm import SessionEvent

Histories = Mapping[str, tuple[SessionEvent, ...]]
"""The events of each id, oldest first."""


@attrs.define
class Report:
    """What a writer said before it was killed.

    Attributes:
        begun: Operations that it was about to do, by tag.
        done: Revision and status that a verb returned, by tag.
        refused: The error that a verb raised, by tag.
        told: Events of which a subscriber was told: session, revision, trigger, target, digest.
        broken: What must never happen, in words.
    """

    begun: dict[str, Operation] = attrs.field(factory=dict)
    done: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    refused: dict[str, str] = attrs.field(factory=dict)
    told: list[tuple[str, int, str | None, str, str]] = attrs.field(factory=list)
    broken: list[str] = attrs.field(factory=list)

    def hear(self, line: str) -> bool:
        """Take in one line; tells whether it acknowledges a change."""
        kind, *said = json.loads(line)
        if kind == "begin":
            self.begun[said[0]] = Operation(*said)
        elif kind == "done":
            self.done[said[0]] = (said[1], said[2])
        elif kind == "refused":
            self.refused[said[0]] = said[1]
        elif kind == "told":
            session_id, revision, trigger, target, digest = said
            self.told.append((session_id, revision, trigger, target, digest))
        else:
            self.broken.append(" ".join(map(str, said)))
        return bool(kind == "done")

    @property
    def in_flight(self) -> set[str]:
        """The tags of operations whose end was not told."""
        return self.begun.keys() - self.done.keys() - self.refused.keys()


@attrs.define
class Findings:
    """What a comparison found.

    Attributes:
        faults: In words; empty if nothing is wrong.
        acknowledged: Changes that were acknowledged by a verb, and compared.
        told: Events that were told to a subscriber, and compared.
        whole: Changes that nobody acknowledged, found whole.
        absent: Operations in flight of which nothing is there.
    """

    faults: list[str] = attrs.field(factory=list)
    acknowledged: int = 0
    told: int = 0
    whole: int = 0
    absent: int = 0


def compare(before: Histories, after: Histories, report: Report) -> Findings:
    """Compare histories with those before a writer began, and with what it said.

    Args:
        before: The events of each id when the writer began.
        after: The events of each id when it was dead.
        report: What it said in between.
    """
    found = Findings(faults=[f"the writer broke: {each}" for each in report.broken])
    for session_id, events in before.items():
        kept = [event.digest for event in after.get(session_id, ())[: len(events)]]
        if kept != [event.digest for event in events]:
            found.faults.append(f"{session_id}: what was there before has changed")
    fresh = {
        session_id: [
            chain
            for chain in chains(events)
            if chain.last > (before[session_id][-1].revision if session_id in before else 0)
        ]
        for session_id, events in after.items()
    }
    _compare_told(after, report, found)
    _compare_chains(fresh, report, found)
    _compare_done(fresh, after, report, found)
    _compare_untagged(fresh, report, found)
    return found


def _compare_told(after: Histories, report: Report, found: Findings) -> None:
    at = {(event.session_id, event.revision): event for each in after.values() for event in each}
    for session_id, revision, trigger, target, digest in report.told:
        event = at.get((session_id, revision))
        here = None if event is None else (event.trigger, event.target, event.digest)
        if here != (trigger, target, digest):
            found.faults.append(
                f"{session_id}: {trigger} -> {target} was told as revision {revision}, {_is(event)}"
            )
        found.told += 1


def _is(event: SessionEvent | None) -> str:
    return "which is not there" if event is None else f"which is {event.trigger} -> {event.target}"


def _compare_chains(fresh: Mapping[str, list[Chain]], report: Report, found: Findings) -> None:
    seen: Counter[str] = Counter()
    for chain in (chain for each in fresh.values() for chain in each):
        where = f"{chain.anchor.session_id}: revision {chain.first}"
        if chain.tag is None:
            by_itself = chain.anchor.trigger in {"activate", "finish"} and chain.worker
            if not by_itself and chain.anchor.trigger not in UNTAGGED:
                step = f"{chain.anchor.trigger}, {chain.anchor.reason!r}"
                found.faults.append(f"{where} ({step}) was done by nobody")
            continue
        operation = report.begun.get(chain.tag)
        seen[chain.tag] += 1
        if operation is None:
            found.faults.append(f"{where} was done by nobody: {chain.tag} never began")
            continue
        if not fits(operation, chain.anchor):
            found.faults.append(f"{where} is {chain.anchor.trigger}, not {operation}")
        if (missing := half_done(chain, operation)) is not None:
            found.faults.append(f"{where} is half of {operation}: {missing}")
        if chain.tag in report.refused:
            found.faults.append(f"{where}: {operation} was refused, and is there")
        if chain.tag in report.in_flight:
            found.whole += 1
    found.faults += [f"{tag} was done {times} times" for tag, times in seen.items() if times > 1]
    found.absent += sum(
        tag not in seen and report.begun[tag].verb not in READS | UNTAGGED
        for tag in report.in_flight
    )


def _compare_done(
    fresh: Mapping[str, list[Chain]], after: Histories, report: Report, found: Findings
) -> None:
    by_tag = {chain.tag: chain for each in fresh.values() for chain in each}
    for tag, (revision, status) in report.done.items():
        operation = report.begun[tag]
        told = f"{operation} was answered with revision {revision}, {status}"
        events = {event.revision: event for event in after.get(operation.session_id, ())}
        event = events.get(revision)
        if event is None or event.target != status:
            found.faults.append(f"{told}; {_is(event)}")
        found.acknowledged += operation.verb not in READS
        if operation.verb in READS | UNTAGGED or _had_ended(operation, status, by_tag):
            continue
        chain = by_tag.get(tag)
        if chain is None:
            found.faults.append(f"{told}; nothing of it is there")
        elif chain.last != revision and not _comes_later(operation, chain, revision):
            found.faults.append(f"{told}; it is there as revision {chain.last}")


def _had_ended(operation: Operation, status: str, by_tag: Mapping[str | None, Any]) -> bool:
    """Tell whether an operation had nothing to do, because the session was on its way out."""
    ends = operation.verb in {"terminate", "fail"}
    return ends and status in {"terminating", "terminated"} and operation.tag not in by_tag


def _comes_later(operation: Operation, chain: Chain, revision: int) -> bool:
    """Tell whether a verb returns after more than its own commit: a worker's start or stop."""
    return chain.last < revision and (chain.worker or operation.argument == "wait")


def _compare_untagged(fresh: Mapping[str, list[Chain]], report: Report, found: Findings) -> None:
    there: Counter[tuple[str, str]] = Counter(
        (session_id, str(chain.anchor.trigger))
        for session_id, each in fresh.items()
        for chain in each
        if chain.tag is None and chain.anchor.trigger in UNTAGGED
    )
    done, open_ = _count(report, report.done), _count(report, report.in_flight)
    for key in there.keys() | done.keys() | open_.keys():
        session_id, trigger = key
        if not done[key] <= there[key] <= done[key] + open_[key]:
            found.faults.append(
                f"{session_id}: {trigger} was acknowledged {done[key]} times, was in flight"
                f" {open_[key]} times, and is there {there[key]} times"
            )
        found.whole += max(there[key] - done[key], 0)
        found.absent += max(done[key] + open_[key] - there[key], 0)


def _count(report: Report, tags: Iterable[str]) -> Counter[tuple[str, str]]:
    made = (report.begun[tag] for tag in tags)
    return Counter((each.session_id, each.verb) for each in made if each.verb in UNTAGGED)
