"""States as JSON: what is stored, sent, and read back.

Wire form of a state (`serialize`): an object with the key `format` (the number 1) and every field
of `SessionState`; statuses by value, instants as `2026-01-31T12:00:00.000000Z`, `config` as an
object of the fields of `SessionConfig`, `active_tasks` and `features` as arrays.

Reading is strict: nothing is guessed, rounded or converted, and every fault is named by its path.
The constructors of the state are the judge of every value; this module only brings values into
their shape.

Formats are upgraded on reading, step by step; what is stored is never rewritten for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import cattrs
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn

from .clock import instant_text
from .errors import DeserializationError, StateInvalidError
from .explain import misfits
from .fields import (
    MAX_ERROR_CHARACTERS,
    MAX_FEATURES,
    MAX_ID_CHARACTERS,
    MAX_TASKS,
    MAX_TIMEOUT_MINUTES,
)
from .jsonvalue import (
    MAX_JSON_BYTES,
    MAX_JSON_DEPTH,
    JsonError,
    JsonObject,
    dump_json,
    parse_json,
    shown,
)
from .lifecycle import Lifecycle
from .state import CONFIG_FIELDS, REQUIRED_FIELDS, STATE_FIELDS, SessionConfig, SessionState, faults
from .table import SESSION_LIFECYCLE

FORMAT: Final = 1
"""The number of the format that is written."""
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""Longest document that `loads` looks at; every valid state is shorter."""

_UPGRADES: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""For each older format, the step to the next one."""

_INSTANT = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_INSTANT_PATTERN = re.compile(_INSTANT)
_INSTANT_FIELDS = ("created_at", "updated_at", "status_since", "last_activity_at")


def parse_instant(text: str) -> datetime:
    """Read an instant: ISO 8601 with date, time, at most six decimals, and a UTC offset.

    Raises:
        ValueError: The text is no such instant; naive instants, bare dates and week dates are not.

    Example:
        >>> parse_instant("2026-01-31T14:00:00+02:00").isoformat()
        '2026-01-31T12:00:00+00:00'
    """
    if not _INSTANT_PATTERN.fullmatch(text):
        raise ValueError(f"expected an instant (ISO 8601 with a UTC offset), got {shown(text)}")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as fault:
        raise ValueError(f"no such instant, {shown(text)}: {fault}") from None


def _instant(value: Any) -> Any:
    """Return the instant that a text tells, or the value itself for the constructor to refuse."""
    if not isinstance(value, str):
        return value
    try:
        return parse_instant(value)
    except ValueError:
        return value


def _is_words(kind: Any) -> bool:
    return bool(kind == tuple[str, ...])


def _as_it_is(value: Any, _: Any) -> Any:
    return value


def _read_instant(value: Any, _: Any) -> Any:
    return _instant(value)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    converter.register_unstructure_hook(datetime, instant_text)
    converter.register_unstructure_hook(str, str.__str__)
    converter.register_unstructure_hook(JsonObject, lambda value: value)
    converter.register_unstructure_hook_func(_is_words, list)
    # The constructor refuses what it does not want; converting would hide it from there.
    converter.register_structure_hook_func(lambda kind: kind is not SessionState, _as_it_is)
    for kind in (str, int):
        converter.register_structure_hook(kind, _as_it_is)
    converter.register_structure_hook(datetime, _read_instant)
    converter.register_unstructure_hook(
        SessionConfig, make_dict_unstructure_fn(SessionConfig, converter)
    )
    converter.register_unstructure_hook(
        SessionState, make_dict_unstructure_fn(SessionState, converter)
    )
    converter.register_structure_hook(
        SessionState,
        make_dict_structure_fn(
            SessionState,
            converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=False,
        ),
    )
    return converter


_CONVERTER = _make_converter()
_ABSENT: Mapping[str, None] = dict.fromkeys(
    name for name in STATE_FIELDS if name not in REQUIRED_FIELDS
)


def thawed(value: Any) -> Any:
    """Return JSON as plain dicts and lists, which may be changed."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, list) else value


def _wire(state: SessionState) -> dict[str, Any]:
    return {"format": FORMAT, **_CONVERTER.unstructure(state, SessionState)}


def serialize(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> dict[str, Any]:
    """Return a state as a JSON object; plain values, which belong to the caller.

    Args:
        state: The state.
        lifecycle: The lifecycle that it is valid in.

    Raises:
        StateInvalidError: The status is unknown to the lifecycle, or can't hold the tasks.
    """
    _check_fit(state, lifecycle)
    plain: dict[str, Any] = thawed(_wire(state))
    return plain


def dumps(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> bytes:
    """Return a state as compact JSON in UTF-8; errors as `serialize`."""
    _check_fit(state, lifecycle)
    return dump_json(_wire(state))


def _check_fit(state: SessionState, lifecycle: Lifecycle) -> None:
    if found := misfits(state.status, state.active_tasks, lifecycle):
        raise StateInvalidError(problems=found)


def wire_value(name: str, value: Any) -> Any:
    """Return one field's value as `serialize` writes it."""
    if name in _INSTANT_FIELDS:
        return instant_text(value)
    if isinstance(value, SessionConfig):
        return _CONVERTER.unstructure(value, SessionConfig)
    return list(value) if isinstance(value, tuple) else value


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
            state: SessionState = _CONVERTER.structure({**_ABSENT, **fields}, SessionState)
        except (StateInvalidError, KeyError, cattrs.ForbiddenExtraKeysError, TypeError):
            pass  # told below, every fault of it
        else:
            found = [*_foreign(fields), *misfits(state.status, state.active_tasks, lifecycle)]
            if not found:
                status = lifecycle.status(state.status)
                return state.derive({}, at=state.updated_at, status=status)
    if not found or _format_of(mapping) in _READABLE:
        found += [problem for problem in _faults(fields, lifecycle) if problem not in found]
    raise DeserializationError(problems=tuple(found))


_READABLE = frozenset({FORMAT, *_UPGRADES})


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
        known = ", ".join(map(str, sorted(_READABLE)))
        return fields, [f"format: unknown format {shown(mapping['format'])}; known are {known}"]
    while number != FORMAT:
        fields = _UPGRADES[number](fields)
        number += 1
    return fields, []


def _foreign(fields: Mapping[str, Any]) -> list[str]:
    """Name what a constructor takes, but no JSON holds: instants, configurations, other lists."""
    found = [
        f"{name}: expected an instant (ISO 8601 with a UTC offset), got {shown(fields[name])}"
        for name in _INSTANT_FIELDS
        if isinstance(fields.get(name), datetime)
    ]
    config = fields.get("config")
    lists = {"active_tasks": fields.get("active_tasks")}
    if isinstance(config, SessionConfig):
        found.append(f"config: expected a configuration, got {shown(config)}")
    elif isinstance(config, Mapping):
        lists["config.features"] = config.get("features")
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
        values[name] = _instant(value) if name in _INSTANT_FIELDS else value
        if name in _INSTANT_FIELDS and isinstance(value, str) and values[name] is value:
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
    return found or ["not a session state"]


def loads(
    data: bytes | bytearray | memoryview | str, lifecycle: Lifecycle = SESSION_LIFECYCLE
) -> SessionState:
    """Read a state from JSON text.

    Args:
        data: A JSON object in UTF-8, at most `MAX_DOCUMENT_BYTES`.
        lifecycle: The lifecycle whose statuses are known.

    Raises:
        DeserializationError: Not strict JSON, or every fault by its path.
    """
    if not isinstance(data, bytes | bytearray | memoryview | str):
        problem = f"expected JSON text, got {type(data).__name__}"
        raise DeserializationError(problems=(problem,))
    try:
        mapping = parse_json(data, max_bytes=MAX_DOCUMENT_BYTES)
    except JsonError as fault:
        raise DeserializationError(problems=(str(fault),)) from None
    return deserialize(mapping, lifecycle)


def json_schema(lifecycle: Lifecycle = SESSION_LIFECYCLE) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that accepts whatever `deserialize` accepts."""
    word = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_CHARACTERS,
        "pattern": "^[^ ](.*[^ ])?$",
    }
    instant = {"type": "string", "format": "date-time", "pattern": f"^{_INSTANT}$"}

    def words(most: int) -> dict[str, Any]:
        return {
            "type": ["array", "null"],
            "items": word,
            "uniqueItems": True,
            "maxItems": most,
        }

    def integer(least: int, most: int) -> dict[str, Any]:
        return {"type": ["integer", "null"], "minimum": least, "maximum": most}

    config = {
        "max_conversations": {**integer(1, 2**63 - 1), "default": 100},
        "timeout_minutes": {**integer(1, MAX_TIMEOUT_MINUTES), "default": 30},
        "persistence_enabled": {"type": ["boolean", "null"], "default": None},
        "features": words(MAX_FEATURES),
    }
    assert tuple(config) == CONFIG_FIELDS
    fields = {
        "session_id": word,
        "status": {"enum": [str(status) for status in lifecycle.statuses]},
        "config": {
            "type": ["object", "null"],
            "properties": config,
            "additionalProperties": False,
        },
        "llm_config": {"type": ["object", "null"]},
        "metadata": {"type": ["object", "null"]},
        "created_at": instant,
        "updated_at": instant,
        "status_since": {**instant, "type": ["string", "null"]},
        "last_activity_at": {**instant, "type": ["string", "null"]},
        "active_tasks": words(MAX_TASKS),
        "conversation_count": integer(0, 2**63 - 1),
        "error": {"type": ["string", "null"], "maxLength": MAX_ERROR_CHARACTERS},
    }
    assert tuple(fields) == STATE_FIELDS
    tasks = [str(status) for status in lifecycle.statuses if lifecycle.holds_tasks(status)]
    limits = (
        f"llm_config and metadata are each at most {MAX_JSON_BYTES} bytes of compact JSON and"
        f" {MAX_JSON_DEPTH} levels deep"
    )
    rules = [
        "The instants are real ones, of the years 1 to 9999 in UTC.",
        "status_since and last_activity_at lie between created_at and updated_at.",
        "Ids, task ids and features are printable characters only.",
        f"Only a session in status {', '.join(tasks) or '(none)'} has active_tasks.",
        f"{limits}; their numbers are finite floats or signed 64-bit integers.",
        "An integer is written without a fraction.",
        "No text contains U+0000 or a lone surrogate; no key stands twice in an object.",
        f"The document has at most {MAX_DOCUMENT_BYTES} bytes.",
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"State of a session in the lifecycle {lifecycle.name!r}, format {FORMAT}",
        "$comment": "A schema can't say, and a reader checks: " + " ".join(rules),
        "type": "object",
        "properties": {"format": {"const": FORMAT}, **fields},
        "required": list(REQUIRED_FIELDS),
        "additionalProperties": False,
    }
