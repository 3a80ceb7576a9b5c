"""Contexts of stored sessions: durable, isolated, never lost to another writer; and messages."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from managing import House, minutes

from session_fsm import (
    Attempt,
    ContextLimits,
    CorruptRecordError,
    GuardRejectedError,
    InvalidTransitionError,
    ItemNotFoundError,
    Keyring,
    Lifecycle,
    Row,
    SessionContext,
    SessionManager,
    SessionNotFoundError,
    StateInvalidError,
    ToolCall,
    TransitionError,
    generate_key,
    guard,
)
from session_fsm.contexts import MAX_RECENT_CONTEXTS, TABLE
from session_fsm.stores import SqliteStore

pytest_plugins = ("manager_fixtures",)


@pytest.fixture
def manager(house: House) -> SessionManager:
    """A manager with a session `s`."""
    manager = house.open(context_limits=ContextLimits(max_history=6))
    manager.create("s")
    return manager


def test_contexts_do_what_a_context_does(manager: SessionManager, house: House) -> None:
    """Every verb changes or tells what it says."""
    context = manager.context("s")
    assert context.get() == SessionContext(limits=ContextLimits(max_history=6))
    first = context.add_message("system", "be nice")
    assert first.at == house.clock.now()
    call = context.add_message("assistant", "", tool_calls=[ToolCall("c", "look")], name="bot")
    answer = context.add_message("tool", "42", tool_call_id="c")
    assert context.history() == (first, call, answer)
    context.open_file("a.py", "print(1)")
    context.open_file("b.py")
    context.open_file("a.py", "print(2)")
    context.close_file("c.py")
    assert [(each.path, each.content) for each in context.files()] == [
        ("b.py", ""),
        ("a.py", "print(2)"),
    ]
    context.close_file("b.py")
    context.index_file("src/a.py", {"lines": 1})
    context.index_file("README.md", None)
    assert context.find_files("*.py") == {"src/a.py": {"lines": 1}}
    context.unindex_file("src/a.py")
    assert context.find_files() == {"README.md": None}
    context.set_value("goal", ["win"])
    assert (context.value("goal"), context.values()) == (["win"], {"goal": ["win"]})
    built = context.build_context(max_messages=10)
    assert [each.role for each in built.messages] == ["system"] * 3 + ["assistant", "tool"]
    context.delete_value("goal")
    with pytest.raises(ItemNotFoundError):
        context.value("goal")
    context.clear_history()
    assert context.history() == ()
    assert repr(context) == "<ContextManager of session 's'>"


def test_contexts_are_durable_and_isolated(house: House, manager: SessionManager) -> None:
    """Another manager finds what one has left; another session has nothing of it."""
    manager.create("t")
    for number in range(9):
        manager.context("s").add_message("user", str(number))
    manager.context("s").set_value("k", 1)
    assert manager.context("t").get().values == {}
    other = house.open(context_limits=ContextLimits(max_history=6))
    assert other.context("s").get() == manager.context("s").get()
    assert [each.content for each in other.context("s").history()] == list("345678")
    other.context("s").set_value("k", 2)
    assert manager.context("s").value("k") == 2
    # One message writes one row and the head, and deletes the row that it drops.
    before = {item.key: item.version for item in manager.table("s", TABLE).items()}
    manager.context("s").add_message("user", "more")
    after = {item.key: item.version for item in manager.table("s", TABLE).items()}
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {
        "head",
        "message/00000000000000000004",
        "message/00000000000000000010",
    }


def test_contexts_end_with_their_session(house: House, manager: SessionManager) -> None:
    """An ended session's context is read and not changed; a purged one's is gone, to the id too."""
    context = manager.context("s")
    context.add_message("user", "hello")
    revision = manager.get("s").revision
    context.set_value("k", 1)
    assert manager.get("s").revision == revision  # no step of the session
    manager.terminate("s")
    with pytest.raises(InvalidTransitionError):
        context.add_message("user", "late")
    assert [each.content for each in context.history()] == ["hello"]
    house.clock.advance(1)
    manager.purge(ended_before=house.clock.now())
    with pytest.raises(SessionNotFoundError):
        context.get()
    manager.create("s")
    assert context.history() == ()
    context.add_message("user", "again")
    context.set_value("k", 2)
    assert ([each.content for each in context.history()], context.value("k")) == (["again"], 2)


def test_contexts_lose_no_change(house: House, manager: SessionManager) -> None:
    """Many threads of two managers change one context at once: every change is in it."""
    managers = [manager, house.open(context_limits=ContextLimits(max_history=6))]

    def work(number: int) -> None:
        context = managers[number % 2].context("s")
        for turn in range(10):
            context.change(lambda held: held.with_value("n", held.values.get("n", 0) + 1))
            context.add_message("user", f"{number}/{turn}")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    for each in managers:
        held = each.context("s").get()
        assert (held.values["n"], held.next_number, len(held.history)) == (60, 61, 6)


def test_contexts_tell_who_returns_none(manager: SessionManager) -> None:
    """A change that returns no context is told what is expected of it; nothing was changed."""
    context = manager.context("s")
    context.set_value("k", "a secret")
    before = context.get()
    for wrong in (lambda _: None, lambda held: held.values, lambda _: SessionContext):
        with pytest.raises(TypeError, match="operation: expected it to return a SessionContext"):
            context.change(wrong)  # type: ignore[arg-type]
    assert context.get() == before


def test_contexts_are_undone_with_a_batch(manager: SessionManager) -> None:
    """What a batch wrote is seen in it, and gone if the batch is undone."""
    context = manager.context("s")
    context.set_value("k", 1)
    with pytest.raises(RuntimeError), manager.batch():
        context.set_value("k", 2)
        context.add_message("user", "hello")
        assert context.value("k") == 2
        raise RuntimeError
    assert (context.value("k"), context.history()) == (1, ())
    context.set_value("k", 3)
    assert context.value("k") == 3


def test_contexts_that_are_broken_are_told(manager: SessionManager) -> None:
    """A context that somebody else has written into is refused by name, and left as it is."""
    context = manager.context("s")
    context.set_value("k", 1)
    manager.table("s", TABLE).put("message/1", "rubbish")
    assert context.value("k") == 1  # the head is as it was
    head = manager.table("s", TABLE).get("head")
    manager.table("s", TABLE).put("head", {**head, "change": "somebody else's"})
    for use in (context.get, lambda: context.set_value("k", 2)):
        with pytest.raises(CorruptRecordError) as refused:
            use()
        assert refused.value.record == "the context of session 's'"
        assert refused.value.problems == ("message/1: is not known",)
    manager.table("s", TABLE).put("head", "rubbish")
    with pytest.raises(CorruptRecordError, match="head: it is missing, or broken"):
        context.get()


def test_contexts_in_memory_are_bounded(house: House) -> None:
    """No more contexts than a bound are kept in memory, and all are found again."""
    manager = house.open()
    ids = [f"s{number}" for number in range(MAX_RECENT_CONTEXTS + 5)]
    for session_id in ids:
        manager.create(session_id)
        manager.context(session_id).set_value("id", session_id)
    assert len(manager._contexts._recent) == MAX_RECENT_CONTEXTS
    assert [manager.context(each).value("id") for each in ids] == ids


def test_contexts_are_encrypted_with_their_session(tmp_path: Path) -> None:
    """Nothing of what was said is plain in a file that is encrypted."""
    path = tmp_path / "sessions.db"
    store = SqliteStore(path, keyring=Keyring(generate_key()))
    with SessionManager(store) as manager:
        manager.create("s")
        manager.send_message("s", "user", "the password is swordfish")
        manager.context("s").open_file("secret.txt", "swordfish")
        assert len(manager.context("s").history()) == 1
    store.close()
    files = [each for each in tmp_path.iterdir() if each.is_file()]
    assert path in files
    assert not any(b"swordfish" in each.read_bytes() for each in files)


# --- messages to sessions ---------------------------------------------------------------------


class Worker:
    """Something that reads its inbox."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[object] = queue.SimpleQueue()

    def stop(self) -> None:
        """Stop."""


def test_messages_wake_and_are_handed_on(house: House, manager: SessionManager) -> None:
    """A message is in the context, the session active, and the message in the worker's inbox."""
    session = manager.create("w", start=lambda _: Worker())
    manager.transition("w", "idle")
    house.clock.advance(60)
    session = manager.send_message("w", "user", "hello", name="ann")
    assert (session.status, session.state.last_activity_at) == ("active", house.clock.now())
    [message] = manager.context("w").history()
    assert (message.role, message.content, message.at) == ("user", "hello", house.clock.now())
    assert session.worker.inbox.get_nowait() == message
    assert [event.trigger for event in manager.history("w")[-2:]] == ["resume", "touch"]
    # Where there is no inbox, or one that is full, the message is kept all the same.
    manager.send_message("s", "user", "hello")
    session.worker.inbox = queue.Queue(1)
    session.worker.inbox.put = session.worker.inbox.put_nowait
    for _ in range(2):
        manager.send_message("w", "assistant", "hi")
    assert len(manager.context("w").history()) == 3


def test_messages_go_where_a_conversation_could_begin(
    house: House, manager: SessionManager
) -> None:
    """A session that starts, has expired, is ending or has ended is told nothing more."""
    refused: list[str] = []

    def start(session: object) -> None:
        with pytest.raises(InvalidTransitionError):
            manager.send_message("new", "user", "too early")
        refused.append("starting")

    manager.create("new", start=start)
    manager.begin_task("s", "t")
    manager.terminate("s", wait=False)
    for session_id in ("s", "new"):
        if session_id == "new":
            house.clock.advance(minutes(31).total_seconds())
        before = manager.get(session_id)
        with pytest.raises(TransitionError):
            manager.send_message(session_id, "user", "too late")
        assert manager.get(session_id) == before
        assert manager.context(session_id).history() == ()
    manager.sweep()
    with pytest.raises(TransitionError):
        manager.send_message("new", "user", "too late")
    with pytest.raises(SessionNotFoundError):
        manager.send_message("nobody", "user", "hello")
    assert refused == ["starting"]


def test_messages_of_conversations_under_way_are_not_counted(manager: SessionManager) -> None:
    """The limit of conversations is for those that begin, not for what is said in them."""
    manager.create("one", config={"max_conversations": 1})
    manager.start_conversation("one")
    with pytest.raises(GuardRejectedError):
        manager.start_conversation("one")
    assert manager.send_message("one", "user", "hello").state.conversation_count == 1


@guard("the session is muted")
def _is_not_muted(attempt: Attempt) -> bool:
    return not attempt.state.metadata.get("muted")


@guard("there is room for two", asks_for_room=True)
def _has_room(attempt: Attempt) -> bool:
    return attempt.state.conversation_count < 2


def _one_more(attempt: Attempt) -> dict[str, int]:
    return {"conversation_count": attempt.state.conversation_count + 1}


CHAT = Lifecycle(
    ("open", "quiet", "shut"),
    "open",
    [
        Row("talk", "open", None, guards=(_is_not_muted, _has_room), effect=_one_more),
        Row("stir", "quiet", "open"),
        Row("calm", "open", "quiet"),
        Row("note", ("open", "quiet"), None, effect=lambda a: a.arguments, optional="metadata"),
        Row("close", ("open", "quiet"), "shut", ending=True),
    ],
    roles={"count": "talk", "wake": "stir", "update": "note"},
    name="chat",
)
"""A lifecycle in which nobody is noted to be there."""


def test_messages_obey_the_guards_of_the_lifecycle(house: House) -> None:
    """What speaks against a conversation speaks against what is said, but for lack of room."""
    manager = house.open(lifecycle=CHAT)
    manager.create("a", config={"max_conversations": 1})
    for _ in range(2):
        manager.start_conversation("a")
    with pytest.raises(GuardRejectedError, match="room for two"):
        manager.start_conversation("a")
    before = manager.get("a")
    assert manager.send_message("a", "user", "hello") == before  # no step is made of it
    manager.fire("a", "calm")
    assert manager.send_message("a", "user", "are you there").status == "open"
    manager.update("a", metadata={"muted": True})
    manager.fire("a", "calm")
    before = manager.get("a")
    with pytest.raises(GuardRejectedError, match="muted") as refused:
        manager.send_message("a", "user", "still there")
    assert refused.value.refusal.trigger == "talk"
    assert manager.get("a") == before
    assert len(manager.context("a").history()) == 2


def test_messages_that_are_none_change_nothing(manager: SessionManager) -> None:
    """What can't be said leaves the session asleep, and its context as it was."""
    manager.transition("s", "idle")
    before = manager.get("s")
    for role, content, call in (("robot", "hello", None), ("user", 5, None), ("tool", "42", "c")):
        with pytest.raises(StateInvalidError):
            manager.send_message("s", role, content, tool_call_id=call)  # type: ignore[arg-type]
    assert (manager.get("s"), manager.context("s").history()) == (before, ())


def test_messages_are_written_with_the_wake(house: House, manager: SessionManager) -> None:
    """Another writer of the context between reading and writing costs nothing but another try."""
    other = house.open()
    core, once = manager._core, list[bool]()
    change = core.change

    def late(session_id: str, decision: object, **more: object) -> object:
        if once:
            once.pop()
            other.context("s").add_message("user", "first")
        return change(session_id, decision, **more)  # type: ignore[arg-type]

    core.change = late  # type: ignore[method-assign,assignment]
    manager.transition("s", "idle")
    once.append(True)
    manager.send_message("s", "user", "second")
    assert [each.content for each in manager.context("s").history()][-2:] == ["first", "second"]
    assert manager.get("s").status == "active"


def test_messages_of_a_batch_are_handed_on_when_it_is_durable(manager: SessionManager) -> None:
    """Inside a batch the inbox hears nothing, after it all in order, and never of an undone one."""
    worker = manager.create("w", start=lambda _: Worker()).worker
    with pytest.raises(RuntimeError, match="undone"), manager.batch():
        manager.send_message("w", "user", "never")
        raise RuntimeError("undone")
    assert worker.inbox.empty()
    told: list[int] = []
    manager.subscribe(lambda _: told.append(worker.inbox.qsize()))
    with manager.batch():
        for content in ("first", "second"):
            manager.send_message("w", "user", content)
        assert worker.inbox.empty()
    assert told == [0, 0]  # who is subscribed hears of it before, as without a batch
    assert [worker.inbox.get_nowait().content for _ in range(2)] == ["first", "second"]
    assert [each.content for each in manager.context("w").history()] == ["first", "second"]
