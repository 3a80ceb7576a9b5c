"""States: every field's rule, every fault named, and nothing that ever changes."""

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum, IntEnum, StrEnum
from typing import Any
from unittest.mock import ANY

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_fsm.clock import SYSTEM_CLOCK
from session_fsm.errors import StateInvalidError
from session_fsm.fields import (
    MAX_ERROR_CHARACTERS,
    MAX_FEATURES,
    MAX_ID_CHARACTERS,
    MAX_TASKS,
    MAX_TIMEOUT_MINUTES,
)
from session_fsm.jsonvalue import JsonArray, JsonObject, parse_json
from session_fsm.state import (
    CONFIG_FIELDS,
    DATA_FIELDS,
    RECOVERY_POLICIES,
    REQUIRED_FIELDS,
    STATE_FIELDS,
    RecoveryPolicy,
    SessionConfig,
    SessionState,
    SessionStatus,
    faults,
    fields_of,
    lifted,
)
from session_fsm.testing import configs, instants, json_objects, session_ids, states

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
NAIVE = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - naive, to be refused


class Word(StrEnum):
    BUILD = "build"
    END = "end"


class Old(str, Enum):  # noqa: UP042 - what is tested
    """The kind of enumeration that was usual before `StrEnum`; its members print as names."""

    BUILD = "build"


class Level(IntEnum):
    THREE = 3


def valid(**fields: Any) -> dict[str, Any]:
    """The fields of a valid state, some of them others."""
    required = {"session_id": "s", "status": "idle", "created_at": AT, "updated_at": AT + SECOND}
    return required | fields


def problems_of(**fields: Any) -> list[str]:
    """What is wrong with a state of these fields; both ways to learn it agree."""
    told = faults(valid(**fields))
    try:
        SessionState(**valid(**fields))
    except StateInvalidError as error:
        assert list(error.problems) == told  # noqa: PT017 - that one raises is no must here
    else:
        assert told == []
    return told


def new(**fields: Any) -> SessionState:
    """A valid state, with some fields given."""
    return SessionState(**valid(**fields))


# --- what is accepted ------------------------------------------------------------------------


def test_state_words_of_the_statuses() -> None:
    """The five statuses are their lower-case words, in the order of a life."""
    assert list(SessionStatus) == ["initializing", "active", "idle", "terminating", "terminated"]
    assert [status.name.lower() for status in SessionStatus] == list(SessionStatus)
    assert f"{SessionStatus.IDLE}" == "idle"


def test_state_defaults() -> None:
    """A state of the required fields alone has every default; None stands for it too."""
    least = new()
    assert least == new(**dict.fromkeys(set(STATE_FIELDS) - set(REQUIRED_FIELDS)))
    assert (least.config, least.llm_config, least.metadata) == (SessionConfig(), {}, {})
    assert (least.active_tasks, least.conversation_count, least.error) == ((), 0, None)
    assert least.status_since == least.last_activity_at == least.updated_at == AT + SECOND
    assert attrs.astuple(SessionConfig()) == (100, 30, None, (), "release")
    assert SessionConfig(features=None) == SessionConfig()


def test_state_new_is_the_first_state() -> None:
    """A new session initializes, at one instant, with what it is given."""
    state = SessionState.new("s", config={"timeout_minutes": 5}, llm_config={"a": 1}, at=AT)
    assert state.status is SessionStatus.INITIALIZING
    assert state.created_at == state.updated_at == state.status_since == state.last_activity_at
    assert state.created_at == AT
    assert state.config == SessionConfig(timeout_minutes=5)
    assert (state.llm_config, state.metadata) == ({"a": 1}, {})
    assert SessionState.new("s", status="open", at=AT).status == "open"


def test_state_new_reads_the_system_clock() -> None:
    """Without an instant a session is made and changed now."""
    before = SYSTEM_CLOCK.now()
    state = SessionState.new("s")
    changed = state.update(error="x")
    assert before <= state.created_at <= changed.updated_at <= SYSTEM_CLOCK.now()


@given(states())
def test_state_what_is_accepted_serializes(state: SessionState) -> None:
    """Every state that exists can be written as JSON and read back equal, strictly."""
    back = parse_json(orjson.dumps(fields_of(state), default=attrs.asdict))
    for name in ("llm_config", "metadata", "conversation_count", "error", "session_id"):
        assert repr(back[name]) == repr(getattr(state, name))
    assert back["active_tasks"] == list(state.active_tasks)
    assert back["status"] == state.status
    assert datetime.fromisoformat(back["updated_at"]) == state.updated_at
    assert repr(SessionConfig(**back["config"])) == repr(state.config)


@given(states())
def test_state_made_again_is_equal(state: SessionState) -> None:
    """A state has no faults, and one made of its fields equals it, hash included."""
    assert faults(fields_of(state)) == []
    again = SessionState(**fields_of(state))
    assert again == state
    assert hash(again) == hash(state)
    assert attrs.evolve(state) == state


@given(session_ids())
def test_state_ids_are_accepted(session_id: str) -> None:
    """What the strategy for ids makes is an id of a session, a task and a feature."""
    state = new(session_id=session_id, active_tasks=[session_id])
    config = SessionConfig(features=[session_id])
    assert state.session_id == state.active_tasks[0] == config.features[0] == session_id


@pytest.mark.parametrize("word", ["x", "x" * 255, "a b", "é" * 255, "\U0001f600", "'\"\\", "~2"])
def test_state_ids_at_their_limits(word: str) -> None:
    """Ids of 1 to 255 printable characters are accepted."""
    assert problems_of(session_id=word, active_tasks=[word], config={"features": [word]}) == []


def test_state_numbers_at_their_limits() -> None:
    """The least and the greatest of each number are accepted."""
    most = {"max_conversations": 2**63 - 1, "timeout_minutes": MAX_TIMEOUT_MINUTES}
    assert problems_of(conversation_count=2**63 - 1, config=most) == []
    least = {"max_conversations": 1, "timeout_minutes": 1}
    assert problems_of(conversation_count=0, config=least) == []
    unlimited = {"max_conversations": None, "timeout_minutes": None, "persistence_enabled": False}
    assert problems_of(config=unlimited) == []


@pytest.mark.parametrize("word", RECOVERY_POLICIES)
def test_state_recovery_is_one_of_its_words(word: RecoveryPolicy) -> None:
    """A configuration keeps its word for what becomes of the session, and differs by it."""
    config = SessionConfig(recovery=word)
    assert new(config={"recovery": word}).config == config
    assert config.recovery == word
    assert (config == SessionConfig()) is (word == "release")
    changed = new().update(at=AT, config=config)
    assert changed.config is config
    assert changed.update(at=AT, config=None).config == SessionConfig()


def test_state_lengths_at_their_limits() -> None:
    """The longest error and the most tasks and features are accepted."""
    tasks = [f"t{number}" for number in range(MAX_TASKS)]
    features = tasks[:MAX_FEATURES]
    longest = "\n" * MAX_ERROR_CHARACTERS
    assert problems_of(active_tasks=tasks, error=longest, config={"features": features}) == []


@given(instants())
def test_state_instants_are_kept_in_utc(at: datetime) -> None:
    """An instant at any offset is kept as the same instant in UTC."""
    state = SessionState.new("s", at=at)
    for name in ("created_at", "updated_at", "status_since", "last_activity_at"):
        assert getattr(state, name) == at
        assert getattr(state, name).tzinfo is UTC


def test_state_subclasses_become_plain() -> None:
    """Members of enumerations are kept as the plain values they stand for."""
    config = SessionConfig(
        max_conversations=Level.THREE,
        timeout_minutes=Level.THREE,
        features=[Word.BUILD],
        recovery=Word.END,  # type: ignore[arg-type]  # what is tested
    )
    state = new(
        session_id=Word.BUILD,
        active_tasks=[Old.BUILD],
        conversation_count=Level.THREE,
        error=Word.BUILD,
        config=config,
    )
    kept = (state.session_id, state.active_tasks[0], state.error, *config.features)
    assert [(type(word), word) for word in kept] == [(str, "build")] * 4
    assert (type(config.recovery), config.recovery) == (str, "end")
    numbers = (state.conversation_count, config.max_conversations, config.timeout_minutes)
    assert [(type(number), number) for number in numbers] == [(int, 3)] * 3


def test_state_status_prints_as_its_word() -> None:
    """A status is a plain word or a member of a StrEnum, so that its text is its value."""
    assert type(new(status=Old.BUILD).status) is str
    assert new(status=Old.BUILD).status == "build"
    assert new(status=Word.BUILD).status is Word.BUILD
    assert new(status=SessionStatus.ACTIVE).status is SessionStatus.ACTIVE


# --- what is refused -------------------------------------------------------------------------

BAD_WORDS = [
    (None, "expected a string, got null"),
    (5, "expected a string, got 5"),
    (b"x", "expected a string, got a bytes"),
    (["x"], 'expected a string, got ["x"]'),
    ("", "0 characters; 1 to 255 are allowed"),
    ("x" * (MAX_ID_CHARACTERS + 1), "256 characters; 1 to 255 are allowed"),
    (" x", 'leading or trailing blank in " x"'),
    ("x ", 'leading or trailing blank in "x "'),
    (" ", 'leading or trailing blank in " "'),
    ("a\x00b", 'expected printable characters only, got "a\\u0000b"'),
    ("a\nb", 'expected printable characters only, got "a\\nb"'),
    ("\x1b[31m", 'expected printable characters only, got "\\u001b[31m"'),
    ("a\u202eb", 'expected printable characters only, got "a\\u202eb"'),
    ("a\u00a0b", 'expected printable characters only, got "a\\u00a0b"'),
    ("\ud800", 'expected printable characters only, got "\\ud800"'),
]
BAD_COUNTS = [
    (True, "expected an integer of at least {least}, got true"),
    (3.0, "expected an integer of at least {least}, got 3.0"),
    ("3", 'expected an integer of at least {least}, got "3"'),
    (-1, "expected an integer of at least {least}, got -1"),
    (2**63, "expected at most {most}, got 9223372036854775808"),
]
BAD_LISTS = [
    ("abc", 'expected a list of strings, got "abc"'),
    (b"abc", "expected a list of strings, got a bytes"),
    ({"a": 1}, 'expected a list of strings, got {"a": 1}'),
    (5, "expected a list of strings, got 5"),
    (["b", "a", "b", "a"], "stands twice: \"'a', 'b'\""),
]
BAD_INSTANTS = [
    (NAIVE, "an instant needs a time zone; 2026-01-31T12:00:00 has none"),
    (date(2026, 1, 31), "expected an instant (ISO 8601 with a UTC offset), got a date"),
    ("2026-01-31", 'expected an instant (ISO 8601 with a UTC offset), got "2026-01-31"'),
    (0, "expected an instant (ISO 8601 with a UTC offset), got 0"),
]


@pytest.mark.parametrize(("value", "problem"), BAD_WORDS, ids=lambda value: ascii(value)[:30])
def test_state_bad_words_are_named(value: object, problem: str) -> None:
    """Each kind of bad id, status, task and feature is named with its path."""
    assert problems_of(session_id=value) == [f"session_id: {problem}"]
    assert problems_of(status=value) == [f"status: {problem}"]
    assert problems_of(active_tasks=["ok", value]) == [f"active_tasks[1]: {problem}"]
    config = {"features": [value, "ok"]}
    assert problems_of(config=config) == [f"config.features[0]: {problem}"]


@pytest.mark.parametrize(("value", "problem"), BAD_COUNTS, ids=str)
def test_state_bad_counts_are_named(value: object, problem: str) -> None:
    """Each kind of bad number is named with its path; a boolean is no number."""
    limits = {"least": 0, "most": 2**63 - 1}
    told = problem.format(**limits)
    assert problems_of(conversation_count=value) == [f"conversation_count: {told}"]
    told = problem.format(**limits | {"least": 1})
    config = {"max_conversations": value}
    assert problems_of(config=config) == [f"config.max_conversations: {told}"]
    told = problem.format(least=1, most=MAX_TIMEOUT_MINUTES)
    config = {"timeout_minutes": value}
    assert problems_of(config=config) == [f"config.timeout_minutes: {told}"]


@pytest.mark.parametrize(("value", "problem"), BAD_LISTS, ids=str)
def test_state_bad_lists_are_named(value: object, problem: str) -> None:
    """Each kind of bad list of tasks or features is named with its path."""
    assert problems_of(active_tasks=value) == [f"active_tasks: {problem}"]
    assert problems_of(config={"features": value}) == [f"config.features: {problem}"]


@pytest.mark.parametrize(("value", "problem"), BAD_INSTANTS, ids=str)
@pytest.mark.parametrize("name", ["created_at", "updated_at", "status_since", "last_activity_at"])
def test_state_bad_instants_are_named(name: str, value: object, problem: str) -> None:
    """Each kind of bad instant is named with its path, in each of the four fields."""
    assert problems_of(**{name: value}) == [f"{name}: {problem}"]


def test_state_instants_beyond_the_calendar_are_named() -> None:
    """An instant that no calendar in UTC has is a fault, and is not compared with in silence."""
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))
    assert problems_of(status_since=last) == [
        f"status_since: {last.isoformat()} lies outside the years 1 to 9999 in UTC",
        "status_since: later than updated_at",
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"config": {"max_conversations": 0}}, "config.max_conversations: expected an integer of"),
        (
            {"config": {"timeout_minutes": MAX_TIMEOUT_MINUTES + 1}},
            "config.timeout_minutes: expect",
        ),
        ({"config": {"persistence_enabled": 1}}, "config.persistence_enabled: expected true, fals"),
        ({"config": {"persistence_enabled": "no"}}, "config.persistence_enabled: expected true, f"),
        ({"config": {"recovery": "stop"}}, "config.recovery: expected release, restart or end, go"),
        ({"config": {"recovery": "Restart"}}, "config.recovery: expected release, restart or end"),
        ({"config": {"recovery": ""}}, 'config.recovery: expected release, restart or end, got ""'),
        ({"config": {"recovery": None}}, "config.recovery: expected release, restart or end, got"),
        ({"config": {"recovery": ["end"]}}, "config.recovery: expected release, restart or end, g"),
        ({"config": {"recovery": ANY}}, "config.recovery: expected release, restart or end, got "),
        ({"config": {"colour": "red"}}, "config.colour: unknown field; known are features, max_"),
        ({"config": {"a\nb": 1}}, 'config."a\\nb": unknown field; known are'),
        ({"config": {5: 1}}, "config.5: unknown field; known are"),
        ({"config": []}, "config: expected a configuration, got []"),
        ({"config": "x"}, 'config: expected a configuration, got "x"'),
        ({"config": {"features": ["x"] * 1001}}, "config.features: 1001 entries; at most 1000 are"),
        ({"active_tasks": [f"t{n}" for n in range(10_001)]}, "active_tasks: 10001 entries; at mo"),
        ({"error": 5}, "error: expected a string or null, got 5"),
        ({"error": "a\x00"}, "error: contains the character U+0000"),
        ({"error": "\udc00"}, "error: contains a lone surrogate"),
        ({"error": "x" * (MAX_ERROR_CHARACTERS + 1)}, "error: 65537 characters; at most 65536"),
        ({"llm_config": []}, "llm_config: expected a JSON object, got list"),
        ({"llm_config": {"a": {1}}}, "llm_config.a: set is no JSON value"),
        ({"metadata": "x"}, "metadata: expected a JSON object, got str"),
        ({"metadata": {"a": [float("nan")]}}, "metadata.a[0]: nan is no JSON number"),
        ({"updated_at": AT - SECOND}, "updated_at: earlier than created_at"),
        ({"status_since": AT - SECOND}, "status_since: earlier than created_at"),
        ({"status_since": AT + 2 * SECOND}, "status_since: later than updated_at"),
        ({"last_activity_at": AT - SECOND}, "last_activity_at: earlier than created_at"),
        ({"last_activity_at": AT + 2 * SECOND}, "last_activity_at: later than updated_at"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_state_bad_fields_are_named(fields: dict[str, Any], problem: str) -> None:
    """Each kind of fault of each other field is named with its path."""
    told = problems_of(**fields)
    assert told[0].startswith(problem)
    assert all(fault.startswith(problem.partition(":")[0]) for fault in told)


def test_state_every_fault_is_named() -> None:
    """All faults of all fields are told at once, in the order of the fields given."""
    with pytest.raises(StateInvalidError) as caught:
        SessionState(
            session_id="",
            status=5,  # type: ignore[arg-type]  # what is tested
            created_at=NAIVE,
            updated_at="now",  # type: ignore[arg-type]  # what is tested
            status_since=NAIVE,
            last_activity_at=NAIVE,
            config={"max_conversations": "x", "timeout_minutes": 0, "features": ["", ""], "a": 1},
            llm_config={"a": object(), "b": [2**64]},
            metadata={"c": float("inf")},
            active_tasks=[" ", "ok", "ok"],
            conversation_count=-1,
            error=7,  # type: ignore[arg-type]  # what is tested
        )
    naive = "an instant needs a time zone; 2026-01-31T12:00:00 has none"
    assert caught.value.problems == (
        "session_id: 0 characters; 1 to 255 are allowed",
        "status: expected a string, got 5",
        f"created_at: {naive}",
        'updated_at: expected an instant (ISO 8601 with a UTC offset), got "now"',
        f"status_since: {naive}",
        f"last_activity_at: {naive}",
        'config.max_conversations: expected an integer of at least 1, got "x"',
        "config.timeout_minutes: expected an integer of at least 1, got 0",
        "config.features[0]: 0 characters; 1 to 255 are allowed",
        "config.features[1]: 0 characters; 1 to 255 are allowed",
        "config.features: stands twice: \"''\"",
        f"config.a: unknown field; known are {', '.join(sorted(CONFIG_FIELDS))}",
        "llm_config.a: object is no JSON value",
        "llm_config.b[0]: an integer beyond signed 64 bits",
        "metadata.c: inf is no JSON number",
        'active_tasks[0]: leading or trailing blank in " "',
        "active_tasks: stands twice: \"'ok'\"",
        "conversation_count: expected an integer of at least 0, got -1",
        "error: expected a string or null, got 7",
    )


def test_state_instants_out_of_order_are_all_named() -> None:
    """Each instant that lies outside the life is named, also where its end is wrong itself."""
    fields = valid(
        updated_at=AT - SECOND, status_since=AT - 2 * SECOND, last_activity_at=AT + SECOND
    )
    assert faults(fields) == [
        "updated_at: earlier than created_at",
        "status_since: earlier than created_at",
        "last_activity_at: later than updated_at",
    ]


def test_state_missing_fields_are_named_first() -> None:
    """Fields that are missing are faults, told before the others."""
    assert faults({"error": 5, "status": ""}) == [
        "session_id: missing",
        "created_at: missing",
        "updated_at: missing",
        "error: expected a string or null, got 5",
        "status: 0 characters; 1 to 255 are allowed",
    ]
    assert faults(valid(colour="red")) == [
        f"colour: unknown field; known are {', '.join(sorted(STATE_FIELDS))}"
    ]


def test_state_config_names_every_fault() -> None:
    """A configuration made directly names all its faults with their paths."""
    with pytest.raises(StateInvalidError) as caught:
        SessionConfig(
            max_conversations=0,
            timeout_minutes=True,
            persistence_enabled="no",  # type: ignore[arg-type]  # what is tested
            features="abc",
            recovery=5,  # type: ignore[arg-type]  # what is tested
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "config.max_conversations",
        "config.timeout_minutes",
        "config.persistence_enabled",
        "config.features",
        "config.recovery",
    ]


def test_state_long_lists_of_faults_come_in_time() -> None:
    """A hundred thousand equal tasks are refused as soon as ten are."""
    told = problems_of(active_tasks=["a"] * 100_000)
    assert told == [
        "active_tasks: 100000 entries; at most 10000 are allowed",
        "active_tasks: stands twice: \"'a'\"",
    ]


def test_state_entries_beyond_the_limit_are_not_judged() -> None:
    """Of a list that is too long, no more entries are named than it may have."""
    told = problems_of(active_tasks=["t", *[5] * (2 * MAX_TASKS)])
    assert told[0] == f"active_tasks: {2 * MAX_TASKS + 1} entries; at most {MAX_TASKS} are allowed"
    assert len(told) == MAX_TASKS
    assert told[-1] == f"active_tasks[{MAX_TASKS - 1}]: expected a string, got 5"


# --- nothing changes -------------------------------------------------------------------------


def test_state_is_deeply_immutable() -> None:
    """No later change of what a state was made of reaches it."""
    inner = {"b": [1]}
    llm_config: dict[str, Any] = {"a": inner}
    metadata: dict[str, Any] = {"list": [inner]}
    tasks, features = ["t"], ["f"]
    config: dict[str, Any] = {"features": features, "timeout_minutes": 5}
    made = new(llm_config=llm_config, metadata=metadata, active_tasks=tasks, config=config)
    changed = SessionState.new("s", at=AT).update(
        llm_config=llm_config, metadata=metadata, active_tasks=tasks, config=config, at=AT
    )
    hashes = hash(made), hash(changed)
    inner["b"].append(2)
    llm_config["c"] = metadata["c"] = 3
    tasks.append("u")
    features.append("g")
    config["timeout_minutes"] = 6
    for state in (made, changed):
        assert state.llm_config == {"a": {"b": [1]}}
        assert state.metadata == {"list": [{"b": [1]}]}
        assert state.active_tasks == ("t",)
        assert state.config == SessionConfig(features=("f",), timeout_minutes=5)
        assert type(state.llm_config["a"]) is JsonObject
        assert type(state.metadata["list"]) is JsonArray
    assert hashes == (hash(made), hash(changed))


@pytest.mark.parametrize("value", [new(), SessionConfig()], ids=["state", "config"])
def test_state_fields_cannot_be_set(value: Any) -> None:
    """No field can be assigned, deleted or added, and no dictionary of attributes is there."""
    for field in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, getattr(value, field.name))
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            delattr(value, field.name)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.colour = "red"
    assert not hasattr(value, "__dict__")


@given(states())
def test_state_copies_and_pickles_are_equal(state: SessionState) -> None:
    """A state that is copied or pickled equals itself, types and hash included."""
    copies = [copy.copy(state), copy.deepcopy(state)]
    copies += [pickle.loads(pickle.dumps(state, protocol)) for protocol in (0, 2, 5)]
    for other in copies:
        assert other == state
        assert hash(other) == hash(state)
        assert repr(other) == repr(state)
        assert type(other.llm_config) is JsonObject


@given(configs())
def test_state_configs_are_values(config: SessionConfig) -> None:
    """A configuration equals one with the same fields, and is kept as it is in a state."""
    assert SessionConfig(**attrs.asdict(config)) == config
    assert new(config=config).config is config
    assert new(config=attrs.asdict(config)).config == config
    assert pickle.loads(pickle.dumps(config)) == config


# --- secrets ---------------------------------------------------------------------------------

SECRET = "hunter2"
SECRETS = {
    "api_key": SECRET,
    "Token": {"value": SECRET},
    "nested": {"list": [1, {"clientSecret": SECRET, "PASSWORD": [SECRET], "model": "shown"}]},
}


def test_state_repr_hides_secrets() -> None:
    """The text of a state shows no value of a key that looks like a secret, at any depth."""
    state = new(llm_config=SECRETS, metadata=SECRETS)
    for text in (repr(state), str(state), f"{state}", f"{state!r:.99999}", repr([state])):
        assert SECRET not in text
        assert text.count("'api_key': '***'") == 2
        assert text.count("'PASSWORD': '***', 'model': 'shown'") == 2
    assert state.llm_config == SECRETS


@pytest.mark.parametrize(
    "make",
    [
        lambda: new(llm_config=SECRETS | {"bad": {1}}, session_id=""),
        lambda: new(llm_config={"api_key": f"{SECRET}\x00", "b": {SECRET}, "c": SECRET.encode()}),
        lambda: new(llm_config=[SECRET]),
        lambda: new(llm_config=SECRET),
        lambda: new().update(llm_config=SECRETS | {"bad": f"{SECRET}\ud800"}),
        lambda: new().update(llm_config=SECRET, metadata=SECRET),
    ],
)
def test_state_errors_tell_no_secrets(make: Callable[[], SessionState]) -> None:
    """What is wrong with a field never repeats what stands in `llm_config` or `metadata`."""
    with pytest.raises(StateInvalidError) as caught:
        make()
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.problems}"


# --- update ----------------------------------------------------------------------------------


def test_state_update_changes_data_alone() -> None:
    """Each data field takes a new value; the instant of the change moves and nothing else."""
    state = new()
    changes: dict[str, Any] = {
        "config": SessionConfig(timeout_minutes=1),
        "llm_config": {"a": 1},
        "metadata": {"b": [2]},
        "active_tasks": ("t",),
        "conversation_count": 3,
        "error": "it broke",
    }
    assert (*changes, "task_deadlines") == DATA_FIELDS
    for name, value in changes.items():
        changed = state.update(at=AT + 2 * SECOND, **{name: value})
        expected = fields_of(state) | {name: value, "updated_at": AT + 2 * SECOND}
        assert fields_of(changed) == expected
    assert new() == state


def test_state_update_with_none_gives_the_default() -> None:
    """None as a new value stands for the field's default."""
    full = new(llm_config={"a": 1}, active_tasks=["t"], conversation_count=3, error="x")
    emptied = full.update(at=AT, **dict.fromkeys(DATA_FIELDS))
    assert emptied == new()


@pytest.mark.parametrize("name", sorted(set(STATE_FIELDS) - set(DATA_FIELDS)))
def test_state_update_refuses_what_moves_set(name: str) -> None:
    """Neither the id, nor the status, nor an instant can be updated, not even to what it is."""
    state = new()
    with pytest.raises(StateInvalidError) as caught:
        state.update(at=AT, **{name: getattr(state, name)})
    assert caught.value.problems == (f"{name}: is set by moves alone",)


def test_state_update_names_every_fault() -> None:
    """Unknown fields, fields that are no data and bad values are all told at once."""
    with pytest.raises(StateInvalidError) as caught:
        new().update(at=AT, colour="red", status="active", error=5, metadata=[])
    assert caught.value.problems == (
        "colour: unknown field",
        "status: is set by moves alone",
        "error: expected a string or null, got 5",
        "metadata: expected a JSON object, got list",
    )
    with pytest.raises(StateInvalidError) as caught:
        new().update(at=AT, error=5, active_tasks=["a", "a"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("at", [NAIVE, "now", 0, date(2026, 1, 31)], ids=str)
def test_state_update_refuses_bad_instants(at: Any) -> None:
    """A change at a naive instant, or at none, is refused with its path."""
    with pytest.raises(StateInvalidError) as caught:
        new().update(at=at, error="x")
    (problem,) = caught.value.problems
    assert problem.startswith("at: ")


@given(states(), instants() | st.none())
def test_state_never_runs_backwards(state: SessionState, at: datetime | None) -> None:
    """A change at whatever instant is never before the last one, and is exact after it."""
    changed = state.update(at=at, error="x")
    assert changed.updated_at >= state.updated_at
    assert faults(fields_of(changed)) == []
    if at is not None:
        assert changed.updated_at == lifted(state, at) == max(at, state.updated_at)


@given(states(), json_objects())
def test_state_update_keeps_valid_states_valid(
    state: SessionState, metadata: dict[str, Any]
) -> None:
    """A state with other data is valid, and equals one made of the same fields."""
    changed = state.update(at=state.updated_at, metadata=metadata)
    assert changed.metadata == metadata
    assert SessionState(**fields_of(changed)) == changed


def test_state_fields_are_the_contract() -> None:
    """The fields are those of the contract, and their lists are without gaps."""
    assert " ".join(STATE_FIELDS) == (
        "session_id status config llm_config metadata created_at updated_at status_since"
        " last_activity_at active_tasks conversation_count error task_deadlines"
    )
    assert " ".join(CONFIG_FIELDS) == (
        "max_conversations timeout_minutes persistence_enabled features recovery"
    )
    assert set(fields_of(new())) == set(STATE_FIELDS)
