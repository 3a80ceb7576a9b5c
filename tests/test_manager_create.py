"""Creating sessions: what is stored when, what a start may do, what becomes of a failed one."""

from __future__ import annotations

import threading

import pytest
from managing import (
    START,
    House,
    Recorder,
    Worker,
    await_event,
    begin,
    end,
    once,
    seconds,
    triggers,
)

from session_fsm import (
    InvalidTransitionError,
    Session,
    SessionConfig,
    SessionExistsError,
    SessionManager,
    SessionStartError,
    StateInvalidError,
)
from session_fsm.clock import ManualClock
from session_fsm.stores.records import Work

pytest_plugins = ("manager_fixtures",)


def test_manager_create_gives_an_active_session(manager: SessionManager) -> None:
    """Without a start, one commit creates and activates it, by the defaults and the clock."""
    session = manager.create("a")
    assert (session.session_id, session.status, session.revision) == ("a", "active", 2)
    assert session.worker is None
    assert session.state.config == SessionConfig()
    assert session.state.created_at == session.state.last_activity_at == START
    assert triggers(manager, "a") == [None, "activate"]
    assert manager.get("a") == session


def test_manager_create_keeps_what_it_is_given(manager: SessionManager) -> None:
    """Configuration and data are stored; a mapping will do for a configuration."""
    metadata = {"tags": ["x"]}
    manager.create("a", config={"timeout_minutes": 5}, llm_config={"model": "m"}, metadata=metadata)
    metadata["tags"].append("later")
    state = manager.get("a").state
    assert state.config == SessionConfig(timeout_minutes=5)
    assert state.llm_config == {"model": "m"}
    assert state.metadata == {"tags": ["x"]}


def test_manager_create_makes_ids(house: House) -> None:
    """Without an id it asks the factory that was handed in; the default one does not repeat."""
    ids = iter(("one", "two"))
    manager = house.open(new_id=lambda: next(ids))
    assert [manager.create().session_id for _ in range(2)] == ["one", "two"]
    others = house.open()
    assert len({others.create().session_id for _ in range(5)}) == 5


def test_manager_create_is_seen_by_its_own_start(manager: SessionManager) -> None:
    """The session is committed as initializing while its start runs, which may call the manager."""
    seen: list[Session] = []

    def start(session: Session) -> str:
        seen.extend((session, manager.get("a")))
        manager.update("a", metadata={"by": "start"})
        manager.create("b")
        return "worker"

    session = manager.create("a", start=start)
    given, read = seen
    assert (given.status, given.revision, given.worker) == ("initializing", 1, None)
    assert read == given
    assert session.status == "active"
    assert session.worker == manager.get("a").worker == "worker"
    assert [each.worker for each in manager.list()] == ["worker", None]
    assert session.state.metadata == {"by": "start"}
    assert triggers(manager, "a") == [None, "update", "activate"]


def test_manager_create_holds_no_lock_while_it_starts(
    house: House, manager: SessionManager
) -> None:
    """While a start takes its time, other threads read, change and end the session."""
    running, go_on = threading.Event(), threading.Event()

    def start(_: Session) -> None:
        running.set()
        await_event(go_on)

    creating = begin(manager.create, "a", start=start)
    await_event(running)
    [read] = end(begin(manager.get, "a"))
    assert read.status == "initializing"
    end(begin(manager.update, "a", metadata={"n": 1}))
    assert house.open().get("a").state.metadata == {"n": 1}
    go_on.set()
    [session] = end(creating)
    assert session.status == "active"


def test_manager_create_with_start_without_worker(manager: SessionManager) -> None:
    """A start that returns None leaves nothing that would have to be stopped."""
    assert manager.create("a", start=lambda _: None).worker is None
    assert manager.store.work_in("a") == ()
    assert manager.terminate("a").status == "terminated"


def test_manager_create_claims_start_and_worker(manager: SessionManager) -> None:
    """The store knows of the start while it runs, and of the worker from the activation on."""
    seen: list[tuple[Work, ...]] = []

    def start(_: Session) -> Worker:
        seen.append(manager.store.work_in("a"))
        return Worker()

    manager.create("a", start=start)
    assert seen == [(Work("start"),)]
    assert manager.store.work_in("a") == (Work("worker"),)


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (RuntimeError("no room"), "RuntimeError: no room"),
        (KeyError(), "KeyError"),
        (ValueError("nul \x00 and \ud800"), "ValueError: nul \\x00 and \\ud800"),
    ],
)
def test_manager_create_start_that_raises(
    manager: SessionManager, cause: Exception, told: str
) -> None:
    """The session has ended with the cause in its error, and the caller is told of both."""

    def start(_: Session) -> None:
        raise cause

    with pytest.raises(SessionStartError) as caught:
        manager.create("a", start=start)
    assert (caught.value.session_id, caught.value.cause) == ("a", told)
    assert caught.value.__cause__ is cause
    state = manager.get("a").state
    assert (state.status, state.error) == ("terminated", told)
    assert triggers(manager, "a") == [None, "abort"]
    assert manager.store.work_in("a") == ()


def test_manager_create_start_whose_error_has_no_words(manager: SessionManager) -> None:
    """An exception that can't even be printed still ends the session, named by its kind."""

    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def start(_: Session) -> None:
        raise SpeechlessError

    with pytest.raises(SessionStartError, match="SpeechlessError"):
        manager.create("a", start=start)
    state = manager.get("a").state
    assert (state.status, state.error) == ("terminated", "SpeechlessError")


def test_manager_create_start_interrupted(manager: SessionManager) -> None:
    """An interrupt passes through as it is, and the session has ended all the same."""

    def start(_: Session) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manager.create("a", start=start)
    state = manager.get("a").state
    assert (state.status, state.error) == ("terminated", "KeyboardInterrupt")


def test_manager_create_after_the_start_deadline(
    manager: SessionManager, clock: ManualClock
) -> None:
    """A start that took too long is no activation: its worker is stopped, the session has ended."""
    worker = Worker()

    def start(_: Session) -> Worker:
        clock.advance(60)
        return worker

    with pytest.raises(SessionStartError, match="could not be activated") as caught:
        manager.create("a", start=start)
    assert worker.stops == 1
    session = manager.get("a")
    assert (session.status, session.worker) == ("terminated", None)
    assert session.state.error == caught.value.cause
    assert triggers(manager, "a") == [None, "abort"]


def test_manager_create_just_before_the_start_deadline(house: House) -> None:
    """A microsecond before its deadline a start is in time; the grace is the manager's."""
    manager = house.open(start_grace_seconds=5.0)
    session = manager.create("a", start=lambda _: house.clock.advance(seconds(5 - 1e-6)))
    assert session.status == "active"
    with pytest.raises(SessionStartError):
        manager.create("b", start=lambda _: house.clock.advance(5))


def test_manager_create_swept_while_it_starts(manager: SessionManager, clock: ManualClock) -> None:
    """A sweep ends a start that is overdue; its worker, when it comes, is stopped."""
    worker = Worker()

    def start(_: Session) -> Worker:
        clock.advance(61)
        assert [event.trigger for event in manager.sweep().fired] == ["start_timeout"]
        return worker

    with pytest.raises(SessionStartError):
        manager.create("a", start=start)
    assert worker.stops == 1
    state = manager.get("a").state
    assert (state.status, state.error) == ("terminated", "the start did not end within 60 s")


def test_manager_create_terminated_while_it_starts(manager: SessionManager) -> None:
    """Who ends a session during its start is obeyed; the worker is stopped once."""
    worker = Worker()

    def start(_: Session) -> Worker:
        assert manager.terminate("a", reason="changed my mind").status == "terminated"
        return worker

    with pytest.raises(SessionStartError) as caught:
        manager.create("a", start=start)
    assert isinstance(caught.value.__cause__, InvalidTransitionError)
    assert worker.stops == 1
    assert manager.get("a").worker is None
    assert triggers(manager, "a") == [None, "abort"]


def test_manager_create_doubled_id(manager: SessionManager) -> None:
    """An id that is in use is refused, also of a session that has ended; nothing changes."""
    manager.create("a", metadata={"first": True})
    before = manager.get("a")
    started: list[Session] = []
    with pytest.raises(SessionExistsError) as caught:
        manager.create("a", start=started.append)
    assert caught.value.session_id == "a"
    assert started == []
    assert manager.get("a") == before
    ended = manager.terminate("a")
    with pytest.raises(SessionExistsError):
        manager.create("a")
    assert manager.get("a") == ended


def test_manager_create_doubled_id_elsewhere(house: House, manager: SessionManager) -> None:
    """An id that another manager has used is refused too."""
    house.open().create("a")
    with pytest.raises(SessionExistsError):
        manager.create("a")


@pytest.mark.parametrize(
    "arguments",
    [
        {"session_id": ""},
        {"session_id": " a"},
        {"session_id": 3},
        {"session_id": "a", "config": {"timeout_minutes": 0}},
        {"session_id": "a", "config": 5},
        {"session_id": "a", "llm_config": {"x": float("nan")}},
        {"session_id": "a", "metadata": {"x": 2**63}},
        {"session_id": "a", "metadata": []},
    ],
    ids=str,
)
def test_manager_create_bad_arguments_store_nothing(
    manager: SessionManager, arguments: dict[str, object]
) -> None:
    """Bad arguments are named; nothing is stored, started or told."""
    recorder, started = Recorder(), Recorder()
    manager.subscribe(recorder)
    with pytest.raises(StateInvalidError) as caught:
        manager.create(start=started, **arguments)  # type: ignore[arg-type]  # on purpose
    assert caught.value.problems
    assert recorder.events == started.events == []
    assert sum(manager.counts().values()) == 0
    assert manager.find("a") is None


def test_manager_create_names_every_fault(manager: SessionManager) -> None:
    """Of two bad arguments both are named."""
    with pytest.raises(StateInvalidError) as caught:
        manager.create("", metadata={"x": object()})
    assert len(caught.value.problems) == 2


def test_manager_create_at_once_by_many(house: House) -> None:
    """Of eight that create one id at once, one succeeds; the others are told that it exists."""
    managers = [house.open() for _ in range(4)]

    def create(manager: SessionManager) -> bool:
        try:
            manager.create("a")
        except SessionExistsError:
            return False
        return True

    results = end(*(begin(create, each) for each in managers * 2))
    assert sorted(results) == [False] * 7 + [True]
    assert managers[0].get("a").revision == 2


def test_manager_create_while_the_id_lives_and_dies(house: House) -> None:
    """An id that was used and purged between decision and commit is free: the creation goes on."""
    store = house.store()
    manager, other = house.open(store=store), house.open()

    def live() -> None:
        other.create("a")
        other.terminate("a")
        other.purge(ended_before=START + seconds(1))

    store.before["commit"] = once(lambda _: live())
    assert manager.create("a").revision == 7
    assert manager.verify().ok
