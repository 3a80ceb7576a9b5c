"""The short way in, for text that the library wrote: it reads what the strict way reads."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from session_fsm import (
    SESSION_LIFECYCLE,
    DeserializationError,
    JsonArray,
    JsonObject,
    Lifecycle,
    RecoveryPolicy,
    Row,
    SessionConfig,
    SessionState,
    SessionStatus,
    dumps,
    loads,
    serialize,
)
from session_fsm import serialization as package
from session_fsm.clock import instant_text
from session_fsm.jsontext import JsonError, dump_json, parse_json, parse_written
from session_fsm.jsonvalue import MAX_INTEGER, MAX_JSON_BYTES, MAX_JSON_DEPTH
from session_fsm.serialization.instants import INSTANT_FIELDS, instant_json
from session_fsm.serialization.reading import read_strictly
from session_fsm.serialization.written import read_written
from session_fsm.state import CONFIG_FIELDS, STATE_FIELDS
from session_fsm.testing import states

STATE = SessionState(
    session_id="12345678-90ab-4def-8234-567890abcdef",
    status=SessionStatus.ACTIVE,
    config={"features": ["code", "search"], "persistence_enabled": True},
    llm_config={"model": "m", "temperature": 0.7, "stops": ["a", ["b", {"c": None}]]},
    metadata={"user": "u", "client": {"name": "n", "tags": []}, "attempt": 3},
    created_at=datetime(2026, 1, 31, 12, 0, 0, 1, tzinfo=UTC),
    updated_at=datetime(2026, 1, 31, 13, tzinfo=UTC),
    active_tasks=["t", "u"],
    conversation_count=7,
    error="é",
)
OWN = Lifecycle(
    statuses=("open", "shut"),
    initial="open",
    rows=[Row("close", "open", "shut", ending=True)],
    name="door",
)
"""A lifecycle in which no status holds tasks."""


def strict_outcome(data: bytes | str, lifecycle: Lifecycle) -> SessionState | tuple[str, ...]:
    """Return the state that the strict way reads, or what is wrong by it."""
    try:
        return read_strictly(data, lifecycle)
    except DeserializationError as fault:
        return fault.problems


def outcome(data: bytes | str, lifecycle: Lifecycle) -> SessionState | tuple[str, ...]:
    """Return the state that is loaded, or what is wrong."""
    try:
        return loads(data, lifecycle)
    except DeserializationError as fault:
        return fault.problems


def looks(value: Any) -> Any:
    """Return a value with the types of all that it is made of, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return type(value), [(key, looks(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [looks(item) for item in value]
    return type(value), repr(value)


def anatomy(state: Any) -> Any:
    """Return all of a state to the types of its innermost values; anything else as it is."""
    if not isinstance(state, SessionState):
        return state
    fields = [(name, getattr(state, name)) for name in STATE_FIELDS if name != "config"]
    config = [(name, getattr(state.config, name)) for name in CONFIG_FIELDS]
    instants = [getattr(state, name).tzinfo for name in INSTANT_FIELDS]
    return type(state), type(state.config), looks(dict(fields)), looks(dict(config)), instants


def check_same(data: bytes | str, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> bool:
    """Hold both ways against each other; tell whether the short one was taken."""
    expected = strict_outcome(data, lifecycle)
    assert anatomy(outcome(data, lifecycle)) == anatomy(expected)
    short = read_written(data, lifecycle)
    assert short is None or anatomy(short) == anatomy(expected)
    return short is not None


# --- what is read this way -------------------------------------------------------------------


def test_serialization_short_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `dumps` wrote is read without the strict reader, be it bytes or text."""
    expected = anatomy(read_strictly(dumps(STATE), SESSION_LIFECYCLE))
    monkeypatch.setattr(package, "read_strictly", None)
    assert anatomy(loads(dumps(STATE))) == anatomy(loads(dumps(STATE).decode())) == expected
    minimal = SessionState.new("a", status="shut", at=STATE.updated_at)
    read = loads(dumps(minimal, OWN), OWN)
    assert read == minimal
    assert read.status is OWN.status("shut")


@pytest.mark.parametrize("word", ["restart", "end"])
def test_serialization_short_way_is_taken_for_other_recoveries(word: RecoveryPolicy) -> None:
    """A state that is not simply released is read as fast as any, unless a task has a limit."""
    config = SessionConfig(recovery=word, features=["code"])
    state = STATE.update(at=STATE.updated_at, config=config)
    assert check_same(dumps(state))
    assert loads(dumps(state)) == state
    limited = state.update(at=state.updated_at, task_deadlines={"t": state.updated_at})
    assert not check_same(dumps(limited))
    assert loads(dumps(limited)) == limited


RESTARTED = dumps(STATE.update(at=STATE.updated_at, config=SessionConfig(recovery="restart")))


@pytest.mark.parametrize(
    ("old", "new", "taken"),
    [
        (b'"restart"', b'"release"', True),
        (b'"restart"', b'"again"', False),
        (b'"restart"', b'"Restart"', False),
        (b'"restart"', b"null", False),
        (b'"restart"', b"1", False),
        (b'"restart"', b'["restart"]', False),
        (b'"restart"', b'{"restart":1}', False),
        (b'"recovery":"restart"', b'"recover":"restart"', False),
        (b',"recovery":"restart"', b"", False),
        (b'"recovery":"restart"', b'"recovery":"restart","more":1', False),
        (b'"features":[],', b"", False),
        (b'"features":[],', b'"feature":[],', False),
        (b'{"format":3', b'{"format":2', False),
        (b'{"format":3', b'{"format":1', False),
        (b'{"format":3', b'{"format":4', False),
        (b'{"format":3', b'{"format":3.0', False),
        (b'{"format":3', b'{"format":"3"', False),
        (b'{"format":3,', b"{", False),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_serialization_short_way_knows_other_recoveries(
    old: bytes, new: bytes, taken: bool
) -> None:
    """Where a state is of format 3, the short way takes it only if it is one by the strict way."""
    assert check_same(RESTARTED)
    assert old in RESTARTED
    assert check_same(RESTARTED.replace(old, new)) is taken


@settings(max_examples=60)
@given(states())
def test_serialization_short_way_reads_the_same_states(state: SessionState) -> None:
    """Any state that was written is the same one by either way, to the types of its parts."""
    check_same(dumps(state))
    check_same(dumps(state).decode())


def test_serialization_short_way_gives_what_never_changes() -> None:
    """Objects and arrays are immutable at every depth, as by the strict way."""
    state = read_written(dumps(STATE), SESSION_LIFECYCLE)
    assert state is not None
    assert type(state.llm_config) is JsonObject
    assert type(state.llm_config["stops"]) is type(state.llm_config["stops"][1]) is JsonArray
    assert type(state.llm_config["stops"][1][1]) is JsonObject
    assert type(state.metadata["client"]["tags"]) is JsonArray
    with pytest.raises(AttributeError):
        state.error = None  # type: ignore[misc]  # what is tested
    assert hash(state) == hash(STATE)


# --- what is left to the strict way --------------------------------------------------------------

NOT_AS_WRITTEN: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("blank", lambda data: data + b" "),
    ("spaced", lambda data: json.dumps(json.loads(data)).encode()),
    ("key twice", lambda data: data.replace(b'{"model"', b'{"model":0,"model"')),
    ("field twice", lambda data: data.replace(b'"error":', b'"error":null,"error":')),
    ("escaped", lambda data: data.replace(b"search", b"s\\u0065arch")),
    ("exponent", lambda data: data.replace(b"0.7", b"7e-1")),
    ("more digits", lambda data: data.replace(b"0.7", b"0.70")),
    ("infinite", lambda data: data.replace(b"0.7", b"1e999")),
    ("rounded", lambda data: data.replace(b"0.7", b"0.70000000000000000001")),
    ("minus zero", lambda data: data.replace(b'"attempt":3', b'"attempt":-0')),
    ("NaN", lambda data: data.replace(b"0.7", b"NaN")),
    ("54 bits", lambda data: data.replace(b"0.7", b"9007199254740993")),
    ("64 bits", lambda data: data.replace(b"0.7", b"9223372036854775808")),
    ("66 bits", lambda data: data.replace(b"0.7", b"36893488147419103232")),
    ("U+0000", lambda data: data.replace(b'"u"', b'"\\u0000"', 1)),
    ("surrogate", lambda data: data.replace(b'"u"', b'"\\ud800"', 1)),
    ("no UTF-8", lambda data: data.replace(b'"u"', b'"\xff"', 1)),
    ("byte order mark", lambda data: b"\xef\xbb\xbf" + data),
    ("cut off", lambda data: data[:-1]),
    ("two", lambda data: data + data),
    ("array", lambda data: b"[" + data + b"]"),
    ("nothing", lambda data: b""),
    ("no format", lambda data: data.replace(b'"format":1,', b"")),
    ("format by float", lambda data: data.replace(b'"format":1', b'"format":1.0')),
    ("format by boolean", lambda data: data.replace(b'"format":1', b'"format":true')),
    ("newer format", lambda data: data.replace(b'"format":1', b'"format":2')),
    ("newest format", lambda data: data.replace(b'"format":1', b'"format":3')),
    ("unknown format", lambda data: data.replace(b'"format":1', b'"format":4')),
    (
        "unknown in its format",
        lambda data: data.replace(b'"features"', b'"recovery":"end","features"'),
    ),
    ("id", lambda data: data.replace(b'"12345678-', b'" 12345678-')),
    ("one more field", lambda data: data[:-1] + b',"more":null}'),
    ("unknown field", lambda data: data.replace(b'"error"', b'"errors"')),
    ("unknown limit", lambda data: data.replace(b'"timeout_minutes"', b'"timeout"')),
    ("status", lambda data: data.replace(b'"active"', b'"awake"')),
    ("status is a list", lambda data: data.replace(b'"active"', b"[]")),
    ("status is a number", lambda data: data.replace(b'"active"', b"5")),
    ("tasks where none may be", lambda data: data.replace(b'"active"', b'"idle"')),
    ("task twice", lambda data: data.replace(b'["t","u"]', b'["t","t"]')),
    ("tasks are text", lambda data: data.replace(b'["t","u"]', b'"tu"')),
    ("no tasks", lambda data: data.replace(b'["t","u"]', b"null")),
    ("count", lambda data: data.replace(b'"conversation_count":7', b'"conversation_count":true')),
    ("negative", lambda data: data.replace(b'"conversation_count":7', b'"conversation_count":-7')),
    ("no config", lambda data: data.replace(b'"config":{', b'"config":null,"x":{')),
    ("config is text", lambda data: data.replace(b'["code","search"]', b'"code"')),
    ("object is null", lambda data: data.replace(b'{"user"', b'null,"x":{"user"')),
    ("object is text", lambda data: data.replace(dump_json(STATE.metadata), b'""')),
    ("object is an array", lambda data: data.replace(dump_json(STATE.metadata), b"[]")),
    ("settings are text", lambda data: data.replace(dump_json(STATE.llm_config), b'""')),
    ("settings are an array", lambda data: data.replace(dump_json(STATE.llm_config), b"[]")),
    ("one more limit", lambda data: data.replace(b'"features":[', b'"more":null,"features":[')),
    ("offset", lambda data: data.replace(b"13:00:00.000000Z", b"13:00:00.000000+00:00")),
    ("seconds", lambda data: data.replace(b"13:00:00.000000Z", b"13:00:00Z")),
    ("comma", lambda data: data.replace(b"13:00:00.000000Z", b"13:00:00,000000Z")),
    ("blank in instant", lambda data: data.replace(b"31T13", b"31 13")),
    ("week", lambda data: data.replace(b"2026-01-31T13", b"2026-W05-6T13")),
    ("no such day", lambda data: data.replace(b"2026-01-31T13", b"2026-02-31T13")),
    ("hour 24", lambda data: data.replace(b"31T13:", b"31T24:")),
    ("out of order", lambda data: data.replace(b"31T12", b"31T14")),
]


@pytest.mark.parametrize(
    "change",
    [change for _, change in NOT_AS_WRITTEN],
    ids=[name.replace(" ", "_") for name, _ in NOT_AS_WRITTEN],
)
def test_serialization_short_way_leaves_the_rest(change: Callable[[bytes], bytes]) -> None:
    """Text that is not to the byte as it is written, or is no state, goes the strict way."""
    data = change(dumps(STATE))
    assert data != dumps(STATE)
    assert not check_same(data)


def nested(levels: int) -> dict[str, Any]:
    """Return an object of so many levels, of objects and arrays by turns."""
    value: Any = {}
    for level in range(levels - 1):
        value = [value] if level % 2 and level < levels - 2 else {"a": value}
    return {"a": value["a"]} if levels > 1 else {}


@pytest.mark.parametrize("levels", [1, 2, 19, 20, 21, MAX_JSON_DEPTH, MAX_JSON_DEPTH + 1, 300])
def test_serialization_short_way_reads_no_deep_objects(levels: int) -> None:
    """Where an object is deep, the strict way tells whether it is too deep."""
    document = serialize(STATE) | {"metadata": nested(levels)}
    taken = check_same(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
    assert taken == (levels <= 20)


def test_serialization_short_way_reads_no_large_objects() -> None:
    """No text is taken that is long enough to hold an object that is too long."""
    for length in (MAX_JSON_BYTES // 2, MAX_JSON_BYTES - 4, MAX_JSON_BYTES):
        document = serialize(STATE) | {"metadata": {"": "x" * length}}
        taken = check_same(json.dumps(document, separators=(",", ":"), ensure_ascii=False))
        assert taken == (length == MAX_JSON_BYTES // 2)


def test_serialization_short_way_leaves_odd_buffers() -> None:
    """What is no exact bytes or text, and text that no UTF-8 can tell, goes the strict way."""

    class Sly(bytes):
        def __ne__(self, _: object) -> bool:
            return False

    data = dumps(STATE).replace(b'"error":', b'"error":null,"error":')
    with pytest.raises(DeserializationError, match='the key "error" stands twice'):
        loads(Sly(data))
    assert not check_same(dumps(STATE).decode().replace("é", "\ud800"))


# --- whatever is read ----------------------------------------------------------------------------

ODD_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from((0, 1, -1, 2**53, MAX_INTEGER, MAX_INTEGER + 1, 2**64, 1.0, -0.0, 1e22)),
    st.sampled_from(("", " a", "a\n", "\x00", "\\u0000", "active", "idle", "x" * 256)),
    st.sampled_from((3, "release", "restart")),
    st.sampled_from((instant_text(STATE.created_at), "2026-01-31T12:00:00Z", "0000-01-01")),
    st.lists(st.sampled_from(("a", "b", 5, None, "")), max_size=3),
    st.dictionaries(st.sampled_from(("a", "features")), st.none() | st.lists(st.just(1))),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes | str:
    """Generate the text of a state with a few changes, of values or of bytes."""
    document = serialize(draw(states()))
    for _ in range(draw(st.integers(0, 3))):
        place = document.get("config") if draw(st.booleans()) else document
        if isinstance(place, dict) and place:
            name = draw(st.sampled_from(sorted(place)))
            if draw(st.booleans()):
                place[name] = draw(ODD_VALUES)
            else:
                place[draw(st.sampled_from((name, name.upper())))] = place.pop(name)
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    if draw(st.booleans()):
        return text
    data = bytearray(text.encode())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from((b"{", b"}", b'"', b",", b"0", b"\\", b"e9"))
        )
    return bytes(data)


@settings(max_examples=400)
@given(mutated())
def test_serialization_ways_agree(data: bytes | str) -> None:
    """Whatever is loaded gives the state, or every fault, that the strict way gives."""
    check_same(data)
    check_same(data, OWN)


@given(st.text() | st.binary() | st.recursive(st.none() | st.floats(), st.lists).map(json.dumps))
@example("[9007199254740992]")
@example('{"a":1,"a":1}')
def test_jsontext_readers_agree(data: bytes | str) -> None:
    """What the fast reader takes is what the strict one reads, and can be written again."""
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    read = parse_written(raw)
    if read is not None:
        assert looks(read) == looks(parse_json(raw))
        assert dump_json(read) == raw
        assert "\x00" not in json.dumps(read, ensure_ascii=False).encode().decode("unicode_escape")


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":1}', "[1e999]", "[1E2]", "[9007199254740992]", '["\\u0000"]', "[1.0e0]", "nul"],
)
def test_jsontext_fast_reader_leaves_what_it_might_misread(text: str) -> None:
    """A key twice, a number that it rounds, and what no value holds are not taken."""
    assert parse_written(text.encode()) is None
    try:
        parse_json(text)
    except JsonError:
        return
    assert json.loads(text) is not None


@given(st.lists(st.sampled_from(("\x00", "\x01", "\\", "u0000", "\n", '"', "a", "é")), max_size=6))
@example(["\x00"])
@example(["\n", "\x00", "\n"])
@example(["\\", "u0000"])
def test_jsontext_fast_reader_leaves_text_with_nul(parts: list[str]) -> None:
    """U+0000 is not taken wherever it stands, among whatever else is escaped."""
    raw = dump_json(["".join(parts)])
    assert (parse_written(raw) is None) == (b"\\u0000" in raw)


# --- writing ---------------------------------------------------------------------------------


@given(
    st.datetimes() | st.datetimes().map(lambda at: at.replace(microsecond=0)),
    st.sampled_from((UTC, None)),
    st.integers(0, 1),
)
def test_serialization_writes_instants_in_one_form(at: datetime, zone: Any, fold: int) -> None:
    """The writer of JSON writes each instant as `instant_text` does."""
    at = at.replace(tzinfo=zone or UTC, fold=fold)
    assert dump_json(instant_json(at)) == json.dumps(instant_text(at)).encode()


def test_serialization_writes_foreign_instants_in_one_form() -> None:
    """Instants of another class or zone are written in UTC too."""

    class Nanoseconds(datetime):
        """An instant that may hold more than is stored."""

    for at in (
        Nanoseconds(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC),
        datetime.fromisoformat("2026-01-31T12:00:00.000005+05:45"),
        datetime(1, 1, 1, 0, 0, 0, 5, tzinfo=UTC),
    ):
        assert dump_json(instant_json(at)) == json.dumps(instant_text(at)).encode()


def test_serialization_configurations_are_shared_or_equal() -> None:
    """A configuration that is read again is equal, whether or not it is the one read before."""
    for features in (["f"], [f"feature {number}" for number in range(900)]):
        state = SessionState.new("a", config={"features": features}, at=STATE.created_at)
        first, second = loads(dumps(state)), loads(dumps(state))
        assert first.config == second.config == SessionConfig(features=features)
    later = loads(dumps(STATE.update(at=STATE.updated_at + timedelta(hours=1), metadata={})))
    assert later.config == STATE.config


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b'"max_conversations":1,', b'"max_conversations":1.0,'),
        (b'"max_conversations":1,', b'"max_conversations":true,'),
        (b'"timeout_minutes":1,', b'"timeout_minutes":1.0,'),
        (b'"timeout_minutes":1,', b'"timeout_minutes":true,'),
        (b'"persistence_enabled":true,', b'"persistence_enabled":1,'),
        (b'"persistence_enabled":true,', b'"persistence_enabled":1.0,'),
        (b'"features":["1"]', b'"features":[1]'),
        (b'"features":["1"]', b'"features":"1"'),
    ],
    ids=["float", "flag", "float_minutes", "flag_minutes", "one", "float_one", "number", "text"],
)
def test_serialization_configurations_differ_by_type(right: bytes, wrong: bytes) -> None:
    """What equals a value of a configuration that was read before is refused if it is none."""
    config = SessionConfig(
        max_conversations=1, timeout_minutes=1, persistence_enabled=True, features=["1"]
    )
    data = dumps(SessionState.new("a", config=config, at=STATE.created_at))
    assert check_same(data)
    assert right in data
    assert not check_same(data.replace(right, wrong))
    with pytest.raises(DeserializationError, match=r"config\."):
        loads(data.replace(right, wrong))
