"""What a caller hands over, as it was when the verb was called.

An awaited verb is made in a thread, while the loop goes on and may change what was handed over:
half of the old and half of the new would be stored. So it is copied on the loop, before the thread
gets it. To copy is a fraction of the work of checking and freezing, which stays with the thread;
what is refused, and by which words, is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ..jsonvalue import MAX_JSON_DEPTH, JsonArray, JsonObject

_DEEPEST: Final = MAX_JSON_DEPTH + 1
"""What is nested deeper is refused, so nothing below is copied."""
_FIXED: Final = frozenset((str, int, float, bool, type(None), bytes, JsonObject, JsonArray))
"""Kinds of values that nobody can change."""
_are_fixed: Final = _FIXED.issuperset


def as_given(value: Any) -> Any:
    """Copy plain containers, all the way down; whatever else it holds is handed on as it is."""
    return value if type(value) in _FIXED else _Copier(_plain).copy(value, 1)


def as_json(value: Any) -> Any:
    """Copy what is to become JSON, of whatever kinds of mappings and lists it is made."""
    return value if type(value) in _FIXED else _Copier(_json).copy(value, 1)


def as_listed(values: Any) -> Any:
    """Read an iterable to its end; what is none is for the verb to refuse."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        return values
    return tuple(values)


def _plain(value: object) -> type | None:
    """Return the kind of container that a value is exactly."""
    kind = type(value)
    return kind if kind in (dict, list, tuple, set) else None


def _json(value: object) -> type | None:
    """Return the kind of container that stands for a value in JSON."""
    if isinstance(value, Mapping):
        return dict
    if isinstance(value, list):
        return list
    return tuple if isinstance(value, tuple) else None


class _Copier:
    """One copy in progress. What is held twice is copied once, or its size could double each level.

    Args:
        kind_of: Returns the kind of container that a value is copied as; None: it is none.
    """

    __slots__ = ("_copied", "_kind_of")

    def __init__(self, kind_of: Callable[[object], type | None]) -> None:
        self._kind_of = kind_of
        self._copied: dict[
            int, tuple[object, Any]
        ] = {}  # with the original, whose id stays its own

    def copy(self, value: Any, depth: int) -> Any:
        """Return the copy of a value."""
        kind = self._kind_of(value)
        if kind is None or depth > _DEEPEST:
            return value
        if kind is set:
            return set(value)
        members = value.values() if kind is dict else value
        if _are_fixed(map(type, members)):
            return dict(value.items()) if kind is dict else kind(value)
        if (known := self._copied.get(id(value))) is not None:
            return known[1]
        deeper = depth + 1
        copied: Any
        if kind is dict:
            copied = {
                key: item if type(item) in _FIXED else self.copy(item, deeper)
                for key, item in value.items()
            }
        else:
            copied = kind(
                item if type(item) in _FIXED else self.copy(item, deeper) for item in value
            )
        self._copied[id(value)] = (value, copied)
        return copied
