"""What the tests of contexts share: messages, operations at random, and a naive context."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from session_fsm import ContextLimits, Message, SessionContext, StateInvalidError, ToolCall

AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
SMALL = ContextLimits(max_history=5, max_files=2, max_indexed=2, max_values=2)

CALL_IDS = st.sampled_from(("c1", "c2", "c3"))
TEXTS = st.sampled_from(("", "hello", "é\U0001f600", "a longer text that has some more tokens"))
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(("user", "system", "assistant")), TEXTS, at=st.just(AT)),
    st.builds(
        lambda text, ids: Message(
            "assistant", text, at=AT, tool_calls=[ToolCall(each, "look") for each in ids]
        ),
        TEXTS,
        st.lists(CALL_IDS, min_size=1, max_size=3, unique=True),
    ),
    st.builds(lambda text, call: Message("tool", text, at=AT, tool_call_id=call), TEXTS, CALL_IDS),
)
PATHS = st.sampled_from(("a.py", "b.py", "c/" + "d" * 300))
KEYS = st.sampled_from(("k", "l", "é"))
VALUES = st.sampled_from((None, 0, "x", ["y", {}], {"a": [None]}))
OPERATIONS = st.one_of(
    st.tuples(st.just("with_messages"), st.lists(MESSAGES, max_size=4)),
    st.tuples(st.just("without_messages")),
    st.tuples(st.just("with_file"), PATHS, TEXTS),
    st.tuples(st.just("without_file"), PATHS),
    st.tuples(st.just("with_indexed"), PATHS, VALUES),
    st.tuples(st.just("without_indexed"), PATHS),
    st.tuples(st.just("with_value"), KEYS, VALUES),
    st.tuples(st.just("without_value"), KEYS),
)


def applied(context: SessionContext, operation: tuple[Any, ...]) -> SessionContext:
    """Return what an operation makes of a context, or the context itself if it is refused."""
    name, *arguments = operation
    named = {"at": AT} if name == "with_file" else {}
    try:
        made: SessionContext = getattr(context, name)(*arguments, **named)
    except StateInvalidError:
        return context
    return made


class Naive:
    """A context as one would write it down without a thought for its price: lists and dicts."""

    def __init__(self, limits: ContextLimits) -> None:
        self.limits = limits
        self.said: list[tuple[Message, int | None]] = []
        self.instructions = 0
        self.files: list[tuple[str, str]] = []
        self.index: dict[str, Any] = {}
        self.values: dict[str, Any] = {}

    def apply(self, operation: tuple[Any, ...]) -> None:
        """Do an operation, or nothing if it is refused."""
        name, *arguments = operation
        getattr(self, name)(*arguments)

    def with_messages(self, messages: list[Message]) -> None:
        """Add messages, and drop whole groups from the oldest on."""
        said, instructions = list(self.said), self.instructions
        new: list[int] = []
        for message in messages:
            calls = {
                (position, call.id)
                for position, (each, _) in enumerate(said)
                for call in each.tool_calls
            }
            calls -= {(answers, each.tool_call_id) for each, answers in said if answers is not None}
            answers = None
            if message.role == "tool":
                asked = [position for position, call in calls if call == message.tool_call_id]
                if not asked:
                    return
                [answers] = asked
            if {call for _, call in calls} & {call.id for call in message.tool_calls}:
                return
            if message.role == "system" and len(said) == instructions and not self._spoken(said):
                instructions += 1
            new.append(len(said) if answers is None else answers)
            said.append((message, answers))
        while len(said) > self.limits.max_history:
            groups = [position for position, (_, answers) in enumerate(said) if answers is None]
            free = [each for each in groups if each not in new]
            answered = {(answers, each.tool_call_id) for each, answers in said}
            waiting = {
                position
                for position, (each, _) in enumerate(said)
                for call in each.tool_calls
                if (position, call.id) not in answered
            }
            later = [each for each in free if each >= instructions]
            first = [each for each in later if each not in waiting] or later or free
            if not first:
                return
            gone = {p for p, (_, answers) in enumerate(said) if first[0] in (p, answers)}
            moved = {old: n for n, old in enumerate(p for p in range(len(said)) if p not in gone)}
            said = [
                (message, None if answers is None else moved[answers])
                for position, (message, answers) in enumerate(said)
                if position not in gone
            ]
            new = [moved[each] for each in new]
            instructions -= first[0] < instructions
        self.said, self.instructions = said, instructions
        self._has_spoken |= self._spoken(said)

    _has_spoken = False

    def _spoken(self, said: list[tuple[Message, int | None]]) -> bool:
        return self._has_spoken or any(message.role != "system" for message, _ in said)

    def without_messages(self) -> None:
        """Forget the conversation."""
        self.said, self.instructions, self._has_spoken = [], 0, False

    def with_file(self, path: str, content: str) -> None:
        """Open a file; the one that was opened longest ago goes."""
        self.files = [each for each in self.files if each[0] != path] + [(path, content)]
        self.files = self.files[-self.limits.max_files :]

    def without_file(self, path: str) -> None:
        """Close a file."""
        self.files = [each for each in self.files if each[0] != path]

    def with_indexed(self, path: str, info: Any) -> None:
        """Index a file, if there is room."""
        if path in self.index or len(self.index) < self.limits.max_indexed:
            self.index[path] = info

    def without_indexed(self, path: str) -> None:
        """Take a file out of the index."""
        self.index.pop(path, None)

    def with_value(self, key: str, value: Any) -> None:
        """Keep a value, if there is room."""
        if key in self.values or len(self.values) < self.limits.max_values:
            self.values[key] = value

    def without_value(self, key: str) -> None:
        """Remove a value."""
        self.values.pop(key, None)
