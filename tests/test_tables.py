"""Session-scoped tables: what a manager keeps by key for a session, and when it may be written."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from managing import START, House, Recorder, triggers

from session_fsm import (
    SESSION_LIFECYCLE,
    Attempt,
    Clear,
    Delete,
    GuardRejectedError,
    InvalidTransitionError,
    Item,
    ItemConflictError,
    ItemNotFoundError,
    Lifecycle,
    LifecycleError,
    Put,
    RevisionConflictError,
    Row,
    SessionManager,
    SessionNotFoundError,
    SessionTable,
    StateInvalidError,
    guard,
)
from session_fsm.clock import ManualClock
from session_fsm.items import MAX_ITEM_BYTES, MAX_TTL_SECONDS, Write
from session_fsm.jsonvalue import MAX_INTEGER
from session_fsm.stores import MemoryStore

pytest_plugins = ("manager_fixtures",)


@pytest.fixture
def table(manager: SessionManager) -> SessionTable:
    """The table `files` of the active session `a`."""
    manager.create("a")
    return manager.table("a", "files")


def keys(table: SessionTable) -> list[str]:
    """Return the keys of a table."""
    return [item.key for item in table.items()]


# --- values ----------------------------------------------------------------------------------


def test_tables_keep_values(table: SessionTable) -> None:
    """What is put is found by its key, as a value or as an item with its version and instants."""
    item = table.put("main.py", {"lines": [1, 2.5, None]})
    assert item == Item(
        key="main.py",
        value={"lines": [1, 2.5, None]},
        version=1,
        expires_at=None,
        updated_at=START,
    )
    assert table.get("main.py") == {"lines": [1, 2.5, None]}
    assert table.find("main.py") == item
    assert table.put("main.py", None).version == 2
    assert table.get("main.py") is None


def test_tables_tell_what_is_not_there(table: SessionTable) -> None:
    """Get raises, by the place in fields, where find gives None and delete False."""
    with pytest.raises(ItemNotFoundError) as caught:
        table.get("k")
    assert (caught.value.session_id, caught.value.table, caught.value.key) == ("a", "files", "k")
    assert str(caught.value) == "there is no 'k' in table 'files' of session 'a'"
    assert table.find("k") is None
    assert table.delete("k") is False
    assert table.clear() == 0
    assert len(table.items()) == 0
    assert table.items().next is None


def test_tables_delete_and_clear(table: SessionTable) -> None:
    """Delete removes one key, clear all of its table and says how many."""
    for key in "abc":
        table.put(key, key)
    assert table.delete("b") is True
    assert keys(table) == ["a", "c"]
    assert table.clear() == 2
    assert keys(table) == []


def test_tables_page_by_key(table: SessionTable) -> None:
    """Items come in the order of their keys; what `next` says leads to the next page."""
    for number in reversed(range(7)):
        table.put(f"k{number}", number)
    first = table.items(limit=3)
    second = table.items(limit=3, after=first.next)
    third = table.items(limit=3, after=second.next)
    assert [len(page) for page in (first, second, third)] == [3, 3, 1]
    assert [item.value for page in (first, second, third) for item in page] == list(range(7))
    assert (first.next, second.next, third.next) == ("k2", "k5", None)
    assert table.items(limit=7).next is None
    for bad in (0, -1, 1.5, True, "1", None, MAX_INTEGER):
        with pytest.raises(ValueError, match="limit: expected a number of items from 1 to"):
            table.items(limit=bad)  # type: ignore[arg-type]
    assert len(table.items(limit=MAX_INTEGER - 1)) == 7
    with pytest.raises(ValueError, match="after"):
        table.items(after=5)  # type: ignore[arg-type]


def test_tables_are_each_of_one_session(manager: SessionManager, table: SessionTable) -> None:
    """Neither another session nor another table sees an item, or removes it."""
    manager.create("b")
    table.put("k", 1)
    others = (manager.table("b", "files"), manager.table("a", "notes"))
    for other in others:
        assert other.find("k") is None
        assert other.put("k", 2, expected_version=0).value == 2
        assert other.clear() == 1
    assert table.get("k") == 1


def test_tables_hand_out_what_nobody_can_change(table: SessionTable) -> None:
    """A value is copied when it is put, and what is got can't be changed."""
    value: dict[str, Any] = {"list": [1]}
    write = Put("files", "k", value)
    table.put("k", value)
    value["list"].append(2)
    assert table.get("k") == write.value == {"list": [1]}
    with pytest.raises(TypeError, match="never changes"):
        table.get("k")["list"].append(3)


@pytest.mark.parametrize("write", [Put("t", "k", {"secret": [1]}), Delete("t", "k"), Clear("t")])
def test_tables_writes_are_plain_data(write: Write) -> None:
    """Writes are equal by value, hash, copy and pickle; what they keep is in no representation."""
    for other in (copy.deepcopy(write), pickle.loads(pickle.dumps(write))):
        assert other == write
        assert hash(other) == hash(write)
    assert "secret" not in repr(write)
    with pytest.raises(AttributeError):
        write.table = "other"  # type: ignore[misc]


def test_tables_items_hide_their_value(table: SessionTable) -> None:
    """A value may be a secret: it is in no representation of an item, a page or a table."""
    item = table.put("k", "xyzzy")
    assert "xyzzy" not in f"{item!r} {table.items()!r} {table!r}"
    assert repr(table) == "<SessionTable 'files' of session 'a'>"


# --- bounds ----------------------------------------------------------------------------------

FAULTS: dict[str, tuple[Callable[[SessionTable], object], str]] = {
    "long": (lambda table: table.put("k", "x" * MAX_ITEM_BYTES), "value: 1048578 bytes of JSON"),
    "many": (lambda table: table.put("k", [[]] * MAX_ITEM_BYTES), "value: more than 1048576"),
    "deep": (lambda table: table.put("k", _nested(101)), "nested deeper than 100 levels"),
    "object": (lambda table: table.put("k", object()), "value: object is no JSON value"),
    "bytes": (lambda table: table.put("k", {"a": [b"x"]}), "value.a[0]: bytes is no JSON value"),
    "nan": (lambda table: table.put("k", float("nan")), "value: nan is no JSON number"),
    "wide": (lambda table: table.put("k", 2**63), "value: an integer beyond signed 64 bits"),
    "zero": (lambda table: table.put("k", "\0"), "value: contains the character U+0000"),
    "member": (lambda table: table.put("k", {1: 2}), "value: a key is int, not a string"),
    "no key": (lambda table: table.put("", 1), "key: 0 characters"),
    "long key": (lambda table: table.put("k" * 256, 1), "key: 256 characters"),
    "line": (lambda table: table.put("a\nb", 1), "key: expected printable characters only"),
    "number": (lambda table: table.get(5), "key: expected a string, got 5"),  # type: ignore[arg-type]
    "find": (lambda table: table.find(" k"), "key: leading or trailing blank"),
    "delete": (lambda table: table.delete("\ud800"), "key: expected printable characters only"),
    "ttl 0": (lambda table: table.put("k", 1, ttl_seconds=0), "ttl_seconds: expected more than 0"),
    "ttl": (
        lambda table: table.put("k", 1, ttl_seconds=MAX_TTL_SECONDS + 1),
        "at most 31622400000, got 31622400001",
    ),
    "ttl nan": (lambda table: table.put("k", 1, ttl_seconds=float("nan")), "ttl_seconds: expected"),
    "ttl flag": (lambda table: table.put("k", 1, ttl_seconds=True), "ttl_seconds: expected"),
    "version": (lambda table: table.put("k", 1, expected_version=-1), "expected_version: expected"),
    "version text": (
        lambda table: table.delete("k", expected_version="1"),  # type: ignore[arg-type]
        "expected_version: expected an integer",
    ),
}


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("fault", FAULTS)
def test_tables_name_what_cannot_be_kept(table: SessionTable, fault: str) -> None:
    """What is no key, no JSON, or beyond its bounds is refused by its path, and nothing is kept."""
    act, problem = FAULTS[fault]
    with pytest.raises(StateInvalidError) as caught:
        act(table)
    assert problem in str(caught.value)
    assert keys(table) == []


def test_tables_keep_what_is_just_within_bounds(table: SessionTable) -> None:
    """The longest value, key, name and time to live, and the deepest value, are kept."""
    text = "x" * (MAX_ITEM_BYTES - 2)
    assert table.put("k" * 255, text).value == text
    table.put("deep", _nested(100))
    table.put("long", 1, ttl_seconds=MAX_TTL_SECONDS)
    assert table.get("k" * 255) == text
    assert table.get("deep") == _nested(100)
    assert table.get("long") == 1


def test_tables_every_fault_is_named() -> None:
    """All that is wrong with a write is named at once."""
    with pytest.raises(StateInvalidError) as caught:
        Put("", "", {"a": object()}, expected_version=-1, ttl_seconds=-1)
    paths = [problem.partition(":")[0] for problem in caught.value.problems]
    assert paths == ["table", "key", "expected_version", "ttl_seconds", "value.a"]


def test_tables_need_a_name(manager: SessionManager) -> None:
    """What can't be the name of a table is refused when the table is asked for."""
    for name in ("", "a\0", "x" * 256, None, 5):
        with pytest.raises(StateInvalidError, match="table: "):
            manager.table("a", name)  # type: ignore[arg-type]


# --- compare and set -------------------------------------------------------------------------


def test_tables_compare_and_set(table: SessionTable) -> None:
    """A put or delete of another version is refused with what is there, and changes nothing."""
    first = table.put("k", 1, expected_version=0)
    with pytest.raises(ItemConflictError) as caught:
        table.put("k", 2, expected_version=0)
    assert (caught.value.expected, caught.value.found) == (0, 1)
    assert str(caught.value) == (
        "'k' in table 'files' of session 'a' is at version 1, not absent: read it and decide again"
    )
    second = table.put("k", 2, expected_version=first.version)
    stale: tuple[Callable[[], object], ...] = (
        lambda: table.put("k", 3, expected_version=1),
        lambda: table.delete("k", expected_version=1),
    )
    for write in stale:
        with pytest.raises(ItemConflictError) as caught:
            write()
        assert (caught.value.expected, caught.value.found) == (1, 2)
    assert table.find("k") == second
    assert table.delete("k", expected_version=second.version) is True
    with pytest.raises(ItemConflictError, match="is not there, not at 2"):
        table.put("k", 3, expected_version=second.version)


def test_tables_versions_are_never_used_again(table: SessionTable, house: House) -> None:
    """What was deleted, cleared or expired and put again is no longer what somebody saw."""
    seen = [table.put("k", 1).version]
    table.delete("k")
    seen.append(table.put("k", 1).version)
    table.clear()
    seen.append(table.put("k", 1, ttl_seconds=1).version)
    house.clock.advance(1)
    assert table.find("k") is None
    seen.append(table.put("k", 1, expected_version=0).version)
    assert seen == [1, 2, 3, 4]
    for stale in seen[:-1]:
        with pytest.raises(ItemConflictError):
            table.put("k", 2, expected_version=stale)


@pytest.mark.parametrize("ttl", [1e-9, 1e-7, 1e-6, 5e-324])
def test_tables_keep_what_lives_at_all(table: SessionTable, house: House, ttl: float) -> None:
    """The shortest time to live is rounded up: an item is there at the instant it was put."""
    item = table.put("k", 1, ttl_seconds=ttl)
    assert item.expires_at == house.clock.now() + timedelta(microseconds=1)
    assert table.get("k") == 1
    house.clock.advance(1e-6)
    assert table.find("k") is None


# --- what may be written, and when -----------------------------------------------------------

WRITES: dict[str, Callable[[SessionTable], object]] = {
    "put": lambda table: table.put("k", 2),
    "delete": lambda table: table.delete("k"),
    "clear": lambda table: table.clear(),
}


@pytest.mark.parametrize("write", WRITES)
def test_tables_refuse_writes_as_update_is_refused(
    manager: SessionManager, table: SessionTable, write: str
) -> None:
    """On a session that has ended a write is refused with update's own error; reading goes on."""
    table.put("k", 1)
    manager.terminate("a")
    with pytest.raises(InvalidTransitionError) as theirs:
        manager.update("a", metadata={})
    with pytest.raises(InvalidTransitionError) as caught:
        WRITES[write](table)
    assert caught.value.refusal == theirs.value.refusal
    assert caught.value.session_id == "a"
    assert table.get("k") == 1
    assert keys(table) == ["k"]


def test_tables_can_be_written_in_every_status_that_can_be_updated(house: House) -> None:
    """Before the start is done, active, idle, expired and on the way out, a session keeps items."""
    manager = house.open()

    def start(session: object) -> None:
        manager.table("a", "files").put("start", 1)

    manager.create("a", start=start)
    table = manager.table("a", "files")
    table.put("active", 2)
    manager.transition("a", "idle")
    table.put("idle", 3)
    house.clock.advance(3600)
    table.put("expired", 4)
    manager.create("b")
    manager.begin_task("b", "t")
    assert manager.terminate("b", wait=False).status == "terminating"
    manager.table("b", "files").put("terminating", 5)
    assert keys(table) == ["active", "expired", "idle", "start"]
    assert keys(manager.table("b", "files")) == ["terminating"]


def test_tables_of_no_session(manager: SessionManager) -> None:
    """Of a session that is not there nothing is read or written: it is said to be unknown."""
    table = manager.table("nowhere", "files")
    reads: dict[str, Callable[[SessionTable], object]] = {
        "get": lambda table: table.get("k"),
        "find": lambda table: table.find("k"),
        "items": lambda table: table.items(),
    }
    for act in (reads | WRITES).values():
        with pytest.raises(SessionNotFoundError) as caught:
            act(table)
        assert caught.value.session_id == "nowhere"


def test_tables_leave_the_session_as_it_is(manager: SessionManager, table: SessionTable) -> None:
    """A write is no step: no revision, no event, no activity, nobody told."""
    told = Recorder()
    manager.subscribe(told)
    before, history = manager.get("a"), manager.history("a")
    table.put("k", 1, ttl_seconds=5)
    table.put("k", 2)
    table.delete("k")
    table.clear()
    assert manager.get("a") == before
    assert manager.history("a") == history
    assert told.events == []
    assert manager.next_deadline() == START + timedelta(minutes=30)
    assert manager.verify().ok


@guard("the books are open", needs=())
def books_are_open(attempt: Attempt) -> bool:
    """Say no while the books are closed."""
    return attempt.state.metadata.get("open") is not False


def test_tables_ask_the_guards_of_update(house: House) -> None:
    """In a lifecycle whose update has a guard, the guard is asked, and named if it says no."""
    shop = Lifecycle(
        ("open", "counting", "closed"),
        "open",
        [
            Row("count", "open", "counting"),
            Row("close", ("open", "counting"), "closed", ending=True),
            Row(
                "change",
                "open",
                None,
                guards=books_are_open,
                optional=("metadata",),
                effect=lambda attempt: dict(attempt.arguments),
            ),
        ],
        roles={"update": "change"},
        name="shop",
    )
    manager = house.open(lifecycle=shop)
    manager.create("a")
    table = manager.table("a", "goods")
    table.put("k", 1)
    manager.update("a", metadata={"open": False})
    with pytest.raises(GuardRejectedError) as caught:
        table.put("k", 2)
    assert [failed.reason for failed in caught.value.refusal.failed_guards] == [
        "the books are open"
    ]
    with pytest.raises(GuardRejectedError):
        manager.fire("a", "count", writes=[Put("goods", "k", 2)])
    assert (table.get("k"), manager.get("a").status) == (1, "open")
    manager.fire("a", "count")
    with pytest.raises(InvalidTransitionError, match="'change' can't be fired in status 'countin"):
        table.put("k", 2)


def test_tables_need_the_role_of_update(house: House) -> None:
    """A lifecycle in which nothing can be updated has no tables that can be written."""
    mute = SESSION_LIFECYCLE.without("update", name="mute")
    manager = house.open(lifecycle=mute)
    manager.create("a")
    with pytest.raises(LifecycleError) as theirs:
        manager.update("a", metadata={})
    with pytest.raises(LifecycleError) as caught:
        manager.table("a", "files").put("k", 1)
    assert str(caught.value) == str(theirs.value)
    assert manager.table("a", "files").find("k") is None


# --- with a move -----------------------------------------------------------------------------

MOVES: dict[str, Callable[[SessionManager, Iterable[Write]], object]] = {
    "transition": lambda manager, writes: manager.transition("a", "idle", writes=writes),
    "fire": lambda manager, writes: manager.fire("a", "touch", reason="r", writes=writes),
    "update": lambda manager, writes: manager.update("a", metadata={"n": 1}, writes=writes),
}


@pytest.mark.parametrize("move", MOVES)
def test_tables_are_written_with_a_move(
    manager: SessionManager, table: SessionTable, move: str
) -> None:
    """Writes that come with a verb are made with its step, in order, and only with it."""
    table.put("old", 1)
    revision = manager.get("a").revision
    writes: list[Write] = [Put("files", "k", 1), Delete("files", "old"), Put("files", "k", 2)]
    writes.append(Clear("notes"))
    MOVES[move](manager, writes)
    assert manager.get("a").revision == revision + 1
    assert [(item.key, item.value, item.version) for item in table.items()] == [("k", 2, 3)]
    assert manager.verify().ok


@pytest.mark.parametrize("move", MOVES)
def test_tables_undo_the_move_with_the_write(
    manager: SessionManager, table: SessionTable, move: str
) -> None:
    """Where an item is at another version, neither the step nor any of the writes is made."""
    told = Recorder()
    manager.subscribe(told)
    table.put("k", 1)
    before, items = manager.get("a"), table.items()
    writes = [Put("files", "new", 1), Put("files", "k", 2, expected_version=7)]
    with pytest.raises(ItemConflictError) as caught:
        MOVES[move](manager, writes)
    assert (caught.value.key, caught.value.expected, caught.value.found) == ("k", 7, 1)
    assert manager.get("a") == before
    assert table.items() == items
    assert told.events == []
    MOVES[move](manager, [Put("files", "k", 2, expected_version=1)])
    assert table.get("k") == 2
    assert manager.verify().ok


def test_tables_are_not_written_if_the_move_is_refused(
    manager: SessionManager, table: SessionTable
) -> None:
    """A refused move, and one from another revision, is told first, and writes nothing."""
    writes = [Put("files", "k", 1, expected_version=5)]
    with pytest.raises(InvalidTransitionError, match="no row leads"):
        manager.transition("a", "terminated", writes=writes)
    with pytest.raises(RevisionConflictError):
        manager.fire("a", "touch", expected_revision=1, writes=writes)
    with pytest.raises(StateInvalidError):
        manager.update("a", metadata={"a": object()}, writes=writes)
    with pytest.raises(SessionNotFoundError):
        manager.fire("nowhere", "touch", writes=writes)
    assert keys(table) == []


def test_tables_may_be_written_with_the_last_step(
    manager: SessionManager, table: SessionTable
) -> None:
    """A session may write what it ends with: writes belong to the moment before the move."""
    manager.begin_task("a", "t")
    manager.terminate("a", wait=False)
    ended = manager.fire("a", "end_task", task_id="t", writes=[Put("files", "result", [1])])
    assert ended.status == "terminated"
    assert table.get("result") == [1]
    with pytest.raises(InvalidTransitionError):
        manager.fire("a", "touch", writes=[Put("files", "late", 1)])
    assert triggers(manager, "a")[-1] == "finish"
    assert manager.verify().ok


def test_tables_take_nothing_else_as_writes(manager: SessionManager, table: SessionTable) -> None:
    """What is no write is refused before anything is done; no writes are as none given."""
    before = manager.get("a")
    nonsense: tuple[list[Any], ...] = (["k"], [("files", "k", 1)], [None])
    for bad in nonsense:
        with pytest.raises(TypeError, match="expected Put, Delete or Clear"):
            manager.fire("a", "touch", writes=bad)
    assert manager.get("a") == before
    assert manager.fire("a", "touch", writes=()).revision == before.revision + 1
    writes = (Put("files", key, 1) for key in "ab")
    manager.fire("a", "touch", writes=writes)
    assert keys(table) == ["a", "b"]


# --- batches ---------------------------------------------------------------------------------


class _UndoneError(Exception):
    """Ends a batch that is to be undone."""


def test_tables_take_part_in_batches(house: House) -> None:
    """What is put in a batch is seen inside, by others once it is kept, and gone if it is not."""
    manager, other = house.open(), house.open()
    manager.create("a")
    table = manager.table("a", "files")
    table.put("k", 1)
    with pytest.raises(_UndoneError), manager.batch():
        table.put("k", 2)
        table.put("l", 2)
        manager.create("b")
        manager.table("b", "files").put("k", 3)
        manager.touch("a")
        assert (table.get("k"), keys(table)) == (2, ["k", "l"])
        raise _UndoneError
    assert [(item.value, item.version) for item in table.items()] == [(1, 1)]
    with manager.batch():
        manager.create("b")
        manager.table("b", "files").put("k", 4, expected_version=0)
        table.put("k", 5, expected_version=1)
        with pytest.raises(ItemConflictError):
            manager.touch("a")
            manager.fire("a", "touch", writes=[Put("files", "k", 6, expected_version=1)])
        table.delete("nothing")
    assert other.table("b", "files").get("k") == 4
    assert other.table("a", "files").get("k") == 5
    assert other.get("a").revision == 3
    assert manager.verify().ok


def test_tables_undone_leave_nothing_in_memory() -> None:
    """A batch that is undone leaves nothing of the tables of sessions that it had made."""
    store = MemoryStore()
    with SessionManager(store) as manager:
        with pytest.raises(_UndoneError), manager.batch():
            manager.create("a")
            manager.table("a", "files").put("k", 1, ttl_seconds=5)
            raise _UndoneError
        assert store._items._tables == {}
        assert len(store._items._expiring) == 0


# --- time ------------------------------------------------------------------------------------


def test_tables_items_expire(table: SessionTable, clock: ManualClock) -> None:
    """From its instant on an item is as if it had never been, whether or not it was swept."""
    item = table.put("k", 1, ttl_seconds=10)
    table.put("stays", 2)
    assert item.expires_at == START + timedelta(seconds=10)
    clock.advance(9.999999)
    assert table.get("k") == 1
    clock.advance(0.000001)
    assert table.find("k") is None
    assert keys(table) == ["stays"]
    assert table.delete("k") is False
    with pytest.raises(ItemConflictError):
        table.put("k", 3, expected_version=item.version)
    assert table.put("k", 3, expected_version=0).expires_at is None
    clock.advance(1e6)
    assert table.get("k") == 3


def test_tables_put_renews_the_time_to_live(table: SessionTable, clock: ManualClock) -> None:
    """Each put sets the time to live anew, from its own instant, or takes it away."""
    table.put("k", 1, ttl_seconds=10)
    clock.advance(8)
    again = table.put("k", 2, ttl_seconds=10)
    assert (again.updated_at, again.expires_at) == (clock.now(), START + timedelta(seconds=18))
    clock.advance(8)
    table.put("k", 3)
    clock.advance(100)
    assert table.get("k") == 3


def test_tables_expire_by_the_clock_of_the_manager(house: House) -> None:
    """A clock that went back lets an item live as long as it says, from the put on."""
    clock = ManualClock(START + timedelta(days=365))
    ahead, manager = house.open(clock=clock), house.open()
    ahead.create("a", config={"timeout_minutes": None})
    item = manager.table("a", "files").put("k", 1, ttl_seconds=60)
    assert (item.updated_at, item.expires_at) == (START, START + timedelta(seconds=60))
    assert ahead.table("a", "files").find("k") is None
    manager.fire("a", "touch", writes=[Put("files", "l", 1, ttl_seconds=60)])
    assert manager.table("a", "files").find("l") is not None
    house.clock.advance(60)
    assert manager.table("a", "files").find("l") is None


def test_tables_live_as_long_as_time_itself(house: House) -> None:
    """An item that would expire behind the last instant does not."""
    clock = ManualClock(START.replace(year=9999))
    manager = house.open(clock=clock)
    manager.create("a", config={"timeout_minutes": None})
    item = manager.table("a", "files").put("k", 1, ttl_seconds=MAX_TTL_SECONDS)
    assert item.expires_at is None


def test_tables_are_swept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep removes what has expired, so many in one transaction, and nothing else."""
    monkeypatch.setattr("session_fsm.upkeep.BATCH_SIZE", 3)
    store = house.store()
    manager = house.open(store=store)
    manager.create("a", config={"timeout_minutes": None})
    manager.create("ended")
    for session_id in ("a", "ended"):
        table = manager.table(session_id, "files")
        for number in range(4):
            table.put(f"k{number}", number, ttl_seconds=1 + number)
        table.put("stays", 1)
    manager.terminate("ended")
    house.clock.advance(3.5)
    store.calls.clear()
    assert manager.sweep().fired == ()
    assert store.calls["drop_expired_items"] == 3
    left = {
        each: [item.key for item in store.items(each, "files", 9, None, START)]
        for each in ("a", "ended")
    }
    assert left == {"a": ["k3", "stays"], "ended": ["k3", "stays"]}
    assert store.drop_expired_items(house.clock.now(), 9) == 0
    manager.sweep(at=START + timedelta(days=1))
    assert keys(manager.table("a", "files")) == ["stays"]
    store.calls.clear()
    manager.sweep()
    assert store.calls["drop_expired_items"] == 1


# --- lives -----------------------------------------------------------------------------------


def test_tables_are_gone_with_their_session(manager: SessionManager, clock: ManualClock) -> None:
    """Purged, a session has no tables; another life of its id begins without any."""
    manager.create("a")
    table = manager.table("a", "files")
    table.put("k", 1)
    manager.terminate("a")
    clock.advance(1)
    assert manager.purge(ended_before=clock.now()) == 1
    with pytest.raises(SessionNotFoundError):
        table.get("k")
    manager.create("a")
    assert keys(table) == []
    assert table.put("k", 2, expected_version=0).version == 1
    assert manager.verify().ok


def test_tables_outlive_the_manager(house: House) -> None:
    """Another manager on the same store finds the items, their versions and their instants."""
    manager, other = house.open(), house.open()
    manager.create("a")
    item = manager.table("a", "files").put("k", {"x": [1.0, True]}, ttl_seconds=9)
    manager.close()
    assert other.table("a", "files").find("k") == item
    assert other.table("a", "files").put("k", 2).version == item.version + 1


def test_tables_stay_when_a_history_is_compacted(
    manager: SessionManager, table: SessionTable
) -> None:
    """Compaction makes histories shorter, and leaves items alone."""
    item = table.put("k", 1)
    for _ in range(5):
        manager.touch("a")
    assert manager.compact("a", keep=1) > 0
    assert table.find("k") == item
    assert manager.verify().ok


def test_tables_of_sessions_that_are_not_kept(file_house: House) -> None:
    """A session that lives in memory beside a file has its tables there, and they go with it."""
    manager, other = file_house.open(), file_house.open()
    manager.create("a", config={"persistence_enabled": False})
    table = manager.table("a", "files")
    table.put("k", 1, ttl_seconds=5)
    table.put("l", 1)
    with pytest.raises(_UndoneError), manager.batch():
        table.put("k", 2)
        manager.fire("a", "touch", writes=[Delete("files", "l")])
        raise _UndoneError
    assert (table.get("k"), keys(table)) == (1, ["k", "l"])
    with pytest.raises(SessionNotFoundError):
        other.table("a", "files").get("k")
    file_house.clock.advance(5)
    manager.sweep()
    assert keys(table) == ["l"]
    manager.close()
    assert file_house.open().find("a") is None
