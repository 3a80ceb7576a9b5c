"""What goes wrong with one of many changes does no harm to the others, and leaves nothing held."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from asking import NAMES, Asking, fire
from managing import House, await_event, no_gaps, once, wait_until

from session_fsm import SessionEvent, StoreUnavailableError
from session_fsm.stores import sqlite_commit
from session_fsm.stores.abc import NotTogetherError
from session_fsm.stores.records import Commit

pytest_plugins = ("manager_fixtures",)


@pytest.mark.parametrize("lands", [False, True])
def test_together_faults_asks_for_a_lost_answer(asking: Asking, *, lands: bool) -> None:
    """A commit whose answer is lost is asked for by a thread of its own; no other waits for it."""
    store, go_on = asking.store, threading.Event()
    of_all: Callable[..., list[Any]] = type(store).commit_all

    def lose(commits: list[Commit]) -> list[Any]:
        lost = next(each for each in commits if each.session_id == "s0")
        others = [each for each in commits if each is not lost]
        if lands:
            store.commit(lost)
        came = of_all(store, others)
        fault = StoreUnavailableError(problem="cut off", operation_id=lost.operation_id)
        came.insert(commits.index(lost), fault)
        return came

    store.commit_all = lose  # type: ignore[method-assign, assignment]
    store.before["landed"] = once(lambda *_: await_event(go_on))
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    assert list(told) == list(NAMES[1:])
    assert all(change.state.status == "idle" for change in told.values())
    go_on.set()
    wait_until(lambda: "s0" in asking.told)
    assert asking.threads["s0"] != threading.get_ident()
    came = asking.told["s0"]
    if lands:
        assert came.state.status == "idle"
    else:
        assert isinstance(came, StoreUnavailableError)
        assert came.operation_id is None
    assert asking.status("s0") == ("idle" if lands else "active")
    assert no_gaps(asking.manager, "s0")


def test_together_faults_finishes_what_is_left_by_the_store(asking: Asking) -> None:
    """What a store could not write with others is written, and told, by another thread."""
    store, go_on = asking.store, threading.Event()

    def later(commits: list[Commit]) -> list[Any]:
        def make(commit: Commit) -> Callable[[], None]:
            def made() -> None:
                await_event(go_on)
                store.commit(commit)

            return made

        return [make(commit) for commit in commits]

    store.commit_all = later  # type: ignore[method-assign, assignment]
    assert asking(("s0", fire("touch")), ("s1", fire("touch"))) == {}
    assert not asking.is_at_hand("s0")
    go_on.set()
    wait_until(lambda: len(asking.told) == 2)
    assert {change.revision for change in asking.told.values()} == {3}
    assert threading.get_ident() not in asking.threads.values()
    assert asking.manager.touch("s0").revision == 4


def test_together_faults_holds_nothing_in_its_name_that_it_has_handed_on(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that has handed on a session, and comes back to it, waits as any other."""
    store, start = asking.store, threading.Thread.start
    starting: list[threading.Thread] = []

    def keep(thread: threading.Thread) -> None:
        starting.append(thread)

    def later(commits: list[Commit]) -> list[Any]:
        return [partial(store.commit, commit) for commit in commits]

    store.commit_all = later  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(threading.Thread, "start", keep)
    assert asking(("s0", fire("touch"))) == {}
    monkeypatch.undo()
    slot = asking.manager._core.slots.known("s0")
    assert slot is not None
    assert slot.holder is None
    [finishing] = starting
    start(finishing)
    assert asking.manager.touch("s0").revision == 4


def test_together_faults_go_again_what_is_left_and_too_late(asking: Asking, house: House) -> None:
    """What is written by itself, and finds another revision by then, is told as not made."""
    store, other = asking.store, house.open(store=asking.store)

    def later(commits: list[Commit]) -> list[Any]:
        def made() -> None:
            other.touch("s0")
            store.commit(commits[0])

        return [made]

    store.commit_all = later  # type: ignore[method-assign, assignment]
    asking(("s0", fire("go_idle")))
    wait_until(lambda: "s0" in asking.told)
    assert asking.told == {"s0": None}
    assert asking.manager.fire("s0", "go_idle").revision == 4


def test_together_faults_decides_afresh_what_came_too_late(asking: Asking, house: House) -> None:
    """Where another manager was first, on the way to the store, nothing is told but to go again."""
    other = house.open(store=asking.store)
    other.get("s0")

    def first(*_: object) -> None:
        other.touch("s0")

    asking.store.before["commit_all"] = once(first)
    told = asking(("s0", fire("go_idle")), ("s1", fire("go_idle")))
    assert told.pop("s0") is None
    assert told["s1"].state.status == "idle"
    assert asking.manager.fire("s0", "go_idle").revision == 4


class OddError(StoreUnavailableError):
    """An error of somebody's store, which can't be copied."""

    def __reduce__(self) -> Any:
        raise TypeError("not to be copied")


@pytest.mark.parametrize(
    "fault",
    [StoreUnavailableError(problem="full"), MemoryError(), SystemExit(), OddError(problem="full")],
)
def test_together_faults_tells_all_of_a_fault(asking: Asking, fault: BaseException) -> None:
    """A store that fails at all of them fails each, with an error of its own, and locks none."""
    fault.__cause__ = ValueError("why")

    def fail(*_: object) -> None:
        raise fault

    asking.store.before["commit_all"] = once(fail)
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    assert {type(came) for came in told.values()} == {type(fault)}
    assert {came.__cause__ for came in told.values()} == {fault.__cause__}
    if type(fault) in (StoreUnavailableError, MemoryError):
        assert len({id(came) for came in told.values()}) == len(NAMES)
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_faults_leaves_what_is_not_written_with_others(asking: Asking) -> None:
    """What can't be written with others is to be made by itself, and has its own answer then."""
    asking.store.commit_all = lambda commits: [  # type: ignore[method-assign]
        NotTogetherError(problem="alone") for _ in commits
    ]
    assert asking(*((name, fire("touch")) for name in NAMES)) == dict.fromkeys(NAMES)
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_faults_holds_nothing_when_it_fails_itself(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it can't go on, what was decided by then is let go of, and was not written."""
    get, asked = type(asking.manager._core.slots).get, []

    def fail(self: Any, session_id: str) -> Any:
        asked.append(session_id)
        if len(asked) == 3:
            raise MemoryError
        return get(self, session_id)

    monkeypatch.setattr(type(asking.manager._core.slots), "get", fail)
    with pytest.raises(MemoryError):
        asking(*((name, fire("go_idle")) for name in NAMES))
    monkeypatch.undo()
    assert asking.told == {}
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_faults_fails_one_for_its_own_error(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kind of error one commit has in a store, it is told of that one alone."""

    def fail(commit: Commit) -> None:
        if commit.session_id == "s2":
            raise OSError("of this one alone")

    apply = sqlite_commit.PreparedCommit.apply

    def failing(self: Any, writer: Any) -> None:
        apply(self, writer)
        fail(self._commit)

    asking.store.before["commit"] = fail
    monkeypatch.setattr(sqlite_commit.PreparedCommit, "apply", failing)
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    monkeypatch.undo()
    asking.store.before.clear()
    assert isinstance(told.pop("s2"), OSError)
    assert {str(change.state.status) for change in told.values()} == {"idle"}
    assert asking.status("s2") == "active"
    assert asking.manager.verify().problems == ()


def test_together_faults_takes_too_few_outcomes_for_a_fault(asking: Asking) -> None:
    """A store that does not answer for each commit has failed at all of them."""
    asking.store.commit_all = lambda _: [None]  # type: ignore[method-assign, assignment]
    told = asking(*((name, fire("touch")) for name in NAMES))
    assert {type(came) for came in told.values()} < {RuntimeError, ValueError}
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_faults_lets_go_of_what_is_made_whatever_fails(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one can't be concluded, that one is told of it; the others are told, and none locked."""
    conclude = type(asking.manager._core).conclude

    def fail(self: Any, plan: Any, seconds: Any) -> None:
        conclude(self, plan, seconds)
        if plan.commit.session_id == "s2":
            raise MemoryError

    monkeypatch.setattr(type(asking.manager._core), "conclude", fail)
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    monkeypatch.undo()
    assert isinstance(told.pop("s2"), MemoryError)
    assert {str(change.state.status) for change in told.values()} == {"idle"}
    assert {asking.status(name) for name in NAMES} == {"idle"}


def test_together_faults_finishes_by_itself_where_no_thread_can_be_had(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is finished here then, and told when no session of the group is held."""
    store = asking.store

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def asked_for(commits: list[Commit]) -> list[Any]:
        return [partial(store.commit, commit) for commit in commits]

    def touch_others(event: SessionEvent) -> None:
        if event.trigger == "go_idle":
            asking.manager.touch(NAMES[-1 - NAMES.index(event.session_id)])

    store.commit_all = asked_for  # type: ignore[method-assign, assignment]
    asking.manager.subscribe(touch_others)
    monkeypatch.setattr(threading.Thread, "start", start)
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    monkeypatch.undo()
    assert {change.revision for change in told.values()} == {3}
    assert {asking.manager.get(name).revision for name in NAMES} == {4}
