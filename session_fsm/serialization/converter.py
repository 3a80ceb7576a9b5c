"""States and configurations by cattrs: their fields as JSON has them, and back.

The constructors of the state are the judge of every value; what is here only brings values into
their shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import cattrs
from cattrs.fns import identity
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from ..clock import instant_text
from ..state import REQUIRED_FIELDS, STATE_FIELDS, SessionConfig, SessionState
from .instants import INSTANT_FIELDS, deadlines_or_value, instant_json, instant_or_value

FAULTS = (KeyError, TypeError, cattrs.ForbiddenExtraKeysError)
"""What `structure_state` raises of itself, beside what the constructors raise."""


def _is_words(kind: Any) -> bool:
    return bool(kind == tuple[str, ...])


def _as_it_is(value: Any, _: Any) -> Any:
    return value


def _read_instant(value: Any, _: Any) -> Any:
    return instant_or_value(value)


def _write_deadlines(deadlines: tuple[tuple[str, datetime], ...]) -> dict[str, Any]:
    return {task: instant_json(at) for task, at in deadlines}


def _read_deadlines(value: Any, _: Any) -> Any:
    return deadlines_or_value(value)


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=False)
    # What is written as it is costs no call; so is most of a state, whose values are JSON already.
    converter.register_unstructure_hook_func(lambda _: True, identity)
    converter.register_unstructure_hook(datetime, instant_json)
    converter.register_unstructure_hook_func(_is_words, list)
    # The constructor refuses what it does not want; converting would hide it from there.
    converter.register_structure_hook_func(lambda kind: kind is not SessionState, _as_it_is)
    for kind in (str, int):
        converter.register_structure_hook(kind, _as_it_is)
    converter.register_structure_hook(datetime, _read_instant)
    converter.register_unstructure_hook(
        SessionConfig,
        make_dict_unstructure_fn(SessionConfig, converter, recovery=override(omit_if_default=True)),
    )
    converter.register_unstructure_hook(
        SessionState,
        # A status may be of any kind of `str`, and is written as the word that it equals.
        make_dict_unstructure_fn(
            SessionState,
            converter,
            status=override(unstruct_hook=str.__str__),
            task_deadlines=override(omit_if_default=True, unstruct_hook=_write_deadlines),
        ),
    )
    converter.register_structure_hook(
        SessionState,
        make_dict_structure_fn(
            SessionState,
            converter,
            _cattrs_forbid_extra_keys=True,
            _cattrs_detailed_validation=False,
            task_deadlines=override(struct_hook=_read_deadlines),
        ),
    )
    return converter


_CONVERTER = _make_converter()
_UNSTRUCTURE_STATE = _CONVERTER.get_unstructure_hook(SessionState)
_ABSENT: Mapping[str, None] = dict.fromkeys(
    name for name in STATE_FIELDS if name not in REQUIRED_FIELDS
)


def wire_fields(state: SessionState) -> dict[str, Any]:
    """Return the fields of a state for the writer of JSON text, and for nobody else."""
    fields: dict[str, Any] = _UNSTRUCTURE_STATE(state)
    return fields


def wire_value(name: str, value: Any) -> Any:
    """Return one field's value as `serialize` writes it."""
    if name in INSTANT_FIELDS:
        return instant_text(value)
    if name == "task_deadlines":
        return {task: instant_text(at) for task, at in value}
    if isinstance(value, SessionConfig):
        return _CONVERTER.unstructure(value, SessionConfig)
    return list(value) if isinstance(value, tuple) else value


def structure_state(fields: Mapping[str, Any]) -> SessionState:
    """Make the state that fields are, instants as text; fields that have a default may be absent.

    Raises:
        StateInvalidError: A value that no state may hold.
        KeyError, TypeError, ForbiddenExtraKeysError: A field is missing or unknown; see `FAULTS`.
    """
    state: SessionState = _CONVERTER.structure({**_ABSENT, **fields}, SessionState)
    return state
