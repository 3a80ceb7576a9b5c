"""Sessions that are not to be kept: in memory beside the durable ones, one manager for both."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from managing import START, House, Recorder, Worker, minutes, seconds, triggers

from session_fsm import (
    SessionConfig,
    SessionExistsError,
    SessionManager,
    SessionNotFoundError,
    StateInvalidError,
)

pytest_plugins = ("manager_fixtures",)

PASSING = SessionConfig(persistence_enabled=False)
KEPT = SessionConfig(persistence_enabled=True)


@pytest.fixture
def durable(file_house: House) -> SessionManager:
    """A manager on a file."""
    return file_house.open()


def written(path: Path) -> set[str]:
    """Return every id that the file knows anything of."""
    with closing(sqlite3.connect(path)) as raw:
        tables = ("session", "session_event", "work")
        return {
            row[0] for table in tables for row in raw.execute(f"SELECT session_id FROM {table}")
        }


def test_manager_persistence_leaves_no_trace(file_house: House, durable: SessionManager) -> None:
    """Nothing of a passing session is ever written, whatever it lives through."""
    durable.create("a", config=PASSING, start=lambda _: Worker())
    with durable.task("a", "t"):
        durable.update("a", metadata={"n": 1})
    durable.terminate("a")
    durable.create("b")
    assert written(file_house.path) == {"b"}
    durable.purge(ended_before=START + seconds(1))
    assert written(file_house.path) == {"b"}


def test_manager_persistence_ends_with_the_manager(
    file_house: House, durable: SessionManager
) -> None:
    """A passing session is known to its manager alone, and gone with it; the others stay."""
    durable.create("a", config=PASSING)
    durable.create("b", config=KEPT)
    durable.create("c")
    other = file_house.open()
    assert [session.session_id for session in other.list()] == ["b", "c"]
    assert other.find("a") is None
    durable.close()
    again = file_house.open()
    assert [session.session_id for session in again.list()] == ["b", "c"]
    assert again.get("b").state.config.persistence_enabled is True


def test_manager_persistence_all_verbs_span_both(
    file_house: House, durable: SessionManager
) -> None:
    """Every verb works on both kinds, alone and across them."""
    recorder = Recorder()
    durable.subscribe(recorder)
    for number in range(6):
        config = PASSING if number % 2 else SessionConfig()
        durable.create(f"s{number}", config=config, metadata={"n": number})
    for number in range(6):
        session_id = f"s{number}"
        session = durable.begin_task(session_id, "t")
        assert session == durable.get(session_id) == durable.find(session_id)
        assert durable.explain(session_id, "touch") is None
        assert "touch" in durable.permitted(session_id)
        durable.start_conversation(session_id)
        durable.touch(session_id)
        durable.update(session_id, metadata=lambda old: {"n": old["n"] + 10})
        durable.end_task(session_id, "t")
        durable.transition(session_id, "active")
        durable.fire(session_id, "go_idle")
        assert len(durable.history(session_id)) == 10
    assert [session.session_id for session in durable.list(limit=4)] == ["s0", "s1", "s2", "s3"]
    page = durable.list(limit=2, after="s2")
    assert ([session.session_id for session in page], page.next) == (["s3", "s4"], "s4")
    assert durable.counts()["idle"] == 6
    durable.terminate("s0")
    durable.terminate("s1")
    durable.fail("s2", "boom")
    durable.fail("s3", "boom")
    report = durable.verify()
    assert (report.ok, report.sessions) == (True, 6)
    assert durable.next_deadline() == START + minutes(30)
    file_house.clock.advance(minutes(30))
    fired = durable.sweep().fired
    assert [event.session_id for event in fired] == ["s4", "s4", "s5", "s5"]
    assert durable.next_deadline() is None
    assert durable.purge(ended_before=START + minutes(1)) == 4
    assert durable.counts()["terminated"] == 2
    assert durable.purge(ended_before=START + minutes(100)) == 2
    assert {event.session_id for event in recorder.events} == {f"s{n}" for n in range(6)}
    assert durable.verify().ok


def test_manager_persistence_one_id_over_both(durable: SessionManager) -> None:
    """An id that is in use in one place is in use in the other."""
    durable.create("a", config=PASSING)
    durable.create("b")
    for config in (PASSING, KEPT, None):
        for session_id in ("a", "b"):
            with pytest.raises(SessionExistsError):
                durable.create(session_id, config=config)
    assert durable.get("a").state.config == PASSING
    assert sum(durable.counts().values()) == 2


@pytest.mark.parametrize("first", [True, False])
def test_manager_persistence_same_id_elsewhere_next(durable: SessionManager, first: bool) -> None:
    """An id that was purged may be used again in the other place; its history is told in order."""
    recorder = Recorder()
    durable.subscribe(recorder)
    kinds = (KEPT, PASSING) if first else (PASSING, KEPT)
    for config in kinds * 2:
        session = durable.create("a", config=config, metadata={"life": repr(config)})
        assert session.state.config == config
        durable.touch("a")
        assert durable.verify().ok
        durable.terminate("a")
        assert durable.verify().ok
        assert durable.purge(ended_before=START + seconds(1)) == 1
        assert durable.verify().ok
    assert [event.kind for event in recorder.events].count("purged") == 4


def test_manager_persistence_same_id_after_a_restart(file_house: House) -> None:
    """What is durable of an id stays sound when the passing part of its history is gone."""
    first = file_house.open()
    for config in (PASSING, KEPT, PASSING):
        first.create("a", config=config)
        first.terminate("a")
        first.purge(ended_before=START + seconds(1))
    first.create("a", config=KEPT)
    first.close()
    second = file_house.open()
    assert second.get("a").status == "active"
    assert second.verify().ok
    second.terminate("a")
    assert second.verify().ok


def test_manager_persistence_is_chosen_once(durable: SessionManager) -> None:
    """The flag can't be updated, in any direction; the rest of the configuration can."""
    durable.create("a", config=PASSING)
    durable.create("b")
    durable.create("c", config=KEPT)
    for session_id in "abc":
        before = durable.get(session_id)
        for flag in {None, True, False} - {before.state.config.persistence_enabled}:
            with pytest.raises(StateInvalidError, match="persistence_enabled"):
                durable.update(session_id, config=SessionConfig(persistence_enabled=flag))
        assert durable.get(session_id) == before
        flag = before.state.config.persistence_enabled
        changed = SessionConfig(persistence_enabled=flag, timeout_minutes=7)
        assert durable.update(session_id, config=changed).state.config.timeout_minutes == 7


def test_manager_persistence_can_not_be_fired_away(durable: SessionManager) -> None:
    """No trigger changes where a session is kept, whichever verb fires it."""
    before = durable.create("a", config=KEPT)
    with pytest.raises(StateInvalidError, match="persistence_enabled: is chosen at creation"):
        durable.fire("a", "update", config=PASSING)
    assert durable.get("a") == before


def test_manager_persistence_not_on_a_store_that_keeps_nothing() -> None:
    """On `memory://` nothing can be durable: asking for it is refused, and nothing is stored."""
    with SessionManager("memory://") as manager:
        with pytest.raises(StateInvalidError, match="persistence_enabled"):
            manager.create("a", config=KEPT)
        assert manager.find("a") is None
        manager.create("a", config=PASSING)
        manager.create("b")
        assert [session.session_id for session in manager.list()] == ["a", "b"]


def test_manager_persistence_workers_and_sweeps(file_house: House, durable: SessionManager) -> None:
    """A worker of a passing session is stopped like any other."""
    worker = Worker()
    durable.create("a", config=PASSING, start=lambda _: worker)
    file_house.clock.advance(minutes(30))
    assert [event.trigger for event in durable.sweep().fired] == ["expire", "finish"]
    assert worker.stops == 1
    assert triggers(durable, "a")[-1] == "finish"


def test_manager_persistence_batches_span_both(durable: SessionManager) -> None:
    """A batch undoes both kinds together."""
    durable.create("a", config=PASSING)
    durable.create("b")
    with pytest.raises(ZeroDivisionError), durable.batch():
        durable.touch("a")
        durable.touch("b")
        durable.create("c", config=PASSING)
        raise ZeroDivisionError
    assert (durable.get("a").revision, durable.get("b").revision) == (2, 2)
    with pytest.raises(SessionNotFoundError):
        durable.get("c")
    with durable.batch():
        durable.touch("a")
        durable.touch("b")
    assert (durable.get("a").revision, durable.get("b").revision) == (3, 3)
    assert durable.verify().ok
