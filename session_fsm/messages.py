"""Messages of a conversation with a model: who said what, which tools were called for what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import attrs

from .clock import instant_text
from .errors import StateInvalidError
from .fields import Problems, check_id, check_instant, raise_problems
from .jsonvalue import MAX_JSON_BYTES, JsonObject, dump_json, freeze_object, plain_text, shown
from .serialization.instants import instant_or_value

ROLES: Final = ("system", "user", "assistant", "tool")
"""Who may say something: the instructions, the person, the model, and the tools that it calls."""
MAX_MESSAGE_BYTES: Final = MAX_JSON_BYTES - 1024
"""Longest message when written; what is stored beside it fits into the rest."""
MAX_TOOL_CALLS: Final = 1_000
"""Most calls of one message."""


@attrs.frozen(init=False)
class ToolCall:
    """A tool that the model wants to be called.

    Args:
        id: Tells it from the other calls; its result repeats it. 1 to 255 printable characters.
        name: The tool, of the same kind.
        arguments: JSON object; None: empty.

    Raises:
        StateInvalidError: Every fault, by its path.
    """

    id: str
    name: str
    arguments: JsonObject = attrs.field(repr=lambda _: "...")

    def __init__(self, id: str, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        problems: Problems = []
        frozen, found = freeze_object({} if arguments is None else arguments, "arguments")
        self.__attrs_init__(check_id(id, "id", problems), check_id(name, "name", problems), frozen)
        raise_problems([*problems, *found])

    if TYPE_CHECKING:

        def __attrs_init__(self, *fields: Any) -> None: ...


@attrs.frozen(init=False)
class Message:
    """What was said, and by whom.

    Args:
        role: One of `ROLES`.
        content: The text; may be empty.
        at: When, aware; None: never, as of what is put together for a model.
        tool_calls: What the model wants to be called; of role `assistant` only.
        tool_call_id: Whose result it is; of role `tool`, and needed there.
        name: Who of several that play the role; None: not told.

    A message is at most `MAX_MESSAGE_BYTES` long when written as JSON.

    Raises:
        StateInvalidError: Every fault, by its path.
    """

    role: str
    content: str = attrs.field(repr=lambda _: "...")  # may be a secret, and is shown in logs
    at: datetime | None
    tool_calls: tuple[ToolCall, ...]
    tool_call_id: str | None
    name: str | None

    def __init__(
        self,
        role: str,
        content: str,
        *,
        at: datetime | None = None,
        tool_calls: Iterable[ToolCall] = (),
        tool_call_id: str | None = None,
        name: str | None = None,
    ) -> None:
        problems: Problems = []
        if role in ROLES:
            role = ROLES[ROLES.index(role)]
        else:
            problems.append(f"role: expected one of {', '.join(ROLES)}, got {shown(role)}")
        if isinstance(content, str):
            content = plain_text(content, "content", problems)
        else:
            problems.append(f"content: expected a string, got {shown(content)}")
        calls = _check_calls(tool_calls, problems)
        if calls and role != "assistant":
            problems.append(f"tool_calls: the assistant calls tools, not {shown(role)}")
        if role == "tool" and tool_call_id is None:
            problems.append("tool_call_id: the result of a tool tells whose it is")
        if role != "tool" and tool_call_id is not None:
            problems.append(f"tool_call_id: the tool answers a call, not {shown(role)}")
        self.__attrs_init__(
            role,
            content,
            None if at is None else check_instant(at, "at", problems),
            calls,
            None if tool_call_id is None else check_id(tool_call_id, "tool_call_id", problems),
            None if name is None else check_id(name, "name", problems),
        )
        raise_problems(problems)
        if (size := len(dump_json(self.to_json()))) > MAX_MESSAGE_BYTES:
            raise_problems(
                [f"content: the message is {size} bytes of JSON; at most {MAX_MESSAGE_BYTES}"]
            )

    if TYPE_CHECKING:

        def __attrs_init__(self, *fields: Any) -> None: ...

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON; what is not set is left out."""
        told: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            told["name"] = self.name
        if self.tool_calls:
            told["tool_calls"] = [
                {"id": call.id, "name": call.name, "arguments": call.arguments}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            told["tool_call_id"] = self.tool_call_id
        if self.at is not None:
            told["at"] = instant_text(self.at)
        return told


def _check_calls(calls: object, problems: Problems) -> tuple[ToolCall, ...]:
    if isinstance(calls, str | bytes | Mapping) or not isinstance(calls, Iterable):
        problems.append(f"tool_calls: expected a list of calls, got {shown(calls)}")
        return ()
    found = tuple(calls)
    if len(found) > MAX_TOOL_CALLS:
        problems.append(f"tool_calls: {len(found)} calls; at most {MAX_TOOL_CALLS} are allowed")
        return ()
    for index, call in enumerate(found):
        if not isinstance(call, ToolCall):
            problems.append(f"tool_calls[{index}]: expected a ToolCall, got {type(call).__name__}")
            return ()
    ids = [call.id for call in found]
    if len(set(ids)) != len(ids):
        problems.append("tool_calls: two calls have the same id")
    return found


def message_of(value: object) -> Message:
    """Read what `Message.to_json` has told.

    Raises:
        StateInvalidError: It is no message; every fault by its path.
    """
    told = _members(value, "message", _MESSAGE)
    calls = told.pop("tool_calls", [])
    if not isinstance(calls, list):
        raise_problems([f"tool_calls: expected a list of calls, got {shown(calls)}"])
    return Message(
        told.pop("role", None),
        told.pop("content", None),
        at=instant_or_value(told.pop("at", None)),
        tool_calls=[
            ToolCall(told.get("id"), told.get("name"), told.get("arguments"))  # type: ignore[arg-type]
            for told in (_members(call, "tool_calls", _CALL) for call in calls)
        ],
        **told,
    )


_MESSAGE: Final = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "at"})
_CALL: Final = frozenset({"id", "name", "arguments"})


def _members(value: object, path: str, known: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise StateInvalidError(problems=(f"{path}: expected an object, got {shown(value)}",))
    raise_problems([f"{path}: {shown(name)} is not known" for name in value if name not in known])
    return dict(value)
