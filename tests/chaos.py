"""Children that go wrong in every way, by the hundred, for days of simulated time.

`live` has sessions live for a while and looks at what is left; the tests do so for a day,
`tests/soak.py` for as long as anybody likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import attrs
from supervised import opened

from session_fsm import (
    ContextLimits,
    InboxFullError,
    Session,
    SessionFsmError,
    SessionStartError,
    TaskDroppedError,
    TransitionError,
)
from session_fsm.aio import Child, ChildContext, RestartLimit, SessionManager, SessionSupervisor
from session_fsm.clock import ManualClock

HABITS: Final = (
    "works",
    "crashes",
    "exits",
    "returns",
    "hangs at start",
    "fails at start",
    "hangs in a task",
    "ignores the stop",
    "ignores cancellation",
    "fails in the end",
    "cancels itself",
    "ends itself",
    "leaks",
    "reads its inbox",
    "leaves its inbox unread",
    "leaves tasks behind",
    "fills tables",
)
"""What children are like."""
STOP_SECONDS: Final = 10.0
MOST_MESSAGES: Final = 200
"""That a context keeps; an inbox has room for more."""


@attrs.frozen(kw_only=True)
class Findings:
    """What came of it.

    Attributes:
        ended: How many sessions have ended, by their last trigger.
        alive: How many were left when the time was over.
        abandoned: How many tell in their error of a child that was abandoned.
        problems: What should never be, in words.
    """

    ended: Counter[str]
    alive: int
    abandoned: int
    problems: list[str]


class Chaos:
    """Children of all habits.

    Args:
        seed: Of what they do when.
        span_seconds: How long things take, at most.
    """

    def __init__(self, seed: int, span_seconds: float) -> None:
        self._chance = random.Random(seed)
        self._span = span_seconds
        self._end = asyncio.Event()
        self._leaks: list[Any] = []

    def let_go(self) -> None:
        """End those that ignore everything else."""
        self._end.set()

    def while_(self) -> float:
        """Return how long something takes."""
        return self._chance.uniform(0.001, 1) ** 3 * self._span

    async def __call__(self, child: ChildContext) -> None:
        """Run, as the name of the child tells."""
        habit = child.name.partition("/")[0]
        if habit == "hangs at start" and self._chance.random() < 0.5:
            await asyncio.Event().wait()
        if habit == "fails at start" and self._chance.random() < 0.5:
            raise OSError("no image")
        await asyncio.sleep(self.while_() / 1000)
        child.ready()
        try:
            await self._work(habit, child)
        finally:
            if habit == "fails in the end":
                raise LookupError("in the end")

    async def _work(self, habit: str, child: ChildContext) -> None:
        match habit:
            case "crashes" | "fails at start":
                await asyncio.sleep(self.while_())
                raise ValueError("boom")
            case "exits":
                await asyncio.sleep(self.while_())
                sys.exit(3)
            case "returns":
                await asyncio.sleep(self.while_())
                return
            case "hangs in a task":
                async with child.manager.task(
                    child.session_id, f"{child.name} {child.restarts}", timeout_seconds=60
                ):
                    await asyncio.Event().wait()
            case "ignores the stop":
                await asyncio.Event().wait()
            case "ignores cancellation":
                while not self._end.is_set():
                    try:
                        await self._end.wait()
                    except asyncio.CancelledError:
                        continue
            case "cancels itself":
                await asyncio.sleep(self.while_())
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(1)
            case "ends itself":
                await asyncio.sleep(self.while_())
                await child.manager.terminate(child.session_id, wait=False)
                await child.stopping.wait()
            case "leaks":
                held: list[bytes] = []  # as long as it runs
                while not child.stopping.is_set():
                    held.append(bytes(1000))
                    await asyncio.sleep(self.while_())
                    await child.manager.touch(child.session_id)
            case "reads its inbox":
                async for message in child.inbox:
                    notes = child.manager.table(child.session_id, "notes")
                    await notes.put(message.role, message.content, ttl_seconds=self.while_() + 1)
            case "leaves its inbox unread":
                await self._sends(child)
            case "leaves tasks behind":
                while not child.stopping.is_set():
                    self._leaks.append(asyncio.ensure_future(self._end.wait()))
                    await asyncio.sleep(self.while_())
                    await child.manager.touch(child.session_id)
            case "fills tables":
                await self._fills(child)
            case _:
                await self._works(child)

    async def _sends(self, child: ChildContext) -> None:
        """Send messages that nobody reads, or that a sibling does."""
        while not child.stopping.is_set():
            await asyncio.sleep(self.while_())
            for _ in range(self._chance.randint(1, 5)):
                text = "x" * self._chance.randint(0, 1000)
                with contextlib.suppress(TransitionError, InboxFullError):
                    await child.manager.send_message(child.session_id, "user", text)

    async def _fills(self, child: ChildContext) -> None:
        """Write more and more to a table, some of it for a while only."""
        table = child.manager.table(child.session_id, "pile")
        for number in itertools.count():
            if child.stopping.is_set():
                return
            await asyncio.sleep(self.while_())
            seconds = self._chance.choice((None, self.while_() + 1))
            with contextlib.suppress(TransitionError):
                await table.put(f"{child.name} {number}", [number] * 10, ttl_seconds=seconds)
                await child.manager.touch(child.session_id)

    async def _works(self, child: ChildContext) -> None:
        while not child.stopping.is_set():
            await asyncio.sleep(self.while_())
            try:
                name = f"{child.name} {self._chance.random()}"
                async with child.manager.task(child.session_id, name, timeout_seconds=self._span):
                    await asyncio.sleep(self.while_())
            except (TransitionError, TaskDroppedError):
                return  # the session has gone to its end meanwhile


async def live(
    manager: SessionManager, clock: ManualClock, *, sessions: int, seed: int, span_seconds: float
) -> Findings:
    """Have sessions with children of all habits live for a while.

    Args:
        manager: Open; nothing else lives in it.
        clock: Its clock.
        sessions: How many.
        seed: Of what happens.
        span_seconds: How long.
    """
    chaos = Chaos(seed, span_seconds)
    chance = random.Random(seed + 1)

    async def create(number: int) -> None:
        habits = chance.choices(HABITS, k=chance.randint(1, 3))
        children = [
            Child(
                f"{habit}/{place}",
                chaos,
                restart=chance.choice(("permanent", "transient", "temporary")),
                signals_ready=chance.random() < 0.7,
                stop_seconds=chance.choice((0.0, 1.0, 5.0)),
            )
            for place, habit in enumerate(habits)
        ]
        await asyncio.sleep(chance.random() * span_seconds / 2)
        try:
            session = await manager.create(
                f"{seed}-{number}",
                config={"timeout_minutes": chance.choice((None, 1, 60, 600))},
                children=children,
                restarts=RestartLimit(max_restarts=chance.randint(0, 5), max_seconds=600),
            )
        except SessionStartError:
            return
        supervisors[session.session_id] = session.worker
        if chance.random() < 0.3:
            await asyncio.sleep(chaos.while_())
            how = chance.choice((manager.terminate, manager.fail))
            try:
                await (manager.fail(f"{seed}-{number}", "asked for") if how == manager.fail
                       else manager.terminate(f"{seed}-{number}"))  # fmt: skip
            except SessionFsmError as fault:
                problems.append(f"{number}: could not be ended: {fault!r}")

    problems: list[str] = []
    supervisors: dict[str, SessionSupervisor] = {}
    await asyncio.gather(*(create(number) for number in range(sessions)))
    await asyncio.sleep(span_seconds)
    problems += await _problems(manager, clock, supervisors)
    ended: Counter[str] = Counter()
    alive = abandoned = 0
    async for session in _all(manager):
        if session.status == "terminated":
            ended[str((await manager.history(session.session_id))[-1].trigger)] += 1
        else:
            alive += 1
        abandoned += "abandoned" in (session.state.error or "")
    chaos.let_go()
    return Findings(ended=ended, alive=alive, abandoned=abandoned, problems=problems)


async def _all(manager: SessionManager) -> Any:
    after: str | None = None
    while True:
        page = await manager.list(status=manager.lifecycle.statuses, limit=500, after=after)
        for session in page:
            yield session
        if page.next is None:
            return
        after = page.next


async def _problems(
    manager: SessionManager, clock: ManualClock, supervisors: Mapping[str, SessionSupervisor]
) -> list[str]:
    """Say which sessions are as none may be, some time after the last thing happened to them."""
    found = list((await manager.verify()).problems)
    late = clock.now() - timedelta(seconds=5 * STOP_SECONDS)
    async for session in _all(manager):
        state, worker = session.state, session.worker
        where = f"{session.session_id} is {state.status} since {state.status_since}"
        if state.status == "terminated":
            if worker is not None and state.status_since < late:
                found.append(f"{where}, and its children still run: {worker}")
        elif state.status in ("initializing", "terminating"):
            if state.status_since < late - timedelta(seconds=60):
                found.append(f"{where}: stuck")
        elif worker is None:
            began = supervisors[session.session_id]
            if began.alive or began.failure is not None:
                found.append(f"{where}, and nothing is known of what runs for it: {began}")
        elif not worker.alive and any(each.error for each in worker.children):
            found.append(f"{where}, and all of its children have failed: {worker.children}")
        found += await _unlike(manager, session)
        for task, due in state.task_deadlines:
            if due < late:
                found.append(f"{where}, and task {task} should have been dropped at {due}")
    return found


async def _unlike(manager: SessionManager, session: Session) -> list[str]:
    """Say what is wrong with the messages and the tables of a session."""
    found: list[str] = []
    said = (await manager.context(session.session_id).get()).history
    numbers = [entry.number for entry in said]
    if numbers != sorted(set(numbers)) or len(said) > MOST_MESSAGES:
        found.append(f"{session.session_id}: its history has the numbers {numbers}")
    inbox = None if session.worker is None else session.worker.inbox()
    if inbox is not None and not inbox.closed:
        waiting = [message.content for message in inbox._waiting]
        kept = [entry.message.content for entry in said]
        both = min(len(waiting), len(kept))
        if waiting[len(waiting) - both :] != kept[len(kept) - both :] and _nobody_reads(session):
            found.append(f"{session.session_id}: its inbox has not what was said")
    return found


def _nobody_reads(session: Session) -> bool:
    return not any(each.name.startswith("reads") for each in session.worker.children)


async def one_day(
    clock: ManualClock, *, sessions: int, seed: int, days: float = 1.0, store: str = "memory://"
) -> Findings:
    """Open a manager, have sessions live in it for a day, and close it."""
    before = asyncio.all_tasks()
    limits = ContextLimits(max_history=MOST_MESSAGES)
    async with opened(
        clock, store=store, stop_grace_seconds=STOP_SECONDS, context_limits=limits
    ) as manager:
        span = days * 86_400
        findings = await live(manager, clock, sessions=sessions, seed=seed, span_seconds=span)
    for _ in range(10):
        await asyncio.sleep(1)  # those that were abandoned end now that they are let go
    left = [task.get_name() for task in asyncio.all_tasks() - before]
    return attrs.evolve(
        findings, problems=[*findings.problems, *(f"{name} is left" for name in left)]
    )
