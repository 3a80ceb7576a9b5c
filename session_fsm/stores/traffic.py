"""How often rows were fired, of what a database has counted by itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..history import EVENT_FORMATS


def count_traffic(
    events: Iterable[tuple[Any, int, str]], checkpoints: Iterable[tuple[Any, str]]
) -> tuple[dict[tuple[str, str], int], tuple[str, ...]]:
    """Count events by row, those that checkpoints stand for too.

    Args:
        events: Words of events that have them in common, as a list (format, kind, trigger, source),
            or whatever else was found; how many events have them, and a session of one of these.
        checkpoints: Words of checkpoints, as a list (format, kind, counts), with a count as
            (trigger, source, how often), or whatever else was found; the session of each.

    Returns:
        How often, by (trigger, source); and sessions that have an event which can't be read, or is
        of another format, at least one of them if there are any.
    """
    found: dict[tuple[str, str], int] = {}
    unreadable: list[str] = []
    for words, count, session_id in events:
        match words:
            case [number, *_] if not _is_known(number):
                unreadable.append(session_id)
            case [_, "created" | "purged", None, _]:
                pass  # no row does that
            case [_, "created" | "moved" | "changed" | "purged", str(trigger), str(source)]:
                found[trigger, source] = found.get((trigger, source), 0) + count
            case _:
                unreadable.append(session_id)
    for words, session_id in checkpoints:
        match words:
            case [number, "checkpoint", list(counts)] if _is_known(number) and all(
                type(each) is list and [*map(type, each)] == [str, str, int] for each in counts
            ):
                for trigger, source, count in counts:
                    found[trigger, source] = found.get((trigger, source), 0) + count
            case _:
                unreadable.append(session_id)
    return found, tuple(unreadable)


def _is_known(number: Any) -> bool:
    return type(number) is int and number in EVENT_FORMATS  # `true` equals 1
