"""Plain JSON is frozen without being checked: the same values as by the checks, at every level."""

import copy
import gc
import json
import types
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from session_fsm.jsonvalue import JsonArray, JsonObject, freeze_object, frozen_json, frozen_object
from session_fsm.testing import json_objects

WORDS = st.text("ab\n é", max_size=3)
FLAT: st.SearchStrategy[Any] = st.dictionaries(
    WORDS, st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | WORDS
)
"""Objects that hold no container, as the messages of a conversation are."""
ROWS: st.SearchStrategy[Any] = st.lists(
    st.one_of(FLAT, FLAT, FLAT, st.lists(FLAT, max_size=2), WORDS, json_objects()),
    max_size=6,
)
"""Arrays of which most are of flat objects alone."""


def looks(value: Any) -> Any:
    """Return a value with the types of all that it is made of."""
    if isinstance(value, dict):
        return type(value), [(key, looks(item)) for key, item in value.items()]
    if isinstance(value, list):
        return type(value), [looks(item) for item in value]
    return type(value), repr(value)


def checked(value: dict[str, Any]) -> JsonObject:
    """Return an object as the checks freeze it."""
    frozen, problems = freeze_object(value, "data")
    assert not problems
    return frozen


@settings(max_examples=200)
@given(st.fixed_dictionaries({"rows": ROWS, "more": json_objects()}))
@example({"rows": [{}, {"a": [{}]}], "more": {}})
@example({"rows": [{"a": 1}, ""], "more": {}})
@example({"rows": [{"a": 1}, []], "more": {}})
def test_jsonvalue_frozen_is_as_if_checked(value: dict[str, Any]) -> None:
    """What either reader of JSON gives is frozen into what the checks make of it."""
    expected, text = looks(checked(value)), orjson.dumps(value)
    for plain in (value, orjson.loads(text), json.loads(text)):
        before = copy.deepcopy(plain)
        assert looks(frozen_json(plain)) == looks(frozen_object(plain, 99)) == expected
        assert looks(plain) == looks(before)  # what is frozen is a copy
        assert looks(frozen_json([plain]))[1] == [expected]


INNER: dict[str, Any] = {"b": 1}
MAKERS: dict[str, Callable[[], dict[str, Any]]] = {
    "literal": lambda: {"a": INNER},
    "keywords": lambda: _keywords(a=INNER),
    "pairs": lambda: dict(zip("a", [INNER], strict=True)),
    "comprehension": lambda: {key: [key] for key in "ba"},
    "spread": lambda: {"b": 0, **_keywords(a=INNER)},
    "item": lambda: _with_item({"b": 0, "a": 0}),
    "setdefault": lambda: _with_default({}),
    "update": lambda: _updated({}),
    "union": lambda: {"b": 0} | {"a": INNER},
    "fromkeys": lambda: dict.fromkeys("ab", INNER),
    "fromkeys of a dict": lambda: dict.fromkeys({"a": 0}, INNER),
    "copy": {"a": INNER}.copy,
    "attributes": lambda: vars(types.SimpleNamespace(a=INNER)),
    "of an empty object": lambda: {"a": {}},
    "of an empty array": lambda: {"a": []},
    "orjson": lambda: orjson.loads(b'{"b":0,"a":{"b":1}}'),
    "orjson, of an array": lambda: orjson.loads(b'{"b":0,"a":[]}'),
    "json": lambda: json.loads('{"b":0,"a":{"b":1}}'),
}
"""How Python makes dicts, each by another code."""


def _keywords(**made: Any) -> dict[str, Any]:
    return made


def _with_item(made: dict[str, Any]) -> dict[str, Any]:
    made["a"] = INNER
    return made


def _with_default(made: dict[str, Any]) -> dict[str, Any]:
    made.setdefault("a", INNER)
    return made


def _updated(made: dict[str, Any]) -> dict[str, Any]:
    made.update({"a": INNER})
    return made


@pytest.mark.parametrize("make", MAKERS.values(), ids=[name.replace(" ", "_") for name in MAKERS])
@pytest.mark.parametrize("collected", [False, True], ids=["young", "old"])
def test_jsonvalue_frozen_finds_what_a_dict_holds(
    make: Callable[[], dict[str, Any]], collected: bool
) -> None:
    """However a dict was made, and however often it was looked at for garbage, all is frozen."""
    made = make()
    if collected:
        gc.collect()
    assert type(frozen_json(made)["a"]) in {JsonObject, JsonArray}
    assert looks(frozen_json([made, made])) == looks(JsonArray([made, made]))


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("{}", 1),
        ("[]", 1),
        ("[1]", 1),
        ("[{}]", 2),
        ('[{"a":1},{"b":2}]', 2),
        ('[{"a":1},2]', 2),
        ("[1,{}]", 2),
        ("[[]]", 2),
        ('{"a":{}}', 2),
        ('{"a":[]}', 2),
        ('{"a":[{}]}', 3),
        ('[{"a":[1]},{}]', 3),
        ('[[{"a":1}]]', 3),
        ('{"a":[[{"b":[]}]]}', 5),
    ],
)
def test_jsonvalue_frozen_has_so_many_levels(text: str, levels: int) -> None:
    """As many levels as there are suffice, and one less is refused, whatever it is made of."""
    value = orjson.loads(text)
    assert looks(frozen_json(value, levels)) == looks(frozen_json(value))
    with pytest.raises(ValueError, match="nested too deeply"):
        frozen_json(value, levels - 1)
