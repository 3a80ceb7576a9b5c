"""The short way in, for the text that `dumps` wrote: less work, the same states.

It takes a text only if it is to the byte as the fast writer writes what was read of it, which is
proof of strict JSON, and if every value is as states hold it. Whatever is another text, or is not
known for sure to be a state, is left to the strict reader, which alone names faults.
"""

from __future__ import annotations

import functools
from typing import Any

from ..drafts import draft_class
from ..errors import LifecycleError, StateInvalidError
from ..fields import MAX_TASKS, check_text, integer_of, is_word, words_of
from ..jsontext import dump_json, parse_dumped, parse_written
from ..jsonvalue import MAX_JSON_BYTES, JsonObject, frozen_json
from ..lifecycle import Lifecycle
from ..state import STATE_FIELDS, SessionConfig, SessionState
from .converter import FAULTS, structure_config
from .instants import written_instants
from .reading import FORMAT

_MAX_LEVELS = 20
"""Most levels of an object that is read here; few enough for any object of a state."""
_LONGEST_KEPT_CONFIG = 2_000
"""Longest text of a configuration that is kept, in bytes."""

_check_tasks = words_of(MAX_TASKS)
_check_count = integer_of(0, optional=False)
_new = object.__new__
_Draft = draft_class(SessionState)
_NUMBER_OF_FIELDS = len(STATE_FIELDS) + 1  # and the format


def read_written(data: bytes | str, lifecycle: Lifecycle) -> SessionState | None:
    """Read a state from the text that `dumps` gave for it.

    Args:
        data: Any bytes or text.
        lifecycle: The lifecycle whose statuses are known.

    Returns:
        The state that `read_strictly` returns for these bytes; None where it may return another
        one, or refuse them.
    """
    if len(data) > MAX_JSON_BYTES:  # so that no object in it is longer
        return None
    try:
        fields = parse_written(data.encode() if isinstance(data, str) else data)
        # With this many, and every one that is known, there is none that is unknown.
        if type(fields) is not dict or len(fields) != _NUMBER_OF_FIELDS:
            return None
        return _state_of(fields, lifecycle)
    except (ValueError, LifecycleError, StateInvalidError, *FAULTS):
        return None


def _state_of(fields: dict[str, Any], lifecycle: Lifecycle) -> SessionState:
    problems: list[str] = []
    number, session_id = fields["format"], fields["session_id"]
    if number != FORMAT or type(number) is not int or not is_word(session_id):
        raise ValueError("no state of this format")
    draft = _new(_Draft)
    draft.session_id = session_id
    draft.status = status = lifecycle.status(fields["status"])
    draft.config = _config_of(fields["config"])
    draft.llm_config = llm_config = frozen_json(fields["llm_config"], _MAX_LEVELS)
    draft.metadata = metadata = frozen_json(fields["metadata"], _MAX_LEVELS)
    if type(llm_config) is not JsonObject or type(metadata) is not JsonObject:
        raise ValueError("no objects")
    first, last, since, active = written_instants(fields)
    draft.created_at = first
    draft.updated_at = last
    draft.status_since = since
    draft.last_activity_at = active
    draft.active_tasks = tasks = _check_tasks(fields["active_tasks"], "active_tasks", problems)
    draft.conversation_count = _check_count(
        fields["conversation_count"], "conversation_count", problems
    )
    draft.error = check_text(fields["error"], "error", problems)
    if problems or not (first <= since <= last and first <= active <= last):
        raise ValueError("no state")
    if tasks and not lifecycle.holds_tasks(status):
        raise ValueError("no state of this lifecycle")
    draft.__class__ = SessionState
    state: SessionState = draft
    return state


def _config_of(value: Any) -> SessionConfig:
    """Return a configuration; those of many sessions are the same, and are one."""
    if type(value) is not dict:
        raise ValueError("no configuration")
    text = dump_json(value)
    return _kept_config(text) if len(text) <= _LONGEST_KEPT_CONFIG else structure_config(value)


@functools.lru_cache(maxsize=256)
def _kept_config(text: bytes) -> SessionConfig:
    return structure_config(parse_dumped(text))
