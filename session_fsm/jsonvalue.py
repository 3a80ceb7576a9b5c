"""JSON values that never change.

A session's `llm_config` and `metadata` belong to the session alone: they are copied in, checked
once, and can't be changed by anybody afterwards. `JsonObject` and `JsonArray` are a `dict` and a
`list` whose mutators are refused, so they compare equal to plain ones, encode at full speed, hash,
pickle and copy. An instance is proof that its content is acceptable: whatever was frozen can be
written as JSON and read back equal.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Self

from .jsontext import JsonError, dump_json, parse_json, shown

__all__ = [
    "EMPTY_OBJECT",
    "MAX_INTEGER",
    "MAX_JSON_BYTES",
    "MAX_JSON_DEPTH",
    "MIN_INTEGER",
    "JsonArray",
    "JsonError",
    "JsonObject",
    "dump_json",
    "freeze_object",
    "freeze_value",
    "frozen_json",
    "frozen_object",
    "parse_json",
    "plain_text",
    "shown",
]

MAX_JSON_BYTES = 1024 * 1024
"""Longest encoded form of one JSON object of a state, in bytes."""
MAX_JSON_DEPTH = 100
"""Most levels of nesting; well below where any JSON reader gives up."""
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
"""Range of integers that every store and every reader keeps exactly (signed, 64 bits)."""
_MAX_PATH_CHARACTERS = 200
"""Longest path of a value of which no part is left out."""


def _refuse(self: object, *_: object, **__: object) -> NoReturn:
    raise TypeError(f"a {type(self).__name__} never changes; build a new value from a copy")


_REFUSED: Any = _refuse
"""What stands in the place of each method that would change its object, whatever its signature."""


class _Immutable:
    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self


class JsonObject(_Immutable, dict[str, Any]):
    """A JSON object, deeply immutable; equal to the plain `dict` with the same content.

    Args:
        value: A mapping with string keys and JSON values, copied; at most `MAX_JSON_BYTES` of JSON
            and `MAX_JSON_DEPTH` levels.

    Raises:
        ValueError: The value is no JSON object; the message lists every fault with its path.

    Example:
        >>> settings = JsonObject({"models": ["a", "b"]})
        >>> settings == {"models": ["a", "b"]}
        True
        >>> settings["models"].append("c")
        Traceback (most recent call last):
        TypeError: a JsonArray never changes; build a new value from a copy
    """

    __slots__ = ()

    def __new__(cls, value: Mapping[str, Any] | None = None, /) -> Self:
        """Return a checked copy, or the value itself where it is one."""
        if type(value) is cls:
            return value
        frozen, problems = freeze_object({} if value is None else value, "value")
        if problems:
            raise ValueError("; ".join(problems))
        return cls._of(frozen)

    def __init__(self, value: Mapping[str, Any] | None = None, /) -> None:
        """Fill nothing: `dict.__init__` would add to an instance that exists."""

    @classmethod
    def _of(cls, frozen: Mapping[str, Any]) -> Self:
        self = dict.__new__(cls)
        dict.update(self, frozen)
        return self

    def __hash__(self) -> int:  # type: ignore[override]  # an immutable dict may be a key
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._of, (dict(self),)  # checked when it was made

    __setitem__ = __delitem__ = __ior__ = _REFUSED
    clear = pop = popitem = setdefault = update = _REFUSED


class JsonArray(_Immutable, list[Any]):
    """A JSON array, deeply immutable; equal to the plain `list` with the same content."""

    __slots__ = ()

    def __new__(cls, values: Iterable[Any] = (), /) -> Self:
        """Return a checked copy, or the value itself where it is one."""
        if type(values) is cls:
            return values
        freezer = _Freezer()
        frozen = freezer.freeze(list(values), "value")
        if freezer.problems:
            raise ValueError("; ".join(freezer.problems))
        return cls._of(frozen)

    def __init__(self, values: Iterable[Any] = (), /) -> None:
        """Fill nothing: `list.__init__` would replace the content of an instance that exists."""

    @classmethod
    def _of(cls, frozen: Iterable[Any]) -> Self:
        self = list.__new__(cls)
        list.extend(self, frozen)
        return self

    def __hash__(self) -> int:  # type: ignore[override]  # an immutable list may be a key
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self)._of, (list(self),)  # checked when it was made

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _REFUSED
    append = extend = insert = remove = pop = clear = _REFUSED
    sort = reverse = _REFUSED


EMPTY_OBJECT = JsonObject._of({})


class _ObjectDraft(dict[str, Any]):
    """A `JsonObject` that is being filled, then sealed as `drafts` tells."""

    __slots__ = ()


class _ArrayDraft(list[Any]):
    """A `JsonArray` that is being filled."""

    __slots__ = ()


def frozen_json(value: Any, levels: int = sys.maxsize) -> Any:
    """Return plain JSON deeply immutable, of any size; nothing is checked but the depth.

    Args:
        value: What a reader of JSON gave, or what is made of values that were frozen before.
        levels: Most levels of nesting.

    Raises:
        ValueError: It is nested deeper.
    """
    kind = type(value)
    if kind is dict:
        return frozen_object(value, levels)
    return _frozen_array(value, levels) if kind is list else value


def frozen_object(value: dict[str, Any], levels: int) -> JsonObject:
    """Return a plain `dict` deeply immutable; otherwise as `frozen_json`."""
    if not levels:
        raise ValueError(_TOO_DEEP)
    draft: Any = _ObjectDraft(value)
    if _may_nest(value):
        levels -= 1
        for key, item in value.items():
            kind = type(item)
            if kind is dict:
                draft[key] = frozen_object(item, levels)
            elif kind is list:
                draft[key] = _frozen_array(item, levels)
    draft.__class__ = JsonObject
    frozen: JsonObject = draft
    return frozen


def _frozen_array(values: list[Any], levels: int) -> JsonArray:
    if not levels:
        raise ValueError(_TOO_DEEP)
    draft: Any
    if _are_no_containers(map(type, values)):
        draft = _ArrayDraft(values)
    elif levels > 1 and _are_objects(map(type, values)) and not any(map(_may_nest, values)):
        # The messages of a conversation are many, and flat: none of them costs a call of ours.
        draft = _ArrayDraft(map(_ObjectDraft, values))
        for item in draft:
            item.__class__ = JsonObject
    else:
        draft = _ArrayDraft([frozen_json(item, levels - 1) for item in values])
    draft.__class__ = JsonArray
    frozen: JsonArray = draft
    return frozen


_TOO_DEEP = "nested too deeply"
_are_objects = frozenset((dict,)).issuperset
_are_no_containers = frozenset((dict, list)).isdisjoint
# Python's collector of garbage must watch each dict that holds another container, through which it
# might come to hold itself; up to 3.13 it watches no others. What it does not watch is flat.
_may_nest = gc.is_tracked


def freeze_object(value: object, path: str) -> tuple[JsonObject, list[str]]:
    """Copy a mapping into a `JsonObject`, naming every fault.

    Args:
        value: What is to become a JSON object.
        path: How the value is called in a problem, such as `metadata`.

    Returns:
        The frozen object and no problems, or an empty object and the problems, each starting with
        its path. A problem never repeats a value: it may be a secret.
    """
    if type(value) is JsonObject:
        return value, []
    if not isinstance(value, Mapping):
        return EMPTY_OBJECT, [f"{path}: expected a JSON object, got {type(value).__name__}"]
    freezer = _Freezer()
    frozen, problems = freezer.freeze(value, path), freezer.problems
    if not problems and (size := len(dump_json(frozen))) > MAX_JSON_BYTES:
        problems.append(f"{path}: {size} bytes of JSON; at most {MAX_JSON_BYTES}")
    return (EMPTY_OBJECT if problems else frozen), problems


def freeze_value(value: object, path: str) -> tuple[Any, list[str]]:
    """Copy any JSON value, deeply immutable; bounds and problems as for `freeze_object`.

    Returns:
        The frozen value and no problems, or None and the problems.
    """
    if type(value) is JsonObject:
        return value, []
    freezer = _Freezer()
    frozen, problems = freezer.freeze(value, path), freezer.problems
    if not problems and (size := len(dump_json(frozen))) > MAX_JSON_BYTES:
        problems.append(f"{path}: {size} bytes of JSON; at most {MAX_JSON_BYTES}")
    return (None if problems else frozen), problems


class _TooMuchError(Exception):
    """There are more values than can be written within `MAX_JSON_BYTES`."""


class _Freezer:
    """One copy in progress: what is wrong so far, and how many values may still come.

    Values are counted, not bytes, for lists that hold each other or one list twice: their size
    doubles with each level, and could not be measured by copying them first.
    """

    __slots__ = ("problems", "room", "too_deep")

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.room = (MAX_JSON_BYTES + 1) // 2  # each takes two bytes, but for one comma less
        self.too_deep = False

    def freeze(self, value: object, path: str) -> Any:
        """Return the frozen copy of a JSON value; faults are added to `problems`."""
        try:
            return self._value(value, path, 1)
        except _TooMuchError:
            self.problems.append(f"{path}: more than {MAX_JSON_BYTES} bytes of JSON")
        return None

    def _value(self, value: object, path: str, depth: int) -> Any:
        self.room -= 1
        if self.room < 0:
            raise _TooMuchError
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return plain_text(value, path, self.problems)
        if isinstance(value, int):
            if MIN_INTEGER <= value <= MAX_INTEGER:
                return int(value)
            self.problems.append(f"{path}: an integer beyond signed 64 bits")
        elif isinstance(value, float):
            if math.isfinite(value):
                return float(value)
            self.problems.append(f"{path}: {float(value)} is no JSON number")
        elif isinstance(value, Mapping | list | tuple):
            if depth > MAX_JSON_DEPTH:
                self._name_depth(path)
            elif isinstance(value, Mapping):
                return JsonObject._of(self._members(value, path, depth))
            else:
                return JsonArray._of(
                    self._value(item, f"{_cut(path)}[{index}]", depth + 1)
                    for index, item in enumerate(value)
                )
        else:
            self.problems.append(f"{path}: {type(value).__name__} is no JSON value")
        return None

    def _name_depth(self, path: str) -> None:
        # Once: what holds itself twice over is too deep in a million places.
        if not self.too_deep:
            self.too_deep = True
            self.problems.append(f"{path[:80]}…: nested deeper than {MAX_JSON_DEPTH} levels")

    def _members(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                self.problems.append(f"{path}: a key is {type(key).__name__}, not a string")
                continue
            plain = len(key) <= _MAX_PATH_CHARACTERS and key.isidentifier()
            where = f"{_cut(path)}.{key}" if plain else f"{_cut(path)}[{shown(key)}]"
            members[plain_text(key, where, self.problems)] = self._value(item, where, depth + 1)
        return members


def _cut(path: str) -> str:
    """Return a path with its middle left out where it is long.

    A path is made for each value below it: with long keys in it, those of one small document would
    fill any memory.
    """
    if len(path) <= _MAX_PATH_CHARACTERS:
        return path
    half = _MAX_PATH_CHARACTERS // 2
    return f"{path[:half]}…{path[1 - half :]}"


def plain_text(value: str, path: str, problems: list[str]) -> str:
    """Return a string as an exact `str`; text that can't be stored is named in `problems`."""
    if "\x00" in value:
        problems.append(f"{path}: contains the character U+0000")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        problems.append(f"{path}: contains a lone surrogate, which is no Unicode text")
    return value if type(value) is str else str.__str__(value)
