"""A commit of which nobody knew that it would land, and what becomes of the worker it claims."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from managing import HookedStore, House, Worker, begin, end, once, triggers, work_left

from session_fsm import (
    RecoveryReport,
    SessionConfig,
    SessionManager,
    StoreUnavailableError,
    TransitionError,
)
from session_fsm.stores.records import Commit, Work
from session_fsm.testing.authors import END_OF_TIME

pytest_plugins = ("manager_fixtures",)

WORKER = Work("worker")


def cut_off(*_: object) -> None:
    """Fail as a store that can't be reached."""
    raise StoreUnavailableError(problem="cut off")


def lose_claims(store: HookedStore) -> None:
    """Have the answer be lost to each commit that claims a worker, and nobody know of it."""

    def lose(commit: Commit) -> None:
        if WORKER in commit.claims:
            raise StoreUnavailableError(problem="cut off", operation_id=commit.operation_id)

    store.after["commit"] = lose
    store.before["landed"] = cut_off


def heal(store: HookedStore) -> None:
    """Let all be as it is."""
    store.before.clear()
    store.after.clear()


def begun(house: House, recovery: str = "release") -> tuple[SessionManager, HookedStore, Worker]:
    """Return a manager that was told that a session could not be begun, though it was."""
    store = house.store()
    manager = house.open(store=store)
    worker = Worker()
    lose_claims(store)
    config = SessionConfig(recovery=recovery)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailableError) as caught:
        manager.create("a", config=config, start=lambda _: worker)
    assert caught.value.operation_id is not None
    assert worker.stops == 1
    return manager, store, worker


def test_landing_of_a_claim_is_asked_for_again(house: House) -> None:
    """A session whose worker was claimed after all, and was stopped, is put to rest."""
    manager, store, _ = begun(house)
    assert manager.recover() == RecoveryReport()  # nobody knows yet
    heal(store)
    assert work_left(manager, "a") == {WORKER}
    assert manager.recover() == RecoveryReport(released=("a",))
    assert manager.get("a").status == "idle"
    assert work_left(manager, "a") == set()
    assert manager.recover() == RecoveryReport()


def test_landing_of_a_claim_ends_a_session_with_the_cause(house: House) -> None:
    """A session whose policy is to end then is told why, and it is not that its owner died."""
    manager, store, _ = begun(house, "end")
    heal(store)
    assert manager.recover() == RecoveryReport(ended=("a",))
    error = "its worker was claimed and did not run: the store did not answer in time"
    assert manager.get("a").state.error == error


def test_landing_of_a_claim_starts_a_worker_anew(house: House) -> None:
    """A session whose policy is to start its worker anew gets another one."""
    manager, store, _ = begun(house, "restart")
    heal(store)
    worker = Worker()
    assert manager.recover(restart=lambda _: worker) == RecoveryReport(restarted=("a",))
    assert manager.get("a").worker is worker
    assert work_left(manager, "a") == {WORKER}


def test_landing_of_a_claim_is_not_forgotten_for_a_fault(house: House) -> None:
    """What can't be recovered at once is so by the next call: nobody else would."""
    manager, store, _ = begun(house)
    heal(store)
    store.before["commit"] = once(cut_off)
    report = manager.recover()
    assert [session_id for session_id, _ in report.failed] == ["a"]
    assert work_left(manager, "a") == {WORKER}
    assert manager.recover() == RecoveryReport(released=("a",))


def test_landing_of_a_claim_while_the_worker_stops(house: House) -> None:
    """A worker that is still being stopped runs: its session is recovered after that."""
    store = house.store()
    manager = house.open(store=store)
    reports: list[RecoveryReport] = []
    lose_claims(store)

    def on_stop() -> None:
        heal(store)
        reports.append(end(begin(manager.recover))[0])

    with pytest.raises(StoreUnavailableError):
        manager.create("a", start=lambda _: Worker(on_stop))
    assert reports == [RecoveryReport()]
    assert manager.recover() == RecoveryReport(released=("a",))


def test_landing_of_a_claim_that_somebody_has_ended(house: House) -> None:
    """A session that was ended meanwhile is let be, and no worker is started for it."""
    manager, store, _ = begun(house, "restart")
    heal(store)
    manager.terminate("a", wait=False)
    manager.sweep()
    assert manager.recover(restart=never) == RecoveryReport()
    assert triggers(manager, "a")[-2:] == ["terminate", "finish"]
    assert work_left(manager, "a") == set()


def test_landing_of_a_claim_that_was_let_go_of(house: House) -> None:
    """A session that lives without a worker, because the claim was let go of, gets none."""
    manager, store, _ = begun(house, "restart")
    heal(store)
    store.release("a", [WORKER], manager._core.owner_id)
    assert manager.recover(restart=never) == RecoveryReport()
    assert work_left(manager, "a") == set()


def test_landing_of_a_claim_that_was_compacted(house: House) -> None:
    """A claim whose event is gone behind a checkpoint is found by what is claimed."""
    manager, store, _ = begun(house)
    heal(store)
    manager.touch("a")
    manager.touch("a")
    manager.compact("a", keep=1)
    assert manager.recover() == RecoveryReport(released=("a",))
    assert work_left(manager, "a") == set()


@pytest.mark.parametrize("recovery", ["end", "restart"])
def test_landing_of_a_claim_that_was_made_anew(house: House, recovery: str) -> None:
    """Whoever has claimed the worker since it was looked up keeps it, and it runs on."""
    manager, store, _ = begun(house, recovery)
    heal(store)
    store.release("a", [WORKER], manager._core.owner_id)
    worker = Worker()

    def claim(*_: object) -> None:
        claimed = manager._starting.adopt("a")
        manager._workers.add("a", worker, claimed.owner_id)

    # Between the look at what is in doubt and what is decided.
    store.before["marks"] = once(lambda *_: end(begin(claim)))
    assert manager.recover(restart=never) == RecoveryReport()
    assert (worker.stops, manager.get("a").worker) == (0, worker)
    assert work_left(manager, "a") == {WORKER}
    manager.terminate("a")
    assert worker.stops == 1


@pytest.mark.parametrize("fate", ["kept", "compacted", "purged"])
def test_landing_of_what_has_left_no_trace_is_not_known(house: House, fate: str) -> None:
    """Whoever asks what became of a change is told that nobody knows, where its trace is gone."""
    store = house.store()
    manager, other = house.open(store=store), house.open(store=store)
    manager.create("a")

    def lose(commit: Commit) -> None:
        if fate == "compacted":
            other.touch("a")
            assert other.compact("a", keep=1) > 0
        elif fate == "purged":
            other.terminate("a")
            assert other.purge(ended_before=END_OF_TIME) == 1
        raise StoreUnavailableError(problem="cut off", operation_id=commit.operation_id)

    store.after["commit"] = once(lose)
    if fate == "kept":
        assert manager.touch("a").revision == 3
        return
    with pytest.raises(StoreUnavailableError) as caught:
        manager.touch("a")
    assert caught.value.operation_id is not None


def never(_: object) -> None:
    """Be called in vain."""
    raise AssertionError("a worker was started")


def test_landing_that_is_known_is_told(house: House) -> None:
    """Where the store can tell what became of a commit, so is who made it, either way."""
    store = house.store()
    manager = house.open(store=store)
    manager.create("a")
    outcomes: list[Callable[[Commit], None]] = []

    def lose(commit: Commit) -> None:
        raise StoreUnavailableError(problem="cut off", operation_id=commit.operation_id)

    outcomes.append(once(lose))
    store.after["commit"] = outcomes[0]
    assert manager.fire("a", "go_idle").status == "idle"
    store.after.clear()
    store.before["commit"] = once(lose)
    with pytest.raises(StoreUnavailableError) as caught:
        manager.fire("a", "resume")
    assert caught.value.operation_id is None
    assert manager.get("a").status == "idle"
    with pytest.raises(TransitionError):
        manager.fire("a", "go_idle")
