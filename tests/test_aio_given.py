"""What is handed to an awaited verb is taken as it is then, whatever its caller does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from managing import await_event
from supervised import in_real_time, waits

from session_fsm import Message, Put, StateInvalidError, ToolCall
from session_fsm.aio import Child, SessionManager
from session_fsm.aio.given import as_given, as_json, as_listed
from session_fsm.jsonvalue import JsonObject, freeze_value

FIRST = {"a": 1, "deep": [{"a": 1}, ([1],)], "z": 1}


def first() -> dict[str, Any]:
    """Return a new value that can be changed in many places."""
    return {"a": 1, "deep": [{"a": 1}, ([1],)], "z": 1}


def spoil(value: dict[str, Any]) -> None:
    """Make another value of it, level by level."""
    value["deep"][0]["a"] = 2
    value["deep"][1][0][0] = 2
    value["deep"].append(object())
    value.update({"a": 2, "z": 2, "more": object()})


@asynccontextmanager
async def busy(manager: SessionManager) -> Any:
    """Keep the one thread of a manager from doing anything."""
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def stuck(_: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        await_event(go_on)

    held = asyncio.ensure_future(manager.batch(stuck))
    await begun.wait()
    try:
        yield
    finally:
        go_on.set()
        await held


Verb = Callable[[SessionManager, dict[str, Any]], Awaitable[Any]]


async def _metadata(manager: SessionManager) -> Any:
    return (await manager.get("s")).state.metadata


async def _item(manager: SessionManager) -> Any:
    return await manager.table("s", "t").get("k")


async def _value(manager: SessionManager) -> Any:
    return await manager.context("s").value("k")


async def _new(manager: SessionManager) -> Any:
    return (await manager.get("new")).state.metadata


async def _indexed(manager: SessionManager) -> Any:
    return (await manager.context("s").find_files())["p"]


VERBS: dict[str, tuple[Verb, Callable[[SessionManager], Awaitable[Any]]]] = {
    "create": (lambda manager, value: manager.create("new", metadata=value), _new),
    "create a mapping": (
        lambda manager, value: manager.create("new", metadata=MappingProxyType(value)),
        _new,
    ),
    "create with children": (
        lambda manager, value: manager.create(
            "new", metadata=value, children=[Child("c", waits, stop_seconds=0)]
        ),
        _new,
    ),
    "update": (lambda manager, value: manager.update("s", metadata=value), _metadata),
    "fire": (lambda manager, value: manager.fire("s", "update", metadata=value), _metadata),
    "put": (lambda manager, value: manager.table("s", "t").put("k", value), _item),
    "set_value": (lambda manager, value: manager.context("s").set_value("k", value), _value),
    "index_file": (lambda manager, value: manager.context("s").index_file("p", value), _indexed),
}


@pytest.mark.parametrize("verb", VERBS)
@in_real_time
async def test_aio_given_values_are_stored_as_they_were(verb: str) -> None:
    """A value that is changed once its verb was called is stored as it was, and never half so."""
    call, read = VERBS[verb]
    async with SessionManager(max_threads=1) as manager:
        await manager.create("s")
        value = first()
        async with busy(manager):
            called = asyncio.ensure_future(call(manager, value))
            await asyncio.sleep(0)
            spoil(value)
        await called
        assert await read(manager) == freeze_value(FIRST, "value")[0]


LISTS: dict[str, Callable[[SessionManager, list[Any]], Awaitable[object]]] = {
    "writes": lambda manager, given: manager.update(
        "s", metadata={}, writes=(Put("t", each, 1) for each in given)
    ),
    "add_messages": lambda manager, given: manager.context("s").add_messages(
        Message("user", each) for each in given
    ),
    "tool_calls": lambda manager, given: manager.context("s").add_message(
        "assistant", "", tool_calls=(ToolCall(each, "t") for each in given)
    ),
    "send_message": lambda manager, given: manager.send_message(
        "s", "assistant", "", tool_calls=(ToolCall(each, "t") for each in given)
    ),
    "list": lambda manager, given: manager.list(status=(each for each in given[2:])),
}


@pytest.mark.parametrize("verb", LISTS)
@in_real_time
async def test_aio_given_lists_are_read_at_once(verb: str) -> None:
    """What is iterated over is read when the verb is called, on the caller's own thread."""
    async with SessionManager(max_threads=1) as manager:
        await manager.create("s")
        given: list[Any] = ["one", "two", "active"]
        async with busy(manager):
            called = asyncio.ensure_future(LISTS[verb](manager, given))
            await asyncio.sleep(0)
            given.clear()
            given.extend((object(), object(), object()))
        await called
        if verb == "list":
            assert [each.session_id for each in await manager.list(status=["active"])] == ["s"]
        elif verb == "writes":
            assert [each.key for each in await manager.table("s", "t").items()] == [
                "active",
                "one",
                "two",
            ]
        else:
            history = await manager.context("s").history()
            assert [[call.id for call in each.tool_calls] or each.content for each in history] in (
                ["one", "two", "active"],
                [["one", "two", "active"]],
            )


@in_real_time
async def test_aio_given_refusals_are_those_of_the_other_manager() -> None:
    """What can't be taken is refused as ever, with the words for what the caller has given."""
    deep: list[Any] = []
    deep.append(deep)
    double: Any = [1]
    for _ in range(90):
        double = [double, double]
    async with SessionManager() as manager:
        await manager.create("s")
        for value in (object(), {"x": object()}, {1: 2}, deep, double, {"x": {1, 2}}):
            with pytest.raises(StateInvalidError) as refused:
                await manager.table("s", "t").put("k", value)
            assert refused.value.problems == tuple(freeze_value(value, "value")[1])
        for wrong in (5, "ab", {"a": 1}):
            with pytest.raises(TypeError):
                await manager.fire("s", "go_idle", writes=wrong)  # type: ignore[arg-type]
        assert (await manager.get("s")).status == "active"


class Pair(NamedTuple):
    """A tuple that is more than one."""

    left: list[int]


def test_aio_given_containers_are_copied_and_nothing_else() -> None:
    """A copy has the same kinds all the way down; what is no plain container is handed on."""
    marker, pair, ordered = object(), Pair([1]), OrderedDict(a=[1])
    frozen = JsonObject({"a": [1]})
    given = {"l": [1, [2]], "t": (1, [2]), "s": {1}, "o": marker, "p": pair, "f": frozen}
    copied = as_given(given)
    assert copied == given
    assert copied is not given
    assert [type(each) for each in copied.values()] == [type(each) for each in given.values()]
    for name in ("l", "s"):
        assert copied[name] is not given[name]
    assert copied["t"][1] is not given["t"][1]  # type: ignore[index]
    assert copied["o"] is marker
    assert copied["p"] is pair
    assert copied["f"] is frozen
    assert as_given(ordered) is ordered
    assert (as_json(ordered), type(as_json(ordered))) == ({"a": [1]}, dict)
    assert as_json(pair) == ([1],)
    assert (as_listed(iter("ab")), as_listed("ab"), as_listed(5)) == (("a", "b"), "ab", 5)
    assert isinstance(as_listed({"a": 1}), Mapping)


def test_aio_given_containers_that_are_held_twice_are_copied_once() -> None:
    """A value whose size doubles with each level is copied at the cost of what is there."""
    value: Any = [[1]]
    for _ in range(80):
        value = [value, value]
    copied = as_json(value)
    assert copied[0] is copied[1]
    assert copied[0] is not value[0]
