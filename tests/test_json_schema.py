"""The JSON Schema of a state: it accepts all that is read, and says what it can't say."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from session_fsm import (
    SESSION_LIFECYCLE,
    DeserializationError,
    Lifecycle,
    Row,
    SessionState,
    deserialize,
    json_schema,
    serialize,
)
from session_fsm.fields import MAX_FEATURES, MAX_TASKS
from session_fsm.jsonvalue import MAX_INTEGER
from session_fsm.testing import states

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
MINIMAL: dict[str, Any] = {
    "session_id": "a",
    "status": "active",
    "created_at": "2026-01-31T12:00:00Z",
    "updated_at": "2026-01-31T19:00:00+05:45",
}
FULL: dict[str, Any] = serialize(
    SessionState(
        session_id="é a",
        status="active",
        config={"features": ["f", "g"], "persistence_enabled": False},
        llm_config={"model": "m", "x": [1, None]},
        metadata={"a": {"b": 1.5}},
        created_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        updated_at=datetime(2026, 1, 31, 13, tzinfo=UTC),
        active_tasks=["t"],
        error="e",
    )
)
OWN = Lifecycle(
    statuses=("open", "ajar", "shut"),
    initial="open",
    rows=[Row("lean", "open", "ajar"), Row("close", ("open", "ajar"), "shut", ending=True)],
    name="door",
)


def is_read(document: Any, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> bool:
    """Whether a document is a state."""
    try:
        deserialize(document, lifecycle)
    except DeserializationError:
        return False
    return True


def faults(document: Any) -> list[str]:
    """Where the schema has something against a document."""
    return sorted({fault.json_path for fault in VALIDATOR.iter_errors(document)})


@pytest.mark.parametrize("lifecycle", [SESSION_LIFECYCLE, OWN], ids=["ours", "own"])
def test_json_schema_is_a_schema(lifecycle: Lifecycle) -> None:
    """It is valid under the meta-schema of its draft, and is plain JSON."""
    schema = json_schema(lifecycle)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    assert repr(lifecycle.name) in schema["title"]


def test_json_schema_belongs_to_the_caller() -> None:
    """Whoever changes a schema changes no other one."""
    schema = json_schema()
    schema["properties"]["session_id"]["maxLength"] = 1
    schema["properties"]["config"]["properties"].clear()
    assert json_schema() == SCHEMA


# --- it accepts what is read -----------------------------------------------------------------


@settings(max_examples=60)
@given(states(), st.data())
def test_json_schema_accepts_every_state(state: SessionState, data: st.DataObject) -> None:
    """Any state, with optional fields left out, null, or at another offset, is accepted."""
    document = serialize(state)
    assert faults(document) == []
    for name in [name for name in document if name not in MINIMAL]:
        match data.draw(st.sampled_from(("keep", "leave out", "null"))):
            case "leave out":
                del document[name]
            case "null" if name != "format":
                document[name] = None
    if document.get("config"):
        for name in list(document["config"]):
            if data.draw(st.booleans()):
                del document["config"][name]
    # Without its own instants a state may be out of order; its schema does not care.
    assert faults(document) == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict.fromkeys(name for name in FULL if name not in {*MINIMAL, "format"}),
        {"config": {}},
        {"config": dict.fromkeys(FULL["config"])},
        {"format": 1},
        {"created_at": "0001-01-01T00:00:00.1Z", "updated_at": "9999-12-31T23:59:59.999999Z"},
        {"created_at": "2026-01-31T00:00:00-00:00"},
        {"created_at": "2026-01-31T00:00:00+23:59"},
        {"session_id": "x" * 255},
        {"session_id": "\U0001f600" * 255},
        {"session_id": "a  b"},
        {"active_tasks": [f"t{number}" for number in range(MAX_TASKS)]},
        {"config": {"features": [f"f{number}" for number in range(MAX_FEATURES)]}},
        {"conversation_count": MAX_INTEGER, "config": {"max_conversations": MAX_INTEGER}},
        {"config": {"timeout_minutes": 527_040_000}},
        {"config": {"recovery": "release"}},
        {"config": {"recovery": "restart"}, "format": 3},
        {"config": {"recovery": "end"}, "format": 3, "task_deadlines": {}},
        {"config": {}, "format": 3},
        {"config": None, "format": 2, "task_deadlines": {}},
        {"error": "", "metadata": {"": {}}},
        {"error": "\U0001f600" * 65_536},
    ],
    ids=lambda changes: ascii(changes)[:60],
)
def test_json_schema_accepts_the_limits(changes: dict[str, Any]) -> None:
    """What lies just within the limits of a state is read, and accepted."""
    assert is_read(MINIMAL | changes)
    assert faults(MINIMAL | changes) == []


VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    -1,
    1.0,
    1.5,
    2**63,
    "",
    "a",
    " a",
    "a\n",
    "\u00a0",
    "é",
    "a" * 256,
    "idle",
    "terminated",
    "2026-01-31T12:30:00Z",
    "2026-01-31T12:30:00.1234567Z",
    "2026-01-31T12:30:00.5+14:00",
    "2026-01-31T12:30:00+05:99",
    "2026-02-30T12:30:00Z",
    "2026-01-31",
    [],
    ["a"],
    ["a", "a"],
    ["a", "b", "é"],
    [1],
    {},
    {"a": [1, {}]},
    {"features": None},
    {"features": ["a", "b"]},
    {"timeout_minutes": 1},
    {"timeout_minutes": 0},
    {"max_conversations": 2**63},
    {"recovery": "end"},
    {"recovery": "again"},
    {"recovery": None},
    2,
    3,
)


def test_json_schema_accepts_whatever_is_read() -> None:
    """No document is read that the schema refuses, however it came about."""
    chance = random.Random(20260131)
    read = told = 0
    for _ in range(3_000):
        document = dict(chance.choice((FULL, MINIMAL)))
        for _ in range(chance.randint(1, 3)):
            name = chance.choice((*FULL, "config", "extra"))
            if chance.random() < 0.3:
                document.pop(name, None)
            else:
                document[name] = chance.choice(VALUES)
        if is_read(document):
            assert faults(document) == [], document
            read += 1
        else:
            told += bool(faults(document))
    assert read > 400
    assert told > 1_500


# --- it refuses what it can ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"session_id": ""}, "$.session_id"),
        ({"session_id": " a"}, "$.session_id"),
        ({"session_id": "a "}, "$.session_id"),
        ({"session_id": " "}, "$.session_id"),
        ({"session_id": "x" * 256}, "$.session_id"),
        ({"session_id": 5}, "$.session_id"),
        ({"session_id": None}, "$.session_id"),
        ({"status": "asleep"}, "$.status"),
        ({"status": None}, "$.status"),
        ({"created_at": "2026-01-31"}, "$.created_at"),
        ({"created_at": "2026-01-31T12:00:00"}, "$.created_at"),
        ({"created_at": "2026-W05-6T12:00:00Z"}, "$.created_at"),
        ({"created_at": "2026-01-31T12:00:00.1234567Z"}, "$.created_at"),
        ({"created_at": "2026-01-31T12:00:00+24:00"}, "$.created_at"),
        ({"created_at": "2026-01-31T12:00:00+05:99"}, "$.created_at"),
        ({"updated_at": 1769860800}, "$.updated_at"),
        ({"status_since": "x"}, "$.status_since"),
        ({"last_activity_at": 0}, "$.last_activity_at"),
        ({"config": []}, "$.config"),
        ({"config": {"extra": 1}}, "$.config"),
        ({"config": {"timeout_minutes": "x"}}, "$.config.timeout_minutes"),
        ({"config": {"timeout_minutes": 0}}, "$.config.timeout_minutes"),
        ({"config": {"timeout_minutes": 1.9}}, "$.config.timeout_minutes"),
        ({"config": {"timeout_minutes": True}}, "$.config.timeout_minutes"),
        ({"config": {"timeout_minutes": 527_040_001}}, "$.config.timeout_minutes"),
        ({"config": {"max_conversations": 2**63}}, "$.config.max_conversations"),
        ({"config": {"persistence_enabled": "no"}}, "$.config.persistence_enabled"),
        ({"config": {"features": "x"}}, "$.config.features"),
        ({"config": {"features": ["x", "x"]}}, "$.config.features"),
        ({"llm_config": []}, "$.llm_config"),
        ({"metadata": "x"}, "$.metadata"),
        ({"active_tasks": "t"}, "$.active_tasks"),
        ({"active_tasks": [1]}, "$.active_tasks[0]"),
        ({"active_tasks": ["t", "t"]}, "$.active_tasks"),
        ({"active_tasks": [f"t{number}" for number in range(10_001)]}, "$.active_tasks"),
        ({"conversation_count": -1}, "$.conversation_count"),
        ({"conversation_count": "5"}, "$.conversation_count"),
        ({"error": 5}, "$.error"),
        ({"error": "x" * 65_537}, "$.error"),
        ({"extra": 1}, "$"),
        ({"config": {"recovery": "again"}}, "$.config.recovery"),
        ({"config": {"recovery": None}}, "$.config.recovery"),
        ({"config": {"recovery": "end"}, "format": 1}, "$"),
        ({"config": {"recovery": "release"}, "format": 2}, "$"),
        ({"task_deadlines": {}, "format": 1}, "$"),
        ({"format": 4}, "$.format"),
        ({"format": "1"}, "$.format"),
        ({"format": True}, "$.format"),
        ({"format": None}, "$.format"),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_json_schema_refuses_typical_faults(changes: dict[str, Any], path: str) -> None:
    """What a schema can say against a document, it says, at the place of the fault."""
    assert not is_read(MINIMAL | changes)
    assert faults(MINIMAL | changes) == [path]


@pytest.mark.parametrize("name", list(MINIMAL))
def test_json_schema_requires_what_must_be_there(name: str) -> None:
    """A document that lacks what it needs is refused, and so is what is no object."""
    assert faults({key: value for key, value in MINIMAL.items() if key != name}) == ["$"]
    values: tuple[Any, ...] = (None, [], "x", 5)
    for value in values:
        assert faults(value) == ["$"]


# --- it says what it can't say ---------------------------------------------------------------

UNSAID: dict[str, dict[str, Any]] = {
    "between created_at and updated_at": {"updated_at": "2025-01-01T00:00:00Z"},
    "real ones": {"created_at": "2026-02-30T00:00:00Z"},
    "years 1 to 9999": {"created_at": "0001-01-01T00:00:00+01:00"},
    "printable": {"session_id": "a\tb"},
    "has active_tasks": {"status": "idle", "active_tasks": ["t"]},
    "1048576 bytes": {"metadata": {"a": "x" * 1024 * 1024}},
    "100 levels": {"metadata": json.loads('{"a":' * 101 + "1" + "}" * 101)},
    "64-bit integers": {"metadata": {"a": 2**64}},
    "without a fraction": {"conversation_count": 1.0},
    "U+0000": {"error": "\x00"},
    "lone surrogate": {"error": "\ud800"},
}


@pytest.mark.parametrize("rule", list(UNSAID))
def test_json_schema_lists_what_it_can_not_say(rule: str) -> None:
    """A document that is refused although the schema takes it breaks a rule of the comment."""
    document = MINIMAL | UNSAID[rule]
    assert not is_read(document)
    assert faults(document) == []
    assert rule in SCHEMA["$comment"]


def test_json_schema_lists_the_rules_of_the_text() -> None:
    """What is a fault of the text alone is in the comment too."""
    for rule in ("no key stands twice", "16777216 bytes", "finite floats"):
        assert rule in SCHEMA["$comment"]


# --- other lifecycles --------------------------------------------------------------------------


def test_json_schema_tells_the_statuses_of_its_lifecycle() -> None:
    """The words of a lifecycle are the ones that its schema takes."""
    validator = Draft202012Validator(json_schema(OWN))
    for status in (*OWN.statuses, *SESSION_LIFECYCLE.statuses, "", "OPEN"):
        document = MINIMAL | {"status": str(status)}
        assert validator.is_valid(document) is is_read(document, OWN) is (status in OWN.statuses)
    assert "Only a session in status (none) has active_tasks" in json_schema(OWN)["$comment"]
    assert "status active, terminating has" in SCHEMA["$comment"]
