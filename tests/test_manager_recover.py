"""Recovery: what a dead owner left is cleared away, and nothing of a living one is touched."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from managing import (
    START,
    House,
    Recorder,
    RemoteManager,
    Worker,
    begin,
    end,
    minutes,
    no_gaps,
    once,
    seconds,
    together,
    triggers,
    work_left,
)

from session_fsm import (
    RecoveryReport,
    SessionConfig,
    SessionManager,
    StateInvalidError,
    StoreUnavailableError,
)
from session_fsm.stores.records import Work

pytest_plugins = ("manager_fixtures",)

Remote = Callable[[], RemoteManager]


def cut_off(*_: object) -> None:
    """Fail as a store that can't be reached."""
    raise StoreUnavailableError(problem="cut off")


def test_manager_recover_with_nothing_to_do(house: House, manager: SessionManager) -> None:
    """While every owner lives there is nothing to recover, whatever they have begun."""
    other = house.open()
    manager.create("a", start=lambda _: Worker())
    manager.begin_task("a", "t")
    other.begin_task("a", "u")
    before = manager.get("a")
    recorder = Recorder()
    manager.subscribe(recorder)
    assert manager.recover() == other.recover() == RecoveryReport()
    assert manager.get("a") == before
    assert recorder.events == []
    assert len(work_left(manager, "a")) == 3


def test_manager_recover_never_by_itself(house: House) -> None:
    """Opening a store recovers nothing: somebody has to ask for it."""
    dead = house.open()
    keeper = house.open()
    dead.create("a")
    dead.begin_task("a", "t")
    dead.close()
    late = house.open()
    assert late.get("a").state.active_tasks == keeper.get("a").state.active_tasks == ("t",)
    late.sweep()
    assert late.get("a").status == "active"


def test_manager_recover_tasks(house: House, manager: SessionManager) -> None:
    """Tasks of a dead owner are dropped, each by a step that names it; with none left, idle."""
    dead = house.open()
    for session_id in ("a", "b", "c"):
        manager.create(session_id)
    dead.begin_task("a", "x")
    dead.begin_task("a", "y")
    dead.begin_task("b", "x")
    manager.begin_task("b", "mine")
    manager.begin_task("c", "mine")
    dead.close()
    recorder = Recorder()
    manager.subscribe(recorder)
    report = manager.recover()
    assert report == RecoveryReport(released=("a", "b"), dropped_tasks=("x", "y", "x"))
    assert manager.get("a").status == "idle"
    assert manager.get("b").state.active_tasks == ("mine",)
    assert manager.get("c").revision == 3
    assert triggers(manager, "a")[-3:] == ["end_task", "end_task", "go_idle"]
    told = [event for event in manager.history("a") if event.trigger == "end_task"]
    assert [event.reason for event in told] == ["dropped: its owner died"] * 2
    assert [event.changes["active_tasks"] for event in told] == [["y"], []]
    assert len(recorder.events) == 4
    assert work_left(manager, "a") == set()
    assert manager.recover() == RecoveryReport()
    assert manager.verify().ok


def test_manager_recover_tasks_without_auto_idle(house: House) -> None:
    """A session left with no task goes idle, whether or not the ends of tasks let it rest."""
    manager, dead = house.open(auto_idle=False), house.open(auto_idle=False)
    manager.create("a")
    dead.begin_task("a", "x")
    dead.close()
    manager.recover()
    assert manager.get("a").status == "idle"


def test_manager_recover_half_started(house: House, manager: SessionManager) -> None:
    """A session whose start died with its owner is aborted; a start that goes on is not."""
    dead = house.open()
    reports: list[RecoveryReport] = []

    def start(_: object) -> None:
        # Closed within its own start, as a killed process leaves it.
        dead.close()
        reports.append(manager.recover())

    with pytest.raises(Exception, match="closed"):
        dead.create("a", start=start)
    assert reports == [RecoveryReport(ended=("a",))]
    state = manager.get("a").state
    assert (state.status, state.error) == ("terminated", "the owner died during the start")
    assert triggers(manager, "a") == [None, "abort"]

    def living(_: object) -> None:
        assert house.open().recover() == RecoveryReport()

    assert manager.create("b", start=living).status == "active"


def test_manager_recover_half_stopped(house: House, manager: SessionManager) -> None:
    """A session whose worker died with its owner while it was being ended is finished."""
    dead = house.open()
    dead.create("a", start=lambda _: Worker(dead.close))
    dead.begin_task("a", "t")
    with pytest.raises(Exception, match="closed"):
        dead.terminate("a")
    assert manager.get("a").status == "terminating"
    report = manager.recover()
    assert report == RecoveryReport(ended=("a",), dropped_tasks=("t",))
    assert manager.get("a").status == "terminated"
    assert triggers(manager, "a")[-2:] == ["end_task", "finish"]
    assert work_left(manager, "a") == set()


def test_manager_recover_half_stopped_with_work_of_the_living(house: House) -> None:
    """Half-stopped with a task of a living owner, it waits for that task, and then finishes."""
    manager, dead = house.open(), house.open()
    dead.create("a", start=lambda _: Worker())
    dead.begin_task("a", "theirs")
    manager.begin_task("a", "mine")
    manager.terminate("a", wait=False)
    dead._core.store.dismiss(dead._core.owner_id)
    assert manager.recover() == RecoveryReport(released=("a",), dropped_tasks=("theirs",))
    session = manager.get("a")
    assert (session.status, session.state.active_tasks) == ("terminating", ("mine",))
    assert manager.end_task("a", "mine").status == "terminated"


def test_manager_recover_a_stop_that_the_living_do(house: House) -> None:
    """Tasks of the dead in a session that a living owner is ending: dropped, and it finishes."""
    manager, dead = house.open(), house.open()
    manager.create("a")
    dead.begin_task("a", "t")
    manager.terminate("a", wait=False)
    dead.close()
    assert manager.recover() == RecoveryReport(ended=("a",), dropped_tasks=("t",))
    assert manager.get("a").state.error is None


def test_manager_recover_worker_of_a_session_that_lives_on(house: House) -> None:
    """A session whose worker died is put to rest; nothing waits for that worker any longer."""
    manager, dead = house.open(), house.open()
    dead.create("a", start=lambda _: Worker())
    dead.close()
    assert manager.recover() == RecoveryReport(released=("a",))
    assert triggers(manager, "a") == [None, "activate", "go_idle"]
    assert work_left(manager, "a") == set()
    assert manager.terminate("a").status == "terminated"


def test_manager_recover_worker_of_a_session_at_rest(house: House) -> None:
    """A dead worker of a session that rests already is let go of, without a step; it is told."""
    manager, dead = house.open(), house.open()
    dead.create("a", start=lambda _: Worker())
    manager.fire("a", "go_idle")
    dead.close()
    assert manager.recover() == RecoveryReport(released=("a",))
    assert triggers(manager, "a") == [None, "activate", "go_idle"]
    assert work_left(manager, "a") == set()
    assert manager.recover() == RecoveryReport()


def test_manager_recover_a_task_begun_again(house: House, manager: SessionManager) -> None:
    """A task that the dead owner began, and a living one began again, is not dropped."""
    dead = house.open()
    manager.create("a")
    dead.begin_task("a", "t")
    manager.end_task("a", "t")
    manager.begin_task("a", "t")
    dead.begin_task("a", "u")
    dead.close()
    assert manager.recover() == RecoveryReport(released=("a",), dropped_tasks=("u",))
    assert manager.get("a").state.active_tasks == ("t",)
    assert work_left(manager, "a") == {Work("task", "t")}


def test_manager_recover_a_task_begun_again_meanwhile(house: House) -> None:
    """Begun again by a living owner while the recovery decides: the recovery decides afresh."""
    store = house.store()
    manager, living, dead = house.open(store=store), house.open(), house.open()
    living.create("a")
    dead.begin_task("a", "t")
    dead.close()

    def begin_again(_: object) -> None:
        living.end_task("a", "t")
        living.begin_task("a", "t")

    mine = manager._core.owner_id
    hook = once(begin_again)
    store.before["commit"] = lambda commit: hook(commit) if commit.owner_id == mine else None
    assert manager.recover().dropped_tasks == ()
    assert living.get("a").state.active_tasks == ("t",)
    assert work_left(living, "a") == {Work("task", "t")}
    assert manager.recover() == RecoveryReport()


def test_manager_recover_by_many_at_once(house: House) -> None:
    """However many recover at once, each task is dropped once, and told by one of them."""
    managers, dead = [house.open() for _ in range(3)], house.open()
    for number in range(10):
        dead.create(f"s{number}", start=lambda _: Worker())
        dead.begin_task(f"s{number}", f"t{number}")
        if number % 2:
            managers[0].terminate(f"s{number}", wait=False)
    dead.close()
    reports = together(*(manager.recover for manager in managers))
    dropped = sorted(task for report in reports for task in report.dropped_tasks)
    assert dropped == [f"t{number}" for number in range(10)]
    ended = sorted(session_id for report in reports for session_id in report.ended)
    assert ended == [f"s{number}" for number in range(10) if number % 2]
    assert all(report.failed == () for report in reports)
    for number in range(10):
        expected = "terminated" if number % 2 else "idle"
        assert managers[0].get(f"s{number}").status == expected
        assert triggers(managers[0], f"s{number}").count("end_task") == 1
        assert no_gaps(managers[0], f"s{number}")
    assert managers[1].recover() == RecoveryReport()


def test_manager_recover_a_session_purged_meanwhile(house: House) -> None:
    """What is left of a session that is gone is let go of."""
    manager, dead = house.open(), house.open()
    store = house.store()
    other = house.open(store=store)
    manager.create("a")
    dead.begin_task("a", "t")
    dead.close()

    def purge(_: object) -> None:
        manager.fail("a", "boom")
        manager.purge(ended_before=START + seconds(1))

    store.after["take_over"] = once(lambda *_: purge(None))
    assert other.recover() == RecoveryReport()
    assert other.find("a") is None
    assert other.recover() == RecoveryReport()


def test_manager_recover_past_a_bad_session(house: House) -> None:
    """One session that can't be written leaves the others recovered, and is named."""
    store = house.store()
    manager, dead = house.open(store=store), house.open()
    for session_id in "abc":
        manager.create(session_id)
        dead.begin_task(session_id, session_id)
    dead.close()

    def poison(commit: object) -> None:
        if getattr(commit, "session_id", None) == "b":
            raise RuntimeError("poison")

    store.before["commit"] = poison
    report = manager.recover()
    assert report.dropped_tasks == ("a", "c")
    assert report.released == ("a", "c")
    assert [session_id for session_id, _ in report.failed] == ["b"]
    store.before.clear()
    assert manager.recover().dropped_tasks == ("b",)


def test_manager_recover_past_many_bad_sessions(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions that can't be recovered hold up none behind them, however many they are."""
    monkeypatch.setattr("session_fsm.recovering.BATCH_SIZE", 2)
    store = house.store()
    manager, dead = house.open(store=store), house.open()
    for session_id in "abcdefgh":
        manager.create(session_id)
        dead.begin_task(session_id, "t")
    dead.close()

    def poison(commit: object) -> None:
        if getattr(commit, "session_id", None) in set("abcdf"):
            raise RuntimeError("poison")

    store.before["commit"] = poison
    for released in (("e", "g", "h"), ()):
        report = manager.recover()
        assert [session_id for session_id, _ in report.failed] == list("abcdf")
        assert report.released == released
    store.before.clear()
    assert manager.recover().released == tuple("abcdf")


def test_manager_recover_goes_on_with_what_it_took_over(house: House) -> None:
    """What was taken over and could not be recovered, for want of the store, is so later."""
    dead = house.open()
    for session_id in ("a", "b", "c"):
        dead.create(session_id)
        dead.begin_task(session_id, "t")
    dead.close()
    store = house.store()
    manager = house.open(store=store)
    store.before.update(commit=once(cut_off), give_back=once(cut_off))
    with pytest.raises(StoreUnavailableError):
        manager.recover()
    assert manager.recover().dropped_tasks == ("t", "t", "t")
    assert {manager.get(each).status for each in ("a", "b", "c")} == {"idle"}
    assert work_left(manager, "a") == set()


def test_manager_recover_lets_go_while_a_task_ends(house: House) -> None:
    """The last living task ends just before the dead worker is let go of: the session finishes."""
    store = house.store()
    manager, living, dead = house.open(store=store), house.open(), house.open()
    dead.create("a", start=lambda _: Worker())
    living.begin_task("a", "t")
    living.terminate("a", wait=False)
    dead._core.store.dismiss(dead._core.owner_id)
    dying = dead._core.owner_id

    def end_task(session_id: str, work: object, owner_id: str) -> None:
        if owner_id in (dying, manager._core.owner_id):
            living.end_task("a", "t")

    store.before["release"] = once(end_task)
    assert manager.recover() == RecoveryReport(ended=("a",))
    assert triggers(manager, "a")[-1] == "finish"


def test_manager_recover_lets_go_of_nothing_newer(house: House) -> None:
    """Nobody claims a worker between two tries to let go of it: the second would let go of theirs.

    A store that has lost the answer to the first tries again.
    """
    store = house.store()
    manager, dead = house.open(store=store), house.open()
    dead.create("a", config=SessionConfig(recovery="restart"), start=lambda _: Worker())
    dead.close()
    claimed = threading.Event()
    claims = []

    def lose_the_answer(session_id: str, work: tuple[Work, ...], owner_id: str) -> None:
        claims.append(begin(manager._starting.adopt, session_id))
        store.after["commit"] = lambda _: claimed.set()
        claimed.wait(0.2)
        store.release(session_id, work, owner_id)

    store.after["release"] = once(lose_the_answer)
    assert manager.recover(restart=lambda _: None) == RecoveryReport(restarted=("a",))
    [adopted] = end(*claims)
    assert store.work_of("a", adopted.owner_id) == (Work("worker"),)


def test_manager_recover_while_a_session_is_ended(house: House) -> None:
    """A session that is ended while its worker is started anew waits for that worker's stop."""
    store = house.store()
    manager, other, dead = house.open(store=store), house.open(), house.open()
    dead.create("a", config=SessionConfig(recovery="restart"), start=lambda _: Worker())
    dead.close()
    worker = Worker()

    def start(_: object) -> Worker:
        other.terminate("a", wait=False)
        manager.sweep()
        assert manager.get("a").status == "terminating"
        assert work_left(manager, "a") == {Work("stop"), Work("worker")}
        store.before["load"] = once(cut_off)  # nobody can look whether it still lives
        return worker

    assert manager.recover(restart=start) == RecoveryReport(restarted=("a",))
    assert worker.stops == 0
    manager.sweep()
    assert worker.stops == 1
    assert manager.get("a").status == "terminated"
    assert work_left(manager, "a") == set()


def test_manager_recover_what_could_not_be_let_go_of(house: House) -> None:
    """A claim that the store did not take back in time is recovered by the next call."""
    store = house.store()
    manager, dead = house.open(store=store), house.open()
    dead.create("a", config=SessionConfig(recovery="restart"), start=lambda _: Worker())
    dead.close()
    store.before["release"] = once(cut_off)
    report = manager.recover(restart=lambda _: None)
    assert [session_id for session_id, _ in report.failed] == ["a"]
    assert work_left(manager, "a") == {Work("worker")}
    assert manager.recover() == RecoveryReport(released=("a",))
    assert work_left(manager, "a") == set()
    assert not manager._workers.unmanned


def test_manager_recover_expired_meanwhile(house: House) -> None:
    """A session whose task died with its owner expires only after the recovery, from then on."""
    manager, dead = house.open(), house.open()
    dead.create("a")
    dead.begin_task("a", "t")
    dead.close()
    house.clock.advance(minutes(500))
    assert manager.sweep().fired == ()
    manager.recover()
    assert manager.get("a").status == "idle"
    assert manager.next_deadline() == START + minutes(530)


def test_manager_recover_not_in_a_batch(house: House) -> None:
    """What a batch could undo is not started, and what is in doubt not forgotten in it."""
    manager = house.open()
    with pytest.raises(StateInvalidError, match="recover"), manager.batch():
        manager.recover()


# --- processes -------------------------------------------------------------------------------


def test_manager_recover_after_a_kill(file_house: House, remote: Remote) -> None:
    """Of two processes on one file one is killed: what it did is cleared away, the rest stays."""
    dead, living = remote(), remote()
    manager = file_house.open()
    living.call("create", "shared")
    dead.call("begin_task", "shared", "theirs")
    living.call("begin_task", "shared", "ours")
    dead.call("create", "alone")
    dead.call("begin_task", "alone", "x")
    dead.call("begin_task", "alone", "y")
    living.call("create", "well")
    living.call("begin_task", "well", "x")
    dead.call("create_with_worker", "supervised")
    dead.call("begin_task", "well", "again")
    living.call("end_task", "well", "again")
    living.call("begin_task", "well", "again")
    before = manager.get("well")
    assert manager.recover() == RecoveryReport()
    dead.kill()
    report = living.call("recover")
    assert sorted(report["dropped_tasks"]) == ["theirs", "x", "y"]
    assert sorted(report["released"]) == ["alone", "shared", "supervised"]
    assert report["ended"] == report["failed"] == []
    assert manager.get("shared").state.active_tasks == ("ours",)
    assert manager.get("alone").status == "idle"
    assert manager.get("well") == before
    assert manager.get("supervised").status == "idle"
    reasons = [event.reason for event in manager.history("alone") if event.trigger == "end_task"]
    assert reasons == ["dropped: its owner died"] * 2
    assert living.call("recover")["released"] == []
    assert living.call("end_task", "shared", "ours")["status"] == "idle"
    assert manager.verify().ok


def test_manager_recover_half_done_by_the_killed(file_house: House, remote: Remote) -> None:
    """Killed in the middle of a start it is aborted, in the middle of a stop finished."""
    starting, stopping, living = remote(), remote(), remote()
    manager = file_house.open()
    starting.ask("hang_in_start", "starting")
    assert starting.answer() == "hanging"
    stopping.ask("hang_in_stop", "stopping")
    assert stopping.answer() == "hanging"
    living.ask("hang_in_start", "living")
    assert living.answer() == "hanging"
    assert manager.recover() == RecoveryReport()
    statuses = {session.session_id: session.status for session in manager.list()}
    assert statuses == {
        "starting": "initializing",
        "stopping": "terminating",
        "living": "initializing",
    }
    starting.kill()
    stopping.kill()
    assert manager.recover() == RecoveryReport(ended=("starting", "stopping"))
    assert manager.get("starting").state.error == "the owner died during the start"
    assert manager.get("stopping").state.error is None
    assert triggers(manager, "stopping")[-2:] == ["terminate", "finish"]
    assert manager.get("living").status == "initializing"
    assert manager.recover() == RecoveryReport()


def test_manager_recover_by_two_processes_at_once(file_house: House, remote: Remote) -> None:
    """Two processes that recover at once drop each task once."""
    dead, *living = remote(), remote(), remote()
    for number in range(10):
        dead.call("create", f"s{number}")
        dead.call("begin_task", f"s{number}", f"t{number}")
    dead.kill()
    for process in living:
        process.ask("recover")
    reports = [process.answer() for process in living]
    dropped = sorted(task for report in reports for task in report["dropped_tasks"])
    assert dropped == [f"t{number}" for number in range(10)]
    assert all(report["failed"] == [] for report in reports)
    manager = file_house.open()
    assert manager.counts()["idle"] == 10
    assert manager.verify().ok
    assert manager.recover() == RecoveryReport()


def test_manager_recover_after_a_good_end(file_house: House, remote: Remote) -> None:
    """A process that closed its manager leaves its tasks to be recovered as a killed one does."""
    gone = remote()
    gone.call("create", "a")
    gone.call("begin_task", "a", "t")
    manager = file_house.open()
    gone.close()
    assert manager.recover() == RecoveryReport(released=("a",), dropped_tasks=("t",))


def test_manager_recover_while_the_living_work(file_house: House, remote: Remote) -> None:
    """Recoveries beside a process at work take nothing from it."""
    living = remote()
    manager = file_house.open()
    manager.create("a", config={"max_conversations": None})
    living.ask("work", "a", "t", 30)
    working = begin(living.answer)
    while not working.done():
        assert manager.recover() == RecoveryReport()
    end(working)
    assert manager.get("a").state.conversation_count == 30
    assert triggers(manager, "a").count("end_task") == 30
    assert manager.verify().ok
