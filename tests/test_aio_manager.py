"""The awaited manager: the verbs of the other one, on a loop that is not held."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from managing import (
    START,
    HookedMemory,
    House,
    await_event,
    minutes,
    once,
    seconds,
)
from supervised import Watch, in_real_time, opened, simulated, waits

import session_fsm
from session_fsm import (
    SESSION_LIFECYCLE,
    LifecycleError,
    ManagerClosedError,
    Row,
    Session,
    SessionEvent,
    SessionExistsError,
    SessionNotFoundError,
    SessionStartError,
    StateInvalidError,
    StoreUnavailableError,
    TaskDroppedError,
    TransitionError,
)
from session_fsm.aio import Child, RestartLimit, SessionManager
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)

BLOCKING = session_fsm.SessionManager
OTHERWISE = {
    "batch",
    "context",
    "create",
    "events",
    "recover",
    "send_message",
    "subscribe",
    "table",
    "task",
}
"""Verbs that are not the other manager's one to the letter; each says itself what it does."""
CALLED = {"on_enter", "on_leave", "observe"}
"""Verbs that have nothing to wait for."""


@pytest.fixture
def url(house: House) -> str:
    """The URL of a store, once of each kind."""
    return house.url


def verbs(kind: type[object]) -> set[str]:
    """Return the public names of a class."""
    return {name for name in dir(kind) if not name.startswith("_")}


# --- one core ------------------------------------------------------------------------------


def test_aio_manager_has_every_verb() -> None:
    """The awaited manager has the public names of the other one, and one of its own."""
    assert verbs(SessionManager) == verbs(BLOCKING) | {"supervise"}


@pytest.mark.parametrize("name", sorted(verbs(BLOCKING) - OTHERWISE - {"lifecycle", "store"}))
def test_aio_manager_verbs_are_those_of_the_other_one(name: str) -> None:
    """Each verb takes what the other manager's takes, returns the same, and says the same of it."""
    ours, theirs = getattr(SessionManager, name), getattr(BLOCKING, name)
    assert inspect.iscoroutinefunction(ours) == (name not in CALLED)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert ours.__doc__
    if name != "close":
        assert ours.__doc__ == theirs.__doc__


@pytest.mark.parametrize(
    "name",
    ["__init__", *sorted(OTHERWISE - {"batch"})],
)
def test_aio_manager_takes_what_the_other_one_takes(name: str) -> None:
    """Where it takes more than the other manager, it takes that by name, and has a default."""
    ours = inspect.signature(getattr(SessionManager, name)).parameters
    theirs = inspect.signature(getattr(BLOCKING, name)).parameters
    kinds = [(each.name, each.kind, each.default) for each in theirs.values()]
    assert [(each.name, each.kind, each.default) for each in ours.values()][: len(kinds)] == kinds
    for more in list(ours.values())[len(kinds) :]:
        assert more.kind is inspect.Parameter.KEYWORD_ONLY
        assert more.default is not inspect.Parameter.empty


@simulated
async def test_aio_manager_verbs_do_what_they_do(clock: ManualClock, url: str) -> None:
    """A whole life by the awaited verbs is stored as the other manager tells it."""
    async with opened(clock, store=url) as manager:
        assert manager.lifecycle == SESSION_LIFECYCLE
        assert manager.store.durable == url.startswith("sqlite")
        created = await manager.create("s", metadata={"n": 1})
        assert (await manager.get("s"), created.revision) == (created, 2)
        assert await manager.find("t") is None
        assert await manager.permitted("s", task_id="t") == session_fsm.permitted(
            created.state, at=clock.now(), task_id="t"
        )
        assert (await manager.explain("s", "resume")).kind == "wrong_status"
        assert (await manager.update("s", metadata={"n": 2})).state.metadata == {"n": 2}
        assert (await manager.begin_task("s", "t")).state.active_tasks == ("t",)
        assert (await manager.end_task("s", "t", reason="done")).status == "idle"
        assert (await manager.fire("s", "resume")).status == "active"
        assert (await manager.start_conversation("s")).state.conversation_count == 1
        assert (await manager.touch("s")).revision == 9
        assert (await manager.transition("s", "idle")).status == "idle"
        assert await manager.next_deadline() == START + minutes(30)
        assert (await manager.counts())["idle"] == 1
        assert (await manager.traffic())["go_idle", "active"] == 2
        assert [each.session_id for each in await manager.list(status="idle")] == ["s"]
        report = await manager.sweep(at=START + minutes(31))
        assert [each.trigger for each in report.fired] == ["expire", "finish"]
        assert await manager.compact("s", keep=2) == 10
        assert next(iter(await manager.history("s"))).kind == "checkpoint"
        await manager.create("u")
        assert (await manager.fail("u", "boom")).state.error == "boom"
        assert (await manager.terminate("u")).revision == 4
        assert (await manager.verify()).ok
        assert (await manager.recover()).ended == ()
        assert await manager.purge(ended_before=START + minutes(60)) == 2


@simulated
async def test_aio_manager_errors_are_those_of_the_other_one(clock: ManualClock, url: str) -> None:
    """What is refused is refused with the same errors, and nothing is changed by it."""
    async with opened(clock, store=url) as manager:
        before = await manager.create("s")
        with pytest.raises(SessionExistsError):
            await manager.create("s")
        with pytest.raises(SessionNotFoundError):
            await manager.get("t")
        with pytest.raises(TransitionError):
            await manager.fire("s", "resume")
        with pytest.raises(StateInvalidError):
            await manager.update("s", metadata={"x": object()})
        with pytest.raises(TypeError):
            await manager.fire("s", "touch", at=START)
        with pytest.raises(StateInvalidError):
            await manager.create(" ", children=[Child("c", waits)])
        assert await manager.get("s") == before
        assert (await manager.counts())["active"] == 1


@simulated
async def test_aio_manager_batch_is_one_transaction(clock: ManualClock, url: str) -> None:
    """What a function does in a batch is done together, or not at all."""
    async with opened(clock, store=url) as manager:

        def both(blocking: session_fsm.SessionManager) -> str:
            blocking.create("a")
            return blocking.create("b").session_id

        assert await manager.batch(both) == "b"

        def neither(blocking: session_fsm.SessionManager) -> None:
            blocking.terminate("a")
            blocking.create("a")

        with pytest.raises(SessionExistsError):
            await manager.batch(neither)
        assert (await manager.get("a")).status == "active"


# --- opening and closing --------------------------------------------------------------------


@simulated
async def test_aio_manager_works_only_while_it_is_open(clock: ManualClock) -> None:
    """Before it is entered and after it was left, every verb is refused; it opens once."""
    manager = SessionManager(clock=clock)
    with pytest.raises(ManagerClosedError):
        await manager.get("s")
    async with manager:
        await manager.create("s")
        with pytest.raises(ManagerClosedError):
            await manager.__aenter__()
    for _ in range(2):
        await manager.close()
    with pytest.raises(ManagerClosedError):
        await manager.get("s")
    with pytest.raises(ManagerClosedError):
        await manager.create("t")
    with pytest.raises(ManagerClosedError):
        manager.subscribe(print)
    with pytest.raises(ManagerClosedError):
        await manager.__aenter__()


@in_real_time
async def test_aio_manager_that_can_t_open_leaves_no_thread(tmp_path: Path) -> None:
    """A store that can't be opened is told when the manager is entered; nothing is left of it."""
    before = set(threading.enumerate())
    for store, error in (
        (f"sqlite:///{tmp_path}/missing/s.db", StoreUnavailableError),
        ("nonsense://", ValueError),
    ):
        with pytest.raises(error):
            async with SessionManager(store):
                pass
    other = SESSION_LIFECYCLE.extend(
        statuses=("waiting",),
        rows=(
            Row("wait", "idle", "waiting"),
            Row("give_up", "waiting", "terminating", ending=True),
        ),
    )
    with pytest.raises(LifecycleError):
        async with SessionManager(HookedMemory(SESSION_LIFECYCLE), lifecycle=other):
            pass
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sweep_poll_seconds": 0}, "sweep_poll_seconds"),
        ({"max_threads": 0}, "max_threads"),
        ({"max_threads": 1001}, "max_threads"),
    ],
)
def test_aio_manager_refuses_bad_numbers(options: dict[str, Any], told: str) -> None:
    """A number out of its range is named."""
    with pytest.raises(ValueError, match=told):
        SessionManager(**options)


@simulated
async def test_aio_manager_closes_when_calls_are_made(clock: ManualClock, url: str) -> None:
    """A call that was begun before the manager is closed is made; the store is closed after it."""
    async with opened(clock, store=url) as manager:
        await manager.create("s")
        calls = [asyncio.ensure_future(manager.touch("s")) for _ in range(20)]
        await asyncio.sleep(0)
    assert {(await call).status for call in calls} == {"active"}


@simulated
async def test_aio_manager_that_is_cancelled_while_closing_is_closed(clock: ManualClock) -> None:
    """Who cancels the closing hurries it: children are cancelled at once, and all is let go of."""
    ended: list[float] = []

    async def slow(child: Any) -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append((clock.now() - START).total_seconds())

    manager = SessionManager(clock=clock)
    async with manager:
        for number in range(3):
            await manager.create(f"s{number}", children=[Child("c", slow, stop_seconds=8)])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await manager.close()
        assert [round(each) for each in ended] == [2, 2, 2]
        with pytest.raises(ManagerClosedError):
            await manager.get("s0")


# --- the loop is not held -------------------------------------------------------------------


@in_real_time
async def test_aio_manager_never_holds_the_loop() -> None:
    """While the store is stuck in one call, the loop runs on, and so do other calls."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with SessionManager(store) as manager:
        await manager.create("s")
        entered, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def stuck(*_: object) -> None:
            loop.call_soon_threadsafe(entered.set)
            await_event(go_on)

        store.before["commit"] = once(stuck)
        touch = asyncio.ensure_future(manager.touch("s"))
        await entered.wait()
        other = await manager.create("t")
        assert (other.status, touch.done()) == ("active", False)
        go_on.set()
        assert (await touch).revision == 3


@in_real_time
async def test_aio_manager_never_holds_the_loop_for_a_stop() -> None:
    """A worker whose `stop` blocks is stopped in a thread; one that can be awaited is awaited."""
    go_on = threading.Event()
    stopped: list[str] = []

    class Blocks:
        def stop(self) -> None:
            await_event(go_on)
            stopped.append("blocks")

    class Awaits:
        async def stop(self) -> None:
            await asyncio.sleep(0)
            stopped.append("awaits")

    async with SessionManager() as manager:

        async def start(session: Session) -> object:
            return {"a": Blocks, "b": Awaits}[session.session_id]()

        sessions = [await manager.create(each, start=start) for each in "ab"]
        assert [type(each.worker) for each in sessions] == [Blocks, Awaits]
        ending = asyncio.ensure_future(manager.terminate("a"))
        assert (await manager.terminate("b")).status == "terminated"
        assert (stopped, ending.done()) == (["awaits"], False)
        go_on.set()
        assert (await ending).status == "terminated"
        assert stopped == ["awaits", "blocks"]


@simulated
async def test_aio_manager_start_may_return_nothing_or_fail(clock: ManualClock) -> None:
    """A start without a worker is a start; one that raises ends its session with the cause."""
    async with opened(clock) as manager:

        async def nothing(_: Session) -> None: ...

        async def fails(_: Session) -> None:
            raise LookupError("no image")

        assert (await manager.create("a", start=nothing)).worker is None
        assert (await manager.terminate("a")).status == "terminated"
        with pytest.raises(SessionStartError) as caught:
            await manager.create("b", start=fails)
        assert isinstance(caught.value.__cause__, LookupError)
        assert (await manager.get("b")).state.error == "LookupError: no image"
        with pytest.raises(TypeError, match="only one"):
            await manager.create("c", start=nothing, children=[Child("c", waits)])
        assert await manager.find("c") is None


STOPS: dict[str, Callable[[SessionManager, Any], Awaitable[object]]] = {
    "update": lambda manager, stops: manager.update("s", metadata=stops),
    "batch": lambda manager, stops: manager.batch(stops),
    "change": lambda manager, stops: manager.context("s").change(stops),
    "counter": lambda manager, stops: manager.context("s").build_context(
        counter=stops, max_tokens=9
    ),
}


@pytest.mark.parametrize("verb", STOPS)
@in_real_time
async def test_aio_manager_survives_a_function_that_stops_an_iteration(verb: str) -> None:
    """A function that raises `StopIteration`, which no future can hold, fails its verb alone."""

    def stops(_: object) -> Any:
        raise StopIteration("nothing left")

    async with SessionManager() as manager:
        await manager.create("s")
        await manager.context("s").add_message("user", "hello")
        with pytest.raises(RuntimeError) as caught:
            await asyncio.wait_for(STOPS[verb](manager, stops), 5)
        assert isinstance(caught.value.__cause__, StopIteration)
        assert (await manager.get("s")).status == "active"


# --- tasks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, ValueError("boom"), asyncio.CancelledError()])
@simulated
async def test_aio_manager_task_ends_with_its_block(
    clock: ManualClock, fault: BaseException | None
) -> None:
    """A task is in the state while its block runs, and ends with it, by whatever."""
    async with opened(clock) as manager:
        watch = Watch(manager)
        await manager.create("s")

        async def work() -> None:
            async with manager.task("s", "build") as session:
                assert session.state.active_tasks == ("build",)
                if fault is not None:
                    raise fault

        [outcome] = await asyncio.gather(work(), return_exceptions=True)
        assert type(outcome) is type(fault)
        session = await manager.get("s")
        assert (session.status, session.state.active_tasks) == ("idle", ())
        reason = next(each.reason for each in watch.events if each.trigger == "end_task")
        assert reason == (None if fault is None else f"failed: {_in_words(fault)}")


def _in_words(fault: BaseException) -> str:
    name = type(fault).__name__
    return f"{name}: {fault}" if str(fault) else name


@simulated
async def test_aio_manager_task_is_cancelled_with_its_session(clock: ManualClock) -> None:
    """Work on a task that somebody else has ended is cancelled, and told why."""
    async with opened(clock) as manager:
        await manager.create("s")
        cleaned: list[str] = []

        async def work() -> None:
            async with manager.task("s", "build"):
                try:
                    await asyncio.sleep(1000)
                finally:
                    cleaned.append("up")

        working = asyncio.ensure_future(work())
        await asyncio.sleep(1)
        await manager.fail("s", "disk is gone")
        with pytest.raises(TaskDroppedError, match="disk is gone"):
            await working
        assert cleaned == ["up"]
        assert clock.now() - START < seconds(2)


@simulated
async def test_aio_manager_task_that_is_dropped_at_once_is_cancelled(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is dropped while its begin is on the way back to the loop is not worked on."""
    async with opened(clock) as manager:
        await manager.create("s")
        await manager.begin_task("s", "earlier")
        await manager.end_task("s", "earlier")  # which is no end of the one that comes
        inner = manager._desk.inner
        begin_task, begun, go_on = inner.begin_task, asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(*arguments: Any, **options: Any) -> Session:
            session: Session = begin_task(*arguments, **options)
            loop.call_soon_threadsafe(begun.set)
            await_event(go_on)
            return session

        async def work(session_id: str) -> None:
            async with manager.task(session_id, "build"):
                await asyncio.sleep(1000)

        monkeypatch.setattr(inner, "begin_task", slow)
        working = asyncio.ensure_future(work("s"))
        await begun.wait()
        await manager.fail("s", "boom")
        go_on.set()
        with pytest.raises(TaskDroppedError, match="boom"):
            await working
        assert clock.now() - START < seconds(2)
        with pytest.raises(TransitionError):
            await work("s")
        assert not manager._desk.listening._listeners


@simulated
async def test_aio_manager_task_that_outlives_the_stop_is_cancelled(clock: ManualClock) -> None:
    """A task that is still worked on when the grace of a stop is over is dropped, and cancelled."""
    async with opened(clock, stop_grace_seconds=5) as manager:
        await manager.create("s")

        async def work() -> None:
            async with manager.task("s", "build"):
                await asyncio.sleep(1000)

        working = asyncio.ensure_future(work())
        await asyncio.sleep(1)
        session = await manager.terminate("s")
        assert "build" in str(session.state.error)
        with pytest.raises(TaskDroppedError):
            await working
        assert clock.now() - START < seconds(7)


@simulated
async def test_aio_manager_task_keeps_the_fault_of_its_block(clock: ManualClock) -> None:
    """What the block raises is raised, also when its task can't be ended any longer."""
    async with opened(clock) as manager:
        await manager.create("s")

        async def work() -> None:
            async with manager.task("s", "build"):
                try:
                    await asyncio.sleep(1000)
                finally:
                    raise KeyError("own")

        working = asyncio.ensure_future(work())
        await asyncio.sleep(1)
        await manager.fail("s", "boom")
        with pytest.raises(KeyError, match="own"):
            await working


def raising(fault: BaseException) -> Callable[[object], None]:
    """Return a hook that raises."""

    def hook(_: object) -> None:
        raise fault

    return hook


# --- subscribers ----------------------------------------------------------------------------


@simulated
async def test_aio_manager_subscribers_hear_on_the_loop_before_the_verb_returns(
    clock: ManualClock, url: str
) -> None:
    """A callback runs on the loop's thread, in order, and before whoever changed has an answer."""
    async with opened(clock, store=url) as manager:
        heard: list[tuple[int, int]] = []
        unsubscribe = manager.subscribe(
            lambda event: heard.append((event.revision, threading.get_ident())), "s"
        )
        await manager.create("s")
        await manager.create("other")
        assert heard == [(1, threading.get_ident()), (2, threading.get_ident())]
        unsubscribe()
        unsubscribe()
        await manager.touch("s")
        assert len(heard) == 2


@simulated
async def test_aio_manager_subscribers_harm_nobody(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged; the others hear all the same."""
    async with opened(clock) as manager:
        heard: list[SessionEvent] = []

        def fails(_: SessionEvent) -> None:
            raise ValueError("deaf")

        manager.subscribe(fails)
        manager.subscribe(heard.append)
        await manager.create("s")
        assert [each.revision for each in heard] == [1, 2]
        assert "a subscriber failed" in caplog.text
        for fault in (SystemExit(3), asyncio.CancelledError(), GeneratorExit()):
            manager.on_enter("idle", raising(fault))
        assert (await manager.fire("s", "go_idle")).status == "idle"
        assert (await manager.fire("s", "resume")).status == "active"
        assert [each.revision for each in heard] == [1, 2, 3, 4]

        async def awaited(_: SessionEvent) -> None: ...

        for wrong in (awaited, "text"):
            with pytest.raises(TypeError):
                manager.subscribe(wrong)


# --- the sweeper ----------------------------------------------------------------------------


@simulated
async def test_aio_manager_sweeps_when_the_deadline_has_come(clock: ManualClock, url: str) -> None:
    """Sessions expire by themselves, each at its own deadline and not at the next look."""
    async with opened(clock, store=url, sweep_poll_seconds=3600) as manager:
        watch = Watch(manager)
        for number in (7, 3, 5):
            await manager.create(f"s{number}", config={"timeout_minutes": number})
        await watch.ended("s3", "s5", "s7")
        ends = [each.session_id for each in watch.events if each.trigger == "expire"]
        at = [each.at - START for each in watch.events if each.trigger == "expire"]
        assert ends == ["s3", "s5", "s7"]
        assert all(
            minutes(number) <= each < minutes(number) + seconds(1)
            for number, each in zip((3, 5, 7), at, strict=True)
        )


@simulated
async def test_aio_manager_sweeps_on_though_all_tasks_are_cancelled(clock: ManualClock) -> None:
    """Whoever cancels every task there is has not ended the sweeper; closing does."""
    async with opened(clock) as manager:
        await manager.create("s", config={"timeout_minutes": 10})
        for _ in range(3):
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(1)
        await asyncio.sleep(660)
        assert (await manager.get("s")).status == "terminated"
        [sweeping] = manager._desk._lasting
    assert sweeping.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@simulated
async def test_aio_manager_sees_what_others_did(clock: ManualClock, file_house: House) -> None:
    """A deadline that another manager set is met, and a worker stopped whose session it ended."""
    stopped = asyncio.Event()

    async def runs(child: Any) -> None:
        await child.stopping.wait()
        stopped.set()

    async with opened(clock, store=file_house.url, sweep_poll_seconds=1) as manager:
        await manager.create("mine", children=[Child("c", runs)])
        other = file_house.open(clock=clock)
        other.create("theirs", config={"timeout_minutes": 1})
        other.terminate("mine", wait=False)
        at = clock.now()
        await stopped.wait()
        assert clock.now() - at < seconds(1.5)
        await asyncio.sleep(62)
        assert {other.get(each).status for each in ("mine", "theirs")} == {"terminated"}


@simulated
async def test_aio_manager_sweeps_on_after_trouble(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that can't be reached for a while only delays what is due."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with opened(clock, store=store, sweep_poll_seconds=10) as manager:
        watch = Watch(manager)
        await manager.create("s", config={"timeout_minutes": 1})
        failures = iter(range(3))

        def fails(*_: object) -> None:
            if next(failures, None) is not None:
                raise StoreUnavailableError(problem="gone for a while")

        store.before["due"] = fails
        await watch.ended("s")
        assert "a sweep failed" in caplog.text
        assert clock.now() - START < minutes(2)


@simulated
async def test_aio_manager_notes_an_end_when_the_store_is_back(clock: ManualClock) -> None:
    """A session whose child has died is ended, if need be when the store can be reached again."""
    store = HookedMemory(SESSION_LIFECYCLE)
    async with opened(clock, store=store) as manager:
        watch = Watch(manager)

        async def dies(_: object) -> None:
            await asyncio.sleep(5)

            def gone(*_: object) -> None:
                if clock.now() - START < seconds(60):
                    raise StoreUnavailableError(problem="gone for a while")

            store.before["commit"] = gone
            raise ValueError("boom")

        await manager.create(
            "s", children=[Child("c", dies)], restarts=RestartLimit(max_restarts=0)
        )
        await watch.ended("s")
        assert (await manager.get("s")).state.error == "child 'c' failed: ValueError: boom"
        assert seconds(60) <= clock.now() - START < seconds(100)


def test_aio_manager_tests_that_hang_fail(clock: ManualClock) -> None:
    """A test that waits for what never comes is ended, though a sweeper lets time pass for ever."""

    @simulated
    async def hangs(clock: ManualClock) -> None:
        async with opened(clock, sweep_poll_seconds=3600):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        hangs(clock=clock)
