"""States as JSON: what is written, what is read, and how everything else is refused."""

import json
import random
import resource
import subprocess
import sys
import textwrap
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_fsm import (
    SESSION_LIFECYCLE,
    DeserializationError,
    Lifecycle,
    Row,
    SessionConfig,
    SessionState,
    SessionStatus,
    StateInvalidError,
    deserialize,
    dumps,
    loads,
    serialize,
)
from session_fsm.fields import MAX_ERROR_CHARACTERS, MAX_FEATURES, MAX_ID_CHARACTERS, MAX_TASKS
from session_fsm.jsonvalue import MAX_INTEGER
from session_fsm.serialization import MAX_DOCUMENT_BYTES
from session_fsm.testing import states

MINIMAL: dict[str, Any] = {
    "session_id": "a",
    "status": "active",
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T13:00:00Z",
}
FULL: dict[str, Any] = MINIMAL | {
    "format": 1,
    "config": {
        "max_conversations": 5,
        "timeout_minutes": None,
        "persistence_enabled": True,
        "features": ["search", "é"],
    },
    "llm_config": {"model": "m", "depth": {"x": [1, 2.5, None, True]}},
    "metadata": {"": ""},
    "status_since": "2026-01-31T12:30:00.5Z",
    "last_activity_at": "2026-01-31T12:59:59.999999Z",
    "active_tasks": ["t", "u"],
    "conversation_count": 3,
    "error": "none yet",
}
OWN = Lifecycle(
    statuses=("open", "shut"),
    initial="open",
    rows=[Row("close", "open", "shut", ending=True)],
    name="door",
)
"""A lifecycle in which no status holds tasks."""


def refusal(document: Any, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> tuple[str, ...]:
    """Return what is wrong with a document, which must be refused."""
    with pytest.raises(DeserializationError) as caught:
        deserialize(document, lifecycle)
    assert caught.value.problems
    return caught.value.problems


def text_refusal(text: bytes | str) -> tuple[str, ...]:
    """Return what is wrong with a text, which must be refused."""
    with pytest.raises(DeserializationError) as caught:
        loads(text)
    assert caught.value.problems
    return caught.value.problems


def outcome(document: Any) -> SessionState | tuple[str, ...]:
    """Return the state that a document is, or what is wrong with it."""
    try:
        return deserialize(document)
    except DeserializationError as fault:
        return fault.problems


def plain(value: Any) -> bool:
    """Whether a value is JSON of exact plain types through and through."""
    if type(value) is dict:
        return all(type(key) is str and plain(item) for key, item in value.items())
    if type(value) is list:
        return all(plain(item) for item in value)
    return type(value) in (str, int, float, bool, type(None))


# --- writing ---------------------------------------------------------------------------------


def test_serialization_writes_every_field() -> None:
    """The wire form has the format and each field of the state, in the order of their names."""
    written = serialize(deserialize(FULL))
    names = [field.name for field in attrs.fields(SessionState)]
    assert list(written) == ["format", *names[:-1]]
    limits = {"task_deadlines": {"t’ 1": "2026-01-31T13:05:00.000000Z"}}
    both = {**FULL, "active_tasks": [*limits["task_deadlines"]], **limits, "format": 2}
    assert list(serialize(deserialize(both))) == ["format", *names]
    assert {**serialize(deserialize(both)), **limits} == serialize(deserialize(both))
    limits_of_use = [field.name for field in attrs.fields(SessionConfig)]
    assert list(written["config"]) == limits_of_use[:-1]
    config = {**FULL["config"], "recovery": "end"}
    whole = serialize(deserialize({**both, "config": config, "format": 3}))
    assert list(whole["config"]) == limits_of_use
    assert whole == {**serialize(deserialize(both)), "config": config, "format": 3}
    assert written == FULL | {
        "created_at": "2026-01-31T12:00:00.000000Z",
        "updated_at": "2026-01-31T13:00:00.000000Z",
        "status_since": "2026-01-31T12:30:00.500000Z",
        "last_activity_at": "2026-01-31T12:59:59.999999Z",
    }
    assert type(written["format"]) is int


@given(states())
def test_serialization_writes_the_oldest_format_that_will_do(state: SessionState) -> None:
    """Only what is new in a format makes a state one of it; all else is written as before."""
    written = serialize(state)
    other = state.config.recovery != "release"
    assert written["format"] == (3 if other else 2 if state.task_deadlines else 1)
    assert ("recovery" in written["config"]) is other
    assert ("task_deadlines" in written) is bool(state.task_deadlines)
    assert loads(dumps(state)) == deserialize(written) == state
    # And to the byte: it is the same text but for what is new.
    config = attrs.evolve(state.config, recovery="release")
    plain_state = attrs.evolve(state, config=config)
    text = dumps(state)
    if other:
        word = f',"recovery":"{state.config.recovery}"}},"llm_config":'.encode()
        assert word in text
        number = b"2" if state.task_deadlines else b"1"
        text = text.replace(b'{"format":3', b'{"format":' + number, 1)
        text = text.replace(word, b'},"llm_config":', 1)
    assert dumps(plain_state) == text


_FIRST = (
    b',"session_id":"a","status":"active","config":{"max_conversations":100,"timeout_minutes":30'
)
_THEN = (
    b',"llm_config":{},"metadata":{},"created_at":"2026-01-31T12:00:00.000000Z"'
    b',"updated_at":"2026-01-31T13:00:00.000000Z","status_since":"2026-01-31T13:00:00.000000Z"'
    b',"last_activity_at":"2026-01-31T13:00:00.000000Z","active_tasks":["t"]'
    b',"conversation_count":0,"error":null'
)
_PLAIN = b',"persistence_enabled":null,"features":[]}'
_RESTART = b',"persistence_enabled":null,"features":[],"recovery":"restart"}'
_END = b',"persistence_enabled":null,"features":[],"recovery":"end"}'
_LIMITS = b',"task_deadlines":{"t":"2026-01-31T13:05:00.000000Z"}}'
WRITTEN_ONCE = {
    "1": b'{"format":1' + _FIRST + _PLAIN + _THEN + b"}",
    "2": b'{"format":2' + _FIRST + _PLAIN + _THEN + _LIMITS,
    "3": b'{"format":3' + _FIRST + _RESTART + _THEN + b"}",
    "3 with limits": b'{"format":3' + _FIRST + _END + _THEN + _LIMITS,
}
"""A state in each format, as it was written once; these texts never change."""


@pytest.mark.parametrize("text", WRITTEN_ONCE.values(), ids=WRITTEN_ONCE)
def test_serialization_reads_and_writes_what_was_written_once(text: bytes) -> None:
    """Each format is read for ever, and what was read is written to the byte as it was."""
    assert dumps(loads(text)) == text


@settings(max_examples=40)
@given(states())
def test_serialization_writes_plain_json(state: SessionState) -> None:
    """Keys are strings, statuses words, instants texts in UTC; no type of ours is left."""
    written = serialize(state)
    assert plain(written)
    assert written["status"] in [str(status) for status in SessionStatus]
    for name in ("created_at", "updated_at", "status_since", "last_activity_at"):
        text = written[name]
        assert len(text) == len("2026-01-31T12:00:00.000000Z")
        assert text.endswith("Z")
        assert datetime.fromisoformat(text) == getattr(state, name)
    assert repr(json.loads(dumps(state))) == repr(written)


def test_serialization_gives_what_belongs_to_the_caller() -> None:
    """Whatever a caller does to what was written reaches no state, and no other caller."""
    state = deserialize(FULL)
    before = dumps(state)
    written = serialize(state)
    written["llm_config"]["depth"]["x"].append("more")
    written["llm_config"]["model"] = "other"
    written["config"]["features"].clear()
    written["metadata"]["x"] = written
    written["active_tasks"] += ["v"]
    written.clear()
    assert dumps(state) == before
    assert loads(before) == state


def test_serialization_takes_what_belongs_to_the_caller() -> None:
    """Whatever a caller does to a document that was read reaches no state."""
    document = json.loads(json.dumps(FULL))
    state = deserialize(document)
    before = dumps(state)
    document["llm_config"]["depth"]["x"].append("more")
    document["config"]["features"].clear()
    document["active_tasks"].append("v")
    assert dumps(state) == before


def test_serialization_writes_no_state_that_does_not_fit() -> None:
    """A state of another lifecycle, or with tasks where none may be, is not written."""
    state = SessionState.new("a", status="open", at=datetime(2026, 1, 1, tzinfo=UTC))
    assert serialize(state, OWN)["status"] == "open"
    busy = state.derive({"active_tasks": ["t"]}, at=state.updated_at)
    for write in (serialize, dumps):
        with pytest.raises(StateInvalidError, match="unknown status 'open'"):
            write(state)
        with pytest.raises(StateInvalidError, match="status 'open' can't hold tasks"):
            write(busy, OWN)


# --- round trips -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(states())
def test_serialization_reads_what_it_writes(state: SessionState) -> None:
    """Any valid state comes back equal and to the letter, as an object and as bytes."""
    for back in (
        deserialize(serialize(state)),
        loads(dumps(state)),
        loads(dumps(state).decode()),
        loads(bytearray(dumps(state))),
        loads(memoryview(dumps(state))),
        deserialize(json.loads(json.dumps(serialize(state)))),
    ):
        assert back == state
        assert dumps(back) == dumps(state)
        assert type(back.status) is SessionStatus
        assert hash(back) == hash(state)


def test_serialization_reads_the_largest_state() -> None:
    """A state that is as large as it may be in every field is written and read."""
    widest = "\U0001f600"

    def words(number: int) -> list[str]:
        return [widest * (MAX_ID_CHARACTERS - 5) + f"{index:05}" for index in range(number)]

    large = {"x": "\U0001f600" * 262_140}
    state = SessionState(
        session_id=widest * MAX_ID_CHARACTERS,
        status=SessionStatus.ACTIVE,
        config=SessionConfig(max_conversations=MAX_INTEGER, features=words(MAX_FEATURES)),
        llm_config=large,
        metadata=large,
        created_at=datetime(1, 1, 1, tzinfo=UTC),
        updated_at=datetime.max.replace(tzinfo=UTC),
        active_tasks=words(MAX_TASKS),
        conversation_count=MAX_INTEGER,
        error="\x01" * MAX_ERROR_CHARACTERS,
    )
    text = dumps(state)
    assert 12_000_000 < len(text) < MAX_DOCUMENT_BYTES
    assert loads(text) == state


def test_serialization_round_trips_other_lifecycles() -> None:
    """A state of one's own lifecycle is written and read with its own words."""
    state = SessionState.new("a", status="shut", at=datetime(2026, 1, 1, tzinfo=UTC))
    back = loads(dumps(state, OWN), OWN)
    assert back == state
    assert back.status is OWN.statuses[1]
    (problem,) = refusal(serialize(state, OWN))
    known = "initializing, active, idle, terminating, terminated"
    assert problem == f"status: unknown status 'shut'; known are {known}"


# --- reading what is less than was written -----------------------------------------------------


def test_serialization_reads_the_minimum() -> None:
    """With the four fields that must be there, the rest is by default."""
    last = datetime(2026, 1, 31, 13, tzinfo=UTC)
    assert deserialize(MINIMAL) == SessionState(
        session_id="a",
        status=SessionStatus.ACTIVE,
        created_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        updated_at=last,
        status_since=last,
        last_activity_at=last,
        config=SessionConfig(),
        llm_config={},
        metadata={},
        active_tasks=(),
        conversation_count=0,
        error=None,
    )


OPTIONAL = [name for name in FULL if name not in {*MINIMAL, "format"}]


@pytest.mark.parametrize("name", OPTIONAL)
def test_serialization_reads_null_as_absent(name: str) -> None:
    """Null for an optional field is the default, as if it were not there."""
    absent = {key: value for key, value in FULL.items() if key != name}
    assert deserialize(FULL | {name: None}) == deserialize(absent)


def test_serialization_reads_config_by_parts() -> None:
    """In a configuration each field may be absent; null is no limit, no wish and no feature."""
    config = deserialize(MINIMAL | {"config": {}}).config
    assert config == SessionConfig()
    assert (config.max_conversations, config.timeout_minutes) == (100, 30)
    nulls = dict.fromkeys(FULL["config"])
    config = deserialize(MINIMAL | {"config": nulls}).config
    assert config == SessionConfig(
        max_conversations=None, timeout_minutes=None, persistence_enabled=None, features=()
    )
    assert deserialize(MINIMAL | {"config": {"timeout_minutes": 7}}).config == SessionConfig(
        timeout_minutes=7
    )


def test_serialization_reads_any_mapping() -> None:
    """A document need not be a dict."""
    expected = deserialize(FULL)
    assert deserialize(MappingProxyType(FULL)) == expected
    nested = FULL | {"config": MappingProxyType(FULL["config"])}
    assert deserialize(OrderedDict(reversed(nested.items()))) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.1Z", datetime(2026, 1, 31, 12, 0, 0, 100_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123Z", datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00.1234Z", datetime(2026, 1, 31, 12, 0, 0, 123_400, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456Z", datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-31T17:45:00+05:45", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T01:00:00-11:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-02-01T11:59:00+23:59", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2024-02-29T23:59:59-23:59", datetime(2024, 3, 1, 23, 58, 59, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("0001-01-01T05:00:00+05:00", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T18:59:59.999999-05:00", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_serialization_reads_instants_at_any_offset(text: str, expected: datetime) -> None:
    """An instant is the same at any UTC offset, and is kept in UTC."""
    state = deserialize(MINIMAL | {"created_at": text, "updated_at": text})
    assert state.created_at == state.last_activity_at == expected
    assert state.created_at.tzinfo is UTC


@settings(max_examples=40)
@given(states(), st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_serialization_reads_all_instants_of_a_state_at_any_offset(
    state: SessionState, minutes: int
) -> None:
    """A document is the same state with all its instants at another offset."""
    zone = timezone(timedelta(minutes=minutes))
    document = serialize(state)
    for name in ("created_at", "updated_at", "status_since", "last_activity_at"):
        try:
            document[name] = getattr(state, name).astimezone(zone).isoformat()
        except OverflowError:
            continue  # there is no year 0 and no year 10,000 to write it in
    assert deserialize(document) == state


# --- instants that are none --------------------------------------------------------------------

NO_INSTANTS = [
    "",
    "now",
    "2026",
    "2026-01-31",
    "2026-01-31T12:00:00",  # naive
    "2026-01-31T12:00:00.123456",
    "2026-01-31T12:00Z",
    "2026-01-31T12Z",
    "2026-W05-6T12:00:00Z",
    "2026-W05-6",
    "2026-031T12:00:00Z",
    "20260131T120000Z",
    "2026-01-31 12:00:00Z",
    "2026-01-31t12:00:00Z",
    "2026-01-31T12:00:00z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T12:00:00,5Z",
    "2026-01-31T12:00:00.1234567Z",
    "2026-01-31T12:00:00+01",
    "2026-01-31T12:00:00+0100",
    "2026-01-31T12:00:00+01:00:00",
    "2026-01-31T12:00:00+1:00",
    "2026-01-31T12:00:00+24:00",
    "2026-01-31T12:00:00+05:60",
    "2026-01-31T12:00:00+05:99",
    "2026-01-31T12:00:00 Z",
    "2026-01-31T12:00:00ZZ",
    " 2026-01-31T12:00:00Z",
    "2026-01-31T12:00:00Z\n",
    "2026-01-31T12:00:00Z\x00",
    "-2026-01-31T12:00:00Z",
    "+002026-01-31T12:00:00Z",
    "12026-01-31T12:00:00Z",
    "٢٠٢٦-01-31T12:00:00Z",
    "2026-01-31T12:00:00[UTC]",
    "2026-01-31T12:00:00\u22125:00",
    "1769860800",
]
NO_SUCH_INSTANTS = [
    "2026-02-30T12:00:00Z",
    "2025-02-29T12:00:00Z",
    "2026-13-01T12:00:00Z",
    "2026-00-01T12:00:00Z",
    "2026-01-00T12:00:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T25:00:00Z",
    "2026-01-31T12:60:00Z",
    "2026-01-31T23:59:60Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01",
]


@pytest.mark.parametrize("text", [*NO_INSTANTS, *NO_SUCH_INSTANTS])
def test_serialization_refuses_what_is_no_instant(text: str) -> None:
    """Only a date, a time with at most six decimals and an offset make an instant."""
    for name in ("created_at", "updated_at", "status_since", "last_activity_at"):
        (problem,) = refusal(MINIMAL | {name: text})
        what = "no such instant" if text in NO_SUCH_INSTANTS else "expected an instant"
        assert problem.startswith(f"{name}: {what}")


def test_serialization_names_instants_out_of_order() -> None:
    """The instants of a life are in order, and each that is not is named."""
    late, early = "2027-01-01T00:00:00Z", "2025-01-01T00:00:00Z"
    assert refusal(MINIMAL | {"updated_at": early, "status_since": late}) == (
        "updated_at: earlier than created_at",
        "status_since: later than updated_at",
    )
    assert refusal(MINIMAL | {"status_since": early, "last_activity_at": early}) == (
        "status_since: earlier than created_at",
        "last_activity_at: earlier than created_at",
    )


# --- values that are none ----------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MINIMAL))
def test_serialization_names_what_is_missing(name: str) -> None:
    """A field that must be there is named where it is not."""
    assert refusal({key: value for key, value in MINIMAL.items() if key != name}) == (
        f"{name}: missing",
    )
    (problem,) = refusal(MINIMAL | {name: None})
    assert problem.startswith(f"{name}: expected ")


def test_serialization_names_all_that_is_missing() -> None:
    """An empty document lacks all that must be there."""
    assert refusal({}) == tuple(f"{name}: missing" for name in MINIMAL)
    assert text_refusal(b"{}") == tuple(f"{name}: missing" for name in MINIMAL)


WORDS = [None, True, 5, 1.5, [], ["a"], {}, {"a": 1}, b"a"]
INSTANTS = [True, 0, 1769860800, 1769860800.5, [], {}, datetime(2026, 1, 31, 12, tzinfo=UTC)]
COUNTS = [True, False, 1.0, 1.9, -0.0, "5", "", "no", [], [1], {}, float("nan"), float("inf")]
LISTS = ["ab", "", True, 5, 1.5, {}, {"a": 1}, b"ab", {"a"}, iter("a"), range(0), {}.keys()]
OBJECTS = [True, 5, 1.5, "x", "", "{}", [], [["a", 1]], b"{}"]
WRONG: dict[str, list[Any]] = {
    "session_id": WORDS,
    "status": WORDS,
    "created_at": [*INSTANTS, None],
    "updated_at": [*INSTANTS, None],
    "status_since": INSTANTS,
    "last_activity_at": INSTANTS,
    "config": [*OBJECTS, SessionConfig()],
    "llm_config": OBJECTS,
    "metadata": OBJECTS,
    "active_tasks": LISTS,
    "conversation_count": [*COUNTS, -1],
    "error": [True, 5, 1.5, [], {}, b"x"],
    "config.max_conversations": [*COUNTS, 0, -1],
    "config.timeout_minutes": [*COUNTS, 0, -1],
    "config.persistence_enabled": [0, 1, 1.0, "yes", "no", "true", "", [], {}],
    "config.features": LISTS,
    "config.recovery": [
        None,
        True,
        1,
        1.5,
        "",
        "stop",
        "Restart",
        "release ",
        [],
        ["end"],
        {},
        b"end",
    ],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path, values in WRONG.items() for value in values],
    ids=lambda value: value if isinstance(value, str) and value else type(value).__name__,
)
def test_serialization_refuses_wrong_types(path: str, value: Any) -> None:
    """Nothing is converted: a value of another type is named with what was expected."""
    outer, _, inner = path.partition(".")
    document = MINIMAL | {outer: {inner: value} if inner else value}
    (problem,) = refusal(document)
    assert problem.startswith(f"{path}: expected ")


def test_serialization_says_it_in_these_words() -> None:
    """The message names the path, what was expected and what came."""
    assert refusal(MINIMAL | {"config": {"timeout_minutes": "x"}}) == (
        'config.timeout_minutes: expected an integer of at least 1, got "x"',
    )
    assert str(DeserializationError(problems=("a: b", "c: d"))) == "a: b; c: d"


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"session_id": ""}, "session_id: 0 characters; 1 to 255 are allowed"),
        ({"session_id": "x" * 256}, "session_id: 256 characters; 1 to 255 are allowed"),
        ({"session_id": " a"}, 'session_id: leading or trailing blank in " a"'),
        ({"session_id": "a\n"}, 'session_id: expected printable characters only, got "a\\n"'),
        ({"session_id": "\ud800"}, 'session_id: expected printable characters only, got "\\ud800"'),
        ({"active_tasks": [""]}, "active_tasks[0]: 0 characters; 1 to 255 are allowed"),
        ({"active_tasks": ["a", 5]}, "active_tasks[1]: expected a string, got 5"),
        ({"active_tasks": ["a", None]}, "active_tasks[1]: expected a string, got null"),
        ({"active_tasks": ["a", ["b"]]}, 'active_tasks[1]: expected a string, got ["b"]'),
        ({"active_tasks": ["a", "a"]}, "active_tasks: stands twice: \"'a'\""),
        ({"config": {"features": ["f", "f"]}}, "config.features: stands twice: \"'f'\""),
        ({"config": {"features": [True]}}, "config.features[0]: expected a string, got true"),
        (
            {"conversation_count": 2**63},
            f"conversation_count: expected at most {MAX_INTEGER}, got 9223372036854775808",
        ),
        (
            {"config": {"max_conversations": 2**64}},
            f"config.max_conversations: expected at most {MAX_INTEGER}, got 18446744073709551616",
        ),
        (
            {"config": {"timeout_minutes": 527_040_001}},
            "config.timeout_minutes: expected at most 527040000, got 527040001",
        ),
        ({"error": "a\x00"}, "error: contains the character U+0000"),
        ({"error": "\udfff"}, "error: contains a lone surrogate, which is no Unicode text"),
        ({"error": "x" * 65_537}, "error: 65537 characters; at most 65536"),
        ({"metadata": {"n": float("nan")}}, "metadata.n: nan is no JSON number"),
        ({"metadata": {"n": [float("-inf")]}}, "metadata.n[0]: -inf is no JSON number"),
        ({"metadata": {"n": 2**63}}, "metadata.n: an integer beyond signed 64 bits"),
        ({"metadata": {"n": -(2**63) - 1}}, "metadata.n: an integer beyond signed 64 bits"),
        ({"llm_config": {"a": "\x00"}}, "llm_config.a: contains the character U+0000"),
        ({"llm_config": {"a b": "\ud800"}}, 'llm_config["a b"]: contains a lone surrogate'),
        ({"llm_config": {"\x00": 1}}, 'llm_config["\\u0000"]: contains the character U+0000'),
        ({"llm_config": {5: 1}}, "llm_config: a key is int, not a string"),
        ({"llm_config": {"a": {1, 2}}}, "llm_config.a: set is no JSON value"),
        (
            {"metadata": {"x": "x" * 1024 * 1024}},
            "metadata: 1048584 bytes of JSON; at most 1048576",
        ),
        ({"status": "asleep"}, "status: unknown status 'asleep'; known are initializing, active"),
        ({"status": "ACTIVE"}, "status: unknown status 'ACTIVE'; known are"),
        ({"status": "SessionStatus.ACTIVE"}, "status: unknown status 'SessionStatus.ACTIVE'"),
        ({"extra": 1}, "extra: unknown field; known are active_tasks, config, "),
        ({"Format": 1}, "Format: unknown field"),
        ({"a b\n": 1}, '"a b\\n": unknown field'),
        ({5: 1}, "5: unknown field"),
        ({"config": {"extra": 1}}, "config.extra: unknown field; known are features, max_conv"),
        ({"config": {"timeout": 5}}, "config.timeout: unknown field"),
        (
            {"config": {"recovery": "again"}},
            'config.recovery: expected release, restart or end, got "again"',
        ),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_serialization_refuses_bad_values(document: dict[Any, Any], problem: str) -> None:
    """A value that no state may hold is named by its path."""
    (found,) = refusal(MINIMAL | document)
    assert found.startswith(problem)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("word", ["release", "restart", "end", None, "again"])
def test_serialization_refuses_recovery_in_older_formats(number: int, word: str | None) -> None:
    """What is new in format 3 is unknown in older ones, whatever it says; there it may be left."""
    document = MINIMAL | {"config": {"recovery": word}, "format": number}
    first, *more = refusal(document)
    assert first == f"config.recovery: unknown field in format {number}"
    assert len(more) == (word in (None, "again"))
    assert text_refusal(json.dumps(document)) == (first, *more)
    left = MINIMAL | {"config": {}, "format": 3}
    assert deserialize(left) == deserialize(left | {"format": number}) == deserialize(MINIMAL)


def test_serialization_refuses_every_field_that_is_too_new() -> None:
    """In format 1, limits of tasks and what becomes of the session are both unknown."""
    limits = {"active_tasks": ["t"], "task_deadlines": {"t": "2026-01-31T13:05:00Z"}}
    both = MINIMAL | limits | {"config": {"recovery": "end"}}
    assert deserialize(both) == deserialize(both | {"format": 3})
    assert refusal(both | {"format": 1}) == (
        "task_deadlines: unknown field in format 1",
        "config.recovery: unknown field in format 1",
    )
    assert refusal(both | {"format": 2}) == ("config.recovery: unknown field in format 2",)


@pytest.mark.parametrize("number", [0, 4, -1, "1", 1.0, True, False, None, [], [1], {}, 2**70])
def test_serialization_refuses_unknown_formats(number: Any) -> None:
    """The format is the number 1, 2 or 3, or is not told; anything else is unknown."""
    (problem,) = refusal(MINIMAL | {"format": number})
    assert problem.startswith("format: unknown format ")
    assert problem.endswith("; known are 1, 2, 3")


@pytest.mark.parametrize(
    "status", [word for word in SessionStatus if not SESSION_LIFECYCLE.holds_tasks(word)]
)
def test_serialization_refuses_tasks_where_none_may_be(status: SessionStatus) -> None:
    """Only a status with a way to end tasks may hold them; they are named, as far as needed."""
    assert refusal(MINIMAL | {"status": str(status), "active_tasks": ["t", "u"]}) == (
        f"active_tasks: status {str(status)!r} can't hold tasks; 2 tasks are active: t, u",
    )
    long = [f"{number:05}" + "x" * 250 for number in range(10_000)]
    (problem,) = refusal(MINIMAL | {"status": str(status), "active_tasks": long})
    assert problem.endswith(" and 9990 more")
    assert len(problem) < 3_000
    *_, last = refusal(MINIMAL | {"status": str(status), "active_tasks": ["x" * 1_000_000, 5]})
    assert last.startswith("active_tasks: status")
    assert len(last) < 400


@pytest.mark.parametrize("document", [None, 5, "{}", b"{}", [], [MINIMAL], True, MINIMAL.items()])
def test_serialization_refuses_what_is_no_mapping(document: Any) -> None:
    """A document is an object and nothing else."""
    (problem,) = refusal(document)
    assert problem == f"expected a JSON object, got {type(document).__name__}"


def test_serialization_names_every_fault_at_once() -> None:
    """All that is wrong is told in one error, once each, in the order of the fields."""
    document = {
        "status": "asleep",
        "created_at": "yesterday",
        "updated_at": "2026-01-31",
        "config": {"timeout_minutes": 0, "features": "x", "colour": 1},
        "llm_config": {"a": [float("nan"), {"b": 2**64}], "c": "\x00"},
        "metadata": [],
        "active_tasks": [1, " "],
        "conversation_count": "5",
        "error": 5,
        "color": "red",
    }
    assert [problem.partition(": ")[0] for problem in refusal(document)] == [
        "session_id",
        "created_at",
        "updated_at",
        "config.timeout_minutes",
        "config.features",
        "config.colour",
        "llm_config.a[0]",
        "llm_config.a[1].b",
        "llm_config.c",
        "metadata",
        "active_tasks[0]",
        "active_tasks[1]",
        "conversation_count",
        "error",
        "color",
        "status",
    ]
    in_json = {key: value for key, value in document.items() if key != "llm_config"}
    assert text_refusal(json.dumps(in_json)) == refusal(in_json)


SECRETS = [
    "hunter2",
    "hunter2\x00",
    "hunter2\ud800",
    {"hunter2"},
    b"hunter2",
    ["hunter2", ...],
]


@pytest.mark.parametrize("name", ["llm_config", "metadata"])
@pytest.mark.parametrize("secret", SECRETS, ids=repr)
def test_serialization_repeats_no_secret(name: str, secret: Any) -> None:
    """A fault of `llm_config` or `metadata` tells where it is, never what stands there."""
    documents: list[Any] = [
        {name: secret},
        {name: [secret]},
        {name: {"api_key": secret, "nan": float("nan")}},
        {name: {"a": [secret, 2**64]}},
        {name: {"a": 1}, "unknown": secret},
        {name: {"password": secret}, "format": 2},
    ]
    for document in documents:
        assert "hunter2" not in "".join(refusal(MINIMAL | {"session_id": ""} | document))


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not JSON: Expecting value at line 1 column 1"),
        (b" ", "not JSON: "),
        (b"{", "not JSON: "),
        (b"{'session_id': 'a'}", "not JSON: "),
        (b'{"session_id": "a",}', "not JSON: "),
        (b'{"session_id": "a"', "not JSON: "),
        (b'{"session_id": "a"} x', "not JSON: Extra data at line 1 column 21"),
        (b'{"session_id": "a"}{}', "not JSON: Extra data"),
        (b'{"session_id": "a"}\x00', "not JSON: Extra data"),
        (b"// comment\n{}", "not JSON: "),
        (b"{} // comment", "not JSON: "),
        (b"\xef\xbb\xbf{}", "not JSON: "),
        ("\ufeff{}", "not JSON: "),
        ("{}".encode("utf-16"), "not UTF-8"),
        ("{}".encode("utf-16-le"), "not JSON: "),
        (b'{"session_id": "\xff"}', "not UTF-8: invalid start byte at byte 16"),
        (b'{"session_id": "\xc3"}', "not UTF-8: "),
        (b'{"session_id": "\xed\xa0\x80"}', "not UTF-8: "),
        (b'{"session_id": "\xf4\x90\x80\x80"}', "not UTF-8: "),
        (b'{"session_id": "\xc0\x80"}', "not UTF-8: "),
        (b'{"session_id": "a\tb"}', "not JSON: Invalid control character"),
        (b'{"session_id": "\\x41"}', "not JSON: Invalid \\escape"),
        (b'{"conversation_count": 01}', "not JSON: "),
        (b'{"conversation_count": +1}', "not JSON: "),
        (b'{"conversation_count": .5}', "not JSON: "),
        (b'{"conversation_count": 0x10}', "not JSON: "),
        (b'{"conversation_count": NaN}', "NaN is no JSON number"),
        (b'{"metadata": {"a": [Infinity]}}', "Infinity is no JSON number"),
        (b'{"metadata": {"a": -Infinity}}', "-Infinity is no JSON number"),
        (b'{"conversation_count": 1' + b"0" * 5000 + b"}", "a number with too many digits"),
        (b'{"session_id": "a", "session_id": "a"}', 'the key "session_id" stands twice in one ob'),
        (b'{"config": {"features": [], "features": []}}', 'the key "features" stands twice'),
        (b'{"metadata": {"a": [{"b": 1, "c": 2, "b": 1}]}}', 'the key "b" stands twice'),
        (b'{"metadata": {"a": 1, "\\u0061": 1}}', 'the key "a" stands twice'),
        (b"5", "expected a JSON object, got int"),
        (b"null", "expected a JSON object, got NoneType"),
        (b'"{}"', "expected a JSON object, got str"),
        (b"[]", "expected a JSON object, got list"),
    ],
    ids=repr,
)
def test_serialization_refuses_what_is_not_strict_json(text: bytes | str, problem: str) -> None:
    """Text that is not JSON, not UTF-8 or ambiguous is refused with where it goes wrong."""
    (found,) = text_refusal(text)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"n": 18446744073709551616}', "metadata.n: an integer beyond signed 64 bits"),
        ('{"n": 1e400}', "metadata.n: inf is no JSON number"),
        ('{"n": "\\u0000"}', "metadata.n: contains the character U+0000"),
        ('{"n": "\\ud800"}', "metadata.n: contains a lone surrogate"),
        ('{"\\udfff": 1}', 'metadata["\\udfff"]: contains a lone surrogate'),
    ],
)
def test_serialization_refuses_json_that_does_not_last(text: str, problem: str) -> None:
    """What JSON can say, and not every store and reader can keep, is refused."""
    document = json.dumps(MINIMAL)[:-1] + f', "metadata": {text}}}'
    (found,) = text_refusal(document)
    assert found.startswith(problem)


def test_serialization_reads_spaced_and_escaped_json() -> None:
    """Blanks, escapes and surrogate pairs are JSON as any."""
    document = MINIMAL | {"session_id": "é\U0001f600", "error": "a\u2028\x7f\n"}
    text = json.dumps(document, indent=3, ensure_ascii=True)
    assert "\\ud83d\\ude00" in text
    for each in (text, f"\n\t {text}\r\n ", text.replace("/", "\\/")):
        assert loads(each) == loads(each.encode()) == deserialize(document)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("place", ["", '"metadata":', '"active_tasks":', '"session_id":', '"x":'])
def test_serialization_refuses_deep_json(opening: str, place: str) -> None:
    """JSON that is nested a hundred thousand deep is refused, wherever it stands, closed or not."""
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    for depth in (101, 400, 900, 1_000, 5_000, 100_000):
        deep = opening * depth + "1" + closing * depth
        whole = f"{json.dumps(MINIMAL)[:-1]}, {place}{deep}}}" if place else deep
        text_refusal(whole)
        text_refusal(whole[: len(whole) // 2])


@pytest.mark.parametrize("name", [*FULL, "unknown"])
def test_serialization_refuses_deep_objects(name: str) -> None:
    """A document of Python objects that no text could hold is refused as what it is."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, [deep], {"a": deep}, {"features": [deep]}):
        for status in ("active", "idle"):
            refusal(MINIMAL | {"status": status, name: value})


# --- time and memory -----------------------------------------------------------------------------

KIB = 1024
HOSTILE = {
    "a hundred megabytes": "b'{' + b' ' * 100_000_000 + b'}'",
    "a hundred megabytes of text": "'[' * 100_000_000",
    "sixteen megabytes of blanks": "b' ' * 16_000_000",
    "a key of two megabytes": """'{"metadata": {"' + 'k' * 2_000_000 + '": ['
        + '"\\\\u0000",' * 100_000 + '1]}}'""",
    "long keys below each other": """'{"metadata": ' + ('{"' + 'k' * 190 + '":') * 90
        + '[' + '"\\\\u0000",' * 100_000 + '1]' + '}' * 91""",
    "a million tasks": """'{"active_tasks": [' + '0,' * 7_000_000 + '0]}'""",
    "a million features": """'{"config": {"features": [' + '"",' * 5_000_000 + '0]}}'""",
    "tasks where none may be": """'{"status": "idle", "active_tasks": [' + '"t",' * 4_000_000
        + '0]}'""",
    "a million arrays": """'{"metadata": {"a": [' + '[],' * 1_000_000 + '0]}}'""",
    "a million objects": """'{"metadata": {"a": [' + '{},' * 1_000_000 + '0]}}'""",
    "many digits": """'{"metadata": {"a": [' + ('1' * 4_000 + ',') * 3_000 + '0]}}'""",
    "one long word": """'{"session_id": "' + 'x' * 15_000_000 + '"}'""",
    "one long word of another script": """'{"session_id": "' + 'é' * 7_000_000 + '"}'""",
    "escapes": """'{"error": "' + '\\\\ud800' * 2_500_000 + '"}'""",
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_serialization_refuses_large_json_at_bounded_cost(what: str, repository: Path) -> None:
    """However a document is made to cost much, it is refused in seconds and in limited memory."""
    script = f"""
        import resource
        from session_fsm import DeserializationError, loads
        from session_fsm.serialization import MAX_DOCUMENT_BYTES
        text = ({HOSTILE[what]})
        limit = {1500 * KIB * KIB}
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        try:
            loads(text)
        except DeserializationError as fault:
            told = sum(map(len, fault.problems))
            assert told < (50_000_000 if len(text) <= MAX_DOCUMENT_BYTES else 100), told
            print(fault.problems[0][:80])
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=repository,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout


def test_serialization_reads_a_large_valid_state_in_time() -> None:
    """A valid document costs by its length, however long its keys are."""
    metadata = {"k" * 500_000: [0] * 250_000}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    state = deserialize(MINIMAL | {"metadata": metadata})
    assert loads(dumps(state)) == state
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 3.0


# --- anything at all -----------------------------------------------------------------------------

JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**63,
    2**64,
    0.5,
    1.0,
    1e300,
    "",
    "a",
    " ",
    "\x00",
    "\ud800",
    "5",
    "2026-01-31T12:30:00Z",
    "2026-02-30T00:00:00Z",
    "idle",
    "x" * 300,
    [],
    [[]],
    ["a", "a"],
    ["a", 1],
    {},
    {"a": {"b": []}},
    {"features": 5},
    {"timeout_minutes": 1.0},
    {"recovery": "end"},
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document, the document's own first."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def mutated(document: Any, chance: random.Random) -> Any:
    """Return a document with some of it replaced, removed, renamed or added."""
    document = json.loads(json.dumps(document))
    for _ in range(chance.randint(1, 3)):
        *above, last = chance.choice([path for path in places(document) if path])
        holder = document
        for key in above:
            holder = holder[key]
        what = chance.randrange(5)
        if what == 0:
            del holder[last]
        elif what == 1 and isinstance(holder, dict):
            holder[chance.choice((str(last).upper(), "status", "x", ""))] = holder.pop(last)
        elif what == 2 and isinstance(holder, dict):
            holder[chance.choice((*FULL, "x"))] = chance.choice(JUNK)
        else:
            holder[last] = chance.choice(JUNK)
        if not document:
            break
    return document


def test_serialization_refuses_mutated_documents_by_one_error_only() -> None:
    """Whatever becomes of a document, it is a state that is written and read, or it is refused."""
    chance = random.Random(20260131)
    accepted = refused = 0
    for _ in range(4_000):
        document = mutated(FULL, chance)
        found = outcome(document)
        if isinstance(found, SessionState):
            assert loads(dumps(found)) == found
            accepted += 1
        else:
            assert found
            assert len(set(found)) == len(found)
            assert all(": " in problem for problem in found)
            refused += 1
    assert accepted > 200
    assert refused > 2_000


def test_serialization_refuses_mutated_texts_by_one_error_only() -> None:
    """Whatever becomes of a text, it is a state or it is refused."""
    chance = random.Random(20260201)
    text = json.dumps(FULL, ensure_ascii=False).encode()
    pieces = (b"", b"\x00", b"\xff", b'"', b"{", b"}", b"[", b"\\", b"\\u", b"1e999", b",", b"null")
    refused = 0
    for _ in range(6_000):
        start = chance.randrange(len(text))
        end = min(len(text), start + chance.choice((0, 0, 1, 2, 10)))
        changed = text[:start] + chance.choice(pieces) + text[end:]
        try:
            state = loads(changed)
        except DeserializationError:
            refused += 1
        else:
            assert loads(dumps(state)) == state
    assert refused > 3_000


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60))
def test_serialization_refuses_noise(noise: bytes | str) -> None:
    """Noise is no state."""
    text_refusal(noise)


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.tuples(inner)
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FULL, ANYTHING)))
def test_serialization_refuses_anything_by_one_error_only(changes: dict[str, Any]) -> None:
    """Whatever Python object stands in a field, it is taken or it is refused."""
    document: Mapping[str, Any] = FULL | changes
    found = outcome(document)
    assert found
    if isinstance(found, SessionState):
        assert loads(dumps(found)) == found
