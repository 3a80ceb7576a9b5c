"""JSON values: what is accepted, what is refused and how it is named, and that nothing changes."""

import copy
import json
import operator
import pickle
import re
import sys
import types
from collections.abc import Callable, Mapping
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_fsm.jsonvalue import (
    EMPTY_OBJECT,
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    JsonArray,
    JsonError,
    JsonObject,
    dump_json,
    freeze_object,
    frozen_json,
    parse_json,
    shown,
)
from session_fsm.testing import json_objects


class Word(StrEnum):
    WARM = "warm"


class Level(IntEnum):
    HIGH = 3


class Ratio(float):
    pass


def nested(depth: int, *, arrays: bool = False) -> dict[str, Any]:
    """An object with as many levels of objects, or of arrays below one object."""
    value: Any = [] if arrays else {}
    for _ in range(depth - 2):
        value = [value] if arrays else {"a": value}
    return {"a": value}


def problems_of(value: object) -> list[str]:
    """What is wrong with a value under the name `data`; what has a fault freezes to nothing."""
    frozen, problems = freeze_object(value, "data")
    assert not problems or frozen == {}
    return problems


# --- what is accepted ------------------------------------------------------------------------


@given(json_objects())
def test_jsonvalue_accepted_always_serializes(value: dict[str, Any]) -> None:
    """What is frozen equals what it was made of, is written, and is read back equal."""
    frozen = JsonObject(value)
    assert frozen == value
    text = dump_json(frozen)
    assert parse_json(text) == value
    assert json.loads(text) == value
    assert freeze_object(parse_json(text), "data") == (frozen, [])


@given(json_objects())
def test_jsonvalue_types_survive_json(value: dict[str, Any]) -> None:
    """Integers stay integers, floats floats and booleans booleans, minus zero included."""
    assert repr(parse_json(dump_json(JsonObject(value)))) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"": ""},
        {"a": -(2**63), "b": 2**63 - 1},
        {"a": 1.7976931348623157e308, "b": 5e-324, "c": -0.0},
        {"a": "\x01\x1f\x7f\u2028\U0010ffff"},
        {"a": "\ud7ff\ue000"},
        nested(MAX_JSON_DEPTH),
        nested(MAX_JSON_DEPTH, arrays=True),
        {"a": "x" * (MAX_JSON_BYTES - 8)},
        {"a": "é" * ((MAX_JSON_BYTES - 8) // 2)},
        {"a": [0] * ((MAX_JSON_BYTES - 8) // 2)},
    ],
    ids=shown,
)
def test_jsonvalue_limits_are_accepted(value: dict[str, Any]) -> None:
    """A value that lies just within each limit is frozen as it is."""
    assert problems_of(value) == []
    assert parse_json(dump_json(JsonObject(value))) == value


def test_jsonvalue_subclasses_become_plain() -> None:
    """Members of enumerations and other subclasses are kept as the plain values they stand for."""
    frozen = JsonObject({Word.WARM: [Word.WARM, Level.HIGH, Ratio(0.5), True], "b": (1, [2])})
    assert frozen == {"warm": ["warm", 3, 0.5, True], "b": [1, [2]]}
    assert [type(key) for key in frozen] == [str, str]
    assert [type(item) for item in frozen["warm"]] == [str, int, float, bool]
    assert type(frozen["b"]) is type(frozen["b"][1]) is JsonArray


def test_jsonvalue_any_mapping_is_an_object() -> None:
    """A mapping that is no dict is copied as one, at any depth."""
    value = types.MappingProxyType({"a": types.MappingProxyType({"b": 1})})
    assert JsonObject(value) == {"a": {"b": 1}}
    assert type(JsonObject(value)["a"]) is JsonObject


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"a": float("nan")}, "data.a: nan is no JSON number"),
        ({"a": float("inf")}, "data.a: inf is no JSON number"),
        ({"a": Ratio("-inf")}, "data.a: -inf is no JSON number"),
        ({"a": 2**63}, "data.a: an integer beyond signed 64 bits"),
        ({"a": -(2**63) - 1}, "data.a: an integer beyond signed 64 bits"),
        ({"a": 10**5000}, "data.a: an integer beyond signed 64 bits"),
        ({"a": "x\x00y"}, "data.a: contains the character U+0000"),
        ({"a\x00": 1}, 'data["a\\u0000"]: contains the character U+0000'),
        ({"a": "\ud800"}, "data.a: contains a lone surrogate, which is no Unicode text"),
        ({"\udfff": 1}, 'data["\\udfff"]: contains a lone surrogate, which is no Unicode text'),
        ({"a": {1: 2}}, "data.a: a key is int, not a string"),
        ({None: 2}, "data: a key is NoneType, not a string"),
        ({"a": [0, {1}]}, "data.a[1]: set is no JSON value"),
        ({"a": b"x"}, "data.a: bytes is no JSON value"),
        ({"a b": object()}, 'data["a b"]: object is no JSON value'),
        ({"a": 1j}, "data.a: complex is no JSON value"),
        ([], "data: expected a JSON object, got list"),
        (None, "data: expected a JSON object, got NoneType"),
        ("{}", "data: expected a JSON object, got str"),
    ],
    ids=lambda value: shown(value) if isinstance(value, str) else None,
)
def test_jsonvalue_refuses_what_is_no_json(value: object, problem: str) -> None:
    """Each kind of value that JSON can't hold is named with its path."""
    assert problems_of(value) == [problem]


def test_jsonvalue_names_every_fault() -> None:
    """All faults are named at once, in the order in which they stand."""
    value = {"a": [float("nan"), {"b": 2**64}], 5: 1, "c": {"d": {}, "e": object()}, "f": "\x00"}
    assert problems_of(value) == [
        "data.a[0]: nan is no JSON number",
        "data.a[1].b: an integer beyond signed 64 bits",
        "data: a key is int, not a string",
        "data.c.e: object is no JSON value",
        "data.f: contains the character U+0000",
    ]


def test_jsonvalue_problems_repeat_no_value() -> None:
    """A problem tells where a value stands and of what kind it is, never what it is."""
    value = {"password": "hunter2\x00", "a": {"hunter2"}, "b": b"hunter2", "c": ["hunter2\ud800"]}
    assert len(problems_of(value)) == 4
    assert "hunter2" not in "".join(problems_of(value))


@pytest.mark.parametrize("arrays", [False, True])
def test_jsonvalue_depth_is_limited(arrays: bool) -> None:
    """One level more than the limit is refused, and so are a hundred thousand."""
    for depth in (MAX_JSON_DEPTH + 1, 100_000):
        (problem,) = problems_of(nested(depth, arrays=arrays))
        assert re.fullmatch(r"data\.a[a.\[\]0]+…: nested deeper than 100 levels", problem)


def test_jsonvalue_depth_counts_what_is_frozen_already() -> None:
    """A frozen object inside another one counts with all its levels."""
    inner = JsonObject(nested(60))
    outer: dict[str, Any] = {"a": inner}
    for _ in range(MAX_JSON_DEPTH - 61):
        outer = {"a": outer}
    assert problems_of(outer) == []
    (problem,) = problems_of({"a": outer})
    assert problem.endswith("nested deeper than 100 levels")


@pytest.mark.parametrize(
    "value",
    [
        {"a": "x" * (MAX_JSON_BYTES - 7)},
        {"a": "é" * ((MAX_JSON_BYTES - 8) // 2 + 1)},
        {"a": "\n" * ((MAX_JSON_BYTES - 8) // 2 + 1)},
        {"a": [0] * ((MAX_JSON_BYTES - 8) // 2 + 1)},
        {"x" * (MAX_JSON_BYTES - 5): 0},
    ],
    ids=shown,
)
def test_jsonvalue_size_is_limited(value: dict[str, Any]) -> None:
    """One byte of JSON more than the limit is refused, whatever it is made of."""
    (problem,) = problems_of(value)
    assert re.fullmatch(r"data: 1048\d\d\d bytes of JSON; at most 1048576", problem)


def test_jsonvalue_paths_are_cut_in_the_middle() -> None:
    """Long keys do not make long problems; where the value stands is told at both ends."""
    value: dict[str, Any] = {"last": {1}}
    for _ in range(90):
        value = {"k" * 150: value}
    (problem,) = problems_of({"first": value})
    assert problem.startswith("data.first.kkk")
    assert problem.endswith("k.last: set is no JSON value")
    assert "…" in problem
    assert len(problem) < 500
    (problem,) = problems_of({"k" * 100_000: {1}})
    assert problem == f'data["{"k" * 59}…]: set is no JSON value'


def test_jsonvalue_cycle_is_refused() -> None:
    """What holds itself is nested too deeply, once or in every branch."""
    loop: dict[str, Any] = {}
    loop["a"] = loop
    (problem,) = problems_of(loop)
    assert problem.endswith("nested deeper than 100 levels")
    branches: list[Any] = []
    branches += [branches, branches]
    deep, large = problems_of({"a": branches})
    assert deep.endswith("nested deeper than 100 levels")
    assert large == f"data: more than {MAX_JSON_BYTES} bytes of JSON"


def test_jsonvalue_shared_parts_count_each_time() -> None:
    """A value whose size doubles with each level is refused in time, before it is copied out."""
    value: list[Any] = []
    for _ in range(60):
        value = [value, value]
    assert problems_of({"a": value}) == [f"data: more than {MAX_JSON_BYTES} bytes of JSON"]


def test_jsonvalue_constructors_raise_with_every_fault() -> None:
    """An object or array made directly refuses the same, with all faults in one message."""
    with pytest.raises(ValueError, match=r"value\.a: nan is.*; value\.b: set is no JSON value"):
        JsonObject({"a": float("nan"), "b": set()})
    with pytest.raises(ValueError, match=r"value\[0\]: nan is.*; value\[1\]: set is no JSON value"):
        JsonArray([float("nan"), set()])
    with pytest.raises(ValueError, match=r"value: expected a JSON object, got list"):
        JsonObject([])  # type: ignore[arg-type]  # what is tested


# --- nothing changes -------------------------------------------------------------------------


def test_jsonvalue_is_a_copy_at_every_depth() -> None:
    """A later change of what an object was made of does not reach it."""
    inner: dict[str, Any] = {"b": [1, {"c": 2}]}
    value = {"a": inner}
    frozen = JsonObject(value)
    inner["b"][1]["c"] = "changed"
    inner["b"].append(3)
    inner["d"] = 4
    value["e"] = {}
    assert frozen == {"a": {"b": [1, {"c": 2}]}}


def join_in_place(value: Any) -> None:
    """`|=`, as a statement."""
    value |= {"b": 1}


def add_in_place(value: Any) -> None:
    """`+=`, as a statement."""
    value += [9]


def multiply_in_place(value: Any) -> None:
    """`*=`, as a statement."""
    value *= 2


OBJECT_MUTATIONS: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__("a", 1),
    lambda it: it.__delitem__("a"),
    lambda it: it.__ior__({"b": 1}),
    lambda it: operator.setitem(it, "a", 1),
    lambda it: operator.delitem(it, "a"),
    join_in_place,
    lambda it: it.clear(),
    lambda it: it.pop("a"),
    lambda it: it.pop("absent", None),
    lambda it: it.popitem(),
    lambda it: it.setdefault("b", 1),
    lambda it: it.update({"b": 1}),
    lambda it: it.update(b=1),
]
ARRAY_MUTATIONS: list[Callable[[Any], object]] = [
    lambda it: it.__setitem__(0, 9),
    lambda it: it.__delitem__(0),
    lambda it: it.__iadd__([9]),
    lambda it: it.__imul__(2),
    lambda it: operator.setitem(it, slice(0, 1), []),
    lambda it: operator.delitem(it, slice(0, 1)),
    add_in_place,
    multiply_in_place,
    lambda it: it.append(9),
    lambda it: it.extend([9]),
    lambda it: it.insert(0, 9),
    lambda it: it.remove(1),
    lambda it: it.pop(),
    lambda it: it.clear(),
    lambda it: it.sort(),
    lambda it: it.reverse(),
]


@pytest.mark.parametrize("mutate", OBJECT_MUTATIONS)
def test_jsonvalue_object_refuses_mutation(mutate: Callable[[Any], object]) -> None:
    """Every way to change an object raises, and leaves it as it was."""
    frozen = JsonObject({"a": {"b": 0}})
    for it in (frozen, frozen["a"]):
        with pytest.raises(TypeError, match="a JsonObject never changes"):
            mutate(it)
    assert frozen == {"a": {"b": 0}}


@pytest.mark.parametrize("mutate", ARRAY_MUTATIONS)
def test_jsonvalue_array_refuses_mutation(mutate: Callable[[Any], object]) -> None:
    """Every way to change an array raises, and leaves it as it was."""
    frozen = JsonObject({"a": [1, 2]})
    with pytest.raises(TypeError, match="a JsonArray never changes"):
        mutate(frozen["a"])
    assert frozen == {"a": [1, 2]}


@pytest.mark.parametrize("kind", [JsonObject, JsonArray])
def test_jsonvalue_every_mutator_is_refused(kind: type) -> None:
    """No method that changes a plain dict or list is left as it is inherited."""
    plain = kind.__mro__[2]
    harmless = {"__init__", "__new__", "__hash__", "__reduce__", "__reduce_ex__"}
    reading = set(dir(tuple)) | set(dir(types.MappingProxyType)) | set(dir(object)) | harmless
    # Reading methods that only the mutable type has.
    reading |= {"fromkeys", "copy", "__reversed__", "__class_getitem__"}
    changing = set(dir(plain)) - reading
    assert len(changing) > 6
    for name in changing:
        assert getattr(kind, name) is not getattr(plain, name), name


def test_jsonvalue_initializer_adds_nothing() -> None:
    """Calling the initializer of an object that exists leaves it as it is."""
    frozen, array = JsonObject({"a": [1]}), JsonArray([1])
    frozen.__init__({"b": 1})  # type: ignore[misc]  # what is tested
    array.__init__([2])  # type: ignore[misc]  # what is tested
    assert (frozen, array) == ({"a": [1]}, [1])
    with pytest.raises(TypeError):
        JsonObject.fromkeys(["a"])


def test_jsonvalue_has_no_room_for_attributes() -> None:
    """Neither kind takes attributes, which would be a place for changes."""
    for value in (JsonObject({}), JsonArray([])):
        with pytest.raises(AttributeError):
            value.note = "x"  # type: ignore[union-attr]  # what is tested


def test_jsonvalue_what_derives_from_it_is_plain() -> None:
    """Sums, unions, slices and copies are new plain values, made to be changed."""
    frozen, array = JsonObject({"a": 1}), JsonArray([1, 2])
    for value in (frozen | {"b": 2}, frozen.copy(), dict(frozen)):
        assert type(value) is dict
    for items in (array + [3], array * 2, array[:1], array.copy(), list(array)):  # noqa: RUF005 - the sum is tested
        assert type(items) is list
    assert (frozen, array) == ({"a": 1}, [1, 2])


# --- it behaves as a value -------------------------------------------------------------------


@given(json_objects())
def test_jsonvalue_copies_and_pickles_are_equal(value: dict[str, Any]) -> None:
    """A pickle gives an equal value of the same kind; a copy gives the value itself."""
    frozen = JsonObject(value)
    assert copy.copy(frozen) is copy.deepcopy(frozen) is frozen
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        loaded = pickle.loads(pickle.dumps(frozen, protocol))
        assert type(loaded) is JsonObject
        assert repr(loaded) == repr(frozen)
        assert hash(loaded) == hash(frozen)


@pytest.mark.parametrize("arrays", [False, True])
def test_jsonvalue_deepest_value_pickles(arrays: bool) -> None:
    """The deepest value that is accepted can be pickled and copied."""
    frozen = JsonObject(nested(MAX_JSON_DEPTH, arrays=arrays))
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert copy.deepcopy({"a": frozen})["a"] is frozen


def test_jsonvalue_equals_and_hashes_by_content() -> None:
    """Values equal plain ones with the same content, and may be keys."""
    assert JsonObject({"a": 1, "b": [2]}) == {"b": [2], "a": 1}
    assert JsonObject({"a": 1}) != {"a": 2}
    assert JsonArray([1, [2]]) == [1, [2]]
    assert JsonArray([1]) != [2]
    assert hash(JsonObject({"a": 1, "b": [2]})) == hash(JsonObject({"b": [2], "a": 1}))
    assert hash(JsonArray([{"a": 1}])) == hash(JsonArray([{"a": 1}]))
    assert {JsonObject({"a": [1]}): "found"}[JsonObject({"a": [1]})] == "found"


def test_jsonvalue_frozen_is_not_copied_again() -> None:
    """What is frozen is its own frozen form."""
    frozen, array = JsonObject({"a": 1}), JsonArray([1])
    assert JsonObject(frozen) is frozen
    assert JsonArray(array) is array
    assert freeze_object(frozen, "data")[0] is frozen
    assert JsonObject() == JsonObject(None) == EMPTY_OBJECT == {}


@given(json_objects())
def test_jsonvalue_parsed_json_is_frozen_unchecked(value: dict[str, Any]) -> None:
    """Plain JSON of any depth and size is frozen at every level, and not looked at."""
    frozen = frozen_json([value, {"a": [value]}])
    assert repr(frozen) == repr(JsonArray([value, {"a": [value]}]))
    assert type(frozen) is JsonArray
    assert {type(frozen[0]), type(frozen[1])} == {JsonObject}
    assert type(frozen[1]["a"]) is JsonArray
    assert type(frozen[1]["a"][0]) is JsonObject
    for item in (frozen, frozen[0], None, 5, "x"):
        assert frozen_json(item) is item


def test_jsonvalue_writes_compact_utf8() -> None:
    """The written form has no blanks, keeps the order of keys, and is UTF-8."""
    assert dump_json(JsonObject({"b": [1, 0.5], "a": "é"})) == '{"b":[1,0.5],"a":"é"}'.encode()


# --- reading text ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON: Expecting value at line 1 column 1"),
        (b" ", "not JSON: Expecting value"),
        (b"{", "not JSON: Expecting property name"),
        (b'{"a":1}\n]', "not JSON: Extra data at line 2 column 1"),
        (b"{} {}", "not JSON: Extra data"),
        (b"{'a':1}", "not JSON: "),
        (b'{"a":1,}', "not JSON: "),
        (b'"a\tb"', "not JSON: Invalid control character"),
        (b"[01]", "not JSON: "),
        (b"[+1]", "not JSON: "),
        (b"NaN", "NaN is no JSON number"),
        (b"[Infinity]", "Infinity is no JSON number"),
        (b'{"a":-Infinity}', "-Infinity is no JSON number"),
        (b'{"a":1,"b":2,"a":3}', 'the key "a" stands twice in one object'),
        (b'[{"x":{"a":1,"\\u0061":1}}]', 'the key "a" stands twice in one object'),
        (b'"\xff"', "not UTF-8: invalid start byte at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8: "),
        (b"\xff\xfe{\x00}\x00", "not UTF-8: "),
        (b"\xef\xbb\xbf{}", "not JSON: "),
        (b"9" * 5000, "a number with too many digits"),
        (b"[" * 100_000 + b"]" * 100_000, "not read: nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not read: nested too deeply"),
    ],
    ids=lambda value: shown(value, 20) if isinstance(value, str) else None,
)
def test_jsonvalue_text_is_read_strictly(data: bytes, message: str) -> None:
    """Each kind of text that is not strict JSON is refused, and the message says why."""
    with pytest.raises(JsonError, match=re.escape(message)):
        parse_json(data)
    if data.isascii():
        with pytest.raises(JsonError, match=re.escape(message)):
            parse_json(data.decode())


def test_jsonvalue_long_text_is_not_looked_at() -> None:
    """Text beyond the limit is refused by its length; at the limit it is read."""
    assert parse_json(b'"abc"', max_bytes=5) == "abc"
    with pytest.raises(JsonError, match=r"not read: 6 bytes of JSON, at most 5 are taken"):
        parse_json(b"\xff" * 6, max_bytes=5)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_jsonvalue_reads_each_kind_of_bytes(kind: Callable[[bytes], Any]) -> None:
    """Bytes of every kind are read, and so is text."""
    assert parse_json(kind(b' {"a": [1, 2.5, null]} ')) == {"a": [1, 2.5, None]}
    assert parse_json('"é"') == "é"


@given(st.text() | st.binary())
def test_jsonvalue_reading_fails_in_one_way(data: str | bytes) -> None:
    """Whatever is read gives a value or a JsonError, nothing else."""
    try:
        value = parse_json(data)
    except JsonError:
        return
    assert value == json.loads(data)


# --- values in messages ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\n\x1b[31m", '"a\\n\\u001b[31m"'),
        (None, "null"),
        (True, "true"),
        ("é", '"\\u00e9"'),
        (Word.WARM, '"warm"'),
        ({1, 2}, "a set"),
        ("x" * 100, '"' + "x" * 59 + "…"),
    ],
)
def test_jsonvalue_shown_is_short_and_ascii(value: object, text: str) -> None:
    """A value in a message is JSON in ASCII without control characters, cut at a limit."""
    assert shown(value) == text


def test_jsonvalue_shown_survives_any_value() -> None:
    """What can't be written as JSON is told by its type, and nothing is raised."""
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = []
    for _ in range(sys.getrecursionlimit() * 20):
        deep = [deep]
    assert shown(loop) == shown(deep) == "a list"
    assert shown(10**5000) == "a int"
    assert isinstance(JsonObject({"a": 1}), Mapping)
