"""Contexts as rows of a table: one message more writes one row, and not the whole conversation.

There is a row for each message, active file, indexed file and value, and one that goes for the
whole: the head, which is written with each change. Whoever changes a context on condition that the
head is at the version that was read loses nobody's change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

import attrs

from .clock import instant_text
from .context import (
    ContextFile,
    ContextLimits,
    Entry,
    SessionContext,
    check_path,
)
from .errors import StateInvalidError
from .fields import Problems, check_instant, integer_of, raise_problems
from .jsonvalue import shown
from .messages import message_of
from .serialization.instants import instant_or_value

FORMAT: Final = 1
HEAD: Final = "head"
"""Key of the row that goes for the whole."""


def changed_rows(
    before: SessionContext | None, after: SessionContext
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the rows that have to be put, JSON by key, and those that have to be deleted.

    Args:
        before: What is stored; None: nothing.
        after: What is to be stored.
    """
    put: dict[str, Any] = {HEAD: head_of(after)}
    deleted: list[str] = []
    start = SessionContext() if before is None else before
    for rows in _PARTS:
        old, new = rows.of(start), rows.of(after)
        if old is new:
            continue
        stored = dict(rows.items(old))
        for name, item in rows.items(new):
            if stored.pop(name, _ABSENT) is not item:
                put[rows.key(name)] = rows.written(name, item)
        deleted += map(rows.key, stored)
    return put, tuple(deleted)


def context_of(rows: Mapping[str, Any], limits: ContextLimits) -> SessionContext:
    """Put a context together from all of its rows.

    What is above the limits is left for the next change to drop.

    Raises:
        StateInvalidError: A row is none, or one is missing; every fault by its key.
    """
    problems: Problems = []
    head = _read_head(rows.get(HEAD), problems)
    found: dict[str, dict[Any, Any]] = {part.prefix: {} for part in _PARTS}
    for key, row in rows.items():
        if key == HEAD:
            continue
        part = next((each for each in _PARTS if key.startswith(each.prefix)), None)
        try:
            if part is None:
                raise_problems(["is not known"])
            else:
                name, item = part.read(key.removeprefix(part.prefix), row)
                found[part.prefix][name] = item
        except StateInvalidError as fault:
            problems += [f"{key}: {problem}" for problem in fault.problems]
    raise_problems(problems)
    history = tuple(sorted(found["message/"].values(), key=lambda entry: entry.number))
    files = sorted(found["file/"].values(), key=lambda file: file.number)
    numbers = {each.number for each in (*history, *files)}
    if any(number >= head["next_number"] for number in numbers):
        problems.append(f"{HEAD}: there are numbers behind the next one, {head['next_number']}")
    _check_answers(history, problems)
    raise_problems(problems)
    return SessionContext(
        limits=limits,
        history=history,
        files=MappingProxyType({file.path: file for file in files}),
        index=MappingProxyType(found["index/"]),
        values=MappingProxyType(found["value/"]),
        **head,
    )


def _check_answers(history: tuple[Entry, ...], problems: Problems) -> None:
    calls = {
        (entry.number, call.id): entry for entry in history for call in entry.message.tool_calls
    }
    for entry in history:
        if (entry.answers is None) != (entry.message.role != "tool"):
            problems.append(f"message {entry.number}: a result, and only that, answers a call")
        elif entry.answers is not None:
            made = calls.pop((entry.answers, entry.message.tool_call_id or ""), None)
            if made is None or made.number > entry.number:
                problems.append(f"message {entry.number}: the call that it answers is missing")


def head_of(context: SessionContext) -> dict[str, Any]:
    """Return the row that goes for the whole of a context."""
    told = {"format": FORMAT, "next": context.next_number, "spoken": context.spoken}
    return {**told, "change": context.change}


def _read_head(row: object, problems: Problems) -> dict[str, Any]:
    known = {"format", "next", "spoken", "change"}
    if isinstance(row, Mapping) and row.get("format", FORMAT) != FORMAT:
        problems.append(f"{HEAD}: format {shown(row['format'])}; {FORMAT} is known here")
    elif not isinstance(row, Mapping) or set(row) != known or not isinstance(row["change"], str):
        problems.append(f"{HEAD}: it is missing, or broken")
    raise_problems(problems)
    assert isinstance(row, Mapping)
    return {
        "next_number": integer_of(1, optional=False)(row["next"], f"{HEAD}.next", problems),
        "spoken": integer_of(1, optional=True)(row["spoken"], f"{HEAD}.spoken", problems),
        "change": row["change"],
    }


_ABSENT: Final = object()


@attrs.frozen
class _Part:
    """One kind of rows.

    Attributes:
        prefix: What their keys begin with.
        of: Returns the part of a context that they hold.
        items: Yields each item of the part by its name; it is the same object until another one is
            put in its place.
        rest: Returns what stands in the key behind the prefix, from a name.
        written: Returns the row, from a name and an item.
        read: Returns the name and the item, from the rest of a key and a row.
    """

    prefix: str
    of: Callable[[SessionContext], Any]
    items: Callable[[Any], Iterable[tuple[Any, Any]]]
    rest: Callable[[Any], str]
    written: Callable[[Any, Any], Any]
    read: Callable[[str, Any], tuple[Any, Any]]

    def key(self, name: Any) -> str:
        """Return the key of an item."""
        return self.prefix + self.rest(name)


def _items(part: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return part.items()


def _digits(number: int) -> str:
    return f"{number:020}"


def _digest(path: str) -> str:
    # A path may be longer than a key, and have characters that none has.
    return sha256(path.encode()).hexdigest()


def _write_entry(_: int, entry: Entry) -> dict[str, Any]:
    told = {"message": entry.message.to_json()}
    return told if entry.answers is None else {**told, "answers": entry.answers}


def _read_entry(rest: str, row: Any) -> tuple[int, Entry]:
    if not (rest.isascii() and rest.isdigit() and len(rest) == 20):
        raise_problems(["is not known"])
    if not isinstance(row, Mapping) or not {"message"} <= set(row) <= {"message", "answers"}:
        raise_problems([f"expected a message, got {shown(row)}"])
    problems: Problems = []
    answers = integer_of(1, optional=True)(row.get("answers"), "answers", problems)
    raise_problems(problems)
    return int(rest), Entry(int(rest), message_of(row["message"]), answers)


def _write_file(path: str, file: ContextFile) -> dict[str, Any]:
    told = {"path": path, "content": file.content, "number": file.number}
    return {**told, "opened_at": instant_text(file.opened_at)}


def _read_file(rest: str, row: Any) -> tuple[str, ContextFile]:
    path = _path_of(rest, row, {"path", "content", "number", "opened_at"})
    problems: Problems = []
    number = integer_of(1, optional=False)(row["number"], "number", problems)
    if not isinstance(row["content"], str):
        problems.append(f"content: expected a string, got {shown(row['content'])}")
    at = check_instant(instant_or_value(row["opened_at"]), "opened_at", problems)
    raise_problems(problems)
    return path, ContextFile(path, row["content"], at, number)


def _write_indexed(path: str, info: Any) -> dict[str, Any]:
    return {"path": path, "info": info}


def _read_indexed(rest: str, row: Any) -> tuple[str, Any]:
    return _path_of(rest, row, {"path", "info"}), row["info"]


def _path_of(rest: str, row: Any, members: set[str]) -> str:
    if not isinstance(row, Mapping) or set(row) != members:
        raise_problems([f"expected a file, got {shown(row)}"])
    problems: Problems = []
    path: str = check_path(row["path"], problems)
    raise_problems(problems)
    if _digest(path) != rest:
        raise_problems([f"is not the key of {shown(path)}"])
    return path


_PARTS: Final = (
    _Part(
        "message/",
        lambda context: context.history,
        lambda history: ((entry.number, entry) for entry in history),
        _digits,
        _write_entry,
        _read_entry,
    ),
    _Part("file/", lambda context: context.files, _items, _digest, _write_file, _read_file),
    _Part("index/", lambda context: context.index, _items, _digest, _write_indexed, _read_indexed),
    _Part(
        "value/",
        lambda context: context.values,
        _items,
        str,
        lambda _, value: value,
        lambda key, value: (key, value),
    ),
)
