"""One check for each sort of field: what a value must be to stand in a state.

A check takes a value and its path, adds what is wrong to `problems`, and returns the value as it is
kept. It may return anything once it has named a problem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from .clock import as_utc
from .errors import StateInvalidError
from .jsonvalue import MAX_INTEGER, freeze_object, plain_text, shown

MAX_ID_CHARACTERS = 255
"""Longest session id, task id or feature name, in characters."""
MAX_TASKS = 10_000
"""Most tasks in flight in one session."""
MAX_FEATURES = 1_000
"""Most features of one configuration."""
MAX_ERROR_CHARACTERS = 65_536
"""Longest `error` of a state, in characters."""
MAX_TIMEOUT_MINUTES = 527_040_000
"""Longest time-out, about a thousand years."""

Problems = list[str]
Check = Callable[[Any, str, Problems], Any]


def raise_problems(problems: Problems) -> None:
    """Refuse what has faults.

    Raises:
        StateInvalidError: There are some.
    """
    if problems:
        raise StateInvalidError(problems=tuple(problems))


def check_limit(limit: object, what: str) -> None:
    """Accept how many there may be on a page; one more is asked of the store, to see if it is all.

    Raises:
        ValueError: It is no such number.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit < MAX_INTEGER:
        most = f"from 1 to {MAX_INTEGER - 1}"
        raise ValueError(f"limit: expected a number of {what} {most}, got {shown(limit)}")


def is_word(value: object) -> bool:
    """Tell whether a value is an exact `str` that can be an id, a task or a feature."""
    return (
        type(value) is str
        and 1 <= len(value) <= MAX_ID_CHARACTERS
        and value.isprintable()
        and value == value.strip()
    )


def check_word(value: Any, path: str, problems: Problems) -> Any:
    """Return a value as it is, and name what keeps it from being an id or a status."""
    if is_word(value):
        return value
    if not isinstance(value, str):
        problems.append(f"{path}: expected a string, got {shown(value)}")
    elif not 1 <= len(value) <= MAX_ID_CHARACTERS:
        problems.append(f"{path}: {len(value)} characters; 1 to {MAX_ID_CHARACTERS} are allowed")
    elif not value.isprintable():
        problems.append(f"{path}: expected printable characters only, got {shown(value)}")
    elif value != value.strip():
        problems.append(f"{path}: leading or trailing blank in {shown(value)}")
    return value


def check_id(value: Any, path: str, problems: Problems) -> Any:
    """Return a word as an exact `str`; it is named if it can't be an id."""
    if is_word(value):
        return value
    value = check_word(value, path, problems)
    return str.__str__(value) if isinstance(value, str) else value


def check_status(value: Any, path: str, problems: Problems) -> Any:
    """Return a status as it is, or as an exact `str`; it is named if it can't be one."""
    # Other subclasses of `str` may print as another word than they are.
    return value if isinstance(value, StrEnum) else check_id(value, path, problems)


def integer_of(minimum: int, maximum: int = MAX_INTEGER, *, optional: bool) -> Check:
    """Return the check of an integer within bounds, or of None where that is allowed."""

    def check(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is int and minimum <= value <= maximum:
            return value
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            problems.append(
                f"{path}: expected an integer of at least {minimum}, got {shown(value)}"
            )
        elif value > maximum:
            problems.append(f"{path}: expected at most {maximum}, got {shown(value)}")
        else:
            return int(value)
        return value

    return check


def check_flag(value: Any, path: str, problems: Problems) -> Any:
    """Return a boolean or None; anything else is named."""
    if value is not None and not isinstance(value, bool):
        problems.append(f"{path}: expected true, false or null, got {shown(value)}")
    return value


def choice_of(words: tuple[str, ...]) -> Check:
    """Return the check of one word of several."""
    expected = f"{', '.join(words[:-1])} or {words[-1]}"

    def check(value: Any, path: str, problems: Problems) -> Any:
        if type(value) is str and value in words:
            return value
        plain = str.__str__(value) if isinstance(value, str) else None
        if plain not in words:
            problems.append(f"{path}: expected {expected}, got {shown(value)}")
        return plain

    return check


def words_of(maximum: int) -> Check:
    """Return the check of a list of distinct words, at most so many."""

    def check(value: Any, path: str, problems: Problems) -> Any:
        kind = type(value)
        if (kind is list or kind is tuple) and len(value) <= maximum:
            for word in value:
                if not is_word(word):
                    break
            else:
                if len(value) < 2 or len(set(value)) == len(value):
                    return tuple(value)
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            problems.append(f"{path}: expected a list of strings, got {shown(value)}")
            return ()
        words = tuple(value)
        if len(words) > maximum:
            problems.append(f"{path}: {len(words)} entries; at most {maximum} are allowed")
            words = words[:maximum]  # a million faults would fill the memory, and help nobody
        kept = tuple(
            check_id(word, f"{path}[{index}]", problems) for index, word in enumerate(words)
        )
        texts = [word for word in kept if isinstance(word, str)]
        if len(set(texts)) != len(texts):
            doubled = sorted(repr(word) for word, times in Counter(texts).items() if times > 1)
            problems.append(f"{path}: stands twice: {shown(', '.join(doubled))}")
        return kept

    return check


def check_text(value: Any, path: str, problems: Problems) -> Any:
    """Return text that can be stored, or None; anything else is named."""
    if value is None:
        return None
    if not isinstance(value, str):
        problems.append(f"{path}: expected a string or null, got {shown(value)}")
        return value
    if len(value) > MAX_ERROR_CHARACTERS:
        problems.append(f"{path}: {len(value)} characters; at most {MAX_ERROR_CHARACTERS}")
    return plain_text(value, path, problems)


def check_instant(value: Any, path: str, problems: Problems) -> Any:
    """Return an instant in UTC; what is none, or is naive, is named."""
    if not isinstance(value, datetime):
        problems.append(
            f"{path}: expected an instant (ISO 8601 with a UTC offset), got {shown(value)}"
        )
        return value
    try:
        return as_utc(value)
    except ValueError as fault:
        problems.append(f"{path}: {fault}")
        return value


def check_deadlines(value: Any, path: str, problems: Problems) -> Any:
    """Return tasks with the instants at which they are due, the earliest first; faults are named.

    A mapping of ids to instants is taken, or pairs of them.
    """
    if not value and isinstance(value, tuple | list | Mapping):
        return ()
    pairs = value.items() if isinstance(value, Mapping) else value
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        problems.append(f"{path}: expected instants by task, got {shown(value)}")
        return ()
    kept: dict[Any, datetime] = {}
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            problems.append(f"{path}: expected pairs of a task and an instant, got {shown(pair)}")
            return ()
        found: Problems = []
        task = check_id(pair[0], f"{path}, a task", found)
        at = check_instant(pair[1], f"{path}[{shown(task)}]", found)
        if not found and task in kept:
            found.append(f"{path}: stands twice: {shown(task)}")
        if not found:
            kept[task] = at
        problems.extend(found)
    return tuple(sorted(kept.items(), key=lambda pair: (pair[1], pair[0])))


def check_object(value: Any, path: str, problems: Problems) -> Any:
    """Return a JSON object, deeply immutable; every fault of it is named."""
    frozen, found = freeze_object(value, path)
    problems.extend(found)
    return frozen
