"""What a session's model may get to see: the conversation, files, an index of files, values.

A context never changes: every operation returns a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import attrs

from .fields import MAX_ID_CHARACTERS, Problems, check_id, check_instant, integer_of, raise_problems
from .jsonvalue import MAX_JSON_BYTES, dump_json, freeze_value, plain_text, shown
from .messages import Message

MAX_PATH_CHARACTERS: Final = 4096
"""Longest path of a file."""
MAX_STORED_BYTES: Final = MAX_JSON_BYTES - 1024
"""Longest value, or file with its path, when written as JSON."""
MAX_VALUE_KEY_CHARACTERS: Final = MAX_ID_CHARACTERS - len("value/")
"""Longest key of a value."""


@attrs.frozen(kw_only=True)
class ContextLimits:
    """How much a context holds.

    Attributes:
        max_history: Most messages; the oldest are dropped for newer ones.
        max_files: Most active files; the one that was opened longest ago is dropped for another.
        max_indexed: Most files in the index; one more is refused.
        max_values: Most values; one more is refused.
    """

    max_history: int = 1000
    max_files: int = 50
    max_indexed: int = 10_000
    max_values: int = 1000

    def __attrs_post_init__(self) -> None:
        """Refuse what is no limit."""
        problems: Problems = []
        for field in attrs.fields(type(self)):
            integer_of(1, optional=False)(getattr(self, field.name), field.name, problems)
        raise_problems(problems)


@attrs.frozen
class Entry:
    """A message in the history of a context.

    Attributes:
        number: From 1 on, in the order in which they were added; none is used twice.
        message: What was said.
        answers: The number of the message that called the tool whose result this is; None: none.
    """

    number: int
    message: Message
    answers: int | None = None

    @property
    def group(self) -> int:
        """The number of the message with which this one stays or goes."""
        return self.number if self.answers is None else self.answers


@attrs.frozen
class ContextFile:
    """A file that the conversation is about.

    Attributes:
        path: Which file, by whatever name; 1 to `MAX_PATH_CHARACTERS` characters.
        content: Its text, or what is to be known of it; may be empty.
        opened_at: When it was opened last.
        number: Higher than that of every file that was opened before it.
    """

    path: str
    content: str = attrs.field(repr=lambda _: "...")
    opened_at: datetime
    number: int


_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class SessionContext:
    """A context; made by `SessionContext()`, and by the operations of another one.

    Every operation raises `StateInvalidError`, which names every fault, and changes nothing then.

    Attributes:
        limits: How much it holds.
        history: The messages, oldest first.
        files: Active files by path, the one that was opened last behind all others.
        index: What is known of files, JSON by path.
        values: Working values, JSON by key.
        next_number: The number of the next message, or file that is opened.
        spoken: The number of the first message that was none of role `system`; None: there was
            none. Those before it are the instructions, which are dropped last.
        change: What the change is called that led here; given by whoever stores it.
    """

    limits: ContextLimits = ContextLimits()
    history: tuple[Entry, ...] = ()
    files: Mapping[str, ContextFile] = _EMPTY
    index: Mapping[str, Any] = _EMPTY
    values: Mapping[str, Any] = _EMPTY
    next_number: int = 1
    spoken: int | None = None
    change: str = ""

    # --- the conversation ---------------------------------------------------------------------

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages, oldest first."""
        return tuple(entry.message for entry in self.history)

    def is_instruction(self, entry: Entry) -> bool:
        """Tell whether a message stood before all that was said."""
        return self.spoken is None or entry.number < self.spoken

    def waiting_calls(self) -> Mapping[str, int]:
        """Return the calls that have no result yet: the number of the message, by the call's id."""
        waiting: dict[str, int] = {}
        for entry in self.history:
            for call in entry.message.tool_calls:
                waiting[call.id] = entry.number
            if entry.answers is not None:
                waiting.pop(entry.message.tool_call_id or "", None)
        return waiting

    def with_messages(self, messages: Iterable[Message]) -> SessionContext:
        """Add messages; the oldest are dropped if there are too many.

        A message that calls tools and the results of its calls are dropped together, and as long
        as one of them waits for its result, only when nothing else is left but instructions. A
        result has to answer a call that waits for one. Others may come between: nobody who says
        something has to wait for a tool.
        """
        entries, number, spoken = list(self.history), self.next_number, self.spoken
        waiting, problems, touched = dict(self.waiting_calls()), list[str](), set[int]()
        for index, message in enumerate(messages):
            if not isinstance(message, Message):
                kind = type(message).__name__
                raise TypeError(f"messages[{index}]: expected a Message, got {kind}")
            answers = None
            if message.tool_call_id is not None:
                answers = waiting.pop(message.tool_call_id, None)
                if answers is None:
                    told = f"no call {shown(message.tool_call_id)} waits for a result"
                    problems.append(f"messages[{index}].tool_call_id: {told}")
            for call in message.tool_calls:
                if call.id in waiting:
                    told = f"another call {shown(call.id)} waits for its result"
                    problems.append(f"messages[{index}].tool_calls: {told}")
                waiting[call.id] = number
            if spoken is None and message.role != "system":
                spoken = number
            entries.append(Entry(number, message, answers))
            touched.add(entries[-1].group)
            number += 1
        raise_problems(problems)
        added = attrs.evolve(self, history=tuple(entries), next_number=number, spoken=spoken)
        return added._without_oldest(touched, set(waiting.values()))

    def _without_oldest(self, kept: set[int], waiting: set[int]) -> SessionContext:
        """Drop groups, the oldest first, until there are few enough.

        Args:
            kept: Those that are not dropped at all.
            waiting: Those that somebody still works on; they go behind all that was said.
        """
        excess = len(self.history) - self.limits.max_history
        if excess <= 0:
            return self
        sizes: dict[int, int] = {}
        instructions: list[int] = []
        for entry in self.history:
            sizes[entry.group] = sizes.get(entry.group, 0) + 1
            if self.is_instruction(entry):
                instructions.append(entry.group)
        last = set(instructions)
        said = [each for each in sizes if each not in last]
        ended = [each for each in said if each not in waiting]
        dropped: set[int] = set()
        for group in (*ended, *(each for each in said if each in waiting), *instructions):
            if excess <= 0:
                break
            if group not in kept:
                dropped.add(group)
                excess -= sizes[group]
        if excess > 0:
            most = self.limits.max_history
            raise_problems(
                [f"messages: {most + excess} that belong together; at most {most} are kept"]
            )
        left = tuple(entry for entry in self.history if entry.group not in dropped)
        return attrs.evolve(self, history=left)

    def without_messages(self) -> SessionContext:
        """Forget the conversation."""
        return attrs.evolve(self, history=(), spoken=None)

    # --- files --------------------------------------------------------------------------------

    def with_file(self, path: str, content: str = "", *, at: datetime) -> SessionContext:
        """Make a file active, or an active one the last that was opened.

        Args:
            path: Which file.
            content: Its text, or what is to be known of it.
            at: When it was opened, aware.
        """
        problems: Problems = []
        path = check_path(path, problems)
        if isinstance(content, str):
            content = plain_text(content, "content", problems)
        else:
            problems.append(f"content: expected a string, got {shown(content)}")
        _check_size("content", [path, content], problems)
        opened = ContextFile(path, content, check_instant(at, "at", problems), self.next_number)
        raise_problems(problems)
        files = {**{each: file for each, file in self.files.items() if each != path}, path: opened}
        for oldest in list(files)[: -self.limits.max_files]:
            del files[oldest]
        return attrs.evolve(self, files=MappingProxyType(files), next_number=self.next_number + 1)

    def without_file(self, path: str) -> SessionContext:
        """Make a file inactive, if it is active."""
        return self._without("files", path)

    def with_indexed(self, path: str, info: Any) -> SessionContext:
        """Keep what is known of a file, JSON, in the index."""
        problems: Problems = []
        path = check_path(path, problems)
        return self._with("index", path, info, self.limits.max_indexed, problems)

    def without_indexed(self, path: str) -> SessionContext:
        """Take a file out of the index, if it is there."""
        return self._without("index", path)

    # --- values -------------------------------------------------------------------------------

    def with_value(self, key: str, value: Any) -> SessionContext:
        """Keep a value, JSON, under a key of 1 to `MAX_VALUE_KEY_CHARACTERS` characters."""
        problems: Problems = []
        key = check_id(key, "key", problems)
        if not problems and len(key) > MAX_VALUE_KEY_CHARACTERS:
            problems.append(f"key: {len(key)} characters; at most {MAX_VALUE_KEY_CHARACTERS}")
        return self._with("values", key, value, self.limits.max_values, problems)

    def without_value(self, key: str) -> SessionContext:
        """Remove a value, if it is there."""
        return self._without("values", key)

    def _with(
        self, part: str, key: str, value: Any, most: int, problems: Problems
    ) -> SessionContext:
        frozen, found = freeze_value(value, "value")
        raise_problems([*problems, *found])
        _check_size("value", [key, frozen], problems)
        raise_problems(problems)
        items = {**getattr(self, part), key: frozen}
        if len(items) > max(most, len(getattr(self, part))):
            raise_problems([f"{part}: there are {len(items) - 1} already; at most {most} are kept"])
        return self._replaced(part, items)

    def _without(self, part: str, key: str) -> SessionContext:
        items: Mapping[str, Any] = getattr(self, part)
        if key not in items:
            return self
        return self._replaced(part, {each: item for each, item in items.items() if each != key})

    def _replaced(self, part: str, items: Mapping[str, Any]) -> SessionContext:
        changes: dict[str, Any] = {part: MappingProxyType(items)}
        return attrs.evolve(self, **changes)


def _check_size(path: str, told: list[Any], problems: Problems) -> None:
    if not problems and (size := len(dump_json(told))) > MAX_STORED_BYTES:
        problems.append(f"{path}: {size} bytes of JSON; at most {MAX_STORED_BYTES}")


def check_path(path: object, problems: Problems) -> Any:
    """Return the path of a file; what can't be one is named."""
    if not isinstance(path, str):
        problems.append(f"path: expected a string, got {shown(path)}")
        return path
    if not 1 <= len(path) <= MAX_PATH_CHARACTERS:
        problems.append(f"path: {len(path)} characters; 1 to {MAX_PATH_CHARACTERS} are allowed")
    return plain_text(path, "path", problems)
