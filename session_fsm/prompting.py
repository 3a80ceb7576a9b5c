"""What a model is given of a context: as much as fits, the newest first, nothing torn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from .context import Entry, SessionContext
from .errors import ContextTooLargeError
from .jsonvalue import dump_json
from .messages import Message, ToolCall

PARTS: Final = ("system", "values", "index", "files", "history")
"""What a model may be given, in the order in which it gets it."""
DEFAULT_PARTS: Final = ("system", "values", "files", "history")
BYTES_OF_A_TOKEN: Final = 4
"""What OpenAI names for English text, in characters ("What are tokens and how to count them?")."""
TOKENS_OF_A_MESSAGE: Final = 4
"""What a message takes beside its text, by OpenAI's own way to count for its chat models."""

Counter = Callable[[str], int]


@attrs.frozen(kw_only=True)
class BuiltContext:
    """What a model gets.

    Attributes:
        messages: In order; no result stands without its call, no call without its result.
        tokens: How many they take, as the counter says.
        dropped: How many messages of the history were left out because there was no room.
        files_dropped: Paths of the active files that were, the one that was opened last in front.
    """

    messages: tuple[Message, ...]
    tokens: int
    dropped: int
    files_dropped: tuple[str, ...]


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has: one for each 4 bytes of UTF-8.

    That is near for English prose, and may be off by half for code and for other scripts. Who has
    to keep to a bound exactly hands in the counter of the model.
    """
    return -(-len(text.encode()) // BYTES_OF_A_TOKEN)


def build_context(
    context: SessionContext,
    *,
    include: Iterable[str] = DEFAULT_PARTS,
    max_messages: int | None = None,
    max_tokens: int | None = None,
    counter: Counter = estimate_tokens,
) -> BuiltContext:
    """Put together what a model gets.

    The instructions (messages of role `system` before all that was said) and the newest message
    are always in it. For what else there is room is decided in this order: values, index, files
    (the one that was opened last first), then the history from the newest message back, up to the
    first that does not fit. A message that calls tools stands or falls with its results, which
    come directly behind it; a call that has no result yet is left out, with its message if that
    has no text.

    Args:
        context: What there is.
        include: Which of `PARTS`.
        max_messages: Most messages; each file is one, and so are the values and the index. None:
            any number.
        max_tokens: Most tokens; None: any number.
        counter: Returns how many tokens a text has; each message takes `TOKENS_OF_A_MESSAGE` more.

    Raises:
        ContextTooLargeError: What is always in it does not fit.
        ValueError: A part is not known, or a bound is below 1.
        TypeError: The counter returns something else than a number from 0 on.
    """
    parts = frozenset((include,) if isinstance(include, str) else include)
    if unknown := sorted(map(str, parts - frozenset(PARTS))):
        raise ValueError(f"include: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    room = _Room(max_messages, max_tokens, counter)
    instructions, groups, number = _history(context, parts)
    *older, newest = groups or [()]
    room.take((*instructions, *newest), needed=True)
    middle = [each for each in _values_and_index(context, parts) if room.take((each,))]
    files: list[Message] = []
    files_dropped: list[str] = []
    active = tuple(context.files.items()) if "files" in parts else ()
    for path, file in reversed(active):
        shown = _instruction(f"File {path}:\n\n{file.content}")
        if room.take((shown,)):
            files.insert(0, shown)
        else:
            files_dropped.append(path)
    history = [newest]
    for group in reversed(older):
        if not room.take(group):
            break
        history.append(group)
    said = [message for group in reversed(history) for message in group]
    return BuiltContext(
        messages=(*instructions, *middle, *files, *said),
        tokens=room.tokens,
        dropped=number - len(said),
        files_dropped=tuple(files_dropped),
    )


def _history(
    context: SessionContext, parts: frozenset[str]
) -> tuple[list[Message], list[tuple[Message, ...]], int]:
    """Return the instructions, and what was said in groups; and how many messages that is."""
    instructions: list[Message] = []
    groups: dict[int, list[Entry]] = {}
    for entry in context.history:
        if context.is_instruction(entry):
            if "system" in parts:
                instructions.append(entry.message)
        elif "history" in parts:
            groups.setdefault(entry.group, []).append(entry)
    told = [group for entries in groups.values() if (group := tuple(_whole(entries)))]
    return instructions, told, sum(map(len, told))


def _whole(entries: list[Entry]) -> Iterator[Message]:
    """Yield a message and the results of its calls, without calls that have none."""
    first, results = entries[0].message, {e.message.tool_call_id: e.message for e in entries[1:]}
    calls = tuple(call for call in first.tool_calls if call.id in results)
    if len(calls) < len(first.tool_calls):
        if not calls and not first.content:
            return
        first = Message(first.role, first.content, at=first.at, tool_calls=calls, name=first.name)
    yield first
    yield from (results[call.id] for call in calls)


def _values_and_index(context: SessionContext, parts: frozenset[str]) -> Iterator[Message]:
    if "values" in parts and context.values:
        yield _instruction(_listed("Working values:", context.values.items()))
    if "index" in parts and context.index:
        yield _instruction(_listed("Files that are known:", context.index.items()))


def _listed(title: str, items: Iterable[tuple[str, object]]) -> str:
    return "\n".join(
        [title, *(f"{key}: {dump_json(item).decode()}" for key, item in sorted(items))]
    )


def _instruction(text: str) -> Message:
    return Message("system", text)


class _Room:
    """How much there is room for, and how much is taken."""

    def __init__(self, max_messages: int | None, max_tokens: int | None, counter: Counter) -> None:
        for name, most in (("max_messages", max_messages), ("max_tokens", max_tokens)):
            if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
                raise TypeError(f"{name}: expected an integer, got {type(most).__name__}")
            if most is not None and most < 1:
                raise ValueError(f"{name}: expected at least 1, got {most}")
        self._max_messages = max_messages
        self._max_tokens = max_tokens
        self._counter = counter
        self.messages = 0
        self.tokens = 0

    def take(self, messages: tuple[Message, ...], *, needed: bool = False) -> bool:
        """Take the room of some messages, if there is enough; tells whether.

        Raises:
            ContextTooLargeError: They are needed, and there is not.
        """
        number = self.messages + len(messages)
        if self._max_messages is not None and number > self._max_messages:
            return self._refuse("messages", number, self._max_messages, needed=needed)
        tokens = self.tokens + sum(self._count(message) for message in messages)
        if self._max_tokens is not None and tokens > self._max_tokens:
            return self._refuse("tokens", tokens, self._max_tokens, needed=needed)
        self.messages, self.tokens = number, tokens
        return True

    def _refuse(self, unit: str, amount: int, allowed: int, *, needed: bool) -> bool:
        if needed:
            raise ContextTooLargeError(unit=unit, needed=amount, allowed=allowed)
        return False

    def _count(self, message: Message) -> int:
        texts = [message.content, *map(_call_text, message.tool_calls)]
        # No `map`: a counter that raises `StopIteration` would end it, and so the sum.
        return TOKENS_OF_A_MESSAGE + sum(self._count_text(text) for text in texts)

    def _count_text(self, text: str) -> int:
        count = self._counter(text)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise TypeError(f"counter: expected a number of tokens from 0 on, got {count!r}")
        return count


def _call_text(call: ToolCall) -> str:
    return f"{call.name} {dump_json(call.arguments).decode()}"
