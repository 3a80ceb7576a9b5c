"""What a model gets of a context: as much as fits, valid for any model, the newest first."""

from __future__ import annotations

from typing import Any

import pytest
from contextual import AT, OPERATIONS, SMALL, applied
from hypothesis import given
from hypothesis import strategies as st

from session_fsm import (
    BuiltContext,
    ContextTooLargeError,
    Message,
    SessionContext,
    ToolCall,
    build_context,
    estimate_tokens,
)
from session_fsm.prompting import PARTS, TOKENS_OF_A_MESSAGE


def said(role: str, content: str = "", **more: Any) -> Message:
    """Return a message."""
    return Message(role, content, at=AT, **more)


def called(*ids: str, content: str = "") -> Message:
    """Return a message that calls tools."""
    return said("assistant", content, tool_calls=[ToolCall(each, "look") for each in ids])


def result(call: str) -> Message:
    """Return the result of a call."""
    return said("tool", f"result of {call}", tool_call_id=call)


def context_with(*messages: Message) -> SessionContext:
    """Return a context of a conversation."""
    return SessionContext().with_messages(messages)


def shown(context: SessionContext, **options: Any) -> list[tuple[str, str]]:
    """Return role and text of what a model gets."""
    return [(each.role, each.content) for each in build_context(context, **options).messages]


def attempted(context: SessionContext, **options: Any) -> BuiltContext | ContextTooLargeError:
    """Return what a model gets, or why it gets nothing."""
    try:
        return build_context(context, **options)
    except ContextTooLargeError as refused:
        return refused


def is_valid(messages: tuple[Message, ...]) -> bool:
    """Tell whether each result stands behind its call, and each call has its result there."""
    position = 0
    while position < len(messages):
        first = messages[position]
        if first.role == "tool":
            return False
        ids = [call.id for call in first.tool_calls]
        results = messages[position + 1 : position + 1 + len(ids)]
        if [each.tool_call_id for each in results] != ids:
            return False
        position += 1 + len(ids)
    return True


def test_building_puts_everything_in_order() -> None:
    """Instructions, values, index, files and the conversation stand in this order, as asked for."""
    context = (
        context_with(said("system", "be nice"), said("user", "hello"), said("system", "reminder"))
        .with_file("b.py", "old", at=AT)
        .with_file("a.py", "print(1)", at=AT)
        .with_indexed("c.py", {"lines": 3})
        .with_value("goal", "win")
        .with_value("an", [1])
    )
    assert shown(context, include=PARTS) == [
        ("system", "be nice"),
        ("system", 'Working values:\nan: [1]\ngoal: "win"'),
        ("system", 'Files that are known:\nc.py: {"lines":3}'),
        ("system", "File b.py:\n\nold"),
        ("system", "File a.py:\n\nprint(1)"),
        ("user", "hello"),
        ("system", "reminder"),
    ]
    assert shown(context, include="history") == [("user", "hello"), ("system", "reminder")]
    assert shown(context, include=("system", "index"))[1][1].startswith("Files that are known")
    assert len(shown(context)) == 6
    assert shown(SessionContext()) == []


def test_building_pairs_calls_with_their_results() -> None:
    """Results stand behind their call in its order; who spoke between comes behind them."""
    context = context_with(
        called("a", "b"), result("b"), said("user", "wait"), result("a"), said("assistant", "so")
    )
    built = build_context(context)
    assert is_valid(built.messages)
    assert [each.tool_call_id or each.role for each in built.messages] == [
        "assistant",
        "a",
        "b",
        "user",
        "assistant",
    ]


def test_building_leaves_out_calls_without_a_result() -> None:
    """A call that is waited for is not shown; the text beside it, and other calls, are."""
    built = build_context(context_with(said("user", "go"), called("a")))
    assert [each.role for each in built.messages] == ["user"]
    assert built.dropped == 0
    built = build_context(context_with(said("user", "go"), called("a", "b", content="I look")))
    assert [(each.content, each.tool_calls) for each in built.messages[1:]] == [("I look", ())]
    built = build_context(context_with(called("a", "b"), result("b"), said("user", "and?")))
    assert [call.id for each in built.messages for call in each.tool_calls] == ["b"]
    assert is_valid(built.messages)


def test_building_keeps_the_newest_that_fits() -> None:
    """The newest messages stay, without a gap; a group is in it whole or not at all."""
    context = context_with(
        said("system", "be nice"),
        said("user", "1"),
        called("a", "b"),
        result("a"),
        result("b"),
        said("user", "2"),
    ).with_file("a.py", "x", at=AT)
    for most, number, dropped, files in ((2, 2, 4, 1), (3, 3, 4, 0), (5, 3, 4, 0), (6, 6, 1, 0)):
        built = build_context(context, max_messages=most)
        assert (len(built.messages), built.dropped) == (number, dropped)
        assert built.files_dropped == ("a.py",) * files
        assert built.messages[0].content == "be nice"
        assert built.messages[-1].content == "2"
    with pytest.raises(ContextTooLargeError) as refused:
        build_context(context, max_messages=1)
    assert (refused.value.unit, refused.value.needed, refused.value.allowed) == ("messages", 2, 1)


def test_building_counts_tokens_by_the_counter() -> None:
    """Every text is counted by the counter that is handed in, and each message takes some more."""
    context = context_with(said("user", "12345"), said("assistant", "1234567"))
    built = build_context(context, counter=len)
    assert built.tokens == 12 + 2 * TOKENS_OF_A_MESSAGE
    assert build_context(context, counter=len, max_tokens=built.tokens).dropped == 0
    assert build_context(context, counter=len, max_tokens=built.tokens - 1).dropped == 1
    with pytest.raises(ContextTooLargeError) as refused:
        build_context(context, counter=len, max_tokens=10)
    assert str(refused.value) == (
        "the instructions and the newest message take 11 tokens; 10 are allowed"
    )
    call = context_with(called("a"), result("a"))
    assert build_context(call, counter=len).tokens == len("look {}") + len("result of a") + 8
    assert estimate_tokens("") == 0
    assert [estimate_tokens("x" * n) for n in (1, 4, 5)] == [1, 1, 2]
    assert estimate_tokens("\U0001f600") == 1


def test_building_refuses_bad_arguments() -> None:
    """What is no part, no bound or no count is refused, and a counter's own error comes out."""
    context = context_with(said("user", "hello"))
    with pytest.raises(ValueError, match="include: memory; there are system, values"):
        build_context(context, include=["memory"])
    for bound in ("max_messages", "max_tokens"):
        with pytest.raises(ValueError, match=f"{bound}: expected at least 1, got 0"):
            build_context(context, **{bound: 0})  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=f"{bound}: expected an integer, got float"):
            build_context(context, **{bound: 1.5})  # type: ignore[arg-type]
    for count in (-1, 1.5, None, True):
        with pytest.raises(TypeError, match="counter: expected a number of tokens"):
            build_context(context, counter=lambda _, count=count: count)  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        build_context(context, counter=lambda text: len(text) // 0)


@given(
    st.lists(OPERATIONS, max_size=20),
    st.none() | st.integers(1, 8),
    st.none() | st.integers(1, 80),
    st.lists(st.sampled_from(PARTS)),
)
def test_building_never_exceeds_its_bounds(
    operations: list[tuple[Any, ...]], messages: int | None, tokens: int | None, parts: list[str]
) -> None:
    """Whatever the context and the bounds: what is built is within them and valid, or refused."""
    context = SessionContext(limits=SMALL)
    for operation in operations:
        context = applied(context, operation)
    everything = build_context(context, include=parts).messages
    built = attempted(context, include=parts, max_messages=messages, max_tokens=tokens)
    if isinstance(built, ContextTooLargeError):
        assert built.needed > built.allowed
        assert built.allowed == (messages if built.unit == "messages" else tokens)
        return
    assert messages is None or len(built.messages) <= messages
    assert tokens is None or built.tokens <= tokens
    assert is_valid(built.messages)
    # What is left out is left out from the front of the conversation, and nothing else changes.
    said = [each for each in built.messages if each.at is not None]
    all_said = [each for each in everything if each.at is not None]
    instructions = len(all_said) - len(said) - built.dropped
    assert instructions == 0
    assert said == all_said or said[-1:] == all_said[-1:]
    assert set(built.files_dropped) <= set(context.files)
    if messages is None and tokens is None:
        assert built.messages == everything
