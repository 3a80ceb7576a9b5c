"""Contexts on a loop, and messages to those who work on a session."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest
from managing import START, HookedMemory, House, await_event, once
from supervised import Watch, in_real_time, opened, simulated, waits

import session_fsm
from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    InboxFullError,
    ManagerClosedError,
    Message,
    SessionStartError,
    StateInvalidError,
    TransitionError,
)
from session_fsm.aio import (
    Child,
    ChildContext,
    ContextManager,
    ProcessWorker,
    RestartLimit,
    SessionManager,
)
from session_fsm.aio.calls import GONE_THROUGH
from session_fsm.clock import ManualClock

pytest_plugins = ("manager_fixtures",)

BLOCKING = session_fsm.ContextManager


@pytest.fixture
def url(house: House) -> str:
    """The URL of a store, once of each kind."""
    return house.url


def verbs(kind: type[object]) -> set[str]:
    """Return the public names of a class."""
    return {name for name in dir(kind) if not name.startswith("_")}


class Reader:
    """A child that reads its inbox, once it may."""

    def __init__(self) -> None:
        self.read: list[Message] = []
        self.heard = asyncio.Event()
        self.may_read = asyncio.Event()

    async def __call__(self, child: ChildContext) -> None:
        """Run."""
        await self.may_read.wait()
        async for message in child.inbox:
            self.read.append(message)
            self.heard.set()


def test_aio_contexts_have_every_verb() -> None:
    """Each verb takes what the other one takes, returns the same, and says the same of it."""
    assert verbs(ContextManager) == verbs(BLOCKING) | {"child"}
    for name in verbs(BLOCKING):
        ours, theirs = getattr(ContextManager, name), getattr(BLOCKING, name)
        assert inspect.iscoroutinefunction(ours)
        assert (
            inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
        )
        assert ours.__doc__ == theirs.__doc__


@simulated
async def test_aio_contexts_do_what_a_context_does(clock: ManualClock, url: str) -> None:
    """Every verb changes or tells what it says, and another manager finds it."""
    async with opened(clock, store=url) as manager:
        await manager.create("s")
        context = manager.context("s")
        first = await context.add_message("user", "hello")
        assert first.at == clock.now()
        await context.add_messages([Message("assistant", "hi")])
        assert [each.content for each in await context.history()] == ["hello", "hi"]
        await context.open_file("a.py", "x")
        await context.open_file("b.py")
        await context.close_file("b.py")
        assert [each.path for each in await context.files()] == ["a.py"]
        await context.index_file("c.py", 1)
        await context.index_file("d.py", 1)
        await context.unindex_file("d.py")
        assert await context.find_files("*.py") == {"c.py": 1}
        await context.set_value("k", 1)
        await context.set_value("l", 1)
        await context.delete_value("l")
        assert (await context.value("k"), await context.values()) == (1, {"k": 1})
        changed = await context.change(lambda held: held.with_value("k", 2))
        assert changed == await context.get()
        assert len((await context.build_context(max_messages=2)).messages) == 2
        assert repr(context) == "<ContextManager of session 's'>"
        await context.clear_history()
        assert await context.history() == ()
        await asyncio.gather(*(context.add_message("user", str(n)) for n in range(20)))
        told = sorted(int(each.content) for each in await context.history())
        assert told == list(range(20))
    with pytest.raises(ManagerClosedError):
        await context.get()


async def _can_not_read(_: ChildContext) -> None:
    raise CorruptRecordError(record="what it needs", problems=("it is broken",))


@simulated
async def test_aio_contexts_are_restored_before_the_session_is_ready(
    clock: ManualClock, url: str
) -> None:
    """A session whose context can't be read does not begin to work; any other one does."""
    store = session_fsm.open_store(url)
    try:
        async with opened(clock, store=store) as manager:
            children = [ContextManager.child(), Child("agent", waits)]
            session = await manager.create("s", children=children)
            assert [each.name for each in session.worker.children] == ["context", "agent"]
            assert all(each.alive for each in session.worker.children)
            await manager.context("s").set_value("k", 1)
        async with opened(clock, store=store) as manager:
            await manager.create("t")
            await manager.context("t").set_value("k", 1)
            head = await manager.table("t", "context").get("head")
            await manager.table("t", "context").put("head", {**head, "format": 99})
            # It is not lost for that: another version may read it.
            children = [Child("before", waits), *children]
            for _ in range(2):
                with pytest.raises(CorruptRecordError, match="format 99"):
                    await manager.supervise("t", children)
                session = await manager.get("t")
                assert (session.status, session.worker) == ("active", None)
                assert store.work_in("t") == ()
            await manager.table("t", "context").put("head", head)
            assert (await manager.supervise("t", children)).worker.alive
            with pytest.raises(SessionStartError):
                broken = Child("c", _can_not_read, signals_ready=True)
                await manager.create("u", children=[broken])
            assert (await manager.get("u")).status == "terminated"
    finally:
        store.close()


@simulated
async def test_aio_messages_get_to_the_worker(clock: ManualClock, url: str) -> None:
    """A message wakes the session, is in its context, and gets to the child that takes messages."""
    reader = Reader()
    reader.may_read.set()
    async with opened(clock, store=url) as manager:
        watch = Watch(manager)
        await manager.create(
            "s", children=[ContextManager.child(), Child("agent", reader), Child("other", waits)]
        )
        await manager.fire("s", "go_idle")
        session = await manager.send_message("s", "user", "hello", name="ann")
        assert session.status == "active"
        await reader.heard.wait()
        [message] = await manager.context("s").history()
        assert reader.read == [message]
        assert (message.role, message.name, message.at) == ("user", "ann", clock.now())
        assert watch.triggers("s")[-2:] == ["resume", "touch"]
        assert len(session.worker.inbox("context")) == len(session.worker.inbox("other")) == 0
        # A session without children keeps what it is sent.
        await manager.create("alone")
        await manager.send_message("alone", "user", "hello")
        assert len(await manager.context("alone").history()) == 1
        await manager.create("quiet", children=[ContextManager.child()])
        await manager.send_message("quiet", "user", "hello")
        await manager.terminate("s")
        with pytest.raises(TransitionError):
            await manager.send_message("s", "user", "late")
        with pytest.raises(StateInvalidError):
            await manager.send_message("alone", "robot", "hello")


@simulated
async def test_aio_messages_are_refused_by_a_full_inbox(clock: ManualClock) -> None:
    """A worker that does not read is told no more than it has room for, and nothing is lost."""
    reader = Reader()
    async with opened(clock) as manager:
        session = await manager.create("s", children=[Child("agent", reader)])
        inbox = session.worker.inbox()
        for number in range(999):
            inbox.put(number)
        await manager.send_message("s", "user", "the last that fits")
        revision = (await manager.get("s")).revision
        with pytest.raises(InboxFullError) as refused:
            await manager.send_message("s", "user", "one more")
        assert refused.value.waiting == 1000
        assert (await manager.get("s")).revision == revision
        assert len(await manager.context("s").history()) == 1
        reader.may_read.set()
        await reader.heard.wait()
        while len(reader.read) < 1000:
            await asyncio.sleep(1)
        await manager.send_message("s", "user", "one more")
        while len(reader.read) < 1001:
            await asyncio.sleep(1)
        assert [each.content for each in reader.read[999:]] == ["the last that fits", "one more"]


@simulated
async def test_aio_messages_skip_a_child_that_has_ended(clock: ManualClock) -> None:
    """A child that has ended for good gets no message: the next one that takes some does."""
    second = Reader()
    second.may_read.set()

    async def once(child: ChildContext) -> None:
        async for _ in child.inbox:
            return

    async with opened(clock) as manager:
        session = await manager.create("s", children=[Child("once", once), Child("agent", second)])
        inbox = session.worker.inbox()
        assert inbox is session.worker.inbox("once")
        await manager.send_message("s", "user", "one")
        while session.worker.children[0].alive:
            await asyncio.sleep(1)
        assert inbox.closed
        for number in range(1000):
            inbox.deliver(number)
        assert len(inbox) == 0
        await manager.send_message("s", "user", "two")
        await second.heard.wait()
        assert [each.content for each in second.read] == ["two"]


@simulated
async def test_aio_messages_wait_for_a_child_that_is_restarted(clock: ManualClock) -> None:
    """What is sent while a child waits for its restart is there for its next run."""
    reader, runs = Reader(), 0
    reader.may_read.set()

    async def fails_first(child: ChildContext) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ValueError
        await reader(child)

    async with opened(clock) as manager:
        session = await manager.create(
            "s",
            children=[Child("agent", fails_first), Child("other", Reader())],
            restarts=RestartLimit(backoff_seconds=5),
        )
        await asyncio.sleep(1)
        assert not session.worker.children[0].alive
        await manager.send_message("s", "user", "hello")
        await reader.heard.wait()
        assert [each.content for each in reader.read] == ["hello"]


def test_aio_messages_are_for_those_who_read_them() -> None:
    """A process reads no inbox, a function does, unless the child says otherwise."""
    process = ProcessWorker(["cat"])
    assert [
        Child("c", process).reads_inbox,
        Child("c", process, takes_messages=True).reads_inbox,
        Child("c", waits).reads_inbox,
        Child("c", waits, takes_messages=False).reads_inbox,
    ] == [False, True, True, False]


@simulated
async def test_aio_messages_sent_at_once_all_arrive(clock: ManualClock) -> None:
    """Whoever found room in the inbox gets the message through, though others were faster."""
    reader = Reader()
    async with opened(clock) as manager:
        session = await manager.create("s", children=[Child("agent", reader)])
        for number in range(995):
            session.worker.inbox().put(number)
        sent = await asyncio.gather(
            *(manager.send_message("s", "user", str(number)) for number in range(10)),
            return_exceptions=True,
        )
        refused = [each for each in sent if isinstance(each, InboxFullError)]
        assert len(refused) + len(await manager.context("s").history()) == 10
        assert len(session.worker.inbox()) == 995 + 10 - len(refused)


@in_real_time
async def test_aio_messages_that_are_durable_are_handed_on() -> None:
    """Who is cancelled while a message is written has sent it: it is in the inbox too."""
    reader = Reader()
    store = HookedMemory(SESSION_LIFECYCLE)
    async with SessionManager(store, clock=ManualClock(START)) as manager:
        session = await manager.create("s", children=[Child("agent", reader)])
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def stuck(*_: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            await_event(go_on)

        store.before["commit"] = once(stuck)
        call = asyncio.ensure_future(manager.send_message("s", "user", "hello"))
        await begun.wait()
        call.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await call
        assert caught.value.__notes__ == [GONE_THROUGH]
        assert len(session.worker.inbox()) == len(await manager.context("s").history()) == 1
        reader.may_read.set()


@simulated
async def test_aio_messages_of_a_batch_get_to_the_worker(clock: ManualClock, url: str) -> None:
    """What is sent in a batch is in the inbox when the batch has been awaited; not if undone."""
    async with opened(clock, store=url) as manager:
        session = await manager.create("s", children=[Child("agent", Reader())])
        inbox = session.worker.inbox()

        def send(inner: session_fsm.SessionManager) -> None:
            for number in range(2):
                inner.send_message("s", "user", str(number))
            assert len(inbox) == 0

        def fail(inner: session_fsm.SessionManager) -> None:
            send(inner)
            raise KeyError("undone")

        with pytest.raises(KeyError):
            await manager.batch(fail)
        assert len(inbox) == 0
        await manager.batch(send)
        assert [each.content for each in inbox._waiting] == ["0", "1"]
        for number in range(998):
            inbox.put(number)
        with pytest.raises(InboxFullError):
            await manager.batch(send)
        assert len(await manager.context("s").history()) == 2
