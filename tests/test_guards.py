"""Guards and deadlines: a yes, a no in words, and faults that are never taken for a no."""

import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from session_fsm.errors import FailedGuard, GuardError, StateInvalidError
from session_fsm.guards import Attempt, Deadline, Guard, after_grace, guard, requires_feature
from session_fsm.state import SessionState

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def attempt(at: datetime = AT, graces: dict[str, timedelta] | None = None) -> Attempt:
    """An attempt on a new session."""
    state = SessionState.new("s", at=AT)
    return Attempt(state=state, at=at, arguments={}, graces=graces or {})


class NumpyBool:
    """What numpy's comparisons give: true or false, and no bool."""

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return other is True

    def __repr__(self) -> str:
        return "NumpyBool()"

    __hash__ = None  # type: ignore[assignment]  # as numpy's arrays


def raising(fault: Exception) -> Callable[[Attempt], Any]:
    """A function that raises."""

    def call(_: Attempt) -> Any:
        raise fault

    return call


@pytest.mark.parametrize("answer", [True, False])
def test_guards_answer_with_bools(answer: bool) -> None:
    """A guard that returns a bool is taken at its word."""
    guard = Guard("a guard", lambda _: answer, "because")
    assert guard.passes(attempt(), "go") is answer


@pytest.mark.parametrize(
    "answer",
    [None, 1, 0, "", "yes", (), [1], 1.0, NumpyBool(), object],
    ids=lambda value: type(value).__name__,
)
def test_guards_answers_that_are_no_bools_are_faults(answer: object) -> None:
    """Whatever is no bool is an error that names guard, trigger and type, also if it is falsy."""
    guard = Guard("a guard", lambda _: answer, "because")  # type: ignore[arg-type, return-value]  # what is tested
    with pytest.raises(GuardError) as caught:
        guard.passes(attempt(), "go")
    error = caught.value
    assert (error.guard, error.trigger) == ("a guard", "go")
    assert error.problem == f"returned {type(answer).__name__}, not a bool"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (KeyError("task_id"), "raised KeyError: 'task_id'"),
        (ZeroDivisionError("by zero"), "raised ZeroDivisionError: by zero"),
        (AssertionError(), "raised AssertionError"),
        (StopIteration(), "raised StopIteration"),
        (RecursionError("too deep"), "raised RecursionError: too deep"),
    ],
    ids=repr,
)
def test_guards_that_raise_are_faults(fault: Exception, told: str) -> None:
    """A guard that raises is an error with its cause, whatever it raises."""
    with pytest.raises(GuardError) as caught:
        Guard("a guard", raising(fault), "because").passes(attempt(), "go")
    assert caught.value.problem == told
    assert caught.value.__cause__ is fault
    assert str(caught.value) == f"guard 'a guard' of 'go' {told}"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_guards_let_interruptions_through(interruption: type[BaseException]) -> None:
    """What ends a program is no fault of a guard."""

    def check(_: Attempt) -> bool:
        raise interruption

    with pytest.raises(interruption):
        Guard("a guard", check, "because").passes(attempt(), "go")


def test_guards_give_their_reasons() -> None:
    """A reason is a string, or a function of the attempt."""
    assert Guard("a", lambda _: False, "so").failure(attempt(), "go") == FailedGuard("a", "so")
    told = Guard("b", lambda _: False, lambda shown: f"session {shown.state.session_id} is not")
    assert told.failure(attempt(), "go") == FailedGuard("b", "session s is not")


def test_guards_reasons_that_fail_are_faults() -> None:
    """A reason that raises, or is no text, is an error, not a refusal without words."""
    with pytest.raises(GuardError, match=r"raised ValueError: oops for its reason"):
        Guard("a", lambda _: False, raising(ValueError("oops"))).failure(attempt(), "go")
    for reason in (None, 5, b"so"):
        guard = Guard("a", lambda _: False, lambda _, reason=reason: reason)  # type: ignore[misc]  # what is tested
        with pytest.raises(GuardError, match=f"gave {type(reason).__name__} for its reason, not"):
            guard.failure(attempt(), "go")


# --- guards from functions -------------------------------------------------------------------


def test_guards_are_made_of_functions() -> None:
    """A decorated function is a guard, called as the function is unless it is named."""

    @guard("the door is shut")
    def _door_is_open(shown: Attempt) -> bool:
        """Ask the door."""
        return "open" in shown.state.config.features

    assert isinstance(_door_is_open, Guard)
    assert (_door_is_open.name, _door_is_open.needs) == ("door is open", ())
    assert not _door_is_open.passes(attempt(), "go")
    assert _door_is_open.failure(attempt(), "go") == FailedGuard("door is open", "the door is shut")

    @guard(lambda shown: f"{shown.arguments['by']} has no key", name="key", needs="by")
    def has_key(shown: Attempt) -> bool:
        return False

    assert (has_key.name, has_key.needs) == ("key", ("by",))
    assert guard("no", needs=("a", "b"))(has_key.check).needs == ("a", "b")
    shown = Attempt(attempt().state, AT, {"by": "ana"}, {})
    assert has_key.failure(shown, "go").reason == "ana has no key"


def test_guards_of_nameless_functions_are_named() -> None:
    """What has no name of its own makes no guard without one."""
    for nameless in (lambda _: True, functools.partial(bool)):
        with pytest.raises(TypeError, match="is given one"):
            guard("no")(nameless)
        assert guard("no", name="some name")(nameless).name == "some name"


def test_guards_of_features_follow_the_configuration() -> None:
    """The factory's guard passes with its feature, and tells without it what there is."""
    analysis = requires_feature("code_analysis")
    assert (analysis.name, analysis.needs) == ("feature code_analysis", ())
    for features, enabled in (((), "none"), (("search", "code"), "search, code")):
        state = SessionState.new("s", at=AT, config={"features": features})
        shown = Attempt(state, AT, {}, {})
        assert not analysis.passes(shown, "go")
        assert analysis.failure(shown, "go").reason == (
            f"the feature 'code_analysis' is not enabled (enabled: {enabled})"
        )
    state = SessionState.new("s", at=AT, config={"features": ["x", "code_analysis"]})
    assert analysis.passes(Attempt(state, AT, {}, {}), "go")


@pytest.mark.parametrize("feature", ["", " x", "a\nb", 5, None, "x" * 256])
def test_guards_of_features_that_nobody_can_have_are_refused(feature: Any) -> None:
    """A word that no configuration can hold is told when the guard is made."""
    with pytest.raises(ValueError, match=r"^feature: "):
        requires_feature(feature)


def test_guards_judge_arguments() -> None:
    """That an argument is no good is no fault of the guard, and passes through as it was said."""
    verdict = StateInvalidError(problems=("by: expected a name",))
    with pytest.raises(StateInvalidError) as caught:
        Guard("a", raising(verdict), "no").passes(attempt(), "go")
    assert caught.value is verdict


# --- deadlines -------------------------------------------------------------------------------


def test_guards_deadline_is_told_in_utc() -> None:
    """The instant of a deadline is in UTC, whatever offset it was found at."""
    east = timezone(timedelta(hours=2))
    deadline = Deadline("d", lambda shown: shown.at.astimezone(east))
    found = deadline.at(attempt(), "go")
    assert found == AT
    assert found is not None
    assert found.tzinfo is UTC
    assert Deadline("never", lambda _: None).at(attempt(), "go") is None


@pytest.mark.parametrize(
    ("find", "told"),
    [
        (lambda _: datetime(2026, 1, 1), "raised ValueError: an instant needs a time zone"),  # noqa: DTZ001 - naive
        (lambda _: date(2026, 1, 1), "raised TypeError: an instant is an aware datetime"),
        (lambda _: 5.0, "raised TypeError: an instant is an aware datetime, not float"),
        (raising(ZeroDivisionError()), "raised ZeroDivisionError"),
        (after_grace("missing").find, "raised KeyError: 'missing'"),
    ],
)
def test_guards_deadlines_that_fail_are_faults(find: Callable[[Attempt], Any], told: str) -> None:
    """A deadline that raises, or is no aware instant, is an error that names it, not a never."""
    deadline = Deadline("d", find)
    with pytest.raises(GuardError) as caught:
        deadline.at(attempt(), "go")
    assert (caught.value.guard, caught.value.trigger) == ("d", "go")
    assert caught.value.problem.startswith(told)
    for made in (deadline.passed(), deadline.not_passed("in time")):
        for ask in (made.passes, made.failure):
            with pytest.raises(GuardError) as caught:
                ask(attempt(), "go")
            assert (caught.value.guard, caught.value.trigger) == (made.name, "go")
            assert caught.value.problem.startswith(told)


def test_guards_deadline_beyond_the_calendar_never_comes() -> None:
    """An instant after the year 9999 is no fault: it does not come."""
    state = SessionState.new("s", at=datetime.max.replace(tzinfo=UTC))
    deadline = after_grace("start")
    shown = Attempt(state, state.updated_at, {}, {"start": timedelta(seconds=1)})
    assert deadline.at(shown, "go") is None
    assert deadline.passed().passes(shown, "go") is False
    assert deadline.not_passed("in time").passes(shown, "go") is True
    assert deadline.passed().failure(shown, "go").reason == (
        "no deadline runs (status_since + start grace)"
    )


@pytest.mark.parametrize(
    ("at", "due"),
    [(AT + timedelta(seconds=60) + nudge * MICROSECOND, nudge >= 0) for nudge in (-1, 0, 1)],
)
def test_guards_deadline_passes_exactly_at_its_instant(at: datetime, due: bool) -> None:
    """A deadline has passed from its very instant on; its two guards never agree."""
    deadline = after_grace("start")
    shown = attempt(at, {"start": timedelta(seconds=60)})
    assert deadline.passed().passes(shown, "go") is due
    assert deadline.not_passed("in time").passes(shown, "go") is not due


def test_guards_of_a_deadline_say_when() -> None:
    """The guards made of a deadline have names, and tell the instant and where it comes from."""
    deadline = after_grace("stop")
    assert (deadline.name, deadline.grace) == ("status_since + stop grace", "stop")
    shown = attempt(graces={"stop": timedelta(seconds=10)})
    assert deadline.passed().failure(shown, "go") == FailedGuard(
        "deadline passed", "not due before 2026-01-31T12:00:10+00:00 (status_since + stop grace)"
    )
    assert deadline.not_passed("in time").failure(shown, "go") == FailedGuard(
        "in time", "it was due by 2026-01-31T12:00:10+00:00 (status_since + stop grace)"
    )
