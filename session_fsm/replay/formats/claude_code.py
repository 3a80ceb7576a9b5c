"""Transcripts of Claude Code: the files `projects/**/*.jsonl` of its configuration directory.

The format is internal to Claude Code and differs between its releases, so a line's `type` decides
what it is, every other field is optional unless named here, and an unknown `type` is no fault.

Wire form, of which further keys are not looked at:

- `type`, `sessionId`, `timestamp` (ISO 8601 with a time zone) on every line of the conversation.
- `user`: `message.content`, a text or a list of blocks. A prompt that was typed, or one of the many
  things that are written down in its shape: see `_user_event`.
- `assistant`: `isApiErrorMessage`, `message.model`.
- `system`: `subtype`, `content`.
- `progress`: `data.hookEvent` for a hook. Newer releases write an `attachment` instead.
- `queue-operation`: `operation`.
- Any other type keeps its own word as the event if it has a session and a time. Titles, summaries,
  snapshots of files and other bookkeeping have not: they are no rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...jsonvalue import shown
from ..rows import COMMAND, HOOK_EVENT, REQUEST
from .abc import (
    NO_FIELDS,
    Entry,
    Format,
    RowError,
    instant_field,
    optional_text_field,
    session_field,
    text_field,
)

_Line = Mapping[str, Any]
_Event = tuple[str, Mapping[str, str]]

_CONVERSATION: Final = frozenset(
    ("assistant", "attachment", "progress", "queue-operation", "system", "user")
)
"""The types whose lines always have a session and a time."""
_BOOKKEEPING: Final = frozenset(("summary", "file-history-snapshot", "custom-title", "last-prompt"))
"""Types that are never rows, and by which a file is known that has nothing else."""
_ENVELOPE: Final = ("sessionId", "parentUuid", "isSidechain")
"""What a line of the conversation has, and a line of another program's log has not."""

_INTERRUPTS: Final = frozenset(
    ("[Request interrupted by user]", "[Request interrupted by user for tool use]")
)
_HOOK_STOPPED: Final = "Operation stopped by hook"
_TASK_NOTIFICATION: Final = "<task-notification>"
_LOCAL_OUTPUT: Final = (
    "<local-command-stdout>",
    "<local-command-stderr>",
    "<local-command-caveat>",
    "<bash-input>",
    "<bash-stdout>",
    "<bash-stderr>",
)
# Blanks are stripped after the match: a pattern for them takes cubic time where no end follows.
_COMMAND_NAME: Final = re.compile(r"<command-name>([^<]*)</command-name>")
_ALIASES: Final[Mapping[str, str]] = {"/quit": "/exit"}


def _recognizes(line: _Line) -> bool:
    kind = line.get("type")
    if not isinstance(kind, str):
        return False
    if kind in _CONVERSATION:
        return any(key in line for key in _ENVELOPE)
    return kind in _BOOKKEEPING or "sessionId" in line


def _entry(line: _Line) -> Entry | None:
    problems: list[str] = []
    kind = text_field(line, "type", problems)
    if kind in _BOOKKEEPING or (kind and kind not in _CONVERSATION and not _has_place(line)):
        return None
    at = instant_field(line, "timestamp", problems)
    session = session_field(line, "sessionId", problems)
    event, fields = _event(kind, line, problems)
    if problems:
        raise RowError(*problems)
    return Entry(at=at, session=session, event=event, fields=fields)


def _has_place(line: _Line) -> bool:
    return "sessionId" in line and "timestamp" in line


def _event(kind: str, line: _Line, problems: list[str]) -> _Event:
    if kind == "user":
        return _user_event(line, problems)
    if kind == "assistant":
        return _assistant_event(line, problems), NO_FIELDS
    if kind == "system":
        return _system_event(line, problems)
    if kind == "progress":
        return _hook_event(_object_field(line, "data", problems), "data.", problems)
    if kind == "attachment":
        return _attachment_event(line, problems)
    if kind == "queue-operation":
        return f"queue:{text_field(line, 'operation', problems)}", NO_FIELDS
    return kind, NO_FIELDS


def _user_event(line: _Line, problems: list[str]) -> _Event:
    """Tell a typed prompt from what else is written down as a line of the user."""
    content = _object_field(line, "message", problems).get("content")
    if not isinstance(content, str | list):
        if not problems:
            problems.append(f"message.content: expected a text or a list, got {shown(content)}")
        return "", NO_FIELDS
    texts = tuple(_texts(content))
    # An interrupted tool leaves the marker beside its result, in one line or in two.
    if not _INTERRUPTS.isdisjoint(texts):
        return "interrupt", NO_FIELDS
    if line.get("isCompactSummary") is True:
        return "compact_summary", NO_FIELDS
    if "toolUseResult" in line or _has_tool_result(content):
        return "tool_result", NO_FIELDS
    if line.get("isMeta") is True:
        return "meta", NO_FIELDS
    text = texts[0] if texts else ""
    if text.startswith(_TASK_NOTIFICATION):
        return "task_notification", NO_FIELDS
    if text == _HOOK_STOPPED or text.startswith(f"{_HOOK_STOPPED}:"):
        return "hook_stopped", NO_FIELDS
    if text.startswith(_LOCAL_OUTPUT):
        return "local_command", NO_FIELDS
    if (command := _command(text)) is not None:
        # A command that Claude Code runs by itself is written name first; one that is a prompt for
        # the model, such as a skill, begins with its message.
        local = text.startswith("<command-name>") or command == "/exit"
        return ("local_command" if local else REQUEST), {COMMAND: command}
    if line.get("isSidechain") is True:
        # No person typed it: an agent gave a task to its sub-agent, which is at work now.
        return "progress", NO_FIELDS
    return REQUEST, NO_FIELDS


def _assistant_event(line: _Line, problems: list[str]) -> str:
    if line.get("isApiErrorMessage") is True:
        return "api_error_message"
    model = _object_field(line, "message", problems).get("model")
    return "synthetic_response" if model == "<synthetic>" else "response"


def _system_event(line: _Line, problems: list[str]) -> _Event:
    subtype = optional_text_field(line, "subtype", problems)
    content = line.get("content")
    # Newer releases write the command itself here, older ones its output only.
    command = _command(content.lstrip()) if isinstance(content, str) else None
    if subtype == "local_command" and command is not None:
        return subtype, {COMMAND: command}
    return ("system" if subtype is None else f"system:{subtype}"), NO_FIELDS


def _attachment_event(line: _Line, problems: list[str]) -> _Event:
    attachment = _object_field(line, "attachment", problems)
    if attachment.get("type") == "hook_stopped_continuation":
        return "hook_stopped", NO_FIELDS
    if attachment.get("hookEvent") is not None:
        return _hook_event(attachment, "attachment.", problems)
    return "attachment", NO_FIELDS


def _hook_event(data: _Line, prefix: str, problems: list[str]) -> _Event:
    found: list[str] = []
    hook = optional_text_field(data, "hookEvent", found)
    problems.extend(f"{prefix}{problem}" for problem in found)
    return "progress", (NO_FIELDS if hook is None else {HOOK_EVENT: hook})


def _object_field(line: _Line, key: str, problems: list[str]) -> _Line:
    value = line.get(key)
    if isinstance(value, dict):
        return value
    got = f"got {shown(value)}" if key in line else "it is missing"
    problems.append(f"{key}: expected an object, {got}")
    return {}


def _texts(content: str | list[Any]) -> Iterator[str]:
    if isinstance(content, str):
        yield content.strip()
        return
    for block in content:
        if isinstance(block, dict) and isinstance(text := block.get("text"), str):
            yield text.strip()


def _has_tool_result(content: str | list[Any]) -> bool:
    return not isinstance(content, str) and any(
        isinstance(block, dict) and block.get("type") == "tool_result" for block in content
    )


def _command(text: str) -> str | None:
    """Return the slash command that a text stands for, if it does."""
    if not text.startswith(("<command-name>", "<command-message>")):
        return None
    if (match := _COMMAND_NAME.search(text)) is None:
        return None
    name = match[1].strip()
    name = name if name.startswith("/") else f"/{name}"
    return _ALIASES.get(name, name)


CLAUDE_CODE = Format(name="Claude Code transcript", recognizes=_recognizes, entry=_entry)
