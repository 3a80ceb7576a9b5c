"""Errors carry fields, say something, survive pickling, and stand in one tree."""

import copy
import inspect
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from session_fsm import errors
from session_fsm.errors import (
    ContextTooLargeError,
    CorruptRecordError,
    DeserializationError,
    FailedGuard,
    FeedGapError,
    FencedError,
    GuardError,
    GuardRejectedError,
    InboxFullError,
    InvalidTransitionError,
    ItemConflictError,
    ItemNotFoundError,
    KeyMissingError,
    LifecycleError,
    ManagerClosedError,
    ProcessDiedError,
    Refusal,
    RefusalKind,
    RevisionConflictError,
    SchemaVersionError,
    SessionExistsError,
    SessionFsmError,
    SessionNotFoundError,
    SessionStartError,
    SessionSupervisedError,
    StateInvalidError,
    StoreError,
    StoreUnavailableError,
    TaskDroppedError,
    TransitionError,
)
from session_fsm.state import SessionStatus

REFUSAL = Refusal(
    kind="guard",
    trigger="resume",
    target=SessionStatus.ACTIVE,
    status=SessionStatus.IDLE,
    failed_guards=(FailedGuard("not expired", "expired at noon"),),
    permitted=("terminate", "expire", "update"),
    next_timed=("expire", datetime(2026, 1, 31, 12, tzinfo=UTC)),
)

PARENTS: dict[type[SessionFsmError], type[Exception]] = {
    SessionFsmError: Exception,
    TransitionError: SessionFsmError,
    InvalidTransitionError: TransitionError,
    GuardRejectedError: TransitionError,
    GuardError: SessionFsmError,
    SessionNotFoundError: SessionFsmError,
    SessionExistsError: SessionFsmError,
    SessionStartError: SessionFsmError,
    ItemNotFoundError: SessionFsmError,
    ContextTooLargeError: SessionFsmError,
    InboxFullError: SessionFsmError,
    ProcessDiedError: SessionFsmError,
    SessionSupervisedError: SessionFsmError,
    TaskDroppedError: SessionFsmError,
    StateInvalidError: SessionFsmError,
    DeserializationError: SessionFsmError,
    StoreError: SessionFsmError,
    RevisionConflictError: StoreError,
    ItemConflictError: StoreError,
    FencedError: StoreError,
    StoreUnavailableError: StoreError,
    SchemaVersionError: StoreError,
    CorruptRecordError: StoreError,
    KeyMissingError: StoreError,
    FeedGapError: StoreError,
    LifecycleError: SessionFsmError,
    ManagerClosedError: SessionFsmError,
}

EXAMPLES: dict[str, Any] = {
    "refusal": REFUSAL,
    "session_id": "chat-1",
    "task_id": "build",
    "table": "files",
    "key": "a.py",
    "waiting": 1000,
    "unit": "tokens",
    "needed": 12,
    "allowed": 10,
    "guard": "not expired",
    "trigger": "resume",
    "problem": "it broke",
    "lifecycle": "order",
    "cause": "no such image",
    "lives": True,
    "problems": ("status: missing", "error: expected a string or null, got 5"),
    "expected": 3,
    "found": 4,
    "supported": "1",
    "operation_id": "op-1",
    "key_id": "0123456789abcdef",
    "owner_id": "node-1",
    "after": 7,
    "kept_from": 90,
    "argv0": "/usr/bin/agent",
    "exit_code": 70,
    "signal": 15,
    "last_output": "no such model",
    "record": "event 3 of session 'chat-1'",
}


def fields_for(kind: type[SessionFsmError]) -> dict[str, Any]:
    """A value, unlike the default, for each field of an error."""
    values = {field.name: EXAMPLES[field.name] for field in attrs.fields(kind)}
    assert all(values[field.name] != field.default for field in attrs.fields(kind))
    return values


def defined_errors() -> Iterator[type[SessionFsmError]]:
    """The error classes that the module defines."""
    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, SessionFsmError):
            yield value


def test_errors_tree_is_the_contract() -> None:
    """The tree has the errors of the contract, each under its parent, and no other."""
    assert {kind: kind.__base__ for kind in defined_errors()} == PARENTS


@pytest.mark.parametrize("kind", PARENTS)
def test_errors_survive_pickling_and_copying(kind: type[SessionFsmError]) -> None:
    """A pickled or copied error is of the same class, has all fields, and says the same."""
    fields = fields_for(kind)
    error = kind(**fields)
    copies = [copy.copy(error), copy.deepcopy(error)]
    copies += [
        pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    for other in copies:
        assert type(other) is kind
        assert {name: getattr(other, name) for name in fields} == fields
        assert str(other) == str(error)


@pytest.mark.parametrize("kind", PARENTS)
def test_errors_messages_tell_their_fields(kind: type[SessionFsmError]) -> None:
    """A message is one line that is not empty, and the values that matter stand in it."""
    fields = fields_for(kind)
    message = str(kind(**fields))
    assert message.strip()
    assert "\n" not in message
    for name in fields.keys() - {"refusal", "session_id", "problems", "lives"}:
        assert str(fields[name]) in message
    for problem in fields.get("problems", ()):
        assert problem in message
    if "session_id" in fields and "refusal" not in fields:
        assert "chat-1" in message
    if "refusal" in fields:
        assert message == str(REFUSAL)


@pytest.mark.parametrize("kind", PARENTS)
def test_errors_fields_are_keyword_only(kind: type[SessionFsmError]) -> None:
    """No error takes positional arguments, so no message takes the place of fields."""
    with pytest.raises(TypeError):
        kind("it broke")  # type: ignore[call-arg]  # what is tested


@pytest.mark.parametrize("kind", PARENTS)
def test_errors_are_compared_by_identity(kind: type[SessionFsmError]) -> None:
    """Two errors with the same fields are two, and each may be a key."""
    one, two = kind(**fields_for(kind)), kind(**fields_for(kind))
    assert one != two
    assert len({one, two}) == 2


def test_errors_can_be_raised_and_chained() -> None:
    """An error is caught by its parent's name, with its cause and its trace."""

    def write() -> None:
        try:
            raise OSError("disk gone")
        except OSError as cause:
            raise StoreUnavailableError(problem="disk gone") from cause

    with pytest.raises(StoreError) as caught:
        write()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__traceback__ is not None


def test_errors_unavailable_store_tells_the_fate_of_a_change() -> None:
    """With an operation id the fate is not known; without one nothing was changed."""
    unsure = StoreUnavailableError(problem="the answer was lost", operation_id="op-1")
    assert str(unsure) == "the answer was lost; whether operation op-1 landed is not known"
    assert str(StoreUnavailableError(problem="locked")) == "locked; nothing was changed"


def test_errors_session_of_a_refusal_may_be_unknown() -> None:
    """A refusal of a state that no manager knows names no session."""
    assert InvalidTransitionError(refusal=REFUSAL).session_id is None
    assert LifecycleError(problem="it broke").lifecycle == "session"


@pytest.mark.parametrize(
    ("kind", "headline"),
    [
        ("unknown_trigger", "there is no trigger 'resume'"),
        ("unknown_status", "there is no status 'active'"),
        ("no_edge", "no row leads from 'idle' to 'active'"),
        ("wrong_status", "'resume' can't be fired in status 'idle'"),
        ("guard", "'resume' is refused in status 'idle': expired at noon"),
    ],
)
def test_errors_refusal_says_why_and_what_else(kind: RefusalKind, headline: str) -> None:
    """Each kind of refusal has its own words, then what is permitted and what fires by itself."""
    refusal = attrs.evolve(REFUSAL, kind=kind)
    assert refusal.headline == headline
    assert str(refusal) == (
        f"{headline}; permitted now: terminate, expire, update;"
        " 'expire' fires at 2026-01-31T12:00:00+00:00"
    )


def test_errors_refusal_names_every_failed_guard() -> None:
    """All guards that said no are in the words, in order."""
    failed = (FailedGuard("a", "first reason"), FailedGuard("b", "second reason"))
    refusal = attrs.evolve(REFUSAL, failed_guards=failed)
    assert refusal.headline.endswith(": first reason; second reason")


def test_errors_refusal_without_prospects() -> None:
    """Where nothing is permitted and no clock runs, the refusal says so."""
    refusal = attrs.evolve(REFUSAL, permitted=(), next_timed=None)
    assert refusal.outlook == "permitted now: nothing"


def test_errors_refusal_is_a_frozen_value() -> None:
    """A refusal compares and hashes by content, pickles, and can't be changed."""
    again = pickle.loads(pickle.dumps(REFUSAL))
    assert again == REFUSAL
    assert hash(again) == hash(REFUSAL)
    assert copy.deepcopy(REFUSAL) == REFUSAL
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REFUSAL.kind = "no_edge"  # type: ignore[misc]  # what is tested
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REFUSAL.failed_guards[0].name = "other"  # type: ignore[misc]  # what is tested
