"""Supervisors: children are started in order, restarted one for one, and stopped in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from managing import START, HookedMemory, await_event, seconds
from supervised import Diary, Stubborn, Watch, deaf, opened, simulated, statuses, waits

from session_fsm import (
    SESSION_LIFECYCLE,
    Session,
    SessionStartError,
    SessionSupervisedError,
    TransitionError,
)
from session_fsm.aio import Child, ChildContext, RestartLimit, SessionSupervisor
from session_fsm.aio.children import Restart
from session_fsm.clock import ManualClock
from session_fsm.stores.records import Commit

NEVER = {"timeout_minutes": None}
"""The configuration of sessions that do not expire."""


@pytest.fixture
def clock() -> ManualClock:
    """The clock that the loop lives by."""
    return ManualClock(START)


def supervisor_of(worker: object) -> SessionSupervisor:
    """Return a worker as the supervisor that it has to be."""
    assert isinstance(worker, SessionSupervisor)
    return worker


# --- starting ------------------------------------------------------------------------------


@simulated
async def test_supervisor_start_awaits_each_child_in_turn(clock: ManualClock) -> None:
    """The next child is started when the one before it is ready; active is the session then."""
    diary = Diary()
    seen: list[str] = []

    async def run(child: ChildContext) -> None:
        diary(f"{child.name} begins")
        seen.append((await child.manager.get(child.session_id)).status)
        await asyncio.sleep(7)
        diary(f"{child.name} is ready")
        child.ready()
        child.ready()
        await child.stopping.wait()

    async with opened(clock) as manager:
        children = [Child(name, run, signals_ready=True) for name in "ab"]
        session = await manager.create("s", children=children)
        assert diary.entries == ["a begins", "a is ready", "b begins", "b is ready"]
        assert clock.now() - START >= seconds(14)
        assert set(seen) == {"initializing"}
        assert session.status == "active"
        worker = supervisor_of(session.worker)
        assert worker.alive
        assert [(each.name, each.alive) for each in worker.children] == [("a", True), ("b", True)]
        assert supervisor_of((await manager.get("s")).worker) is worker


@simulated
async def test_supervisor_start_that_takes_too_long_is_an_abort(clock: ManualClock) -> None:
    """A child that is not ready within the grace ends the session, and is stopped."""
    diary = Diary()
    async with opened(clock, start_grace_seconds=30) as manager:
        watch = Watch(manager)
        children = [
            Child("quick", diary.child()),
            Child("slow", diary.child(after=31), signals_ready=True),
        ]
        with pytest.raises(SessionStartError) as caught:
            await manager.create("s", children=children)
        assert "'slow' was not ready in time" in caught.value.cause
        session = await manager.get("s")
        assert (session.status, session.worker) == ("terminated", None)
        await watch.ended("s")
        assert watch.triggers("s") in ([None, "abort"], [None, "start_timeout"])
        assert diary.entries[:2] == ["quick begins", "slow begins"]
        assert "quick ends" in diary.entries
        assert clock.now() - START < seconds(45)


@simulated
async def test_supervisor_start_that_fails_is_an_abort(clock: ManualClock) -> None:
    """What a child fails by before it is ready is the cause, and stays in the session's error."""
    diary = Diary()
    fault = ValueError("no model")
    async with opened(clock) as manager:
        watch = Watch(manager)
        children = [
            Child("first", diary.child()),
            Child("second", diary.child(fault, after=1), signals_ready=True),
            Child("third", diary.child()),
        ]
        with pytest.raises(SessionStartError) as caught:
            await manager.create("s", children=children)
        assert caught.value.__cause__ is fault
        assert (await manager.get("s")).state.error == "ValueError: no model"
        assert watch.triggers("s") == [None, "abort"]
        assert diary.entries == ["first begins", "second begins", "first ends"]


@simulated
async def test_supervisor_start_is_cut_short_by_the_end_of_the_session(clock: ManualClock) -> None:
    """Whoever ends a session that is being started has its start fail at once."""
    async with opened(clock) as manager:
        begun = asyncio.Event()

        async def slow(child: ChildContext) -> None:
            begun.set()
            await child.stopping.wait()

        create = asyncio.ensure_future(
            manager.create("s", children=[Child("slow", slow, signals_ready=True)])
        )
        await begun.wait()
        await manager.terminate("s", reason="changed my mind")
        with pytest.raises(SessionStartError) as caught:
            await create
        assert caught.value.cause == "ended before its start was done"
        assert clock.now() - START < seconds(1)
        assert (await manager.get("s")).state.error == "changed my mind"


class SlowStart:
    """A start that takes for ever, and notes when it is cancelled."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.begun = asyncio.Event()
        self.cancelled_at: datetime | None = None

    async def __call__(self, _: Session) -> object:
        """Start."""
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled_at = self._clock.now()
        return object()


CUTS: dict[str, tuple[Callable[[Any, Any], Awaitable[object]], str | None]] = {
    "cancel": (lambda _, create: asyncio.sleep(0, create.cancel()), None),
    "terminate": (lambda manager, _: manager.terminate("s"), "ended before its start was done"),
    "fail": (lambda manager, _: manager.fail("s", "boom"), "ended before its start was done"),
    "close": (lambda manager, _: manager.close(), "its manager was closed"),
    "wait": (lambda *_: asyncio.sleep(60), "child 'start' was not ready in time"),
}


@pytest.mark.parametrize("how", CUTS)
@simulated
async def test_supervisor_start_that_knows_no_stop_is_cancelled_at_once(
    clock: ManualClock, how: str
) -> None:
    """A `start` under way is cancelled as soon as its session is to end, and told why."""
    cut, told = CUTS[how]
    start = SlowStart(clock)
    async with opened(clock, start_grace_seconds=60) as manager:
        create = asyncio.ensure_future(manager.create("s", start=start))
        await start.begun.wait()
        at = START + seconds(60 if how == "wait" else 0)
        await cut(manager, create)
        with pytest.raises(asyncio.CancelledError if told is None else SessionStartError) as caught:
            await create
        assert clock.now() - at < seconds(1)
        assert start.cancelled_at is not None
        assert start.cancelled_at - at < seconds(1)
        if isinstance(caught.value, SessionStartError):
            assert caught.value.cause == told
        if how != "close":
            assert (await manager.get("s")).status == "terminated"


@simulated
async def test_supervisor_start_that_has_a_worker_has_it_stopped(clock: ManualClock) -> None:
    """Once there is a worker, it is asked to stop, and has its time."""
    stopped: list[str] = []

    class Worker:
        async def stop(self) -> None:
            await asyncio.sleep(3)
            stopped.append("in good order")

    async def start(_: Session) -> object:
        return Worker()

    async with opened(clock) as manager:
        await manager.create("s", start=start)
        assert (await manager.terminate("s")).state.error is None
    assert stopped == ["in good order"]


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@simulated
async def test_supervisor_start_that_ends_before_it_is_ready_is_told_so(
    clock: ManualClock, restart: Any
) -> None:
    """A child that returns and was never ready fails the start, and that is what is told."""

    async def returns(_: ChildContext) -> None: ...

    async with opened(clock) as manager:
        children = [Child("c", returns, restart=restart, signals_ready=True)]
        with pytest.raises(SessionStartError) as caught:
            await manager.create("s", children=children)
        often = {"permanent": "child 'c' ended, after 3 restarts"}
        assert caught.value.cause == often.get(restart, "child 'c' ended before it was ready")
        assert (await manager.get("s")).state.error == caught.value.cause


@simulated
async def test_supervisor_start_that_is_cancelled_leaves_nothing(clock: ManualClock) -> None:
    """Who cancels a creation has the session ended, and all of its children stopped."""
    diary = Diary()
    async with opened(clock) as manager:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await manager.create(
                    "s",
                    children=[
                        Child("a", diary.child()),
                        Child("b", diary.child(after=50), signals_ready=True),
                    ],
                )
        session = await manager.get("s")
        assert (session.status, session.worker) == ("terminated", None)
        assert session.state.error == "its creation was cancelled"
        assert diary.entries == ["a begins", "b begins", "b cancelled", "a ends"]


# --- restarts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restart", "fails", "begins", "ends"),
    [
        ("permanent", True, 4, True),
        ("permanent", False, 4, True),
        ("transient", True, 4, True),
        ("transient", False, 1, False),
        ("temporary", True, 1, True),
        ("temporary", False, 1, False),
    ],
)
@simulated
async def test_supervisor_restarts_by_the_word(
    clock: ManualClock, restart: Restart, fails: bool, begins: int, ends: bool
) -> None:
    """A child is restarted if its word says so, three times, and then its session has failed."""
    diary = Diary()
    fault = ValueError("boom") if fails else None
    async with opened(clock) as manager:
        watch = Watch(manager)
        child = Child("c", diary.child(fault, after=1), restart=restart)
        session = await manager.create("s", config=NEVER, children=[child])
        if ends:
            await watch.ended("s")
        else:
            await asyncio.sleep(3600)
        assert diary.entries.count("c begins") == begins
        state = (await manager.get("s")).state
        assert state.status == ("terminated" if ends else "active")
        if ends:
            assert watch.triggers("s") == [None, "activate", "terminate", "finish"]
            told = "failed: ValueError: boom" if fails else "ended"
            assert state.error is not None
            assert f"child 'c' {told}" in state.error
        assert supervisor_of(session.worker).alive is False


@simulated
async def test_supervisor_restarts_one_for_one(clock: ManualClock) -> None:
    """The siblings of a child that fails run on, and its restart is counted."""
    diary = Diary()
    async with opened(clock) as manager:
        session = await manager.create(
            "s",
            config=NEVER,
            children=[
                Child("a", diary.child()),
                Child("b", diary.child(KeyError("x"), after=10)),
                Child("c", diary.child()),
            ],
            restarts=RestartLimit(max_restarts=5, max_seconds=60),
        )
        await asyncio.sleep(25)
        assert diary.entries == ["a begins", "b begins", "c begins", "b begins", "b begins"]
        told = supervisor_of(session.worker).children
        assert [(each.restarts, each.alive) for each in told] == [(0, True), (2, True), (0, True)]
        assert told[1].error == "KeyError: 'x'"


@simulated
async def test_supervisor_restarts_are_counted_in_a_window(clock: ManualClock) -> None:
    """Any number of restarts is borne if they are far enough from each other."""
    diary = Diary()
    async with opened(clock) as manager:
        await manager.create(
            "s",
            config=NEVER,
            children=[Child("c", diary.child(ValueError(), after=40))],
            restarts=RestartLimit(max_restarts=2, max_seconds=60, backoff_seconds=0),
        )
        await asyncio.sleep(4010)
        assert diary.entries.count("c begins") == 101
        assert (await manager.get("s")).status == "active"


@simulated
async def test_supervisor_restarts_back_off(clock: ManualClock) -> None:
    """Each further restart in a window waits twice as long, up to the longest wait."""
    begun: list[float] = []

    async def fails(child: ChildContext) -> None:
        begun.append((clock.now() - START).total_seconds())
        raise ValueError

    limit = RestartLimit(max_restarts=5, max_seconds=1000, backoff_seconds=1, max_backoff_seconds=6)
    async with opened(clock) as manager:
        watch = Watch(manager)
        await manager.create("s", children=[Child("c", fails)], restarts=limit)
        await watch.ended("s")
    waits_between = [round(b - a, 3) for a, b in itertools.pairwise(begun)]
    assert waits_between == [1, 2, 4, 6, 6]


@simulated
async def test_supervisor_restart_that_is_never_ready_is_a_failure(clock: ManualClock) -> None:
    """A restarted child that hangs before it is ready is cancelled, and counted as failed."""
    runs = 0

    async def hangs_later(child: ChildContext) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            child.ready()
            raise ValueError
        await asyncio.Event().wait()

    async with opened(clock, start_grace_seconds=20) as manager:
        watch = Watch(manager)
        await manager.create(
            "s",
            config=NEVER,
            children=[Child("c", hangs_later, signals_ready=True)],
            restarts=RestartLimit(max_restarts=2, max_seconds=1000),
        )
        await watch.ended("s")
        assert runs == 3
        assert "was not ready in time" in str((await manager.get("s")).state.error)


@simulated
async def test_supervisor_restarted_child_that_ignores_all_fails_the_session(
    clock: ManualClock,
) -> None:
    """A restarted child that is never ready and can't be cancelled ends the session, named."""
    stubborn, runs = Stubborn(), 0

    async def hangs_later(child: ChildContext) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            child.ready()
            raise ValueError
        await stubborn(child)

    async with opened(clock, start_grace_seconds=20, stop_grace_seconds=10) as manager:
        watch = Watch(manager)
        children = [Child("c", hangs_later, signals_ready=True), Child("d", waits)]
        await manager.create("s", config=NEVER, children=children)
        worker = supervisor_of((await manager.get("s")).worker)
        await watch.ended("s")
        assert seconds(21) <= clock.now() - START < seconds(22)
        session = await manager.get("s")
        await asyncio.sleep(10)
        stubborn.let_go()
    told = "was not ready in time, and did not end when it was cancelled"
    assert session.state.error == f"child 'c' failed: {told}, after 1 restarts"
    assert worker.abandoned == ("c",)
    [left] = (task for task in asyncio.all_tasks() if task.get_name() == "s/c")
    left.cancel()
    await asyncio.wait((left,))


@simulated
async def test_supervisor_restarted_child_that_is_ready_late_lives(clock: ManualClock) -> None:
    """One that ignores its cancellation, and is ready a moment later, is as good as any."""
    runs = 0

    async def late(child: ChildContext) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            child.ready()
            raise ValueError
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        child.ready()
        await child.stopping.wait()

    async with opened(clock, start_grace_seconds=20, stop_grace_seconds=10) as manager:
        await manager.create("s", config=NEVER, children=[Child("c", late, signals_ready=True)])
        await asyncio.sleep(100)
        session = await manager.get("s")
        assert (session.status, runs) == ("active", 2)
        assert supervisor_of(session.worker).children[0].alive


@simulated
async def test_supervisor_last_child_that_failed_fails_the_session(clock: ManualClock) -> None:
    """A temporary child may fail beside others; a session of which nothing is left has failed."""
    async with opened(clock) as manager:
        watch = Watch(manager)
        children = [
            Child("a", Diary().child(ValueError("a"), after=10), restart="temporary"),
            Child("b", Diary().child(after=20)),
        ]
        await manager.create("t", config=NEVER, children=children)
        await watch.ended("t")
        assert (await manager.get("t")).state.error == "child 'a' failed: ValueError: a"
    async with opened(clock) as manager:
        watch = Watch(manager)
        diary = Diary()
        children = [
            Child("a", diary.child(ValueError("a"), after=10), restart="temporary"),
            Child("b", diary.child(ValueError("b"), after=20), restart="temporary"),
        ]
        await manager.create("s", config=NEVER, children=children)
        await asyncio.sleep(15)
        assert (await manager.get("s")).status == "active"
        await watch.ended("s")
        assert (await manager.get("s")).state.error == "child 'b' failed: ValueError: b"


# --- stopping ------------------------------------------------------------------------------


@simulated
async def test_supervisor_stops_in_reverse(clock: ManualClock) -> None:
    """Each child is asked to stop when the one that was started after it has ended."""
    diary = Diary()

    async def run(child: ChildContext) -> None:
        await child.stopping.wait()
        diary(f"{child.name} is asked")
        await asyncio.sleep(1)
        diary(f"{child.name} ends")

    async with opened(clock) as manager:
        await manager.create("s", children=[Child(name, run) for name in "abc"])
        session = await manager.terminate("s")
        assert diary.entries == [
            f"{name} {what}" for name in "cba" for what in ("is asked", "ends")
        ]
        assert (session.status, session.worker, session.state.error) == ("terminated", None, None)


@simulated
async def test_supervisor_cancels_who_does_not_stop(clock: ManualClock) -> None:
    """A child that does not end within its own time is cancelled, and the session ends well."""
    async with opened(clock) as manager:
        await manager.create("s", children=[Child("deaf", deaf, stop_seconds=2)])
        session = await manager.terminate("s")
        assert (session.status, session.state.error) == ("terminated", None)
        assert seconds(2) <= clock.now() - START < seconds(3)


@simulated
async def test_supervisor_abandons_and_names_who_ignores_all(clock: ManualClock) -> None:
    """A child that even ignores cancellation is named, and keeps neither session nor sibling."""
    stubborn, diary = Stubborn(), Diary()
    async with opened(clock, stop_grace_seconds=10) as manager:
        watch = Watch(manager)
        session = await manager.create(
            "s", children=[Child("good", diary.child()), Child("stubborn", stubborn)]
        )
        session = await manager.terminate("s")
        assert session.status == "terminated"
        assert session.state.error == "did not stop, and abandoned: stubborn"
        await watch.ended("s")
        assert watch.triggers("s")[-1] == "finish"
        assert clock.now() - START < seconds(10)
        assert diary.entries == ["good begins", "good ends"]
        assert stubborn.cancels >= 1
    [left] = (task for task in asyncio.all_tasks() if "stubborn" in task.get_name())
    stubborn.let_go()
    left.cancel()
    await asyncio.wait((left,))


@pytest.mark.parametrize("many", [1, 5, 20])
@simulated
async def test_supervisor_keeps_to_the_grace_whatever_its_children_do(
    clock: ManualClock, many: int
) -> None:
    """However many children don't stop, the session has ended within its grace."""
    async with opened(clock, stop_grace_seconds=4) as manager:
        children = [Child(f"c{number}", deaf) for number in range(many)]
        await manager.create("s", children=children)
        session = await manager.terminate("s")
        assert (session.status, session.state.error) == ("terminated", None)
        assert clock.now() - START < seconds(4)


@simulated
async def test_supervisor_waits_for_tasks_as_well(clock: ManualClock) -> None:
    """A session whose children have stopped still waits for the task that somebody works on."""
    async with opened(clock) as manager:
        await manager.create("s", children=[Child("c", waits)])
        await manager.begin_task("s", "t")
        terminate = asyncio.ensure_future(manager.terminate("s"))
        await asyncio.sleep(3)
        assert (await manager.get("s")).status == "terminating"
        await manager.end_task("s", "t")
        assert (await terminate).state.error is None


@pytest.mark.parametrize("verb", ["terminate", "fail", "fire", "expire"])
@simulated
async def test_supervisor_stops_by_every_end(clock: ManualClock, verb: str) -> None:
    """Whatever ends a session, its children are stopped, and nothing is left of them."""
    diary = Diary()
    async with opened(clock) as manager:
        watch = Watch(manager)
        session = await manager.create(
            "s", config={"timeout_minutes": 5}, children=[Child("c", diary.child())]
        )
        ends: dict[str, Callable[[], Awaitable[object]]] = {
            "terminate": lambda: manager.terminate("s", wait=False),
            "fail": lambda: manager.fail("s", "boom"),
            "fire": lambda: manager.fire("s", "terminate"),
            "expire": lambda: asyncio.sleep(301),
        }
        await ends[verb]()
        await watch.ended("s")
        await asyncio.sleep(1)
        assert diary.entries == ["c begins", "c ends"]
        assert supervisor_of(session.worker).alive is False
        assert (await manager.get("s")).worker is None
        assert (await manager.recover()).released == ()


@simulated
async def test_supervisor_of_a_closed_manager_has_nothing_running(clock: ManualClock) -> None:
    """Closing the manager stops every child; the sessions stay as they are."""
    diary = Diary()
    before = asyncio.all_tasks()
    async with opened(clock) as manager:
        for number in range(10):
            await manager.create(f"s{number}", children=[Child("c", diary.child())])
    assert diary.entries.count("c ends") == 10
    assert asyncio.all_tasks() == before


# --- a session's trouble is its own ---------------------------------------------------------

KILLS = ("raise", "exit", "cancel the child", "cancel from inside", "cancel the end", "return")


@pytest.mark.parametrize("seed", range(3))
@simulated
async def test_supervisor_a_kill_ends_its_own_session_and_no_other(
    clock: ManualClock, seed: int
) -> None:
    """Of a hundred sessions fifty are killed: they end, legally and soon, and fifty work on."""
    chance = random.Random(seed)
    told = {f"s{number:03}": asyncio.Event() for number in range(100)}
    means: dict[str, str] = {}
    worked: set[str] = set()

    async def agent(child: ChildContext) -> None:
        await told[child.session_id].wait()
        match means.get(child.session_id):
            case "raise":
                raise ValueError("boom")
            case "exit":
                sys.exit(3)
            case "cancel from inside":
                raise asyncio.CancelledError
            case "return":
                return
            case None:
                async with child.manager.task(child.session_id, "work"):
                    worked.add(child.session_id)
                await child.stopping.wait()
            case _:
                await asyncio.Event().wait()

    async with opened(clock) as manager:
        watch = Watch(manager)
        for session_id in told:
            await manager.create(
                session_id,
                config=NEVER,
                children=[Child("agent", agent, restart="permanent"), Child("side", waits)],
                restarts=RestartLimit(max_restarts=0),
            )
        killed = sorted(chance.sample(sorted(told), 50))
        for number, session_id in enumerate(killed):
            means[session_id] = KILLS[number % len(KILLS)]
        at = clock.now()
        tasks = {task.get_name(): task for task in asyncio.all_tasks()}
        for event in told.values():
            event.set()
        await asyncio.sleep(0)
        for session_id in killed:
            if means[session_id].startswith("cancel the"):
                tasks[f"{session_id}/agent"].cancel()
            if means[session_id] == "cancel the end":
                name = f"{session_id} fails"
                while not (own := [t for t in asyncio.all_tasks() if t.get_name() == name]):
                    await asyncio.sleep(0)
                own[0].cancel()
        await watch.ended(*killed)
        await watch.until(lambda: len(worked) == 50)
        assert clock.now() - at < seconds(1)
        for session_id in killed:
            assert watch.triggers(session_id)[2:] == ["terminate", "finish"]
            assert (await manager.get(session_id)).state.error is not None
        others = sorted(told.keys() - set(killed))
        sessions = [await manager.get(each) for each in others]
        assert statuses(sessions) <= {"active", "idle"}
        assert all(supervisor_of(each.worker).alive for each in sessions)
        assert worked == set(others)
        assert (await manager.verify()).ok


@simulated
async def test_supervisor_child_that_dies_before_the_session_is_active(clock: ManualClock) -> None:
    """A failure between the start and the activation is the cause of the start's failure."""
    async with opened(clock) as manager:

        async def dies(_: ChildContext) -> None:
            raise ValueError("boom")

        with pytest.raises(SessionStartError) as caught:
            await manager.create(
                "s", children=[Child("c", dies)], restarts=RestartLimit(max_restarts=0)
            )
        assert caught.value.cause == "child 'c' failed: ValueError: boom"
        assert (await manager.get("s")).state.error == caught.value.cause


@simulated
async def test_supervisor_child_that_dies_while_the_session_is_activated(
    clock: ManualClock,
) -> None:
    """A failure while the activation is written ends the session as soon as it is active."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with opened(clock, store=store) as manager:
        watch = Watch(manager)
        loop, die, died = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        async def dies(child: ChildContext) -> None:
            await die.wait()
            loop.call_later(0, died.set)
            raise ValueError("boom")

        def kill(commit: Commit) -> None:
            if commit.steps[-1].step.trigger == "activate":
                loop.call_soon_threadsafe(die.set)
                await_event(died)

        store.before["commit"] = kill
        await manager.create(
            "s", children=[Child("c", dies)], restarts=RestartLimit(max_restarts=0)
        )
        await watch.ended("s")
        assert watch.triggers("s") == [None, "activate", "terminate", "finish"]


# --- sessions that lived before --------------------------------------------------------------


@simulated
async def test_supervisor_takes_over_what_a_dead_process_left(
    clock: ManualClock, tmp_path: Path
) -> None:
    """A session whose worker has died with its process is recovered, and supervised anew."""
    url = f"sqlite:///{tmp_path}/s.db"
    diary = Diary()
    async with opened(clock, store=url) as manager:
        await manager.create("s", children=[Child("a", diary.child())])
    async with opened(clock, store=url) as manager:
        with pytest.raises(SessionSupervisedError):
            await manager.supervise("s", [Child("a", diary.child())])
        assert (await manager.recover()).released == ("s",)
        session = await manager.supervise("s", [Child("a", diary.child())])
        assert supervisor_of(session.worker).alive
        assert (await manager.get("s")).worker is session.worker
        with pytest.raises(SessionSupervisedError):
            await manager.supervise("s", [Child("b", diary.child())])
        assert (await manager.terminate("s")).status == "terminated"
        with pytest.raises(TransitionError):
            await manager.supervise("s", [Child("b", diary.child())])
        with pytest.raises(ValueError, match="at least one"):
            await manager.supervise("s", [])
        assert (await manager.verify()).ok
    assert diary.entries == ["a begins", "a ends"] * 2


@simulated
async def test_supervisor_is_one_of_many_that_want_a_session(
    clock: ManualClock, tmp_path: Path
) -> None:
    """Of managers that supervise one session at the same time, one does; the others are told."""
    url = f"sqlite:///{tmp_path}/s.db"
    diary = Diary()
    async with AsyncExitStack() as stack:
        managers = [
            await stack.enter_async_context(opened(clock, store=url, sweep_poll_seconds=1))
            for _ in range(4)
        ]
        await managers[0].create("s")
        outcomes = await asyncio.gather(
            *(each.supervise("s", [Child("a", diary.child())]) for each in managers),
            return_exceptions=True,
        )
        kinds = sorted(type(each).__name__ for each in outcomes)
        assert kinds == ["Session", *["SessionSupervisedError"] * 3]
        assert diary.entries == ["a begins"]
        await managers[1].fail("s", "boom")
        await asyncio.sleep(2)
        assert diary.entries == ["a begins", "a ends"]
    assert supervisor_of(next(e for e in outcomes if isinstance(e, Session)).worker).alive is False


@pytest.mark.parametrize("after", [None, 0.0, 10.0])
@simulated
async def test_supervisor_of_children_that_have_ended_well_is_none(
    clock: ManualClock, tmp_path: Path, after: float | None
) -> None:
    """A session whose children have all ended well lives on, and may be supervised anew."""
    url = f"sqlite:///{tmp_path}/s.db"

    async def ends(_: ChildContext) -> None:
        if after is not None:
            await asyncio.sleep(after)

    async with opened(clock, store=url) as manager, opened(clock, store=url) as other:
        children = [Child("a", ends), Child("b", ends, restart="temporary")]
        session = await manager.create("s", config=NEVER, children=children)
        if after:
            with pytest.raises(SessionSupervisedError):
                await manager.supervise("s", children)
            await asyncio.sleep(after)
        while manager.store.work_in("s"):
            await asyncio.sleep(0.1)
        session = await manager.get("s")
        assert (session.status, session.state.error, session.worker) == ("active", None, None)
        session = await other.supervise("s", [Child("a", waits)])
        assert supervisor_of(session.worker).alive
        assert (await other.terminate("s")).status == "terminated"
        assert (await manager.verify()).ok


@simulated
async def test_supervisor_goes_on_while_any_child_has_not_ended(clock: ManualClock) -> None:
    """A child that ends before the next one is started, or beside another, ends nothing."""

    async def ends(_: ChildContext) -> None: ...

    async def starts(child: ChildContext) -> None:
        await asyncio.sleep(5)
        child.ready()
        await child.stopping.wait()

    async with opened(clock) as manager:
        children = [Child("first", ends), Child("second", starts, signals_ready=True)]
        session = await manager.create("s", config=NEVER, children=children)
        await asyncio.sleep(10)
        assert supervisor_of((await manager.get("s")).worker) is session.worker
        with pytest.raises(SessionSupervisedError):
            await manager.supervise("s", children)


@pytest.mark.parametrize("verb", ["terminate", "fail"])
@simulated
async def test_supervisor_whose_children_end_as_the_session_does(
    clock: ManualClock, verb: str
) -> None:
    """A session that is ended while its last child ends by itself ends in good order."""
    async with opened(clock) as manager:
        loop, may_end = asyncio.get_running_loop(), asyncio.Event()

        async def ends(_: ChildContext) -> None:
            await may_end.wait()

        for number in range(20):
            may_end.clear()
            session_id = f"s{number}"
            await manager.create(session_id, config=NEVER, children=[Child("c", ends)])
            for _ in range(number):
                await asyncio.sleep(0)
            loop.call_soon(may_end.set)
            if verb == "terminate":
                session = await manager.terminate(session_id)
                assert (session.status, session.state.error) == ("terminated", None)
            else:
                session = await manager.fail(session_id, "boom")
                assert (session.status, session.state.error) == ("terminated", "boom")
            while (await manager.get(session_id)).worker is not None:
                await asyncio.sleep(0)
        assert (await manager.recover()).released == ()


@simulated
async def test_supervisor_that_can_not_take_over_fails_the_session(clock: ManualClock) -> None:
    """A session whose children can't be started anew has ended, with the cause."""
    async with opened(clock) as manager:
        await manager.create("s")
        fault = ValueError("no model")
        with pytest.raises(SessionStartError) as caught:
            await manager.supervise("s", [Child("a", Diary().child(fault, 1), signals_ready=True)])
        assert caught.value.__cause__ is fault
        session = await manager.get("s")
        assert (session.status, session.worker) == ("terminated", None)
        assert session.state.error == "ValueError: no model"
