"""Changes of many sessions at one go: what is simple together, the rest by itself, nothing lost."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from managing import (
    HookedStore,
    House,
    await_event,
    begin,
    end,
    no_gaps,
    once,
    triggers,
    wait_until,
)

from session_fsm import SessionEvent, SessionManager, StoreUnavailableError
from session_fsm.changes import Change, Observer
from session_fsm.decisions import Decision, Fire, Touch, Update
from session_fsm.stores.records import Commit
from session_fsm.together import Asked, change_together, is_at_hand

pytest_plugins = ("manager_fixtures",)

NAMES = tuple(f"s{number}" for number in range(6))


class Asking:
    """A manager with sessions, and what came of the changes that were asked for together."""

    def __init__(self, house: House) -> None:
        self.store: HookedStore = house.store()
        self.manager: SessionManager = house.open(store=self.store)
        self.told: dict[str, Any] = {}
        self.threads: dict[str, int] = {}
        for name in NAMES:
            self.manager.create(name)

    def __call__(self, *asked: tuple[str, Decision], revision: int | None = None) -> dict[str, Any]:
        """Ask for changes; returns what is told by the time that this is done."""

        def tell(each: Asked, came: object) -> None:
            assert each.session_id not in self.told
            self.told[each.session_id] = came
            self.threads[each.session_id] = threading.get_ident()

        context = contextvars.copy_context
        made = [Asked(name, decision, revision, context()) for name, decision in asked]
        change_together(self.manager._core, made, tell)
        return dict(self.told)

    def status(self, name: str) -> str:
        """Return the stored status of a session, which nobody has locked."""
        self.manager.touch(name)
        return str(self.manager.get(name).status)


@pytest.fixture
def asking(house: House) -> Asking:
    """Sessions in a house, all of them active and known."""
    return Asking(house)


def fire(trigger: str, **arguments: Any) -> Decision:
    """Return the decision to fire a trigger."""
    return Fire(trigger, None, arguments)


def test_together_writes_at_one_go(asking: Asking) -> None:
    """What many ask for is one call of the store, and each is told of its own change."""
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    assert asking.store.calls["commit_all"] == 1
    assert list(told) == list(NAMES)
    for name, change in told.items():
        assert (change.state.session_id, change.state.status, change.revision) == (name, "idle", 3)
        assert triggers(asking.manager, name) == [None, "activate", "go_idle"]
        assert is_at_hand(asking.manager._core, name)
    assert set(asking.threads.values()) == {threading.get_ident()}
    assert asking.manager.verify().problems == ()


def test_together_of_what_is_kept_and_what_is_not(file_house: House) -> None:
    """Sessions that are kept are written at one go, beside others of the manager that are not."""
    asking = Asking(file_house)
    for name in ("p0", "p1"):
        asking.manager.create(name, config={"persistence_enabled": False})
    told = asking(*((name, fire("go_idle")) for name in ("p0", *NAMES, "p1")))
    assert {name: str(change.state.status) for name, change in told.items()} == dict.fromkeys(
        ("p0", *NAMES, "p1"), "idle"
    )
    assert asking.store.calls["commit_all"] == 1
    assert asking.store.load("p0") is None
    assert asking.manager.verify().problems == ()


def test_together_keeps_in_mind_what_is_in_use(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is only ever changed with others is let go of no sooner than any other."""
    monkeypatch.setattr("session_fsm.core.MAX_RECENT_SESSIONS", len(NAMES))
    asking = Asking(house)
    asking((NAMES[0], fire("touch")))
    asking.manager.create("one more")
    assert is_at_hand(asking.manager._core, NAMES[0])
    assert not is_at_hand(asking.manager._core, NAMES[1])


def test_together_leaves_what_is_not_simple(asking: Asking, house: House) -> None:
    """A refusal, an unknown session and a change without a step are told as not made, by nobody."""

    def breaks(_: object) -> None:
        raise SystemExit

    house.open(store=asking.store).touch("s4")  # so that what is known here is old
    told = asking(
        ("s0", fire("resume")),
        ("none", fire("touch")),
        ("s1", Touch(timedelta(0))),
        ("s2", breaks),
        ("s3", fire("go_idle")),
        ("s4", fire("go_idle")),
    )
    assert isinstance(told.pop("s1"), Change)
    assert isinstance(told.pop("s3"), Change)
    assert told == {"s0": None, "none": None, "s2": None, "s4": None}
    assert asking.status("s3") == "idle"
    for name in ("s0", "s2", "s4"):
        assert asking.status(name) == "active"
        assert no_gaps(asking.manager, name)


def test_together_leaves_what_changes_nothing(house: House) -> None:
    """A touch that would note nothing new is not made together: that is no news to rely on."""
    manager = house.open(touch_resolution_seconds=60.0)
    manager.create("a")
    told: list[object] = []
    asked = [Asked("a", manager._touch, None, contextvars.copy_context())]
    change_together(manager._core, asked, lambda _, came: told.append(came))
    assert told == [None]
    assert manager.touch("a").revision == 2


def test_together_heeds_the_expected_revision(asking: Asking) -> None:
    """Who expects another revision than the one that is known is told by itself, after a look."""
    told = asking(("s0", fire("touch")), revision=1)
    assert told == {"s0": None}
    asking.told.clear()
    assert asking(("s0", fire("touch")), revision=2)["s0"].revision == 3


def test_together_waits_for_nobody(asking: Asking) -> None:
    """A session that is being changed by somebody else, or asked for twice, holds nobody up."""
    deciding, go_on = threading.Event(), threading.Event()

    def slowly(now: Any) -> Any:
        deciding.set()
        await_event(go_on)
        return {**now, "slow": True}

    busy = begin(asking.manager.update, "s0", metadata=slowly)
    await_event(deciding)
    assert not is_at_hand(asking.manager._core, "s0")
    told = asking(("s0", fire("touch")), ("s1", fire("touch")))
    assert told["s0"] is None
    assert told["s1"].revision == 3
    go_on.set()
    end(busy)
    twice: list[object] = []
    asked = [Asked("s1", fire("touch"), None, contextvars.copy_context()) for _ in range(2)]
    change_together(asking.manager._core, asked, lambda _, came: twice.append(came))
    assert sorted(type(came).__name__ for came in twice) == ["Change", "NoneType"]
    assert asking.manager.touch("s1").revision == 5


@pytest.mark.parametrize("lands", [False, True])
def test_together_asks_for_a_lost_answer(asking: Asking, *, lands: bool) -> None:
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


def test_together_finishes_what_is_left_by_the_store(asking: Asking) -> None:
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
    assert not is_at_hand(asking.manager._core, "s0")
    go_on.set()
    wait_until(lambda: len(asking.told) == 2)
    assert {change.revision for change in asking.told.values()} == {3}
    assert threading.get_ident() not in asking.threads.values()
    assert asking.manager.touch("s0").revision == 4


def test_together_decides_afresh_what_came_too_late(asking: Asking, house: House) -> None:
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


@pytest.mark.parametrize("fault", [StoreUnavailableError(problem="full"), MemoryError()])
def test_together_tells_all_of_a_fault(asking: Asking, fault: Exception) -> None:
    """A store that writes nothing fails each of them, with an error of its own, and locks none."""

    def fail(*_: object) -> None:
        raise fault

    asking.store.before["commit_all"] = once(fail)
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    assert {type(came) for came in told.values()} == {type(fault)}
    if isinstance(fault, StoreUnavailableError):
        assert len({id(came) for came in told.values()}) == len(NAMES)
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_goes_on_with_the_way_out(asking: Asking) -> None:
    """A session that is to end, with nobody to wait for, has ended when that is told."""
    asking(("s0", fire("terminate")), ("s1", fire("go_idle")))
    wait_until(lambda: "s0" in asking.told)
    assert asking.told["s0"].state.status == "terminated"
    assert triggers(asking.manager, "s0")[-2:] == ["terminate", "finish"]
    assert asking.told["s1"].state.status == "idle"


def test_together_tells_subscribers_first(asking: Asking) -> None:
    """Who subscribed hears of a change before it is told, and may change others of the same go."""
    heard: list[tuple[str, int]] = []

    def hear(event: SessionEvent) -> None:
        heard.append((event.session_id, event.revision))
        assert event.session_id not in asking.told
        if event.trigger == "go_idle":
            asking.manager.fire(NAMES[-1 - NAMES.index(event.session_id)], "touch")

    asking.manager.subscribe(hear)
    told = asking(*((name, fire("go_idle")) for name in NAMES))
    assert {change.revision for change in told.values()} == {3}
    assert {each for each in heard if each[1] == 3} == {(name, 3) for name in NAMES}
    for name in NAMES:
        revisions = [revision for session_id, revision in heard if session_id == name]
        assert revisions == sorted(revisions)
        assert no_gaps(asking.manager, name)


def test_together_is_done_in_the_context_of_who_asks(asking: Asking) -> None:
    """What decides, and whoever is told, sees the context of the one who asked for that change."""
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    seen: list[tuple[str, str]] = []
    asking.manager.subscribe(lambda event: seen.append((event.session_id, who.get())))

    def decide(draft: Any) -> None:
        seen.append(("decided", who.get()))
        draft.fire("touch")

    asked = []
    for name in NAMES:
        context = contextvars.copy_context()
        context.run(who.set, f"caller of {name}")
        asked.append(Asked(name, decide, None, context))
    change_together(asking.manager._core, asked, lambda *_: None)
    assert sorted(seen) == sorted(
        told
        for name in NAMES
        for told in ((name, f"caller of {name}"), ("decided", f"caller of {name}"))
    )


def test_together_is_for_nobody_who_is_watched(asking: Asking) -> None:
    """A change that an observer wraps is made by itself, as long as somebody observes."""

    class Watching(Observer):
        def begin(self, counts: object) -> None:
            """Hear nothing."""

        def around(self, session_id: str, decision: object, make: Callable[[], Change]) -> Change:
            """Do nothing else."""
            return make()

        def committed(self, steps: object, seconds: object) -> None:
            """Hear nothing."""

    core = asking.manager._core
    assert is_at_hand(core, "s0")
    asking.manager.observe(Watching())
    assert not is_at_hand(core, "s0")


@pytest.mark.parametrize("session_id", [None, 7, [], "none", "\ud800"])
def test_together_knows_only_what_is_known(asking: Asking, session_id: object) -> None:
    """What is no id, or none of a session that was worked on here, is not at hand."""
    assert not is_at_hand(asking.manager._core, session_id)


def test_together_makes_nothing_once_closed(asking: Asking) -> None:
    """A manager that was closed changes nothing."""
    asking.manager.close()
    assert asking(("s0", fire("touch"))) == {"s0": None}


def test_together_beside_threads_loses_nothing(asking: Asking) -> None:
    """Beside threads that change the same sessions each change that was told is stored."""
    rounds, made = 40, dict.fromkeys(NAMES, 0)

    def count(now: Any) -> Any:
        return {"n": now.get("n", 0) + 1}

    def by_thread(name: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(rounds):
                asking.manager.update(name, metadata=count)

        return run

    busy = [begin(by_thread(name)) for name in NAMES]
    for _ in range(rounds):
        asking.told.clear()
        told = asking(*((name, Update({"metadata": count})) for name in NAMES))
        for name, came in told.items():
            assert came is None or isinstance(came, Change)
            made[name] += came is not None
    end(*busy)
    for name in NAMES:
        session = asking.manager.get(name)
        assert session.state.metadata == {"n": rounds + made[name]}
        assert session.revision == 2 + rounds + made[name]
    assert asking.manager.verify().problems == ()
