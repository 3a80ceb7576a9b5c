"""The JSON Schema of a state."""

from __future__ import annotations

from typing import Any

from ..fields import (
    MAX_ERROR_CHARACTERS,
    MAX_FEATURES,
    MAX_ID_CHARACTERS,
    MAX_TASKS,
    MAX_TIMEOUT_MINUTES,
)
from ..jsonvalue import MAX_JSON_BYTES, MAX_JSON_DEPTH
from ..lifecycle import Lifecycle
from ..state import CONFIG_FIELDS, RECOVERY_POLICIES, REQUIRED_FIELDS, STATE_FIELDS
from ..table import SESSION_LIFECYCLE
from .instants import INSTANT
from .reading import FORMAT, FORMATS, LIMITS_FORMAT, MAX_DOCUMENT_BYTES, PLAIN_FORMAT


def json_schema(lifecycle: Lifecycle = SESSION_LIFECYCLE) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that accepts whatever `deserialize` accepts."""
    word = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_ID_CHARACTERS,
        "pattern": "^[^ ](.*[^ ])?$",
    }
    instant = {"type": "string", "format": "date-time", "pattern": f"^{INSTANT}$"}

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
        "recovery": {"enum": list(RECOVERY_POLICIES), "default": "release"},
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
        "task_deadlines": {
            "type": ["object", "null"],
            "propertyNames": word,
            "additionalProperties": instant,
        },
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
        "A task that stands in task_deadlines stands in active_tasks.",
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
        "properties": {"format": {"enum": list(FORMATS)}, **fields},
        "not": {
            "anyOf": [
                {
                    "required": ["format", "task_deadlines"],
                    "properties": {"format": {"const": PLAIN_FORMAT}},
                },
                {
                    "required": ["format", "config"],
                    "properties": {
                        "format": {"enum": [PLAIN_FORMAT, LIMITS_FORMAT]},
                        "config": {"type": "object", "required": ["recovery"]},
                    },
                },
            ],
        },
        "required": list(REQUIRED_FIELDS),
        "additionalProperties": False,
    }
