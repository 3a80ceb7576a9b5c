"""Whether a cluster kept its promises: what its nodes wrote down is held against what is stored.

Nothing is opened here. `Account` reads what nodes wrote, and the functions below it say in words
what is wrong; see `linearizability` for what callers were told.

- A session with a worker has one at a time, but for one that a pause of its node kept from
  stopping; and that one's writes come to nothing once another has taken over.
- What a dead node ran is taken over by another one, within the lease and one look for it, as soon
  as any node is well; nothing is taken from a node that lived on.
- What is due is done once, and as soon.
- A feed that was read all the while has told all that is stored, once and in order.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs
from cluster_faults import Outage, good_seconds
from linearizability import Call
from operations import Operation

from session_fsm import SESSION_LIFECYCLE, PositionedEvent, SessionEvent

Place = tuple[int, str, int]
"""A position, and the session and revision that stand there."""
Histories = Mapping[str, Sequence[SessionEvent]]

DROPPED: Final = "dropped: its owner died"
TAKEN: Final = frozenset(
    {DROPPED, "taken over", "its owner died", "the owner died during the start"}
)
"""Reasons of steps with which a node takes over what a dead one left."""
WAKING_SECONDS: Final = 1.5
"""How long a node that was paused may take to notice that it is counted as dead."""
SLOW_SECONDS: Final = 10.0
"""How much later than at once something may be done: many sessions are taken over one by one."""
WARM_SECONDS: Final = 2.5
"""How long a node takes to be well again after what befell it: to start, or to find its way."""


def by_itself(event: SessionEvent) -> bool:
    """Tell whether a node may have begun a commit with this step without being asked for it."""
    row = SESSION_LIFECYCLE.find(event.trigger or "", event.source or "")
    if event.reason == DROPPED or (row is not None and row.deadline is not None):
        return True
    if event.session_id[0] == "p":
        return False
    if event.session_id[0] == "w" and event.reason in TAKEN:
        return True
    return event.reason is None and event.trigger in {"activate", "go_idle", "finish"}


@attrs.define(kw_only=True)
class Shift:
    """The time in which a worker ran.

    Attributes:
        worker: Which; no two have the same name.
        session_id: For which session.
        node: On which node.
        life: In which life of it.
        begun: When it began, in nanoseconds by the clock of all processes.
        ended: When it had stopped; None: not before its process ended.
    """

    worker: str
    session_id: str
    node: int
    life: int
    begun: int
    ended: int | None = None


@attrs.define
class Account:
    """What the nodes of a cluster wrote down.

    Attributes:
        calls: All calls; those that were not answered are open.
        shifts: All workers.
        started: Revision and status with which a session with a worker was created.
        owners: When a life of a node went on as another owner.
        fed: What each life of a node read in the feed: from where on, and position, session and
            revision of each event.
        faults: What must never happen, in words.
        counts: How often nodes wrote what.
        longest: The longest call that was answered, and its nanoseconds.
    """

    calls: list[Call] = attrs.field(factory=list)
    shifts: list[Shift] = attrs.field(factory=list)
    started: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    owners: dict[tuple[int, int], list[int]] = attrs.field(factory=lambda: defaultdict(list))
    fed: dict[tuple[int, int], tuple[int, list[Place]]] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)
    counts: Counter[str] = attrs.field(factory=Counter)
    longest: tuple[int, str] = (0, "")

    def read(self, node: int, life: int, file: Path) -> None:
        """Read what one life of a node wrote; a line that is not whole is none."""
        begun: dict[str, Call] = {}
        shifts: dict[str, Shift] = {}
        for line in _lines(file):
            kind, *what = json.loads(line)
            self.counts[kind] += 1
            if kind == "begins":
                call = _call(what[0])
                begun[call.operation.tag] = call
            elif kind == "made":
                call = _call(what[0])
                del begun[call.operation.tag]
                self._add(call)
            elif kind == "starts":
                worker, session_id, at = what
                shifts[worker] = Shift(
                    worker=worker, session_id=session_id, node=node, life=life, begun=at
                )
            elif kind == "stops":
                shifts[what[0]].ended = what[2]
            elif kind == "owner":
                self.owners[node, life].append(what[0])
            elif kind == "feed":
                _, position, told = what
                _, read = self.fed.setdefault((node, life), (position, []))
                read += [(each[0], each[1], each[2]) for each in told]
            elif kind == "broken":
                self.faults.append(f"node {node}, life {life}: {what[1]}")
        self.calls += begun.values()
        self.shifts += shifts.values()

    def _add(self, call: Call) -> None:
        self.calls.append(call)
        took = call.ended - call.begun
        self.longest = max(self.longest, (took, str(call)))
        if call.open and call.status is not None and call.operation.verb == "create":
            assert call.revision is not None
            self.started[call.operation.session_id] = (call.revision, call.status)


def _lines(file: Path) -> Iterator[str]:
    if file.exists():
        text = file.read_text(encoding="utf-8")
        yield from text[: text.rfind("\n") + 1].splitlines()


def _call(told: Mapping[str, Any]) -> Call:
    return Call(**{**told, "operation": Operation(**told["operation"])})


@attrs.frozen(kw_only=True)
class Run:
    """What else is known of a run.

    Attributes:
        nodes: How many nodes there were.
        lease_seconds: How long a node counts as alive without being heard of.
        look_seconds: How often a node looks for what is due, and for the dead.
        outages: What befell whom.
        zero: What the clock of all processes showed at the beginning of 1970, in nanoseconds.
        ended: When all was over, by the clock of all processes; from then on nodes end.
    """

    nodes: int
    lease_seconds: float
    look_seconds: float
    outages: list[Outage]
    zero: int
    ended: int

    def at(self, event: SessionEvent) -> int:
        """Return when an event was made, by the clock of all processes."""
        return self.zero + int(event.at.timestamp() * 1e6) * 1000

    def killed(self, node: int, life: int) -> int | None:
        """Return when a life of a node was ended; None: it was not."""
        found = [
            each.begun
            for each in self.outages
            if (each.kind, each.node, each.life) == ("kill", node, life)
        ]
        return found[0] if found else None

    def end_of(self, shift: Shift) -> int:
        """Return when a worker ran no longer."""
        return shift.ended or self.killed(shift.node, shift.life) or self.ended

    def good(self, begun: int, ended: int) -> float:
        """Return for how many seconds between two instants some node was well."""
        return good_seconds(self.outages, self.nodes, begun, ended, warm_seconds=WARM_SECONDS)


# --- one worker at a time ---------------------------------------------------------------------


def overlaps(shifts: Iterable[Shift], run: Run) -> list[str]:
    """Say which sessions had two workers at a time, where no pause excuses it."""
    found = []
    for session_id, each in _by_session(shifts).items():
        for former, latter in pairwise(sorted(each, key=lambda shift: shift.begun)):
            end = run.end_of(former)
            if end <= latter.begun or _was_paused(former, latter.begun, end, run):
                continue
            found.append(
                f"{session_id}: {former.worker} ran for {(end - latter.begun) / 1e9:.3f} s beside"
                f" {latter.worker}"
            )
    return found


def _was_paused(shift: Shift, begun: int, ended: int, run: Run) -> bool:
    """Tell whether a node was paused at the first of two instants, and woke up by the other."""
    waking = int(WAKING_SECONDS * 1e9)
    return any(
        each.kind == "pause"
        and (each.node, each.life) == (shift.node, shift.life)
        and each.begun <= begun <= each.ended + waking
        and ended <= each.ended + waking
        for each in run.outages
    )


def _by_session(shifts: Iterable[Shift]) -> dict[str, list[Shift]]:
    found: dict[str, list[Shift]] = defaultdict(list)
    for shift in shifts:
        found[shift.session_id].append(shift)
    return found


def stale_writes(histories: Histories) -> list[str]:
    """Say which workers wrote after another one of the same session had."""
    found = []
    for session_id, history in histories.items():
        writers: list[str] = []
        for event in history:
            tag = re.fullmatch(r"op:(k\S+)\.\d+", _said(event) or "")
            if tag is None or writers[-1:] == [tag[1]]:
                continue
            if tag[1] in writers:
                found.append(
                    f"{session_id}: revision {event.revision} was written by {tag[1]}, after"
                    f" {writers[-1]} had taken over"
                )
            writers.append(tag[1])
    return found


def _said(event: SessionEvent) -> str | None:
    """Return the tag that an event carries: its reason, or the task that it begins."""
    if event.trigger == "begin_task":
        return str(event.changes["active_tasks"][-1])
    return event.reason


@attrs.frozen(kw_only=True)
class Claims:
    """What was said to be in progress in a session, when all nodes were well again.

    Attributes:
        session_id: The session.
        begun: When it was asked, by the clock of all processes.
        ended: When it was answered.
        worker: Whether somebody answers for a worker.
        unclaimed: Active tasks for which nobody answers.
    """

    session_id: str
    begun: int
    ended: int
    worker: bool
    unclaimed: tuple[str, ...] = ()


def wrong_claims(claims: Iterable[Claims], shifts: Iterable[Shift], run: Run) -> list[str]:
    """Say which sessions are said to have a worker and have none, or have one that nobody knows."""
    found = []
    by_session = _by_session(shifts)
    changing = int(WAKING_SECONDS * 1e9)
    for each in claims:
        mine = by_session.get(each.session_id, [])
        ran = any(
            shift.begun <= each.ended and run.end_of(shift) >= each.begun - changing
            for shift in mine
        )
        runs = any(
            shift.begun <= each.begun - changing and run.end_of(shift) > each.ended + changing
            for shift in mine
        )
        if each.worker and not ran:
            found.append(f"{each.session_id}: it is said to have a worker, and has none")
        if runs and not each.worker:
            found.append(f"{each.session_id}: it has a worker, and nobody answers for it")
        found += [f"{each.session_id}: nobody answers for {task}" for task in each.unclaimed]
    return found


# --- nothing is left, and nothing is taken from the living --------------------------------------


def not_taken(shifts: Iterable[Shift], histories: Histories, run: Run) -> list[str]:
    """Say which sessions of a killed node were not taken over, or late."""
    found = []
    lease = int(run.lease_seconds * 1e9)
    sessions = _by_session(shifts)
    for session_id, each in sessions.items():
        history = histories.get(session_id, ())
        for shift in each:
            killed = run.killed(shift.node, shift.life)
            if killed is None or shift.ended is not None or not _is_waiting(history, killed, run):
                continue
            taken = [run.at(event) for event in history if by_itself(event)]
            taken += [other.begun for other in each]
            # An instant of the database is no finer than what lies between a kill and its account.
            after = [at for at in taken if at > killed]
            where = f"{session_id}: {shift.worker} died, and"
            if not after:
                found.append(f"{where} nobody took over")
            elif (late := run.good(killed + lease, min(after))) > run.look_seconds + SLOW_SECONDS:
                found.append(f"{where} was taken over {late:.1f} s after its lease")
    return found


def _is_waiting(history: Sequence[SessionEvent], killed: int, run: Run) -> bool:
    """Tell whether a session shows it when it is taken over."""
    before = [event for event in history if run.at(event) <= killed]
    if not before or before[-1].target in SESSION_LIFECYCLE.final:
        return False
    # At rest, nothing has to be done in it but to let go of its worker.
    return before[-1].target != "idle" or _policy(before) != "release"


def _policy(history: Sequence[SessionEvent]) -> str:
    config = history[0].changes.get("config")
    recovery = config.get("recovery") if isinstance(config, Mapping) else None
    return recovery if isinstance(recovery, str) else "release"


def taken_from_the_living(
    account: Account, callers: Mapping[str, tuple[int, int]], histories: Histories, run: Run
) -> list[str]:
    """Say which tasks were dropped as a dead owner's, whose owner was not counted as dead.

    Args:
        account: What the nodes wrote.
        callers: Node and life by the tag of a call.
        histories: What is stored.
        run: What befell the nodes.
    """
    found = []
    begun = {call.operation.tag: call.begun for call in account.calls}
    for session_id, history in histories.items():
        tasks: tuple[str, ...] = ()
        for event in history:
            now = event.changes.get("active_tasks", tasks)
            gone, tasks = [each for each in tasks if each not in now], tuple(now)
            if event.reason != DROPPED or run.at(event) > run.ended:
                continue
            for tag in gone:
                life = callers.get(tag)
                if life is None or run.killed(*life) is not None:
                    continue
                if not any(at >= begun[tag] for at in account.owners[life][1:]):
                    found.append(f"{session_id}: {tag} was dropped, and its owner lived")
    return found


# --- what is due ------------------------------------------------------------------------------


def not_fired(calls: Iterable[Call], histories: Histories, run: Run) -> list[str]:
    """Say which tasks outlived their limit, or did not reach it."""
    found = []
    for call in calls:
        made = call.operation
        if made.verb != "begin_task" or made.session_id[0] != "t":
            continue
        history = histories.get(made.session_id, ())
        holds = [made.tag in event.changes.get("active_tasks", ()) for event in history]
        if not any(holds):
            continue  # it was never begun; whether it had to be is another question
        first = holds.index(True)
        due = run.at(history[first]) + int(float(made.argument) * 1e9)
        ends = [event for event in history[first + 1 :] if "active_tasks" in event.changes]
        where = f"{made.session_id}: the limit of {made.argument} s"
        if not ends:
            found.append(f"{where} was never kept")
            continue
        at = run.at(ends[0])
        if ends[0].trigger == "task_timeout" and at < due:
            found.append(f"{where} was kept {(due - at) / 1e9:.3f} s before")
        if (late := run.good(due, at)) > run.look_seconds + SLOW_SECONDS:
            found.append(f"{where} was kept {late:.1f} s late")
        if sum(event.trigger == "task_timeout" for event in history) > 1:
            found.append(f"{where} was kept more than once")
    return found


# --- what was acknowledged --------------------------------------------------------------------


def lost_sessions(account: Account, histories: Histories) -> list[str]:
    """Say which sessions with a worker were acknowledged, and are not there as they were told."""
    found = []
    for session_id, (revision, status) in account.started.items():
        history = histories.get(session_id, ())
        if len(history) < revision or history[revision - 1].target != status:
            found.append(f"{session_id}: was told as revision {revision}, {status}")
    return found


# --- the feed ---------------------------------------------------------------------------------


def feed_faults(
    fed: Sequence[PositionedEvent], again: Sequence[PositionedEvent], histories: Histories
) -> list[str]:
    """Say where a feed that was read all the while differs from what is stored.

    Args:
        fed: What it told, in the order in which it did.
        again: What it tells when all is over, from its beginning.
        histories: What is stored.
    """
    found = [
        f"position {latter.position} was told after {former.position}"
        for former, latter in pairwise(fed)
        if latter.position <= former.position
    ]
    told = Counter((each.session_id, each.revision) for each in fed)
    found += [f"{key[0]}: revision {key[1]} was told {n} times" for key, n in told.items() if n > 1]
    stored = {
        (each.session_id, each.revision): each for all_ in histories.values() for each in all_
    }
    missing = stored.keys() - told.keys()
    found += [f"{session_id}: revision {each} was not told" for session_id, each in sorted(missing)]
    for each in fed:
        if stored.get((each.session_id, each.revision)) != each.event:
            found.append(f"{each.session_id}: revision {each.revision} was told as another one")
    last: dict[str, int] = defaultdict(int)
    for each in fed:
        before = last[each.session_id]
        if each.revision != before + 1 and not found:
            found.append(f"{each.session_id}: revision {each.revision} was told after {before}")
        last[each.session_id] = each.revision
    if not found and list(fed) != list(again):
        found.append("the feed tells another story when it is read again")
    return found


def faults_of_fed_nodes(
    fed: Mapping[tuple[int, int], tuple[int, Sequence[Place]]], again: Sequence[PositionedEvent]
) -> list[str]:
    """Say which nodes were not told what came behind the position where they began to read."""
    whole = [(each.position, each.session_id, each.revision) for each in again]
    positions = [position for position, _, _ in whole]
    found = []
    for (node, life), (after, read) in fed.items():
        first = bisect_right(positions, after)
        if list(read) != whole[first : first + len(read)]:
            expected = zip(read, whole[first:], strict=False)
            wrong = [(mine, other) for mine, other in expected if mine != other][:1]
            found.append(f"node {node}, life {life}, read another feed: {wrong}")
    return found


def feed_order_faults(fed: Sequence[PositionedEvent], calls: Iterable[Call]) -> list[str]:
    """Say which events come in a feed before others whose calls had ended when theirs began."""
    by_tag = {call.operation.tag: call for call in calls}
    found = []
    soonest: tuple[int, str] | None = None
    for each in reversed(fed):
        call = by_tag.get(_said(each) or "")
        if call is None or call.operation.session_id != each.session_id:
            continue
        if soonest is not None and soonest[0] < call.begun:
            found.append(f"position {each.position} ({call}) stands before {soonest[1]}")
        if not call.open and call.error is None and (soonest is None or call.ended < soonest[0]):
            soonest = (call.ended, f"{call} at {each.position}")
    return found
