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
from ..jsontext import parse_written
from ..jsonvalue import MAX_JSON_BYTES, frozen_object
from ..lifecycle import Lifecycle
from ..state import CONFIG_FIELDS, STATE_FIELDS, SessionConfig, SessionState
from .converter import FAULTS
from .instants import written_instants
from .reading import FORMAT, PLAIN_FORMAT

_MAX_LEVELS = 20
"""Most levels of an object that is read here; few enough for any object of a state."""
_MOST_KEPT_FEATURES = 16
"""Most features of a configuration that is kept for the next reader."""

_check_tasks = words_of(MAX_TASKS)
_check_count = integer_of(0, optional=False)
_new = object.__new__
_Draft = draft_class(SessionState)
_NUMBER_OF_FIELDS = len(STATE_FIELDS)  # and the format, but no deadlines of tasks: few have any
_NUMBER_OF_LIMITS = len(CONFIG_FIELDS) - 1  # and `recovery`, where the format has it


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
    if type(number) is not int or not is_word(session_id):
        raise ValueError("no state")
    if number != PLAIN_FORMAT and number != FORMAT:
        raise ValueError("no state of these formats")
    llm_config, metadata, error = fields["llm_config"], fields["metadata"], fields["error"]
    if type(llm_config) is not dict or type(metadata) is not dict:
        raise ValueError("no objects")
    draft = _new(_Draft)
    draft.session_id = session_id
    draft.status = status = lifecycle.status(fields["status"])
    draft.config = _config_of(fields["config"], number)
    draft.llm_config = frozen_object(llm_config, _MAX_LEVELS)
    draft.metadata = frozen_object(metadata, _MAX_LEVELS)
    first, last, since, active = written_instants(fields)
    draft.created_at = first
    draft.updated_at = last
    draft.status_since = since
    draft.last_activity_at = active
    draft.active_tasks = tasks = _check_tasks(fields["active_tasks"], "active_tasks", problems)
    draft.conversation_count = _check_count(
        fields["conversation_count"], "conversation_count", problems
    )
    draft.error = error if error is None else check_text(error, "error", problems)
    draft.task_deadlines = ()
    if problems or not (first <= since <= last and first <= active <= last):
        raise ValueError("no state")
    if tasks and not lifecycle.holds_tasks(status):
        raise ValueError("no state of this lifecycle")
    draft.__class__ = SessionState
    state: SessionState = draft
    return state


def _config_of(value: dict[str, Any], number: int) -> SessionConfig:
    """Return a configuration; those of many sessions are the same, and are one."""
    features = value["features"]
    more = () if number == PLAIN_FORMAT else (value["recovery"],)
    if type(features) is not list or len(value) != _NUMBER_OF_LIMITS + len(more):
        raise ValueError("no configuration")
    read = _kept_config if len(features) <= _MOST_KEPT_FEATURES else _new_config
    return read(
        value["max_conversations"],
        value["timeout_minutes"],
        value["persistence_enabled"],
        tuple(features),
        *more,
    )


def _new_config(
    most: Any, minutes: Any, persistence: Any, features: Any, recovery: Any = "release"
) -> SessionConfig:
    return SessionConfig(
        max_conversations=most,
        timeout_minutes=minutes,
        persistence_enabled=persistence,
        features=features,
        recovery=recovery,
    )


# By type too: 1, 1.0 and True are equal, and only one of them is a number of conversations.
_kept_config = functools.lru_cache(maxsize=256, typed=True)(_new_config)
