"""States as JSON: what is stored, sent, and read back.

Wire form of a state (`serialize`): an object with the key `format` and every field of
`SessionState`; statuses by value, instants as `2026-01-31T12:00:00.000000Z`, `config` as an
object of the fields of `SessionConfig`, `active_tasks` and `features` as arrays. `task_deadlines`,
an object of instants by task, is there only if a task has a time limit, and the `recovery` of
`config` only if it is not "release". `format` is 3 where there is `recovery`, otherwise 2 where
there is `task_deadlines`, otherwise 1: a reader that does not know what a state has refuses it.

Reading is strict: nothing is guessed, rounded or converted, and every fault is named by its path.
The constructors of the state are the judge of every value; this module only brings values into
their shape.

Formats are upgraded on reading, step by step; what is stored is never rewritten for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import DeserializationError, StateInvalidError
from ..explain import misfits
from ..jsontext import dump_json, parse_dumped
from ..lifecycle import Lifecycle
from ..state import SessionState
from ..table import SESSION_LIFECYCLE
from .converter import wire_fields, wire_value
from .instants import parse_instant
from .reading import (
    FORMAT,
    FORMATS,
    LIMITS_FORMAT,
    MAX_DOCUMENT_BYTES,
    PLAIN_FORMAT,
    deserialize,
    newer_format,
    read_strictly,
)
from .schema import json_schema
from .written import read_written

__all__ = [
    "FORMAT",
    "FORMATS",
    "MAX_DOCUMENT_BYTES",
    "deserialize",
    "dumps",
    "json_schema",
    "loads",
    "newer_format",
    "parse_instant",
    "serialize",
    "thawed",
    "wire_document",
    "wire_value",
]


def thawed(value: Any) -> Any:
    """Return JSON as plain dicts and lists, which may be changed."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return [thawed(item) for item in value] if isinstance(value, list) else value


def serialize(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> dict[str, Any]:
    """Return a state as a JSON object; plain values, which belong to the caller.

    Args:
        state: The state.
        lifecycle: The lifecycle that it is valid in.

    Raises:
        StateInvalidError: The status is unknown to the lifecycle, or can't hold the tasks.
    """
    plain: dict[str, Any] = parse_dumped(dumps(state, lifecycle))
    return plain


def dumps(state: SessionState, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> bytes:
    """Return a state as compact JSON in UTF-8; errors as `serialize`."""
    return dump_json(wire_document(state, lifecycle))


def wire_document(state: SessionState, lifecycle: Lifecycle) -> dict[str, Any]:
    """Return what `dumps` writes, before it is text, for whoever writes it otherwise."""
    _check_fit(state, lifecycle)
    number = LIMITS_FORMAT if state.task_deadlines else PLAIN_FORMAT
    if state.config.recovery != "release":
        number = FORMAT
    return {"format": number, **wire_fields(state)}


def _check_fit(state: SessionState, lifecycle: Lifecycle) -> None:
    if found := misfits(state.status, state.active_tasks, lifecycle):
        raise StateInvalidError(problems=found)


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
    if type(data) is bytes or type(data) is str:
        state = read_written(data, lifecycle)
        if state is not None:
            return state
    elif not isinstance(data, bytes | bytearray | memoryview | str):
        problem = f"expected JSON text, got {type(data).__name__}"
        raise DeserializationError(problems=(problem,))
    return read_strictly(data, lifecycle)
