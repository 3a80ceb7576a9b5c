"""Documents are read: strictly, with every fault by its path.

Formats are upgraded on reading, step by step; what is stored is never rewritten for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from ..errors import DeserializationError, StateInvalidError
from ..explain import misfits
from ..jsonvalue import JsonError, parse_json, shown
from ..lifecycle import Lifecycle
from ..state import SessionConfig, SessionState, faults
from ..table import SESSION_LIFECYCLE
from .converter import FAULTS, structure_state
from .instants import INSTANT_FIELDS, deadlines_or_value, instant_or_value, parse_instant

FORMAT: Final = 3
"""The number of the newest format; its `config` has `recovery`."""
LIMITS_FORMAT: Final = 2
"""The number of the format that has `task_deadlines`, but no `recovery`."""
PLAIN_FORMAT: Final = 1
"""The number of the format that has neither, in which most states are written."""
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""Longest document that `loads` looks at; every valid state is shorter."""

_UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    PLAIN_FORMAT: dict,
    LIMITS_FORMAT: dict,
}
"""For each older format, the step to the next one; what is new there may be left out."""
_NEW_FIELDS: Mapping[int, tuple[str, ...]] = {
    PLAIN_FORMAT: ("task_deadlines", "config.recovery"),
    LIMITS_FORMAT: ("config.recovery",),
}
"""For each older format, the paths of the fields that it does not know."""


def deserialize(
    mapping: Mapping[str, Any], lifecycle: Lifecycle = SESSION_LIFECYCLE
) -> SessionState:
    """Read a state from its JSON object.

    Args:
        mapping: As `serialize` gives it; `session_id`, `status`, `created_at` and `updated_at`
            must be there, the rest may be absent or null. Any UTC offset is taken.
        lifecycle: The lifecycle whose statuses are known.

    Raises:
        DeserializationError: Every fault by its path.
    """
    if not isinstance(mapping, Mapping):
        problem = f"expected a JSON object, got {type(mapping).__name__}"
        raise DeserializationError(problems=(problem,))
    fields, found = _upgraded(mapping)
    if not found:
        try:
            state = structure_state(fields)
        except (StateInvalidError, *FAULTS):
            pass  # told below, every fault of it
        else:
            found = [*_foreign(fields), *misfits(state.status, state.active_tasks, lifecycle)]
            if not found:
                status = lifecycle.status(state.status)
                return state.derive({}, at=state.updated_at, status=status)
    if not found or _format_of(mapping) in _READABLE:
        found += [problem for problem in _faults(fields, lifecycle) if problem not in found]
    raise DeserializationError(problems=tuple(found) or ("not a session state",))


FORMATS: Final = (*sorted(_UPGRADES), FORMAT)
"""The numbers of the formats that are read."""
_READABLE = frozenset(FORMATS)


def _format_of(mapping: Mapping[str, Any]) -> Any:
    number = mapping.get("format", FORMAT)
    return number if type(number) is int else None


def newer_format(data: bytes) -> int | None:
    """Return the format that a JSON text tells, if it is a number that is not known here."""
    try:
        told = parse_json(data, max_bytes=MAX_DOCUMENT_BYTES)
    except JsonError:
        return None
    number = _format_of(told) if isinstance(told, dict) else None
    return None if number in _READABLE else number


def _upgraded(mapping: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields in today's format, and what is wrong with the format that is told."""
    fields = {name: value for name, value in mapping.items() if name != "format"}
    number = _format_of(mapping)
    if number not in _READABLE:
        known = ", ".join(map(str, FORMATS))
        return fields, [f"format: unknown format {shown(mapping['format'])}; known are {known}"]
    strange = [path for path in _NEW_FIELDS.get(number, ()) if _stands_in(fields, path)]
    if strange:
        return fields, [f"{path}: unknown field in format {number}" for path in strange]
    while number != FORMAT:
        fields = _UPGRADES[number](fields)
        number += 1
    return fields, []


def _stands_in(fields: Mapping[str, Any], path: str) -> bool:
    """Tell whether a field is there, if only as null."""
    outer, _, inner = path.partition(".")
    if not inner:
        return outer in fields
    held = fields.get(outer)
    return isinstance(held, Mapping) and inner in held


def _foreign(fields: Mapping[str, Any]) -> list[str]:
    """Name what a constructor takes, but no JSON holds: instants, configurations, other lists."""
    found = [
        f"{name}: expected an instant (ISO 8601 with a UTC offset), got {shown(fields[name])}"
        for name in INSTANT_FIELDS
        if isinstance(fields.get(name), datetime)
    ]
    config = fields.get("config")
    lists = {"active_tasks": fields.get("active_tasks")}
    if isinstance(config, SessionConfig):
        found.append(f"config: expected a configuration, got {shown(config)}")
    elif isinstance(config, Mapping):
        lists["config.features"] = config.get("features")
    deadlines = fields.get("task_deadlines")
    if isinstance(deadlines, Mapping):
        found += [
            f"task_deadlines[{shown(task)}]: expected an instant (ISO 8601 with a UTC offset),"
            f" got {shown(at)}"
            for task, at in deadlines.items()
            if isinstance(at, datetime)
        ]
    elif deadlines is not None:
        found.append(f"task_deadlines: expected instants by task, got {shown(deadlines)}")
    return found + [
        f"{path}: expected a list of strings, got {shown(words)}"
        for path, words in lists.items()
        if isinstance(words, Iterable) and not isinstance(words, _LIST_LIKE)
    ]


_LIST_LIKE = (list, tuple, str, bytes, Mapping)
"""Lists, and what the constructors refuse where a list belongs."""


def _faults(fields: Mapping[str, Any], lifecycle: Lifecycle) -> list[str]:
    """Name every fault of fields that are not, or may not be, a state."""
    told: dict[str, str] = {}
    values: dict[Any, Any] = {}
    for name, value in fields.items():
        values[name] = instant_or_value(value) if name in INSTANT_FIELDS else value
        if name == "task_deadlines":
            values[name] = deadlines_or_value(value)
        if name in INSTANT_FIELDS and isinstance(value, str) and values[name] is value:
            try:
                parse_instant(value)
            except ValueError as fault:
                told[f"{name}: "] = f"{name}: {fault}"
    found = [
        next((better for path, better in told.items() if problem.startswith(path)), problem)
        for problem in faults(values)
    ]
    found += _foreign(fields)
    found += misfits(fields.get("status"), fields.get("active_tasks"), lifecycle)
    return found


def read_strictly(data: bytes | bytearray | memoryview | str, lifecycle: Lifecycle) -> SessionState:
    """Read a state from any JSON text that is one, as `loads` does; only slower."""
    try:
        mapping = parse_json(data, max_bytes=MAX_DOCUMENT_BYTES)
    except JsonError as fault:
        raise DeserializationError(problems=(str(fault),)) from None
    return deserialize(mapping, lifecycle)
