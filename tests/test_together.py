"""Changes of many sessions at one go: what is simple together, the rest by itself, nothing lost."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from asking import NAMES, Asking, fire, trust
from managing import House, SlowWorker, await_event, begin, end, no_gaps, once, triggers, wait_until

from session_fsm import InvalidTransitionError, SessionConfig, SessionEvent, StoreUnavailableError
from session_fsm.changes import Change, Observer
from session_fsm.decisions import Fire, MoveTo, Touch, Update
from session_fsm.stores import MemoryStore
from session_fsm.stores.abc import Outcome
from session_fsm.stores.records import Commit
from session_fsm.stores.spanning import SpanningStore
from session_fsm.testing.authors import Author
from session_fsm.together import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    SLOW_SECONDS,
    Asked,
    Together,
)

pytest_plugins = ("manager_fixtures",)


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
