"""Rows of one's own through a manager: arguments, effects, deadlines, and faults in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from managing import START, House, minutes, seconds, triggers

from session_fsm import (
    NO_ACTIVE_TASK,
    SESSION_LIFECYCLE,
    Attempt,
    Deadline,
    Guard,
    GuardError,
    GuardRejectedError,
    Lifecycle,
    LifecycleError,
    Row,
    SessionManager,
    StateInvalidError,
    after_grace,
    guard,
    requires_feature,
)

pytest_plugins = ("manager_fixtures",)


def raised(attempt: Attempt) -> Any:
    """Raise as a slip in a function of a lifecycle does."""
    raise ZeroDivisionError(f"of {attempt.state.session_id}")


def noted(attempt: Attempt) -> Mapping[str, Any]:
    """Keep every argument that came in the metadata."""
    return {"metadata": {**attempt.state.metadata, **attempt.arguments}}


@guard(lambda attempt: f"{attempt.arguments['pages']} pages are too many", needs="pages")
def is_short(attempt: Attempt) -> bool:
    """Let no more than three pages pass."""
    pages = attempt.arguments["pages"]
    if not isinstance(pages, int):
        raise StateInvalidError(problems=(f"pages: expected an integer, got {pages!r}",))
    return pages <= 3


DRAFT = Lifecycle(
    name="draft",
    statuses=("open", "review", "printed", "shredded"),
    initial="open",
    rows=(
        Row("write", "open", None, guards=is_short, required="pages", optional="mood",
            effect=noted, activity=True),
        Row("hand_in", "open", "review", guards=requires_feature("review")),
        Row("print", "review", "printed", effect=raised, deadline=after_grace("patience")),
        Row("spill", "open", None, effect=raised),
        Row("misspell", "open", None, effect=lambda _: {"colour": "red"}),
        Row("overflow", "open", None, effect=lambda _: {"conversation_count": -1}),
        Row("shred", ("open", "review"), "shredded", ending=True),
    ),
    graces={"patience": 60},
)  # fmt: skip
"""A text: some of its rows have slips in them."""


@pytest.fixture
def drafts(house: House) -> SessionManager:
    """A manager with one draft, `d`, that may be reviewed."""
    manager = house.open(lifecycle=DRAFT)
    manager.create("d", config={"features": ["review"]})
    return manager


def test_lifecycle_managed_arguments_reach_guard_and_effect(drafts: SessionManager) -> None:
    """Arguments of one's own are judged, kept by the effect, and stand in the history."""
    written = drafts.fire("d", "write", pages=2, reason="monday")
    assert written.state.metadata == {"pages": 2}
    assert drafts.fire("d", "write", pages=3, mood="good").state.metadata["mood"] == "good"
    with pytest.raises(GuardRejectedError, match="4 pages are too many") as caught:
        drafts.fire("d", "write", pages=4)
    assert caught.value.refusal == drafts.explain("d", "write", pages=4)
    assert [event.reason for event in drafts.history("d")] == [None, "monday", None]
    assert drafts.get("d").revision == 3


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({}, TypeError, "'write' needs the argument 'pages'"),
        ({"pages": 1, "colour": 2}, TypeError, "'write' takes no argument 'colour'; it takes pag"),
        ({"pages": 1, "at": START}, TypeError, "no row takes an argument 'at': the manager has"),
        ({"pages": 1, "state": 1}, TypeError, "no row takes an argument 'state': the manager has"),
        ({"pages": 1, "lifecycle": DRAFT}, TypeError, "no row takes an argument 'lifecycle': th"),
        ({"pages": "many"}, StateInvalidError, "pages: expected an integer, got 'many'"),
        ({"pages": 1, "mood": {1}}, StateInvalidError, "metadata.mood: set is no JSON value"),
    ],
)
def test_lifecycle_managed_bad_arguments_change_nothing(
    drafts: SessionManager, arguments: dict[str, Any], error: type[Exception], problem: str
) -> None:
    """An argument that is missing, unknown or no good is named; nothing is written."""
    before = drafts.get("d")
    with pytest.raises(error) as caught:
        drafts.fire("d", "write", **arguments)
    assert str(caught.value).startswith(problem)
    assert drafts.get("d") == before
    assert drafts.fire("d", "write", pages=1).revision == before.revision + 1


@pytest.mark.parametrize("name", ["at", "state", "lifecycle"])
def test_lifecycle_managed_dry_runs_name_what_is_no_argument(
    drafts: SessionManager, name: str
) -> None:
    """What a manager has of its own is no argument to its dry runs, nor to its moves."""
    asked: dict[str, Any] = {name: START}
    for ask in (
        lambda: drafts.explain("d", "hand_in", **asked),
        lambda: drafts.permitted("d", **asked),
        lambda: drafts.fire("d", "hand_in", **asked),
        lambda: drafts.transition("d", "review", **asked),
    ):
        with pytest.raises(TypeError, match=f"^no row takes an argument '{name}'"):
            ask()


@pytest.mark.parametrize(
    ("trigger", "error", "problem"),
    [
        ("spill", LifecycleError, "row 'spill' (open -> stays): its effect raised ZeroDivisionErr"),
        ("misspell", LifecycleError, "row 'misspell' (open -> stays): its effect sets colour,"),
        ("overflow", StateInvalidError, "conversation_count: expected an integer of at least 0"),
    ],
)
def test_lifecycle_managed_effects_that_fail_change_nothing(
    drafts: SessionManager, trigger: str, error: type[Exception], problem: str
) -> None:
    """A fault of an effect is told with its row, and its cause is kept; nothing is written."""
    before = drafts.get("d")
    with pytest.raises(error) as caught:
        drafts.fire("d", trigger)
    assert problem in str(caught.value)
    if trigger == "spill":
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert drafts.get("d") == before
    assert triggers(drafts, "d") == [None]
    assert drafts.verify().ok


def test_lifecycle_managed_sweep_names_what_it_could_not_fire(
    house: House, drafts: SessionManager
) -> None:
    """A timed row whose effect fails is named at each sweep, and holds up no other session."""
    drafts.create("e", config={"features": ["review"]})
    for name in ("d", "e"):
        drafts.fire(name, "hand_in")
    assert drafts.next_deadline() == START + seconds(60)
    drafts.terminate("e")
    house.clock.advance(seconds(60))
    for _ in range(2):
        report = drafts.sweep()
        assert report.fired == ()
        assert report.next_deadline == START + seconds(60)
        [(name, problem)] = report.failed
        assert name == "d"
        assert "row 'print' (review -> printed): its effect raised ZeroDivisionError" in problem
    assert drafts.get("d").status == "review"
    assert drafts.terminate("d").status == "shredded"
    assert drafts.sweep().failed == ()


def test_lifecycle_managed_deadlines_follow_the_state(house: House) -> None:
    """A deadline of one's own moves with what it is made of, in the store too."""

    def find(attempt: Attempt) -> datetime | None:
        hours = attempt.state.metadata.get("hours")
        return None if hours is None else attempt.state.created_at + timedelta(hours=hours)

    lifecycle = SESSION_LIFECYCLE.extend(
        name="booked",
        rows=[
            Row(
                "close_down",
                ("active", "idle"),
                "terminating",
                guards=NO_ACTIVE_TASK,
                deadline=Deadline("created_at + hours", find),
            )
        ],
    )
    manager = house.open(lifecycle=lifecycle)
    manager.create("a", config={"timeout_minutes": None})
    assert manager.next_deadline() is None
    manager.update("a", metadata={"hours": 2})
    assert manager.next_deadline() == START + timedelta(hours=2)
    manager.update("a", metadata={"hours": 5})
    assert manager.next_deadline() == START + timedelta(hours=5)
    manager.begin_task("a", "t")
    assert manager.next_deadline() is None
    house.clock.advance(timedelta(hours=6))
    assert manager.sweep().fired == ()
    manager.end_task("a", "t")
    assert [event.trigger for event in manager.sweep().fired] == ["close_down", "finish"]


def test_lifecycle_managed_faulty_deadlines_are_told_before_they_are_entered(house: House) -> None:
    """A status whose deadline can't be found is not entered; nothing is lost."""
    lifecycle = DRAFT.extend(
        name="faulty",
        rows=[Row("rot", "review", "shredded", deadline=Deadline("some day", raised))],
    )
    manager = house.open(lifecycle=lifecycle)
    before = manager.create("d", config={"features": ["review"]})
    with pytest.raises(
        GuardError, match=r"^guard 'some day' of 'rot' raised ZeroDivisionError: of"
    ):
        manager.fire("d", "hand_in")
    assert manager.get("d") == before
    assert manager.terminate("d").status == "shredded"


@pytest.mark.parametrize(
    "move",
    [
        lambda manager: manager.end_task("a", "t").status == "active",
        lambda manager: manager.touch("a").revision == 4,
        lambda manager: manager.terminate("a", wait=False).status == "terminating",
        lambda manager: manager.fail("a", "boom").status == "terminated",
    ],
)
def test_lifecycle_managed_broken_rows_harm_no_others(
    house: House, move: Callable[[SessionManager], bool]
) -> None:
    """A broken guard is an error of its own row alone, whatever is decided beside it."""
    broken = Guard("broken", raised, "?")
    lifecycle = SESSION_LIFECYCLE.extend(
        name="broken",
        rows=[
            Row("nap", ("active", "idle"), None, guards=broken),
            Row("dream", "terminating", None, guards=broken),
            Row("go_idle", "active", "idle", guards=Guard("restless", lambda _: False, "no rest")),
        ],
    )
    manager = house.open(lifecycle=lifecycle)
    manager.create("a")
    manager.begin_task("a", "t")
    assert move(manager)
    assert manager.verify().ok


def test_lifecycle_managed_refusals_name_broken_rows(house: House) -> None:
    """A refusal beside a broken row tells why, and what else is wrong, by every way to it."""
    lifecycle = SESSION_LIFECYCLE.extend(
        name="broken",
        rows=[Row("nap", "active", None, guards=Guard("broken", raised, "?"))],
    )
    manager = house.open(lifecycle=lifecycle)
    manager.create("a")
    house.clock.advance(minutes(30))
    with pytest.raises(GuardRejectedError) as caught:
        manager.touch("a")
    refusal = caught.value.refusal
    assert refusal == manager.explain("a", "touch")
    assert "nap" not in refusal.permitted
    assert refusal.broken == ("guard 'broken' of 'nap' raised ZeroDivisionError: of a",)
    for ask in (lambda: manager.explain("a", "nap"), lambda: manager.permitted("a")):
        with pytest.raises(GuardError, match="broken"):
            ask()


def test_lifecycle_managed_pages_begin_behind_text(drafts: SessionManager) -> None:
    """What a page is to begin behind must be text, in every store."""
    for after in ("\udcff", "a\x00"):
        with pytest.raises(ValueError, match=r"^after: contains"):
            drafts.list(after=after)
    with pytest.raises(ValueError, match=r"^after: expected a string or null, got 5"):
        drafts.list(after=5)  # type: ignore[arg-type]  # what is tested
    assert drafts.list(after="zzz").sessions == ()
