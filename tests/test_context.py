"""Contexts of sessions: bounded, never torn, stored row by row, refused where they are broken."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
import pytest
from contextual import AT, OPERATIONS, SMALL, Naive, applied
from hypothesis import given
from hypothesis import strategies as st

from session_fsm import ContextLimits, Message, SessionContext, StateInvalidError, ToolCall
from session_fsm.context import MAX_PATH_CHARACTERS, MAX_STORED_BYTES, MAX_VALUE_KEY_CHARACTERS
from session_fsm.context_rows import HEAD, changed_rows, context_of
from session_fsm.messages import MAX_MESSAGE_BYTES, MAX_TOOL_CALLS, message_of


def said(role: str, content: str = "", **more: Any) -> Message:
    """Return a message."""
    return Message(role, content, at=AT, **more)


def called(*ids: str) -> Message:
    """Return a message that calls tools."""
    return said("assistant", tool_calls=[ToolCall(each, "look") for each in ids])


def result(call: str) -> Message:
    """Return the result of a call."""
    return said("tool", f"result of {call}", tool_call_id=call)


def rows_of(context: SessionContext) -> dict[str, Any]:
    """Return all rows of a context, as they are read back."""
    put, deleted = changed_rows(None, context)
    assert deleted == ()
    return {key: json.loads(json.dumps(row)) for key, row in put.items()}


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"role": "robot"}, ["role"]),
        ({"role": []}, ["role"]),
        ({"content": None}, ["content"]),
        ({"content": "\ud800"}, ["content"]),
        ({"content": "x" * MAX_MESSAGE_BYTES}, ["content"]),
        ({"content": "\x01" * (MAX_MESSAGE_BYTES // 6)}, ["content"]),
        ({"role": "tool"}, ["tool_call_id"]),
        ({"tool_call_id": "c"}, ["tool_call_id"]),
        ({"role": "tool", "tool_call_id": ""}, ["tool_call_id"]),
        ({"tool_calls": [ToolCall("c", "f")]}, ["tool_calls"]),
        ({"role": "assistant", "tool_calls": [ToolCall("c", "f")] * 2}, ["tool_calls"]),
        ({"role": "assistant", "tool_calls": ["c"]}, ["tool_calls[0]"]),
        ({"role": "assistant", "tool_calls": "c"}, ["tool_calls"]),
        ({"name": " x"}, ["name"]),
        ({"at": datetime(2026, 1, 1)}, ["at"]),  # noqa: DTZ001 - naive is what is refused
        ({"role": "robot", "content": 5, "name": ""}, ["role", "content", "name"]),
    ],
)
def test_messages_name_every_fault(arguments: dict[str, Any], problems: list[str]) -> None:
    """What is no message is refused, with each fault by its path."""
    with pytest.raises(StateInvalidError) as refused:
        Message(**{"role": "user", "content": "", "at": AT, **arguments})
    assert [problem.split(":")[0] for problem in refused.value.problems] == problems


def test_messages_have_a_bound_on_calls() -> None:
    """A message calls at most so many tools; a call's own faults are named by path."""
    calls = [ToolCall(f"c{number}", "f") for number in range(MAX_TOOL_CALLS + 1)]
    assert len(said("assistant", tool_calls=calls[1:]).tool_calls) == MAX_TOOL_CALLS
    with pytest.raises(StateInvalidError, match="at most 1000"):
        said("assistant", tool_calls=calls)
    with pytest.raises(StateInvalidError) as refused:
        ToolCall("", "f" * 256, {"x": object()})
    assert [each.split(":")[0] for each in refused.value.problems] == ["id", "name", "arguments.x"]


def test_messages_come_back_as_they_were() -> None:
    """The JSON of a message is read as the message; it shows nothing of what was said."""
    call = ToolCall("c", "look", {"path": ["a"]})
    for message in (
        said("user", "é\n"),
        said("assistant", "so", tool_calls=[call, ToolCall("d", "look")], name="bot"),
        said("tool", "42", tool_call_id="c"),
        Message("system", "no time"),
    ):
        told = json.loads(json.dumps(message.to_json()))
        assert message_of(told) == message
        assert pickle.loads(pickle.dumps(message)) == message
        assert "so" not in repr(message).replace("role='assistant'", "")
    assert said("user", "x").to_json() == {
        "role": "user",
        "content": "x",
        "at": "2026-01-31T12:00:00.000000Z",
    }


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (5, "message: expected an object"),
        ({"role": "user"}, "content: expected a string, got null"),
        ({"role": "user", "content": "", "extra": 1}, 'message: "extra" is not known'),
        ({"role": "user", "content": "", "at": "yesterday"}, "at: expected an instant"),
        ({"role": "user", "content": "", "at": 5}, "at: expected an instant"),
        ({"role": "assistant", "content": "", "tool_calls": {}}, "tool_calls: expected a list"),
        ({"role": "assistant", "content": "", "tool_calls": [5]}, "tool_calls: expected an obj"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "c"}]}, "name: expected a"),
    ],
)
def test_messages_that_are_none_are_not_read(told: Any, problem: str) -> None:
    """What is read strictly is refused with the reason."""
    with pytest.raises(StateInvalidError) as refused:
        message_of(told)
    assert refused.value.problems[0].startswith(problem)


# --- the conversation -------------------------------------------------------------------------


def test_context_drops_the_oldest_and_tears_nothing() -> None:
    """A call and its results go together; the instructions go last."""
    context = SessionContext(limits=SMALL).with_messages(
        [said("system", "be nice"), said("user", "1"), called("a", "b"), result("b")]
    )
    context = context.with_messages([said("user", "wait"), result("a")])
    assert [entry.number for entry in context.history] == [1, 3, 4, 5, 6]
    context = context.with_messages([said("system", "a reminder")])
    assert [entry.number for entry in context.history] == [1, 5, 7]
    context = context.with_messages([said("user", str(n)) for n in range(4)])
    assert [entry.number for entry in context.history] == [1, 8, 9, 10, 11]
    context = context.with_messages([said("user", str(n)) for n in range(5)])
    assert [entry.number for entry in context.history] == [12, 13, 14, 15, 16]


def test_context_refuses_results_that_nobody_waits_for() -> None:
    """A result without a call, a second result, and a call that is waited for are refused."""
    context = SessionContext(limits=SMALL)
    for messages, problem in (
        ([result("a")], 'messages[0].tool_call_id: no call "a" waits for a result'),
        ([called("a"), result("a"), result("a")], "messages[2].tool_call_id: no call"),
        ([called("a"), called("b", "a")], "messages[1].tool_calls: another call"),
        ([called("a"), *[said("user")] * 5], "messages: 6 that belong together; at most 5"),
    ):
        with pytest.raises(StateInvalidError) as refused:
            context.with_messages(messages)
        assert refused.value.problems[0].startswith(problem)
    with pytest.raises(TypeError, match=r"messages\[0\]: expected a Message, got str"):
        context.with_messages(["hello"])  # type: ignore[list-item]
    # An id may be used again when its call was answered.
    again = context.with_messages([called("a"), result("a"), called("a"), result("a")])
    assert [entry.answers for entry in again.history] == [None, 1, None, 3]
    assert again.waiting_calls() == {}


def test_context_keeps_a_result_of_an_old_call() -> None:
    """The group of a result that has come just now is not what is dropped for it."""
    context = SessionContext(limits=SMALL).with_messages(
        [called("a"), *(said("user", str(n)) for n in range(4))]
    )
    context = context.with_messages([result("a")])
    assert [entry.number for entry in context.history] == [1, 3, 4, 5, 6]


def test_context_drops_calls_that_wait_behind_all_that_was_said() -> None:
    """However much is said while a tool works, its result is taken; instructions go last."""
    context = SessionContext(limits=SMALL).with_messages([said("system"), called("a")])
    for number in range(20):
        context = context.with_messages([said("user", str(number))])
    assert [entry.number for entry in context.history] == [1, 2, 20, 21, 22]
    answered = context.with_messages([result("a")])
    assert [entry.number for entry in answered.history] == [1, 2, 21, 22, 23]
    # Now it is as old as any other, and goes with its call.
    assert [entry.number for entry in answered.with_messages([said("user")]).history] == [
        1,
        21,
        22,
        24,
    ]
    for name in "bcdefgh":
        context = context.with_messages([called(name)])
    assert [entry.number for entry in context.history] == [1, 26, 27, 28, 29]


@given(st.lists(OPERATIONS, max_size=20))
def test_context_is_as_a_naive_one(operations: list[tuple[Any, ...]]) -> None:
    """After any operations a context holds what plain lists and dicts would hold."""
    context, naive = SessionContext(limits=SMALL), Naive(SMALL)
    for operation in operations:
        context = applied(context, operation)
        naive.apply(operation)
        assert list(context.messages) == [message for message, _ in naive.said]
        numbers = [entry.number for entry in context.history]
        assert [
            None if entry.answers is None else numbers.index(entry.answers)
            for entry in context.history
        ] == [answers for _, answers in naive.said]
        assert sum(map(context.is_instruction, context.history)) == naive.instructions
        assert [(file.path, file.content) for file in context.files.values()] == naive.files
        assert dict(context.index) == naive.index
        assert dict(context.values) == naive.values


@given(st.lists(OPERATIONS, max_size=20))
def test_context_stays_within_its_limits(operations: list[tuple[Any, ...]]) -> None:
    """No operation leads above a limit, and none leaves half a group."""
    context = SessionContext(limits=SMALL)
    for operation in operations:
        context = applied(context, operation)
        assert len(context.history) <= SMALL.max_history
        assert len(context.files) <= SMALL.max_files
        assert len(context.index) <= SMALL.max_indexed
        assert len(context.values) <= SMALL.max_values
        present = {entry.number for entry in context.history}
        assert all(entry.group in present for entry in context.history)
        assert not context.history or context.history[0].message.role != "tool"


# --- rows -------------------------------------------------------------------------------------


@given(st.lists(OPERATIONS, max_size=20))
def test_context_rows_follow_each_change(operations: list[tuple[Any, ...]]) -> None:
    """The rows that a change puts and deletes make those of the new context out of the old ones."""
    context = SessionContext(limits=SMALL)
    stored = rows_of(context)
    for operation in operations:
        before, context = context, applied(context, operation)
        put, deleted = changed_rows(before, context)
        assert HEAD in put
        assert not put.keys() & set(deleted)
        for key in deleted:
            del stored[key]
        stored |= json.loads(json.dumps(put))
        assert stored == rows_of(context)
        assert context_of(stored, SMALL) == context
        assert all(1 <= len(key) <= 255 and key.isprintable() for key in stored)


def test_context_rows_are_as_few_as_the_change() -> None:
    """A message more writes its row and the head, however long the conversation is."""
    many = [said("user", "x" * 1000) for _ in range(10_000)]
    context = SessionContext(limits=ContextLimits(max_history=10_000)).with_messages(many)
    began = time.perf_counter()
    whole = len(json.dumps(rows_of(context)))
    of_all = time.perf_counter() - began
    assert whole > 10_000_000
    began = time.perf_counter()
    put, deleted = changed_rows(context, context.with_messages([said("user", "more")]))
    of_one = time.perf_counter() - began
    assert sorted(put) == [HEAD, "message/00000000000000010001"]
    assert deleted == ("message/00000000000000000001",)
    assert of_one < of_all / 3


def test_context_rows_of_smaller_limits_are_read() -> None:
    """What is above limits that have become smaller is there until the next change."""
    context = SessionContext().with_messages([said("user", str(n)) for n in range(9)])
    for path in ("a", "b", "c"):
        context = context.with_file(path, at=AT).with_value(path, 1)
    read = context_of(rows_of(context), SMALL)
    assert (len(read.history), len(read.files), len(read.values)) == (9, 3, 3)
    read = read.with_messages([said("user", "more")]).with_file("d", at=AT).with_value("a", 2)
    assert (len(read.history), len(read.files), len(read.values)) == (5, 2, 3)
    with pytest.raises(StateInvalidError, match="there are 3 already; at most 2 are kept"):
        read.with_value("new", 1)


def test_context_rows_that_are_broken_are_named() -> None:
    """Whatever is missing, garbled or unknown is told by its key, and nothing is made up."""
    context = SessionContext(limits=SMALL).with_messages([said("user", "1"), called("a")])
    context = context.with_messages([result("a")]).with_file("a.py", "x", at=AT)
    rows = rows_of(context.with_indexed("b.py", 1).with_value("k", 1))
    assert context_of(rows, SMALL).values == {"k": 1}
    [file] = [key for key in rows if key.startswith("file/")]
    [indexed] = [key for key in rows if key.startswith("index/")]
    number = "message/0000000000000000000"
    for changes, problem in (
        ({HEAD: None}, "head: it is missing, or broken"),
        ({HEAD: {**rows[HEAD], "format": 2}}, "head: format 2; 1 is known here"),
        ({HEAD: {**rows[HEAD], "next": 0}}, "head.next: expected an integer"),
        ({HEAD: {**rows[HEAD], "next": 3}}, "head: there are numbers behind the next one, 3"),
        ({HEAD: {**rows[HEAD], "change": 3}}, "head: it is missing, or broken"),
        ({f"{number}2": None}, "message 3: the call that it answers is missing"),
        ({f"{number}3": {"message": result("b").to_json(), "answers": 2}}, "message 3: the call"),
        ({f"{number}3": {"message": result("a").to_json()}}, "message 3: a result, and only that"),
        ({f"{number}1": {"message": {}}}, f"{number}1: role: expected one of"),
        ({f"{number}1": 5}, f"{number}1: expected a message, got 5"),
        ({"message/1": rows[f"{number}1"]}, "message/1: is not known"),
        ({"other": 1}, "other: is not known"),
        ({file: {**rows[file], "path": "b.py"}}, f'{file}: is not the key of "b.py"'),
        ({file: {**rows[file], "content": 1}}, f"{file}: content: expected a string, got 1"),
        ({file: {**rows[file], "opened_at": "x"}}, f"{file}: opened_at: expected an instant"),
        ({file: {**rows[file], "number": None}}, f"{file}: number: expected an integer"),
        ({indexed: {"path": 1, "info": 2}}, f"{indexed}: path: expected a string, got 1"),
        ({indexed: {"path": "b.py"}}, f"{indexed}: expected a file"),
    ):
        broken = {k: row for k, row in {**rows, **changes}.items() if row is not None}
        with pytest.raises(StateInvalidError) as refused:
            context_of(broken, SMALL)
        assert any(each.startswith(problem) for each in refused.value.problems), refused.value


# --- bounds -----------------------------------------------------------------------------------


def test_context_refuses_what_it_cannot_hold() -> None:
    """Paths, keys and sizes that could not be stored are refused when they are handed in."""
    context = SessionContext()
    long = "x" * MAX_STORED_BYTES
    key = "k" * MAX_VALUE_KEY_CHARACTERS
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: context.with_file("", at=AT), "path"),
        (lambda: context.with_file("p" * (MAX_PATH_CHARACTERS + 1), at=AT), "path"),
        (lambda: context.with_file("p", long, at=AT), "content"),
        (lambda: context.with_file("p", 5, at=AT), "content"),  # type: ignore[arg-type]
        (lambda: context.with_file("p", at=datetime(2026, 1, 1)), "at"),  # noqa: DTZ001 - naive
        (lambda: context.with_indexed("p", long), "value"),
        (lambda: context.with_indexed("p", {1: 2}), "value"),
        (lambda: context.with_indexed(5, 1), "path"),  # type: ignore[arg-type]
        (lambda: context.with_value(f"{key}k", 1), "key"),
        (lambda: context.with_value("\n", 1), "key"),
        (lambda: context.with_value("k", float("nan")), "value"),
    ]
    for refuse, path in cases:
        with pytest.raises(StateInvalidError) as refused:
            refuse()
        assert refused.value.problems[0].startswith(f"{path}:")
    assert context.with_value(key, 1).values == {key: 1}
    assert context.without_file("p") is context.without_indexed("p") is context.without_value("k")


def test_context_limits_are_checked() -> None:
    """A limit is a number from 1 on; every fault is named."""
    with pytest.raises(StateInvalidError) as refused:
        ContextLimits(max_history=0, max_files=True, max_values=2.5)  # type: ignore[arg-type]
    paths = [problem.split(":")[0] for problem in refused.value.problems]
    assert paths == ["max_history", "max_files", "max_values"]


def test_context_never_changes() -> None:
    """Neither a context nor what it holds can be changed in place."""
    value = {"a": [1]}
    context = SessionContext().with_value("k", value).with_file("a.py", at=AT)
    value["a"].append(2)
    assert context.values == {"k": {"a": [1]}}
    with pytest.raises(TypeError):
        context.values["k"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        context.values["k"]["a"].append(2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        context.history = ()  # type: ignore[misc]
