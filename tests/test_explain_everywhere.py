"""One refusal for one state and instant, whoever is asked; and asking leaves no trace."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, get_args

import attrs
import pytest
from commanding import call
from managing import START, House, minutes

from session_fsm import (
    Attempt,
    Deadline,
    Guard,
    Lifecycle,
    Refusal,
    Row,
    SessionMachine,
    SessionManager,
    TransitionError,
    explain,
    permitted,
    step,
    transition,
)
from session_fsm.clock import instant_text
from session_fsm.errors import RefusalKind
from session_fsm.stores.abc import SessionStore

pytest_plugins = ("manager_fixtures",)

TASKS = ("build", "test")

Prepare = Callable[[SessionManager], object]


def _busy(manager: SessionManager) -> None:
    for task in TASKS:
        manager.begin_task("a", task)


def _full(manager: SessionManager) -> None:
    for _ in range(2):
        manager.start_conversation("a")


def _idle(manager: SessionManager) -> None:
    manager.transition("a", "idle")


def _draining(manager: SessionManager) -> None:
    _busy(manager)
    manager.terminate("a", wait=False)


def _ended(manager: SessionManager) -> None:
    manager.terminate("a")


def _nothing(manager: SessionManager) -> None:
    pass


TRIGGERS: list[tuple[Prepare, float, str, dict[str, Any], str, tuple[str, ...]]] = [
    # what was done before, how many minutes ago, what is asked, and what the answer must be
    (_nothing, 0, "explode", {}, "unknown_trigger", ()),
    (_busy, 0, "explode", {}, "unknown_trigger", ()),
    (_ended, 0, "explode", {}, "unknown_trigger", ()),
    (_idle, 0, "go_idle", {}, "wrong_status", ()),
    (_idle, 0, "begin_task", {"task_id": "t"}, "wrong_status", ()),
    (_ended, 0, "update", {"error": "x"}, "wrong_status", ()),
    (_busy, 0, "go_idle", {}, "guard", ("2 tasks are active: build, test",)),
    (_busy, 99, "expire", {}, "guard", ("2 tasks are active: build, test",)),
    (_draining, 0, "finish", {}, "guard", ("2 tasks are active: build, test",)),
    (_busy, 0, "begin_task", {"task_id": "test"}, "guard", ("task 'test' is active already",)),
    (_busy, 0, "end_task", {"task_id": "x"}, "guard", ("task 'x' is not active",)),
    (_idle, 30, "resume", {}, "guard", ("expired at 2026-03-01T12:30:00+00:00",)),
    (_nothing, 30, "touch", {}, "guard", ("expired at 2026-03-01T12:30:00+00:00",)),
    (
        _full,
        30,
        "start_conversation",
        {},
        "guard",
        ("2 conversations were started, 2 are allowed", "expired at 2026-03-01T12:30:00+00:00"),
    ),
    (
        _idle,
        0,
        "expire",
        {},
        "guard",
        ("not due before 2026-03-01T12:30:00+00:00 (last_activity_at + timeout_minutes)",),
    ),
]
TARGETS: list[tuple[Prepare, float, str, str]] = [
    (_nothing, 0, "asleep", "unknown_status"),
    (_busy, 0, "terminated", "no_edge"),
    (_idle, 31, "idle", "no_edge"),
    (_ended, 0, "active", "no_edge"),
]


def prepared(house: House, prepare: Prepare, ago: float) -> SessionManager:
    """A manager with one session, in which something was done some minutes ago."""
    manager = house.open()
    manager.create("a", config={"max_conversations": 2})
    prepare(manager)
    house.clock.advance(minutes(ago))
    return manager


def refusal_of(act: Callable[[], object]) -> Refusal:
    """Return the refusal in the error that something raises."""
    with pytest.raises(TransitionError) as caught:
        act()
    return caught.value.refusal


@pytest.mark.parametrize(("prepare", "ago", "trigger", "arguments", "kind", "reasons"), TRIGGERS)
def test_explain_everywhere_by_trigger(
    house: House,
    prepare: Prepare,
    ago: float,
    trigger: str,
    arguments: dict[str, Any],
    kind: str,
    reasons: tuple[str, ...],
) -> None:
    """Library, machine and manager, dry runs and errors: one refusal, with every reason."""
    manager = prepared(house, prepare, ago)
    before = manager.get("a")
    now = house.clock.now()
    told = [
        explain(before.state, trigger, at=now, **arguments),
        manager.explain("a", trigger, **arguments),
        refusal_of(lambda: step(before.state, trigger, at=now, **arguments)),
        refusal_of(lambda: SessionMachine(before.state).fire(trigger, at=now, **arguments)),
        refusal_of(lambda: manager.fire("a", trigger, **arguments)),
        refusal_of(lambda: manager.fire("a", trigger, reason="why not", **arguments)),
    ]
    [refusal] = set(told)
    assert refusal is not None
    assert (refusal.kind, refusal.trigger, refusal.status) == (kind, trigger, before.status)
    assert tuple(failed.reason for failed in refusal.failed_guards) == reasons
    assert refusal.permitted == permitted(before.state, at=now, **arguments)
    assert manager.get("a") == before


@pytest.mark.parametrize(("prepare", "ago", "to", "kind"), TARGETS)
def test_explain_everywhere_by_target(
    house: House, prepare: Prepare, ago: float, to: str, kind: str
) -> None:
    """A target that no row leads to is refused in the same words by library and manager."""
    manager = prepared(house, prepare, ago)
    before = manager.get("a")
    told = {
        refusal_of(lambda: transition(before.state, to, at=house.clock.now())),
        refusal_of(lambda: manager.transition("a", to)),
        refusal_of(lambda: manager.transition("a", to, reason="why not")),
    }
    [refusal] = told
    assert (refusal.kind, refusal.target, refusal.trigger) == (kind, to, None)
    assert refusal.permitted == manager.permitted("a")
    assert manager.get("a") == before


def test_explain_everywhere_targets_are_refused_by_their_rows(house: House) -> None:
    """A target that guards keep from being reached is refused as its trigger is."""
    manager = prepared(house, _busy, 0)
    assert refusal_of(lambda: manager.transition("a", "idle")) == manager.explain("a", "go_idle")


@pytest.mark.parametrize(
    ("prepare", "ago", "verb", "trigger", "arguments"),
    [
        (_busy, 0, lambda m: m.begin_task("a", "test"), "begin_task", {"task_id": "test"}),
        (_busy, 0, lambda m: m.end_task("a", "x"), "end_task", {"task_id": "x"}),
        (_busy, 0, lambda m: m.task("a", "test").__enter__(), "begin_task", {"task_id": "test"}),
        (_full, 0, lambda m: m.start_conversation("a"), "start_conversation", {}),
        (_idle, 30, lambda m: m.touch("a"), "touch", {}),
        (_idle, 30, lambda m: m.begin_task("a", "t"), "resume", {}),
        (_ended, 0, lambda m: m.begin_task("a", "t"), "begin_task", {"task_id": "t"}),
        (_ended, 0, lambda m: m.update("a", error="x"), "update", {}),
    ],
)
def test_explain_everywhere_by_verb(
    house: House, prepare: Prepare, ago: float, verb: Any, trigger: str, arguments: dict[str, Any]
) -> None:
    """A verb is refused as the trigger that it fires is explained."""
    manager = prepared(house, prepare, ago)
    assert refusal_of(lambda: verb(manager)) == manager.explain("a", trigger, **arguments)


@pytest.mark.parametrize(("prepare", "ago", "trigger", "arguments", "kind", "reasons"), TRIGGERS)
def test_explain_everywhere_on_the_command_line(
    file_house: House,
    prepare: Prepare,
    ago: float,
    trigger: str,
    arguments: dict[str, Any],
    kind: str,
    reasons: tuple[str, ...],
) -> None:
    """The command tells the same refusal: to machines every field, to people every reason."""
    manager = prepared(file_house, prepare, ago)
    refusal = manager.explain("a", trigger, **arguments)
    assert refusal is not None
    given = [word for name, value in arguments.items() for word in ("--arg", f"{name}={value}")]
    words = ("explain", "a", trigger, *given)
    now = file_house.clock.now()
    answer = call(*words, "--json", store=file_house.path, at=now)
    assert (answer.code, answer.err) == (3, "")
    timed = refusal.next_timed
    shown = None if timed is None else {"trigger": timed[0], "at": instant_text(timed[1])}
    fields = attrs.asdict(refusal) | {"next_timed": shown}
    assert answer.document["refusal"] == json.loads(json.dumps(fields))
    plain = call(*words, store=file_house.path, at=now)
    assert (plain.code, plain.err) == (3, "")
    for reason in reasons or (refusal.headline,):
        assert reason in plain.out


# --- without a trace -------------------------------------------------------------------------


class Counted:
    """A lifecycle whose guards, deadlines and effects count how often they are called."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

        def guard(name: str, answer: bool) -> Guard:
            def check(_: Attempt) -> bool:
                self.calls[name] += 1
                return answer

            return Guard(name, check, f"{name} says no")

        def effect(_: Attempt) -> Mapping[str, Any]:
            self.calls["effect"] += 1
            return {}

        def find(attempt: Attempt) -> Any:
            self.calls["deadline"] += 1
            return attempt.state.status_since + timedelta(hours=1)

        self.lifecycle = Lifecycle(
            statuses=("here", "there"),
            initial="here",
            rows=(
                Row("stay", "here", None, guards=guard("yes", True), effect=effect),
                Row(
                    "go",
                    "here",
                    "there",
                    guards=(guard("no", False), guard("never", False)),
                    effect=effect,
                ),
                Row("drift", "here", "there", deadline=Deadline("soon", find), effect=effect),
                Row("leave", "here", "there", effect=effect, ending=True),
            ),
            name="counted",
        )


READS = {"load", "work_in", "enlist", "page", "counts", "history", "next_deadline", "due", "tail"}
"""What asks a store without changing it, and `enlist`, by which a manager says that it lives."""


def test_explain_everywhere_asks_guards_and_changes_nothing(house: House) -> None:
    """However often one asks: guards are called, effects never, and the store is not written."""
    counted = Counted()
    store = house.store(counted.lifecycle)
    manager = house.open(store=store, lifecycle=counted.lifecycle)
    before = manager.create("a")
    counted.calls.clear()
    store.calls.clear()
    events: list[object] = []
    manager.subscribe(events.append)
    asked = 7
    for _ in range(asked):
        assert manager.explain("a", "stay") is None
        assert manager.explain("a", "go") is not None
        assert manager.permitted("a") == ("stay", "leave")
        assert refusal_of(lambda: manager.fire("a", "go")) == manager.explain("a", "go")
        refusal_of(lambda: manager.fire("a", "explode"))
        refusal_of(lambda: manager.transition("a", "here"))
    assert counted.calls["effect"] == 0
    for name in ("yes", "no", "never"):
        assert counted.calls[name] >= asked
    assert set(store.calls) <= READS
    assert "commit" in SessionStore.__abstractmethods__ - READS
    assert (manager.get("a"), events) == (before, [])
    manager.fire("a", "stay")
    assert counted.calls["effect"] == 1
    assert store.calls["commit"] == 1


def test_explain_everywhere_on_the_command_line_writes_nothing(file_house: House) -> None:
    """The command leaves the sessions of a store as they are."""
    manager = prepared(file_house, _busy, 0)
    history, before = manager.history("a"), manager.get("a")
    for trigger, code in (("go_idle", 3), ("touch", 0)):
        assert call("explain", "a", trigger, store=file_house.path, at=START).code == code
    assert (manager.history("a"), manager.get("a")) == (history, before)


def test_explain_everywhere_names_every_kind() -> None:
    """The comparisons above cover each kind of refusal that there is."""
    covered = {each[4] for each in TRIGGERS} | {each[3] for each in TARGETS}
    assert covered == set(get_args(RefusalKind))
