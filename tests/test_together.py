"""Changes of many sessions at one go: what is simple together, the rest by itself, nothing lost."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from managing import (
    HookedStore,
    House,
    SlowWorker,
    await_event,
    begin,
    end,
    no_gaps,
    once,
    triggers,
    wait_until,
)

from session_fsm import (
    SESSION_LIFECYCLE,
    InvalidTransitionError,
    SessionConfig,
    SessionEvent,
    SessionManager,
    StoreUnavailableError,
)
from session_fsm.changes import Change, Observer
from session_fsm.decisions import Decision, Fire, MoveTo, Touch, Update
from session_fsm.stores import MemoryStore, sqlite_commit
from session_fsm.stores.abc import NotTogetherError, Outcome
from session_fsm.stores.records import Commit
from session_fsm.stores.spanning import SpanningStore
from session_fsm.testing.authors import Author
from session_fsm.together import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    SLOW_SECONDS,
    Asked,
    Together,
    _kind,
)

pytest_plugins = ("manager_fixtures",)

NAMES = tuple(f"s{number}" for number in range(6))


class Asking:
    """A manager with sessions, and what came of the changes that were asked for together."""

    def __init__(self, house: House) -> None:
        self.store: HookedStore = house.store()
        self.manager: SessionManager = house.open(store=self.store)
        self.now = 0.0
        self.together = Together(self.manager._core, lambda: self.now)
        self.told: dict[str, Any] = {}
        self.threads: dict[str, int] = {}
        for name in NAMES:
            self.manager.create(name)

    def __call__(self, *asked: tuple[str, Decision], revision: int | None = None) -> dict[str, Any]:
        """Ask for changes, of kinds that are quick; returns what is told when that is done."""
        for _, decision in asked:
            trust(self.together, decision)

        def tell(each: Asked, came: object) -> None:
            assert each.session_id not in self.told
            self.told[each.session_id] = came
            self.threads[each.session_id] = threading.get_ident()

        context = contextvars.copy_context
        made = [Asked(name, decision, revision, context()) for name, decision in asked]
        self.together.make(made, tell)
        return dict(self.told)

    def is_at_hand(self, session_id: object) -> bool:
        """Tell whether a session is at hand for what is quick."""
        touch = fire("touch")
        trust(self.together, touch)
        return self.together.is_at_hand(session_id, touch)

    def status(self, name: str) -> str:
        """Return the stored status of a session, which nobody has locked."""
        self.manager.touch(name)
        return str(self.manager.get(name).status)


@pytest.fixture
def asking(house: House) -> Asking:
    """Sessions in a house, all of them active and known."""
    return Asking(house)


def trust(together: Together, decision: Decision) -> None:
    """Take a kind of decision for quick, in whichever status."""
    for status in SESSION_LIFECYCLE.statuses:
        state: Any = SimpleNamespace(status=status)
        together._quick.add(_kind(decision, state))


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
        assert asking.is_at_hand(name)
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
    assert asking.is_at_hand("s0")
    assert not asking.is_at_hand("p0")  # it need not wait for what writes the others
    assert asking.manager.verify().problems == ()


def test_together_makes_what_is_not_kept_whatever_the_store_says(file_house: House) -> None:
    """Sessions in memory have no part in what goes wrong with the store of the others."""
    asking = Asking(file_house)
    asking.manager.create("p0", config={"persistence_enabled": False})

    def fail(*_: object) -> None:
        raise StoreUnavailableError(problem="full")

    asking.store.before["commit_all"] = once(fail)
    told = asking(*((name, fire("go_idle")) for name in (*NAMES, "p0")))
    assert told.pop("p0").state.status == "idle"
    assert {type(came) for came in told.values()} == {StoreUnavailableError}
    assert len({id(came) for came in told.values()}) == len(NAMES)


def test_together_creates_nothing_in_the_wrong_place(file_house: House) -> None:
    """A session that is not to be kept is created by itself: it has no home yet."""
    store = file_house.store()
    span = SpanningStore(store)
    author = Author(span, config_of=lambda _: SessionConfig(persistence_enabled=False))
    [outcome] = span.commit_all([author.draft("p0", "activate")])
    assert isinstance(outcome, StoreUnavailableError)
    assert outcome.operation_id is None
    assert store.load("p0") is span.load("p0") is None


def test_together_keeps_in_mind_what_is_in_use(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is only ever changed with others is let go of no sooner than any other."""
    monkeypatch.setattr("session_fsm.core.MAX_RECENT_SESSIONS", len(NAMES))
    asking = Asking(house)
    asking((NAMES[0], fire("touch")))
    asking.manager.create("one more")
    assert asking.is_at_hand(NAMES[0])
    assert not asking.is_at_hand(NAMES[1])


def test_together_keeps_no_more_in_mind_than_may_be(asking: Asking) -> None:
    """What was kept beyond the bound, because it was in use, is let go of afterwards."""
    slots = asking.manager._core.slots

    def shrink(_: object) -> None:
        slots._most = 2

    asking.store.before["commit_all"] = once(shrink)
    asking(*((name, fire("touch")) for name in NAMES))
    assert len(slots) == 2


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
    together = Together(manager._core)
    trust(together, manager._touch)
    together.make(asked, lambda _, came: told.append(came))
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
    assert not asking.is_at_hand("s0")
    told = asking(("s0", fire("touch")), ("s1", fire("touch")))
    assert told["s0"] is None
    assert told["s1"].revision == 3
    go_on.set()
    end(busy)
    twice: list[object] = []
    trust(asking.together, fire("touch"))
    asked = [Asked("s1", fire("touch"), None, contextvars.copy_context()) for _ in range(2)]
    asking.together.make(asked, lambda _, came: twice.append(came))
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
    assert not asking.is_at_hand("s0")
    go_on.set()
    wait_until(lambda: len(asking.told) == 2)
    assert {change.revision for change in asking.told.values()} == {3}
    assert threading.get_ident() not in asking.threads.values()
    assert asking.manager.touch("s0").revision == 4


def test_together_holds_nothing_in_its_name_that_it_has_handed_on(
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


def test_together_decides_afresh_what_is_left_and_too_late(asking: Asking, house: House) -> None:
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


class OddError(StoreUnavailableError):
    """An error of somebody's store, which can't be copied."""

    def __reduce__(self) -> Any:
        raise TypeError("not to be copied")


@pytest.mark.parametrize(
    "fault",
    [StoreUnavailableError(problem="full"), MemoryError(), SystemExit(), OddError(problem="full")],
)
def test_together_tells_all_of_a_fault(asking: Asking, fault: BaseException) -> None:
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


def test_together_leaves_what_is_not_written_with_others(asking: Asking) -> None:
    """What can't be written with others is to be made by itself, and has its own answer then."""
    asking.store.commit_all = lambda commits: [  # type: ignore[method-assign]
        NotTogetherError(problem="alone") for _ in commits
    ]
    assert asking(*((name, fire("touch")) for name in NAMES)) == dict.fromkeys(NAMES)
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_holds_nothing_when_it_fails_itself(
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


def test_together_fails_one_for_its_own_error(
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


def test_together_passes_over_no_commit_of_ones_own() -> None:
    """A kind of store that commits in its own way is not asked to commit in the way of another."""

    class Audited(MemoryStore):
        def commit(self, commit: Commit) -> None:
            super().commit(commit)

    class Auditing:
        def commit(self, commit: Commit) -> None:
            """Do nothing else."""

    class Mixed(Auditing, MemoryStore):
        pass

    assert not Mixed.commits_together

    class AuditedTogether(Audited):
        def commit_all(self, commits: Sequence[Commit]) -> list[Outcome]:
            return super().commit_all(commits)

        commits_together = True

    assert MemoryStore.commits_together
    assert not Audited.commits_together
    assert AuditedTogether.commits_together


def test_together_takes_too_few_outcomes_for_a_fault(asking: Asking) -> None:
    """A store that does not answer for each commit has failed at all of them."""
    asking.store.commit_all = lambda _: [None]  # type: ignore[method-assign, assignment]
    told = asking(*((name, fire("touch")) for name in NAMES))
    assert {type(came) for came in told.values()} < {RuntimeError, ValueError}
    assert {asking.status(name) for name in NAMES} == {"active"}


def test_together_lets_go_of_what_is_made_whatever_fails(
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


class Slow:
    """A decision that takes its time.

    Args:
        asking: Whose time.
        trigger: What it fires.
        seconds: How long it takes.
    """

    def __init__(self, asking: Asking, trigger: str, seconds: float) -> None:
        self._asking = asking
        self.trigger = trigger
        self._seconds = seconds

    def __call__(self, draft: Any) -> None:
        """Decide."""
        self._asking.now += self._seconds
        draft.fire(self.trigger)


def test_together_leaves_alone_what_takes_long(asking: Asking) -> None:
    """A kind of decision that was slow, or never made, is made alone; for longer each time."""
    quick, slow = (Slow(asking, "touch", share * SLOW_SECONDS) for share in (0.5, 2.0))
    together, core = asking.together, asking.manager._core
    told: list[bool] = []

    def ask(*names: str) -> list[bool]:
        told.clear()
        asked = [Asked(name, slow, None, contextvars.copy_context()) for name in names]
        together.make(asked, lambda _, came: told.append(came is not None))
        return list(told)

    def rests(seconds: float) -> None:
        core.change("s0", together.timed(quick))
        assert not together.is_at_hand("s0", quick)
        asking.now += 0.7 * seconds
        core.change("s0", together.timed(quick))
        assert not together.is_at_hand("s0", quick)
        asking.now += 0.3 * seconds
        core.change("s0", together.timed(quick))
        assert together.is_at_hand("s0", quick)

    asking.now = 100.0
    assert not together.is_at_hand("s0", quick)
    assert ask("s0") == [False]
    core.change("s0", together.timed(quick))
    assert together.is_at_hand("s0", slow)
    assert not together.is_at_hand("s0", fire("touch"))  # another kind, of another class
    assert sorted(ask("s0", "s1", "s2")) == [False, False, True]
    rests(FIRST_REST_SECONDS)
    assert ask("s0") == [True]
    rests(2 * FIRST_REST_SECONDS)
    asking.now += LONGEST_REST_SECONDS + FIRST_REST_SECONDS
    assert ask("s0") == [True]
    rests(FIRST_REST_SECONDS)


def test_together_tells_kinds_by_target_and_status(asking: Asking) -> None:
    """What is quick to one target, or out of one status, is not taken for quick elsewhere."""
    together, core = asking.together, asking.manager._core
    core.change("s0", together.timed(MoveTo("idle")))
    assert together.is_at_hand("s1", MoveTo("idle"))
    assert not together.is_at_hand("s1", MoveTo("terminating"))
    assert not together.is_at_hand("s0", MoveTo("idle"))


def test_together_remembers_no_made_up_triggers(asking: Asking) -> None:
    """What is refused leaves nothing behind, and makes what is made at one go no slower."""
    together, core = asking.together, asking.manager._core
    for decision in (fire("made up"), fire("resume")):
        with pytest.raises(InvalidTransitionError):
            core.change("s0", together.timed(decision))
        assert not together.is_at_hand("s0", decision)
    assert asking(("s0", fire("resume")), ("s1", fire("go_idle")))["s0"] is None
    assert together.is_at_hand("s2", fire("resume"))
    slow = Slow(asking, "resume", 2 * SLOW_SECONDS)
    trust(together, slow)
    with pytest.raises(InvalidTransitionError):
        core.change("s0", together.timed(slow))
    assert not together.is_at_hand("s2", slow)


@pytest.mark.parametrize("trigger", [None, 7, []])
def test_together_takes_anything_for_a_trigger(asking: Asking, trigger: Any) -> None:
    """What is no word is nothing that is known to be quick, and is refused elsewhere."""
    assert not asking.together.is_at_hand("s0", Fire(trigger))


def test_together_reads_nothing(asking: Asking) -> None:
    """A decision that would have to ask the store is left to a thread that may wait for it."""
    asking.store.calls.clear()
    told = asking(("s0", fire("terminate")), ("s1", fire("touch")))
    assert told["s0"] is None
    assert isinstance(told["s1"], Change)
    assert asking.store.calls["work_in"] == 0
    assert asking.manager.fire("s0", "terminate").status == "terminated"


def test_together_finishes_by_itself_where_no_thread_can_be_had(
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


def test_together_tells_nobody_late_because_of_a_batch(asking: Asking) -> None:
    """A change whose telling has to wait for that of a batch is told later; the others are not."""
    slots = asking.manager._core.slots
    asking.manager.subscribe(lambda _: None)
    with slots.hold_back(["s0"]):
        told = asking(*((name, fire("touch")) for name in NAMES))
        assert list(told) == list(NAMES[1:])
    wait_until(lambda: "s0" in asking.told)
    assert asking.told["s0"].revision == 3


def test_together_leaves_what_is_on_its_way_out(asking: Asking) -> None:
    """What may have more to follow, once it was looked for a worker, is made by itself."""
    asking.manager.create("w", start=lambda _: SlowWorker(asking.manager))
    assert asking.manager.fire("w", "terminate").status == "terminating"
    asking.store.calls.clear()
    told = asking(("w", Update({"metadata": {"k": 1}})), ("s1", fire("go_idle")))
    assert told["w"] is None
    assert told["s1"].state.status == "idle"
    assert asking.store.calls["work_in"] == 0
    asking.manager.begin_task("s2", "t")
    asking.manager.terminate("s2", wait=False)
    asking.told.clear()
    assert isinstance(asking(("s2", Update({"metadata": {"k": 1}})))["s2"], Change)


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
        assert revisions == [3, 4]
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
    trust(asking.together, decide)
    asking.together.make(asked, lambda *_: None)
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

    assert asking.is_at_hand("s0")
    asking.manager.observe(Watching())
    assert not asking.is_at_hand("s0")
    assert asking(("s0", fire("touch"))) == {"s0": None}


@pytest.mark.parametrize("session_id", [None, 7, [], "none", "\ud800"])
def test_together_knows_only_what_is_known(asking: Asking, session_id: object) -> None:
    """What is no id, or none of a session that was worked on here, is not at hand."""
    assert not asking.is_at_hand(session_id)


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
