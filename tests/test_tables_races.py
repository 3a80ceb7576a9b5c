"""Tables beside others: no write is lost, none comes after the end, none is half made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from killing import killed_copies
from managing import House, RemoteError, RemoteManager, begin, end, once, together, wait_until

from session_fsm import (
    InvalidTransitionError,
    ItemConflictError,
    Put,
    SessionManager,
    SessionNotFoundError,
    SessionTable,
    StoreUnavailableError,
)
from session_fsm.stores import SqliteStore

pytest_plugins = ("manager_fixtures",)

FOREVER = {"timeout_minutes": None}


def told(table: SessionTable) -> dict[str, Any]:
    """Return the values of a table by key."""
    values: dict[str, Any] = {}
    after: str | None = None
    while True:
        page = table.items(limit=50, after=after)
        values.update((item.key, item.value) for item in page)
        if page.next is None:
            return values
        after = page.next


# --- between reading and writing -------------------------------------------------------------

OTHERS: dict[str, Callable[[SessionManager], object]] = {
    "moved": lambda other: other.transition("a", "idle"),
    "touched": lambda other: other.touch("a"),
    "given work": lambda other: other.begin_task("a", "t"),
}


@pytest.mark.parametrize("act", OTHERS)
def test_tables_races_with_a_step_are_decided_afresh(house: House, act: str) -> None:
    """A session that was moved between decision and write is decided on again, then written to."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    manager.create("a")
    store.before["write_items"] = once(lambda *_: OTHERS[act](other))
    assert manager.table("a", "files").put("k", 1).version == 1
    assert store.calls["write_items"] == 2
    assert other.table("a", "files").get("k") == 1
    assert other.get("a").revision == 3


def test_tables_races_with_the_end(house: House) -> None:
    """A session that ended between decision and write is not written to."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    manager.create("a")
    table = manager.table("a", "files")
    table.put("k", 1)
    store.before["write_items"] = once(lambda *_: other.terminate("a"))
    with pytest.raises(InvalidTransitionError):
        table.put("k", 2)
    assert told(table) == {"k": 1}


def test_tables_races_with_a_purge(house: House) -> None:
    """A session purged between decision and write is unknown; its id's next life is left alone."""
    store = house.store()
    manager, other = house.open(store=store), house.open()

    def purge(*_: object) -> None:
        other.terminate("a")
        house.clock.advance(1)
        other.purge(ended_before=house.clock.now())

    manager.create("a")
    store.before["write_items"] = once(purge)
    with pytest.raises(SessionNotFoundError):
        manager.table("a", "files").put("k", 1)

    def be_born_again(*_: object) -> None:
        purge()
        other.create("a")
        other.terminate("a")

    manager.create("a")
    store.before["write_items"] = once(be_born_again)
    with pytest.raises(InvalidTransitionError):
        manager.table("a", "files").put("k", 1)
    assert told(other.table("a", "files")) == {}


def test_tables_races_of_a_move_with_writes(house: House) -> None:
    """A move that lost its race is decided afresh with its writes, which are made once."""
    store = house.store()
    manager, other = house.open(store=store), house.open()
    manager.create("a")
    store.before["commit"] = once(lambda *_: other.touch("a"))
    manager.fire("a", "touch", writes=[Put("files", "k", 1, expected_version=0)])
    item = manager.table("a", "files").find("k")
    assert item is not None
    assert (item.version, manager.get("a").revision) == (1, 4)
    store.before["commit"] = once(lambda *_: other.terminate("a"))
    with pytest.raises(InvalidTransitionError):
        manager.fire("a", "touch", writes=[Put("files", "k", 2)])
    assert manager.table("a", "files").get("k") == 1


def test_tables_races_with_a_lost_answer(house: House) -> None:
    """A write whose answer is lost is not tried again: the version tells whether it was made."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    table = manager.table("a", "files")
    first = table.put("k", 1)

    def lose(*arguments: Any) -> None:
        raise StoreUnavailableError(problem="the line is dead", operation_id=arguments[3])

    store.after["write_items"] = once(lose)
    with pytest.raises(StoreUnavailableError) as caught:
        table.put("k", 2, expected_version=first.version)
    assert caught.value.operation_id is not None
    with pytest.raises(ItemConflictError) as conflict:
        table.put("k", 2, expected_version=first.version)
    assert conflict.value.found == 2
    assert table.get("k") == 2


def test_tables_races_with_a_lost_answer_of_a_move(house: House) -> None:
    """A move with writes whose answer is lost has landed whole, and is known to have."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")

    def lose(commit: Any) -> None:
        raise StoreUnavailableError(problem="the line is dead", operation_id=commit.operation_id)

    store.after["commit"] = once(lose)
    moved = manager.fire("a", "touch", writes=[Put("files", "k", 1, expected_version=0)])
    assert moved.revision == 3
    assert told(manager.table("a", "files")) == {"k": 1}


# --- threads ---------------------------------------------------------------------------------


def count_up(table: SessionTable, times: int) -> int:
    """Add 1 to an item so many times; returns how often another one was first."""
    lost = 0
    for _ in range(times):
        added = False
        while not added:
            item = table.find("count")
            value, version = (0, 0) if item is None else (item.value, item.version)
            try:
                table.put("count", value + 1, expected_version=version)
                added = True
            except ItemConflictError:
                lost += 1
    return lost


def put_until_refused(table: SessionTable, seen: threading.Event) -> int:
    """Put one item after the other; says that it has begun, and returns how many were put."""
    number = 0
    with suppress(InvalidTransitionError):
        while True:
            table.put(f"{number:06}", number)
            number += 1
            if number == 2:
                seen.set()
    return number


def test_tables_races_of_threads_lose_no_update(house: House) -> None:
    """Threads of two managers count one item up by compare-and-set, while the session moves."""
    managers = [house.open(), house.open()]
    managers[0].create("a", config=FOREVER)
    stop = threading.Event()

    def move() -> int:
        moves = 0
        while not stop.is_set():
            managers[1].touch("a")
            moves += 1
        return moves

    moving = begin(move)
    try:
        tables = [manager.table("a", "files") for manager in managers * 2]
        together(*(partial(count_up, table, 15) for table in tables))
    finally:
        stop.set()
    [moves] = end(moving)
    item = managers[0].table("a", "files").find("count")
    assert item is not None
    assert (item.value, item.version) == (60, 60)
    assert managers[0].get("a").revision == 2 + moves
    assert managers[0].verify().ok


def test_tables_races_of_threads_put_nothing_after_the_end(house: House) -> None:
    """Once the end of a session is answered, its tables are as they will ever be."""
    writer, ender = house.open(), house.open()
    for number in range(8):
        session_id = f"s{number}"
        writer.create(session_id, config=FOREVER)
        table, seen = writer.table(session_id, "files"), threading.Event()
        putting = begin(put_until_refused, table, seen)
        assert seen.wait(20)
        ender.terminate(session_id)
        at_the_end = told(table)
        [answered] = end(putting)
        assert told(table) == at_the_end
        assert list(at_the_end.values()) == list(range(answered))


# --- processes -------------------------------------------------------------------------------


def test_tables_races_of_processes_lose_no_update(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """Two processes and this one count one item up: each step is made once."""
    manager = file_house.open()
    manager.create("a", config=FOREVER)
    others = [remote(), remote()]
    for other in others:
        other.ask("count_item_up", "a", 25)
    count_up(manager.table("a", "files"), 25)
    for other in others:
        other.answer()
    item = manager.table("a", "files").find("count")
    assert item is not None
    assert (item.value, item.version) == (75, 75)


def test_tables_races_of_processes_put_nothing_after_the_end(
    file_house: House, remote: Callable[[], RemoteManager]
) -> None:
    """A process that puts is refused from the end on; all that it was answered is kept."""
    manager = file_house.open()
    other = remote()
    for number in range(5):
        session_id = f"s{number}"
        manager.create(session_id, config=FOREVER)
        other.ask("put_until_refused", session_id)
        assert [other.answer() for _ in range(3)] == [0, 1, 2]
        manager.terminate(session_id)
        at_the_end = told(manager.table(session_id, "files"))
        answered = [0, 1, 2]
        with pytest.raises(RemoteError, match="InvalidTransitionError"):
            while True:
                answered.append(other.answer())
        assert list(at_the_end.values()) == answered
        assert told(manager.table(session_id, "files")) == at_the_end


# --- kills -----------------------------------------------------------------------------------

WRITING = """
    from session_fsm import Clear, Delete, Put, SessionManager

    def act(path):
        with SessionManager(f"sqlite:///{path}") as manager:
            writes = [Put("files", "k", "new"), Delete("files", "old"), Clear("notes")]
            manager.fire("a", "touch", writes=writes)
"""
PUTTING = """
    from session_fsm import SessionManager

    def act(path):
        with SessionManager(f"sqlite:///{path}") as manager:
            manager.table("a", "files").put("k", "new", expected_version=1)
"""
BEFORE: dict[str, dict[str, Any]] = {"files": {"k": "first", "old": 1}, "notes": {"n": 1}}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file with an active session and some items."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}") as manager:
        manager.create("a", config=FOREVER)
        for table, items in BEFORE.items():
            for key, value in items.items():
                manager.table("a", table).put(key, value)
    return path


def left_in(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the revision of the session and what is in its tables; all has to be in order."""
    with SessionManager(f"sqlite:///{path}") as manager:
        assert manager.verify().ok
        tables = {name: told(manager.table("a", name)) for name in BEFORE}
        return manager.get("a").revision, tables


def test_tables_killed_anywhere_with_a_move(written: Path, tmp_path: Path) -> None:
    """A kill before any statement of a move with writes leaves all of it, or nothing."""
    left = killed_copies(WRITING, written, tmp_path / "killed")
    assert len(left) > 20
    found = [left_in(path) for path in left]
    after = (3, {"files": {"k": "new"}, "notes": {}})
    before = (2, BEFORE)
    assert found[0] == before
    assert found[-1] == after
    assert all(each in (before, after) for each in found), found


def test_tables_killed_anywhere_in_a_put(written: Path, tmp_path: Path) -> None:
    """A kill before any statement of a put leaves the item as it was, or as it was put."""
    left = killed_copies(PUTTING, written, tmp_path / "killed")
    assert len(left) > 15
    found = [left_in(path) for path in left]
    after = (2, {"files": {"k": "new", "old": 1}, "notes": {"n": 1}})
    assert found[0] == (2, BEFORE)
    assert found[-1] == after
    assert all(each in ((2, BEFORE), after) for each in found), found


# --- groups ----------------------------------------------------------------------------------


def test_tables_refused_beside_others_leave_no_trace(tmp_path: Path) -> None:
    """Of writes that share a transaction, one that is refused half-way takes no other with it."""
    store = SqliteStore(tmp_path / "sessions.db")
    with SessionManager(store) as manager:
        for session_id in ("a", "b"):
            manager.create(session_id, config=FOREVER)
        writer = store._connections._writer
        waiting = writer._queue._waiting
        with writer._queue.alone():
            good = begin(manager.table("a", "files").put, "k", 1)
            writes = [Put("files", "k", 1), Put("files", "l", 1, expected_version=9)]
            bad = begin(manager.fire, "b", "touch", writes=writes)
            wait_until(lambda: len(waiting) == 2)
        assert end(good)[0].version == 1
        with pytest.raises(ItemConflictError):
            end(bad)
        assert told(manager.table("b", "files")) == {}
        assert manager.get("b").revision == 2
        assert told(manager.table("a", "files")) == {"k": 1}
        assert manager.verify().ok
    store.close()
