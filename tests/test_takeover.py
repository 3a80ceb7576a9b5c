"""What a dead node ran is taken by one living one, and goes where the session's policy says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from unittest.mock import Mock

import pytest
from managing import START, Recorder, SlowWorker, Worker, minutes, together, triggers

from session_fsm import (
    FencedError,
    RecoveryReport,
    SchemaVersionError,
    Session,
    SessionConfig,
    SessionManager,
)
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore, PostgresStore, SessionStore
from session_fsm.stores.records import Work


class Fleet:
    """Nodes that share a store, each with a manager of its own; any of them may die.

    Args:
        open_store: Opens the store, for each node anew.
    """

    def __init__(self, open_store: Callable[[], SessionStore]) -> None:
        self.clock = ManualClock(START)
        self.closing = ExitStack()
        self._open_store = open_store

    def node(self) -> SessionManager:
        """Open one more node."""
        store = self._open_store()
        self.closing.callback(store.close)
        manager = SessionManager(store, clock=self.clock)
        self.closing.callback(manager.close)
        return manager


def die(node: SessionManager) -> None:
    """Have a node be counted as dead, though it does not know."""
    node.store.dismiss(node._core.owner_id)


@pytest.fixture(params=["memory", "postgres"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """Nodes on each kind of store that hands over what the dead left."""
    if request.param == "memory":
        shared = MemoryStore()
        nodes = Fleet(lambda: shared)
    else:
        url = request.getfixturevalue("postgres_url")
        nodes = Fleet(lambda: PostgresStore(url))
    with nodes.closing:
        yield nodes


def configured(recovery: str) -> SessionConfig:
    """Return a configuration with a policy."""
    return SessionConfig(recovery=recovery)  # type: ignore[arg-type]


def test_takeover_goes_by_the_policy(fleet: Fleet) -> None:
    """A dead node's sessions are put to rest, started anew or ended, each as it is configured."""
    dead, heir = fleet.node(), fleet.node()
    for policy in ("release", "restart", "end"):
        dead.create(policy, config=configured(policy), start=lambda _: Worker())
        dead.begin_task(policy, "theirs")
    heir.begin_task("restart", "ours")
    die(dead)
    started: list[tuple[str, int]] = []

    def start(session: Session) -> Worker:
        started.append((session.session_id, session.revision))
        return Worker()

    report = heir.recover(restart=start)
    assert (report.released, report.restarted, report.ended) == (
        ("release",),
        ("restart",),
        ("end",),
    )
    assert sorted(report.dropped_tasks) == ["theirs"] * 3
    assert report.failed == ()
    assert triggers(heir, "release")[-2:] == ["end_task", "go_idle"]
    assert triggers(heir, "restart")[-2:] == ["end_task", "touch"]
    assert triggers(heir, "end")[-3:] == ["end_task", "terminate", "finish"]
    assert heir.get("end").state.error == "its owner died"
    runs = heir.get("restart")
    assert (runs.status, runs.state.active_tasks) == ("active", ("ours",))
    assert started == [("restart", runs.revision)]
    assert isinstance(runs.worker, Worker)
    ours = {Work("task", "ours"), Work("worker")}
    assert set(heir.store.work_of("restart", heir._core.owner_id)) == ours
    assert heir.recover(restart=start) == RecoveryReport()
    assert heir.terminate("restart", wait=False).status == "terminating"
    assert runs.worker.stops == 1
    assert heir.verify().ok


def test_takeover_puts_to_rest_what_nobody_can_start(fleet: Fleet) -> None:
    """A node that starts no workers puts a session to rest that wants one, if it is told to."""
    dead, heir = fleet.node(), fleet.node()
    dead.create("a", config=configured("restart"), start=lambda _: Worker())
    die(dead)
    assert heir.recover() == RecoveryReport(released=("a",))
    assert heir.get("a").status == "idle"
    assert heir.store.work_in("a") == ()


def test_takeover_starts_nothing_for_what_is_over(fleet: Fleet) -> None:
    """A session that has expired, or is ending, gets no new worker."""
    dead, heir = fleet.node(), fleet.node()
    for session_id in ("expired", "ending"):
        dead.create(session_id, config=configured("restart"), start=lambda _: Worker())
    heir.begin_task("ending", "t")
    heir.terminate("ending", wait=False)
    die(dead)
    fleet.clock.advance(minutes(31))
    report = heir.recover(restart=lambda _: pytest.fail("it is over"))
    assert (report.restarted, report.failed) == ((), ())
    assert heir.store.work_in("expired") == ()
    heir.sweep()
    assert {heir.get(each).status for each in ("expired", "ending")} == {"terminated"}


def test_takeover_by_a_start_that_fails(fleet: Fleet) -> None:
    """A session whose worker can't be started anew ends with the cause, and the others go on."""
    dead, heir = fleet.node(), fleet.node()
    for session_id in ("a", "b"):
        dead.create(session_id, config=configured("restart"), start=lambda _: Worker())
    die(dead)

    def start(session: Session) -> None:
        if session.session_id == "a":
            raise OSError("no such image")

    report = heir.recover(restart=start)
    assert (report.ended, report.restarted, report.failed) == (("a",), ("b",), ())
    assert heir.get("a").state.error == "OSError: no such image"
    assert heir.store.work_in("a") == heir.store.work_in("b") == ()
    assert heir.get("b").status == "active"


def test_takeover_is_counted_and_capped(fleet: Fleet) -> None:
    """A session that kills whoever runs it is started anew so often, and is then ended."""
    node = fleet.node()
    node.create("a", config=configured("restart"), start=lambda _: Worker())
    for _ in range(2):
        die(node)
        node = fleet.node()
        report = node.recover(restart=lambda _: Worker(), max_takeovers=2)
        assert report.restarted == ("a",)
    die(node)
    node = fleet.node()
    report = node.recover(restart=lambda _: Worker(), max_takeovers=2)
    assert report == RecoveryReport(ended=("a",))
    assert node.get("a").state.error == "its owner died, as 2 did before within an hour"
    for number in (0, True, -1, "3"):
        with pytest.raises(ValueError, match="max_takeovers"):
            node.recover(max_takeovers=number)  # type: ignore[arg-type]


def test_takeover_that_fails_is_no_death(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a node could not read a session, whoever can starts it anew."""
    dead = fleet.node()
    dead.create("a", config=configured("restart"), start=lambda _: Worker())
    die(dead)
    old, new = fleet.node(), fleet.node()
    with monkeypatch.context() as patch:
        fault = SchemaVersionError(found="9", supported="1")
        patch.setattr(old.store, "load", Mock(side_effect=fault))
        for _ in range(4):
            report = old.recover(restart=lambda _: Worker(), max_takeovers=1)
            assert [session_id for session_id, _ in report.failed] == ["a"]
    report = new.recover(restart=lambda _: Worker(), max_takeovers=1)
    assert report == RecoveryReport(restarted=("a",))


def test_takeover_of_tasks_is_no_death_of_the_worker(fleet: Fleet) -> None:
    """However many die that began tasks, the session and its worker go on."""
    runner, heir = fleet.node(), fleet.node()
    runner.create("a", config=configured("restart"), start=lambda _: Worker())
    for number in range(3):
        front = fleet.node()
        front.begin_task("a", f"t{number}")
        die(front)
        report = heir.recover(restart=lambda _: Worker(), max_takeovers=1)
        assert report.dropped_tasks == (f"t{number}",)
    assert heir.get("a").status == "idle"
    die(runner)
    report = heir.recover(restart=lambda _: Worker(), max_takeovers=1)
    assert report.restarted == ("a",)


@pytest.mark.parametrize("fewer", [False, True])
def test_takeover_leaves_nothing_behind(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, fewer: bool
) -> None:
    """One call recovers every session, however much each has, and however few a store gives."""
    dead, heir = fleet.node(), fleet.node()
    ids = tuple(f"s{number}" for number in range(9))
    for session_id in ids:
        dead.create(session_id)
        for task in "tuvw":
            dead.begin_task(session_id, task)
    die(dead)
    monkeypatch.setattr("session_fsm.recovering.BATCH_SIZE", 4)
    if fewer:
        take_over = heir.store.take_over
        monkeypatch.setattr(
            heir.store,
            "take_over",
            lambda owner_id, _, **more: take_over(owner_id, 2, **more),
        )
    assert heir.recover().released == ids
    assert heir.store.abandoned() == ()


def test_takeover_leaves_the_dead_without_a_word(fleet: Fleet) -> None:
    """Whoever is counted as dead changes nothing, whatever it does, and is told so."""
    dead, heir = fleet.node(), fleet.node()
    dead.create("a", start=lambda _: Worker())
    dead.begin_task("a", "t")
    die(dead)
    heir.recover()
    before = heir.history("a")
    late: tuple[Callable[[], object], ...] = (
        lambda: dead.update("a", metadata={"x": 1}),
        lambda: dead.begin_task("a", "u"),
        lambda: dead.touch("a"),
        lambda: dead.terminate("a", wait=False),
        lambda: dead.fail("a", "boom"),
        lambda: dead.create("b"),
        dead.recover,
    )
    for call in late:
        with pytest.raises(FencedError) as caught:
            call()
        assert caught.value.owner_id == dead._core.owner_id
    assert heir.history("a") == before
    assert heir.find("b") is None
    assert dead.get("a").status == "idle"


def test_takeover_by_many_gives_each_session_once(fleet: Fleet) -> None:
    """Of nodes that take over at once, each session is started anew by one, in all once."""
    dead, heirs = fleet.node(), [fleet.node() for _ in range(3)]
    ids = [f"session {number}" for number in range(12)]
    for session_id in ids:
        dead.create(session_id, config=configured("restart"), start=lambda _: Worker())
    die(dead)
    started: list[str] = []
    lock = threading.Lock()

    def start(session: Session) -> Worker:
        with lock:
            started.append(session.session_id)
        return Worker()

    reports = together(*(lambda heir=heir: heir.recover(restart=start) for heir in heirs))
    assert sorted(started) == sorted(ids)
    assert sorted(each for report in reports for each in report.restarted) == sorted(ids)
    assert all(report.ended == report.failed == report.released == () for report in reports)


def test_takeover_finds_a_lapsed_node_stopped_and_back(fleet: Fleet) -> None:
    """A node that was not heard of stops what it runs, says nothing of it, and goes on anew."""
    node, heir = fleet.node(), fleet.node()
    worker, told = Worker(), Recorder()
    node.create("a", start=lambda _: worker)
    node.subscribe(told)
    former = node._core.owner_id
    die(node)
    node._lapsed()
    assert worker.stops == 1
    assert node.get("a").worker is None
    assert told.events == []
    assert node._core.owner_id != former
    assert heir.recover() == RecoveryReport(released=("a",))
    assert node.create("b").status == "active"
    assert node.update("a", metadata={"x": 1}).state.metadata == {"x": 1}
    assert node.terminate("a").status == "terminated"
    assert worker.stops == 1


def test_takeover_by_the_lapsed_node_itself(fleet: Fleet) -> None:
    """What a node lost, it may take over again, as another owner."""
    node = fleet.node()
    node.create("a", config=configured("restart"), start=lambda _: Worker())
    die(node)
    node._lapsed()
    again = Worker()
    assert node.recover(restart=lambda _: again).restarted == ("a",)
    assert node.get("a").worker is again


def test_takeover_refuses_what_a_lapsed_node_had_begun(fleet: Fleet) -> None:
    """A stop that a lapsed node tells of late does not end what another one runs by then."""
    node, heir = fleet.node(), fleet.node()
    late, mine = SlowWorker(node), SlowWorker(heir)
    node.create("a", config=configured("restart"), start=lambda _: late)
    die(node)
    assert heir.recover(restart=lambda _: mine).restarted == ("a",)
    heir.terminate("a", wait=False)
    before = heir.history("a")
    node.store.enlist("another")
    node._core.name.renew("another")
    with pytest.raises(FencedError) as caught:
        node._workers.stopped("a", late, None)
    assert caught.value.owner_id == late.owner_id
    assert heir.history("a") == before
    held = heir.store.work_of("a", heir._core.owner_id)
    assert set(held) == {Work("stop"), Work("worker")}
    heir._workers.stopped("a", mine, None)
    assert heir.get("a").status == "terminated"


def test_takeover_after_a_lapse_leaves_nothing_of_it(fleet: Fleet) -> None:
    """A node that has lapsed removes, and compacts, what it ran before, as any other may."""
    node = fleet.node()
    node.create("a", start=lambda _: Worker())
    node.create("z")
    die(node)
    node._lapsed()
    assert node.recover().released == ("a",)
    for session_id in "az":
        node.terminate(session_id)
    assert node.compact("a", keep=1) > 0
    fleet.clock.advance(60)
    assert node.purge(ended_before=fleet.clock.now()) == 2


def test_takeover_after_a_lapse_of_what_is_in_memory(fleet: Fleet) -> None:
    """Sessions that are not kept are recovered by the node itself, under its new name."""
    node = fleet.node()
    passing = SessionConfig(persistence_enabled=False)
    node.create("worked", config=passing, start=lambda _: Worker())
    node.create("busy", config=passing)
    node.begin_task("busy", "t")
    die(node)
    node._lapsed()
    report = node.recover()
    assert (sorted(report.released), report.dropped_tasks) == (["busy", "worked"], ("t",))
    assert node._starting.adopt("worked").session.status == "idle"


def test_takeover_leaves_the_tasks_of_a_lapsed_node(fleet: Fleet) -> None:
    """A block whose owner lapsed does not end the task that another node holds under its name."""
    node, heir = fleet.node(), fleet.node()
    heir.create("a")
    with pytest.raises(FencedError), node.task("a", "t"):
        die(node)
        node._lapsed()
        assert heir.recover().dropped_tasks == ("t",)
        heir.begin_task("a", "t")
    assert heir.get("a").state.active_tasks == ("t",)
    assert Work("task", "t") in heir.store.work_of("a", heir._core.owner_id)
    with node.task("a", "u"):
        pass
