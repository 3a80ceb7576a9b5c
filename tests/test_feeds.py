"""Feeds: what is told from a position on, what is missing of it, and who is told of that."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from encrypting import OTHER_RING, managed, raw, write_two
from managing import START, House, minutes

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    FeedGapError,
    FeedPage,
    KeyMissingError,
    PositionedEvent,
    SessionEvent,
    SessionManager,
)
from session_fsm.clock import ManualClock
from session_fsm.stores import SqliteStore
from session_fsm.stores.feed import FeedRows
from session_fsm.stores.sqlite_feed import feed_rows

pytest_plugins = ("manager_fixtures",)


def told(events: FeedPage | Iterator[PositionedEvent]) -> list[tuple[str, int]]:
    """Return session and revision of each event."""
    return [(event.session_id, event.revision) for event in events]


def pages(manager: SessionManager, after: int, limit: int) -> Iterator[FeedPage]:
    """Yield pages behind a position, until there is nothing more."""
    while page := manager.read_events(after, limit=limit):
        yield page
        after = page.position


def purge(manager: SessionManager, clock: ManualClock, *session_ids: str) -> None:
    """End sessions, and purge all that have ended."""
    for session_id in session_ids:
        manager.terminate(session_id)
    clock.advance(1)
    assert manager.purge(ended_before=clock.now()) >= len(session_ids)


# --- what is told ----------------------------------------------------------------------------


def test_feeds_tell_what_the_histories_tell(manager: SessionManager) -> None:
    """Each event is told once, in the order of the commits, as the history has it."""
    manager.create("a")
    manager.create("b")
    manager.update("a", metadata={"x": 1})
    manager.fire("b", "go_idle")
    page = manager.read_events()
    assert told(page) == [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3), ("b", 3)]
    assert [event.kind for event in page][-2:] == ["changed", "moved"]
    assert [event.position for event in page] == [1, 2, 3, 4, 5, 6]
    assert page.position == manager.position() == 6
    for session_id in "ab":
        own = manager.read_events(session_id=session_id)
        assert own.events == tuple(each for each in page if each.session_id == session_id)
        assert tuple(each.event for each in own) == manager.history(session_id)
    assert all(isinstance(event, SessionEvent) for event in page)
    assert pickle.loads(pickle.dumps(page)) == page


def test_feeds_go_on_where_a_page_ended(manager: SessionManager) -> None:
    """Page by page nothing is told twice and nothing left out, however long the pages are."""
    for number in range(5):
        manager.create(f"s{number}")
    whole = manager.read_events().events
    for limit in (1, 2, 3, 10):
        found = list(pages(manager, 0, limit))
        assert [event for page in found for event in page] == list(whole)
        assert found[-1].position == 10
    assert manager.read_events(10) == FeedPage((), 10)


def test_feeds_begin_now_for_who_wants_no_past(manager: SessionManager) -> None:
    """From None on, only what comes later is told."""
    manager.create("a")
    page = manager.read_events(None)
    assert page == FeedPage((), 2)
    assert manager.read_events(page.position) == page
    manager.touch("a")
    assert told(manager.read_events(page.position)) == [("a", 3)]


def test_feeds_of_an_id_that_is_not_there_yet(manager: SessionManager) -> None:
    """The feed of an unknown id is empty, and tells its session once there is one."""
    manager.create("a")
    page = manager.read_events(session_id="b")
    assert page == FeedPage((), 2)
    manager.create("b")
    assert told(manager.read_events(page.position, "b")) == [("b", 1), ("b", 2)]


def test_feeds_positions_hold_across_restarts(file_house: House) -> None:
    """Who comes back with a position is told what was done in between, by whomever."""
    with file_house.open() as manager:
        manager.create("a")
        position = manager.read_events().position
        manager.touch("a")
    with file_house.open() as other, file_house.open() as manager:
        other.create("b")
        manager.fire("a", "go_idle")
        assert told(manager.read_events(position)) == [("a", 3), ("b", 1), ("b", 2), ("a", 4)]
        assert other.read_events(position) == manager.read_events(position)


def test_feeds_in_a_batch(manager: SessionManager) -> None:
    """In a batch its own events are told; when it is undone they have never been."""
    manager.create("a")
    with pytest.raises(RuntimeError, match="undone"), manager.batch():
        manager.touch("a")
        assert told(manager.read_events(2)) == [("a", 3)]
        assert told(manager.events(after=2)) == [("a", 3)]
        raise RuntimeError("undone")
    assert manager.read_events(2) == FeedPage((), 2)
    with manager.batch():
        manager.fire("a", "go_idle")
        manager.fire("a", "resume")
    assert [event.trigger for event in manager.read_events(2)] == ["go_idle", "resume"]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"after": "1"}, TypeError),
        ({"after": 1.0}, TypeError),
        ({"after": True}, TypeError),
        ({"after": 2**63}, ValueError),
        ({"after": -(2**63)}, ValueError),
        ({"limit": 0}, ValueError),
        ({"limit": True}, ValueError),
        ({"limit": 2**63}, ValueError),
    ],
    ids=str,
)
def test_feeds_take_positions_only(
    manager: SessionManager, given: dict[str, object], kind: type[Exception]
) -> None:
    """What is no position, and what is no number of events, is refused by its name."""
    [name] = given
    with pytest.raises(kind, match=name):
        manager.read_events(**given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    if name == "after":
        with pytest.raises(kind, match=name):
            manager.events(**given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- what is missing -------------------------------------------------------------------------


def test_feeds_tell_of_a_purge_before_it_was_read(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Who has not read all that was removed is told so, and from where on all is kept."""
    manager.create("a")
    manager.create("b")
    purge(manager, clock, "a")
    last = 6
    manager.touch("b")
    for after in (1, 3, last - 1):
        with pytest.raises(FeedGapError) as caught:
            manager.read_events(after)
        assert attrs.asdict(caught.value) == {
            "after": after,
            "kept_from": last,
            "session_id": None,
        }
        assert "go on from position 6" in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert attrs.asdict(copy) == attrs.asdict(caught.value)
    assert told(manager.read_events(last)) == [("a", 5), ("b", 3)]


def test_feeds_tell_nothing_of_a_purge_after_it_was_read(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Who has read all of what was removed goes on without a word, and meets the tombstone."""
    manager.create("a")
    manager.create("b")
    manager.terminate("a")
    position = manager.read_events().position
    manager.touch("b")
    purge(manager, clock)
    assert [(event.session_id, event.kind) for event in manager.read_events(position)] == [
        ("b", "changed"),
        ("a", "purged"),
    ]


def test_feeds_tell_a_gap_to_whom_it_concerns(manager: SessionManager, clock: ManualClock) -> None:
    """Of one session, a gap of its own is told, and none of another one."""
    manager.create("a")
    manager.create("b")
    purge(manager, clock, "a")
    assert told(manager.read_events(3, "b")) == [("b", 2)]
    with pytest.raises(FeedGapError) as caught:
        manager.read_events(4, "a")
    assert (caught.value.kept_from, caught.value.session_id) == (6, "a")
    assert "of session 'a'" in str(caught.value)
    assert told(manager.read_events(6, "a")) == [("a", 5)]
    manager.create("c")
    purge(manager, clock, "c")
    # Nothing of its own was removed since.
    assert told(manager.read_events(6, "a")) == [("a", 5)]


def test_feeds_tell_of_a_compaction(manager: SessionManager) -> None:
    """Events that a checkpoint stands for are missing for who had not read them."""
    manager.create("a")
    manager.create("b")
    for _ in range(3):
        manager.touch("a")
    manager.compact("a", keep=1)
    with pytest.raises(FeedGapError) as caught:
        manager.read_events(5)
    assert caught.value.kept_from == 6
    assert told(manager.read_events(6)) == [("a", 5)]
    with pytest.raises(FeedGapError):
        manager.read_events(5, "a")
    assert told(manager.read_events(3, "b")) == [("b", 2)]


def test_feeds_are_read_from_the_beginning_over_all_gaps(
    manager: SessionManager, clock: ManualClock
) -> None:
    """From 0 on all that is kept is told, to the last, though pages end in front of holes."""
    for session_id in "abcd":
        manager.create(session_id)
    purge(manager, clock, "b", "d")
    manager.touch("a")
    manager.compact("c", keep=1)
    whole = told(manager.read_events())
    assert whole == [("a", 1), ("a", 2), ("c", 2), ("b", 5), ("d", 5), ("a", 3)]
    for limit in (1, 2, 3):
        found = list(pages(manager, 0, limit))
        assert [each for page in found for each in told(page)] == whole
        # Below zero as long as something may be missing; what was removed last is at 12.
        assert [page.position < 0 for page in found] == [
            page.events[-1].position < 12 for page in found
        ]
    # Where the reader comes back with the position of an event, it is told of the holes.
    with pytest.raises(FeedGapError):
        manager.read_events(2)
    assert told(manager.read_events(-2)) == whole[2:]
    assert told(manager.events(after=0, timeout_seconds=0)) == whole


def test_feeds_tell_a_gap_that_comes_up_on_the_way(
    manager: SessionManager, clock: ManualClock
) -> None:
    """Whoever follows is told, when what it had not read is removed meanwhile."""
    manager.create("a")
    manager.create("b")
    feed = manager.events(after=0)
    assert told(iter([next(feed)])) == [("a", 1)]
    page = manager.read_events(limit=1)
    purge(manager, clock, "a")
    with pytest.raises(FeedGapError):
        manager.read_events(page.position)
    assert [next(feed).session_id for _ in range(3)] == ["a", "b", "b"]  # it had them in hand
    with pytest.raises(FeedGapError) as caught:
        next(feed)
    again = manager.events(after=caught.value.kept_from, timeout_seconds=0)
    assert [(event.session_id, event.kind) for event in again] == [("a", "purged")]


def test_feeds_know_positions_of_another_store(house: House, tmp_path: Path) -> None:
    """A position that the store has never been at is refused: it would hide what comes."""
    manager = house.open()
    manager.create("a")
    for session_id in (None, "a"):
        with pytest.raises(FeedGapError, match="never been at position 3") as caught:
            manager.read_events(3, session_id)
        assert (caught.value.after, caught.value.kept_from) == (3, 2)
    with SessionManager(f"sqlite:///{tmp_path / 'other.db'}") as other:
        with pytest.raises(FeedGapError):
            other.read_events(manager.position())
        assert other.read_events() == FeedPage((), 0)


# --- sessions of other kinds -----------------------------------------------------------------


def test_feeds_of_sessions_that_are_not_kept(file_house: House) -> None:
    """They are told to who asks for them, and not in the feed of all."""
    with file_house.open() as manager:
        manager.create("kept")
        for _ in range(9):
            manager.touch("kept")
        manager.create("p", config={"persistence_enabled": False})
        manager.touch("p")
        assert {event.session_id for event in manager.read_events()} == {"kept"}
        page = manager.read_events(session_id="p", limit=2)
        assert told(page) == [("p", 1), ("p", 2)]
        assert told(manager.read_events(page.position, "p")) == [("p", 3)]
        position = manager.position("p")
        manager.fire("p", "go_idle")
        assert told(manager.events("p", after=position, timeout_seconds=0)) == [("p", 4)]
    with file_house.open() as manager, pytest.raises(FeedGapError):
        manager.read_events(position, "p")


def test_feeds_leave_out_sessions_of_other_lifecycles(tmp_path: Path) -> None:
    """Two lifecycles share a file; whoever reads is told the sessions of its own."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    lifecycle = SESSION_LIFECYCLE.without("touch", name="other")
    with SessionManager(url) as ours, SessionManager(url, lifecycle=lifecycle) as theirs:
        ours.create("a")
        theirs.create("b")
        ours.create("c")
        assert told(ours.read_events()) == [("a", 1), ("a", 2), ("c", 1), ("c", 2)]
        assert told(theirs.read_events()) == [("b", 1), ("b", 2)]
        assert ours.position() == theirs.read_events().position == 6
        assert ours.read_events(session_id="b") == FeedPage((), 6)


def test_feeds_leave_out_what_other_lifecycles_purged(tmp_path: Path) -> None:
    """A tombstone is told to those of its lifecycle, though its id lives on in another one."""
    clock, url = ManualClock(START), f"sqlite:///{tmp_path / 'a.db'}"
    lifecycle = SESSION_LIFECYCLE.without("touch", name="other: [*]")
    with (
        SessionManager(url, clock=clock) as ours,
        SessionManager(url, lifecycle=lifecycle, clock=clock) as theirs,
    ):
        ours.create("a")
        theirs.create("b")
        theirs.terminate("b")
        clock.advance(1)
        start = ours.position()
        assert theirs.purge(ended_before=clock.now()) == 1
        ours.touch("a")
        assert told(ours.read_events(start)) == [("a", 3)]
        assert told(ours.read_events(start, "b")) == []
        assert told(theirs.read_events(start)) == [("b", 5)]
        ours.create("b")
        assert told(ours.read_events(start)) == [("a", 3), ("b", 6), ("b", 7)]
        assert told(theirs.read_events(start)) == [("b", 5)]
        purge(ours, clock, "b")
        assert told(ours.read_events(-start)) == [("a", 3), ("b", 10)]
        assert told(theirs.read_events(-start)) == []


def test_feeds_keep_nothing_of_what_was_purged_but_tombstones(tmp_path: Path) -> None:
    """That events of a purged session are missing is told by its tombstone: no mark is left."""
    clock, url = ManualClock(START), f"sqlite:///{tmp_path / 'a.db'}"
    with SessionManager(url, clock=clock) as manager:
        manager.create("kept")
        for session_id in ("a", "b"):
            manager.create(session_id)
            manager.touch(session_id)
        manager.compact("a", keep=1)
        last = manager.read_events(session_id="a").position
        assert len(manager.store.marks("feed/")) == 2
        manager.touch("a")
        place = manager.position("a")
        purge(manager, clock, "a", "b")
        assert [name for name, _ in manager.store.marks("feed/")] == ["feed/removed"]
        for after in (1, last, place):
            with pytest.raises(FeedGapError):
                manager.read_events(after, "a")
        manager.create("a")
        with pytest.raises(FeedGapError):
            manager.read_events(place, "a")
        [stone, *_] = manager.read_events(-place, "a")
        assert (stone.event.kind, told(manager.read_events(stone.position, "a"))) == (
            "purged",
            [("a", 8), ("a", 9)],
        )


def test_feeds_of_encrypted_sessions(tmp_path: Path) -> None:
    """With the key events are told in the clear; without it, up to the first that needs it."""
    path = write_two(tmp_path / "a.db")
    with managed(path) as manager:
        whole = manager.read_events()
        assert [event.event for event in whole if event.session_id == "a"] == list(
            manager.history("a")
        )
        assert whole.events[2].changes["metadata"] == {"user": "eve"}
        manager.terminate("b")
        manager.terminate("a", wait=False)
    for keyring in (None, OTHER_RING):
        with managed(path, keyring) as manager:
            with pytest.raises(KeyMissingError) as caught:
                manager.read_events()
            assert caught.value.session_id == "a"
            page = manager.read_events(1)
            assert told(page) == [("a", 2)]
            with pytest.raises(KeyMissingError):
                manager.read_events(page.position)
            assert told(manager.read_events(page.position + 1, "a"))[0] == ("a", 4)


def test_feeds_of_an_encrypted_session_that_is_purged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no key is told so, though the session is gone before that is looked into."""
    path, clock = write_two(tmp_path / "a.db"), ManualClock(START)
    with managed(path, clock=clock) as owner, managed(path, None) as manager:
        owner.end_task("a", "t")

        def purged_behind(*arguments: Any) -> FeedRows:
            found = feed_rows(*arguments)
            purge(owner, clock, "a")
            return found

        monkeypatch.setattr("session_fsm.stores.sqlite.feed_rows", purged_behind)
        with pytest.raises(KeyMissingError) as caught:
            manager.read_events()
        assert caught.value.session_id == "a"


def test_feeds_with_an_event_that_is_broken(tmp_path: Path) -> None:
    """All before it is told, then it is named; who leaves it out is told the rest."""
    path = tmp_path / "a.db"
    with managed(path, None) as manager:
        manager.create("a")
        manager.create("b")
    with raw(path) as connection:
        connection.execute("UPDATE session_event SET body = x'00' WHERE seq = 3")
    with managed(path, None) as manager:
        page = manager.read_events()
        assert (told(page), page.position) == ([("a", 1), ("a", 2)], 2)
        with pytest.raises(CorruptRecordError, match="event 1 of session 'b'"):
            manager.read_events(page.position)
        assert told(manager.read_events(page.position + 1)) == [("b", 2)]


def test_feeds_give_no_number_twice(tmp_path: Path) -> None:
    """However much was removed, what comes next has a higher position than all before."""
    path, clock = tmp_path / "a.db", ManualClock(START)
    positions: list[int] = []
    for round_ in range(4):
        with managed(path, None, clock=clock) as manager:
            manager.create(f"s{round_}")
            manager.terminate(f"s{round_}")
            positions += [
                event.position for event in manager.read_events(positions[-1] if positions else 0)
            ]
            clock.advance(minutes(1))
            assert manager.purge(ended_before=clock.now()) == 1
    assert positions == sorted(set(positions))
    store = SqliteStore(path)
    assert [event.kind for event in store.feed(0, 10).events] == ["purged"] * 4
    store.close()
