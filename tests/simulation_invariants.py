"""What holds at every step of a simulation, whatever goes wrong in it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import attrs
from simulated_database import OWNING, START
from simulated_guards import Before
from simulation_node import STOP_SECONDS

from session_fsm.history import Step
from session_fsm.items import ItemWrites, Put
from session_fsm.stores.records import Commit, Taken, Work

if TYPE_CHECKING:
    from simulation_town import Town

DUE_SECONDS: Final = 50.0
"""So late is a timed row fired at most, where one node does its work all the time."""
TAKEN_SECONDS: Final = 60.0
"""So late is a dead owner's session taken and done with, likewise."""
WAKING_SECONDS: Final = 10 * STOP_SECONDS
"""So long does a node that stood still, or was starting something, take to see that it has lapsed,
and to stop what it runs."""
_WORKER: Final = Work("worker")


@attrs.define
class _Recovery:
    """A session whose worker was taken over, until something has become of it."""

    policy: str
    attempts: int
    holder_id: str
    lives: bool


class Invariants:
    """Looks at all that the database does, and at who runs what.

    Args:
        town: Everything.
    """

    def __init__(self, town: Town) -> None:
        self._town = town
        self._world = town.world
        self._ledger = town.ledger
        lifecycle = town.lifecycle
        self._final = lifecycle.final
        self._working = [each for each in lifecycle.live if each not in lifecycle.drains]
        self._legal = {(row.trigger, source, row.target) for row, source in lifecycle.moves()}
        self._timed = {row.trigger for row, _ in lifecycle.moves() if row.deadline is not None}
        self._operations: set[str] = set()
        self._fired: set[tuple[str, str, object]] = set()
        self._taken: dict[tuple[str, str, Work, int], str] = {}
        self._claims: dict[tuple[str, Work], int] = {}
        self._takings: dict[str, int] = {}
        self._recoveries: dict[str, _Recovery] = {}
        self.counts: dict[str, int] = {}
        """How often each thing was seen, so that a run can tell what it has tried."""

    def _wrong(self, what: str) -> None:
        self._world.failed(what)

    def saw(self, what: str) -> None:
        """Count something."""
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- what the database tells ----------------------------------------------------------

    def committed(self, commit: Commit, before: Before) -> None:
        """Look at a commit that has landed."""
        session_id, owner_id = commit.session_id, commit.owner_id
        last = commit.steps[-1]
        triggers = ", ".join(str(each.step.trigger) for each in commit.steps)
        self._world.tell(
            f"database: {owner_id} {session_id} {triggers} -> {last.revision} {last.state.status}"
        )
        if self._town.database.leases.get(owner_id, -1.0) <= self._world.now:
            self._wrong(
                f"fencing: a commit of {owner_id} has landed in {session_id},"
                " though its lease was over"
            )
        if commit.operation_id in self._operations:
            self._wrong(f"at most once: commit {commit.operation_id} has landed twice")
        self._operations.add(commit.operation_id)
        if commit.expected_revision != before.revision:
            self._wrong(
                f"lost change: what {owner_id} decided on revision {commit.expected_revision} of"
                f" {session_id} was written over revision {before.revision}"
            )
        state = None if before.life is None else before.life.state
        deadline = before.deadline_at
        for number, stored in enumerate(commit.steps, before.revision + 1):
            step = stored.step
            self._look_at(session_id, step, state, deadline)
            if stored.revision != number:
                self._wrong(
                    f"chain: {session_id} has revision {stored.revision} after {number - 1}"
                )
            state, deadline = step.after, stored.deadline_at
        self._ledger.committed(each.step for each in commit.steps)
        for work in commit.claims:
            self._claims[session_id, work] = self._claims.get((session_id, work), 0) + 1
        if session_id in self._recoveries:
            self._recovered(session_id, commit)

    def _look_at(self, session_id: str, step: Step, state: object, deadline: object) -> None:
        if step.before is not state and step.before != state:
            self._wrong(
                f"lost change: a step of {session_id} begins at another state than is stored"
            )
        if step.before is None:
            return
        source, target = step.before.status, step.after.status
        if source in self._final:
            self._wrong(f"final: {session_id} was {source}, and {step.trigger} was fired")
        moved = target if step.moves else None
        if step.moves is not None and (step.trigger, source, moved) not in self._legal:
            self._wrong(
                f"legal walk: {session_id} went from {source} to {target} by {step.trigger}"
            )
        if step.trigger in self._timed:
            self.saw(str(step.trigger))
            if deadline is None or step.after.updated_at < deadline:  # type: ignore[operator]
                self._wrong(f"too early: {step.trigger} of {session_id} was due at {deadline}")
            if (key := (session_id, str(step.trigger), deadline)) in self._fired:
                self._wrong(f"once: {step.trigger} of {session_id} was fired twice for {deadline}")
            self._fired.add(key)

    def wrote(self, session_id: str, writes: ItemWrites) -> None:
        """Look at what was written to tables."""
        for write in writes.writes:
            if isinstance(write, Put) and isinstance(write.value, str):
                self._ledger.written[write.value] += 1
                if self._ledger.written[write.value] > 1:
                    self._wrong(f"at most once: {write.value} was written twice to {session_id}")

    def took(self, owner_id: str, taken: tuple[Taken, ...]) -> None:
        """Look at what was taken over."""
        leases, now = self._town.database.leases, self._world.now
        if leases.get(owner_id, -1.0) <= now:
            self._wrong(f"fencing: {owner_id} has taken over, though its lease was over")
        for session_id in {each.session_id: None for each in taken if _is_counted(each)}:
            self._takings[session_id] = self._takings.get(session_id, 0) + 1
        for each in taken:
            session_id = each.session_id
            self._world.tell(f"database: {owner_id} takes {session_id} of {each.owner_id}")
            if leases.get(each.owner_id, -1.0) > now:
                self._wrong(f"{session_id} was taken from {each.owner_id}, who lives")
            for work in each.work:
                key = (session_id, each.owner_id, work, self._claims.get((session_id, work), 0))
                if key in self._taken:
                    self._wrong(
                        f"taken once: {work.kind} {work.item} of {each.owner_id} in {session_id}"
                        f" was taken by {self._taken[key]}, and then by {owner_id}"
                    )
                self._taken[key] = owner_id
            if _WORKER in each.work:
                self._begin_recovery(each)
            times = self._takings[session_id] if _is_counted(each) else 0
            if each.attempts != times:
                self._wrong(
                    f"attempts: {session_id} was taken over {times} times, not {each.attempts}"
                )

    def _begin_recovery(self, taken: Taken) -> None:
        stored = self._town.database.load(taken.session_id)
        if stored is None:
            return
        state, lifecycle = stored.state, self._town.lifecycle
        self._recoveries[taken.session_id] = _Recovery(
            state.config.recovery,
            taken.attempts,
            taken.holder_id,
            state.status not in lifecycle.drains and state.status not in lifecycle.final,
        )

    def _recovered(self, session_id: str, commit: Commit) -> None:
        """Look at what has become of a session whose worker was taken over."""
        recovery = self._recoveries[session_id]
        state = commit.steps[-1].state
        ended = "its owner died" in (state.error or "") and state.status in self._final
        if _WORKER in commit.claims:
            how = "restarted"
        elif _WORKER in commit.releases:
            how = "ended" if ended else "released"
        else:
            return
        del self._recoveries[session_id]
        self.saw(how)
        if not recovery.lives:
            return
        attempts, policy = recovery.attempts, recovery.policy
        gone = any(each.step.after.status in self._final for each in commit.steps)
        if attempts > self._town.max_takeovers:
            self.saw("capped")
            if not gone:
                self._wrong(f"capped: {session_id} was {how} at attempt {attempts}")
        elif policy == "end" and not gone:
            self._wrong(f"policy: {session_id} was to end, and was {how}")
        elif policy == "release" and how == "restarted":
            self._wrong(f"policy: {session_id} was to be released, and was {how}")
        elif policy in {"release", "restart"} and how == "ended":
            self._wrong(f"policy: {session_id} was to {policy}, and was {how}")

    def compacted(self, session_id: str) -> None:
        """Note that events are gone behind a checkpoint."""
        self._world.tell(f"database: {session_id} is compacted")
        self.saw("compacted")

    def gave_back(self, taken: Taken) -> None:
        """Note that what was taken over is to be taken again."""
        self._world.tell(f"database: {taken.holder_id} gives back {taken.session_id}")
        self.saw("given back")
        if taken.attempts and _is_counted(taken):
            self._takings[taken.session_id] = taken.attempts - 1
        for work in taken.work:
            count = self._claims.get((taken.session_id, work), 0)
            self._taken.pop((taken.session_id, taken.owner_id, work, count), None)
        self._recoveries.pop(taken.session_id, None)

    # --- who runs what --------------------------------------------------------------------

    def look_at_workers(self) -> None:
        """See that each session is run by one at most, and by nobody whose lease is over."""
        leases, now = self._town.database.leases, self._world.now
        runs: dict[str, str] = {}
        for node in self._town.nodes:
            manager, process = node.manager, node.process
            if manager is None or not (running := manager._workers._running) or not node.is_up:
                continue
            for session_id, run in running.items():
                if not run.worker.is_running:
                    continue
                owner_id = run.owner_id
                if leases.get(owner_id, -1.0) <= now:
                    if now - max(process.awake_since, run.worker.begun_at) > WAKING_SECONDS:
                        self._wrong(
                            f"margin: {process.name} runs a worker of {session_id} for {owner_id},"
                            " whose lease is over"
                        )
                    continue
                if session_id in runs:
                    self._wrong(
                        f"one owner: {session_id} is run by {runs[session_id]} and by {owner_id}"
                    )
                runs[session_id] = owner_id

    # --- what happens in time -------------------------------------------------------------

    def look_at_time(self) -> None:
        """See that nothing waits longer than it may, as long as one node does its work."""
        now, database = self._world.now, self._town.database
        awake = max((now - node.since for node in self._town.nodes if node.is_healthy), default=0.0)
        if awake > DUE_SECONDS:
            late = START + timedelta(seconds=now - DUE_SECONDS)
            for deadline, session_id in database.due(late, 1, None):
                self._wrong(f"due: {session_id} was due at {deadline}, and nobody fired it")
        if awake > TAKEN_SECONDS:
            for left in database.abandoned():
                if database.leases.get(left.owner_id, -1.0) < now - TAKEN_SECONDS:
                    self._wrong(
                        f"dead: {left.owner_id} has left {left.work} in {left.session_id},"
                        " and nobody took it"
                    )

    def look_at_the_end(self) -> None:
        """See that everything is in order once nothing has gone wrong for a while."""
        database = self._town.database
        for left in database.abandoned():
            self._wrong(f"dead: {left.owner_id} has left {left.work} in {left.session_id}")
        for node in self._town.nodes:
            if node.manager is None or not node.is_healthy:
                self._wrong(f"{node.process.name} does not do its work")
                continue
            core, running = node.manager._core, node.manager._workers._running
            for session_id, run in running.items():
                if run.worker.is_running and not database.work_of(session_id, run.owner_id):
                    self._wrong(f"claim: {run.owner_id} runs {session_id}, and nobody knows of it")
            for stored in database.page(self._working, 1000, None):
                session_id = stored.state.session_id
                if node.is_recovering or session_id in node.starting or session_id in running:
                    continue
                if _WORKER in database.work_of(session_id, core.owner_id):
                    self._wrong(f"claim: {core.owner_id} does not run {session_id}, and says so")


def _is_counted(taken: Taken) -> bool:
    """Tell whether it was whoever ran a session, or began to, that died."""
    return any(work in OWNING for work in taken.work)
