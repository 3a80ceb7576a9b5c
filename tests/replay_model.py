"""What a replay must come to, worked out again by other means.

Nothing of the package is used: a log is read with `gzip` and `json`, and each id is followed from
its first row to its last by itself, in whole microseconds, where a replay goes through all rows in
the order of time. Only the end of the log and the names of successors are known to all ids.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ModelRow = tuple[int, str, str]
"""Microseconds since 1970, the id, and one of the words of `word_of`."""

SECOND = 1_000_000
MOST_CONVERSATIONS = 100

_BEGINS = {"response", "tool_result", "task_notification"}
_ENDS = {"system:turn_duration", "system:stop_hook_summary", "interrupt", "hook_stopped"}


def word_of(line: dict[str, Any]) -> str:
    """Tell what a line of a log is: `request`, `begin`, `end`, `exit` or `other`."""
    event, hook = line["event"], line.get("data.hookEvent")
    if event == "request":
        return "request"
    if event in _BEGINS or (event == "progress" and hook is None):
        return "begin"
    if event in _ENDS or (event == "progress" and hook == "Stop"):
        return "end"
    return "exit" if event == "local_command" and line.get("command") == "/exit" else "other"


def rows_in(path: Path) -> list[ModelRow]:
    """Read the event lines of a gzip file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        parsed = [json.loads(line) for line in lines]
    return [(round(line["ts"] * 1000) * 1000, line["session"], word_of(line)) for line in parsed]


def replay_model(
    rows: Iterable[ModelRow],
    *,
    timeout_minutes: int | None = 30,
    quiet_gap_seconds: float = 120.0,
) -> dict[str, Any]:
    """Return what a report of these rows must say, and the life of every session."""
    ordered = sorted(rows, key=lambda row: row[0])
    timeout = None if timeout_minutes is None else timeout_minutes * 60 * SECOND
    quiet = round(quiet_gap_seconds * SECOND)
    by_name: dict[str, list[tuple[int, int, str]]] = {}
    for order, (at, name, word) in enumerate(ordered):
        by_name.setdefault(name, []).append((order, at, word))
    told: dict[str, Any] = {
        "rows": len(ordered),
        "requests": sum(word == "request" for _, _, word in ordered),
        "trailing_rows": 0,
        "findings": Counter(),
        "refusals": Counter(),
    }
    end = ordered[-1][0] if ordered else 0
    lives: list[dict[str, Any]] = []
    for name, own in by_name.items():
        lives += _lives(name, own, end, timeout, quiet, told)
    _name(lives)
    told["sessions"] = len(lives)
    told["successors"] = sum(life["before"] is not None for life in lives)
    told["ended"] = {how: sum(life["how"] == how for life in lives) for how in _WAYS}
    told["edges"] = Counter(
        f"{source}->{target}" for life in lives for _, source, target in life["moves"]
    )
    told["seconds_in_status"] = _seconds(lives, end)
    told["peak_open"] = _peak(lives)
    told["lives"] = {life["session_id"]: life for life in lives}
    return told


_WAYS = ("exit", "expired", "open")


def _lives(
    name: str,
    rows: list[tuple[int, int, str]],
    end: int,
    timeout: int | None,
    quiet: int,
    told: dict[str, Any],
) -> list[dict[str, Any]]:
    """Follow one id through its rows."""
    lives: list[dict[str, Any]] = []
    for order, at, word in rows:
        begins = word in ("request", "begin")
        if lives:
            _wait(lives[-1], at, timeout, quiet)
        if not lives:
            lives.append(_born(name, order, at, None))
        elif lives[-1]["how"] != "open":
            if not begins:
                told["trailing_rows"] += 1
                continue
            way = {"exit": "exit", "expired": "expiry"}[lives[-1]["how"]]
            told["findings"][f"begin_after_{way}"] += 1
            lives.append(_born(name, order, at, lives[-1]))
        life = lives[-1]
        life["last_row"] = at
        if begins:
            if not life["in_turn"]:
                _move(life, at, "active")
                life["in_turn"] = True
                life["last_activity"] = at
            if word == "request" and life["conversations"] == MOST_CONVERSATIONS:
                told["refusals"]["guard"] += 1
            elif word == "request":
                life["conversations"] += 1
                life["last_activity"] = at
        elif word == "exit":
            _move(life, at, "terminating")
            if life["in_turn"]:
                life["in_turn"] = False
                life["last_activity"] = at
            _move(life, at, "terminated")
            life["how"] = "exit"
        elif word == "end" and life["in_turn"]:
            _rest(life, at)
        elif not life["in_turn"]:
            life["last_activity"] = at
    if lives:
        _wait(lives[-1], end, timeout, quiet)
    return lives


def _born(name: str, order: int, at: int, before: dict[str, Any] | None) -> dict[str, Any]:
    life = {
        "name": name,
        "order": order,
        "before": before,
        "how": "open",
        "born": at,
        "status": "initializing",
        "moves": [],
        "in_turn": False,
        "conversations": 0,
        "last_activity": at,
        "last_row": at,
    }
    _move(life, at, "active")
    return life


def _move(life: dict[str, Any], at: int, target: str) -> None:
    if life["status"] != target:
        life["moves"].append((at, life["status"], target))
        life["status"] = target


def _rest(life: dict[str, Any], at: int) -> None:
    life["in_turn"] = False
    life["last_activity"] = at
    _move(life, at, "idle")


def _wait(life: dict[str, Any], to: int, timeout: int | None, quiet: int) -> None:
    """Let time pass for a session, up to the next row or the end of the log."""
    if life["how"] != "open":
        return
    if life["in_turn"] and to - life["last_row"] > quiet:
        _rest(life, life["last_row"])
    if not life["in_turn"] and timeout is not None and life["last_activity"] + timeout <= to:
        due = life["last_activity"] + timeout
        _move(life, due, "terminating")
        _move(life, due, "terminated")
        life["how"] = "expired"


def _name(lives: list[dict[str, Any]]) -> None:
    """Give each life its id, in the order in which they began."""
    used: set[str] = set()
    for life in sorted(lives, key=lambda life: life["order"]):
        free, number = life["name"], 1
        while free in used:
            number += 1
            free = f"{life['name']}~{number}"
        used.add(free)
        life["session_id"] = free


def _seconds(lives: list[dict[str, Any]], end: int) -> dict[str, float]:
    spent: Counter[str] = Counter()
    for life in lives:
        status, since = "initializing", life["born"]
        for at, _, target in life["moves"]:
            spent[status] += at - since
            status, since = target, at
        spent[status] += end - since
    words = ("initializing", "active", "idle", "terminating", "terminated")
    return {word: spent[word] / SECOND for word in words}


def _peak(lives: list[dict[str, Any]]) -> int:
    spans = [
        (life["born"], life["moves"][-1][0] if life["how"] != "open" else None) for life in lives
    ]
    return max(
        (
            sum(born <= at and (died is None or at < died) for born, died in spans)
            for at, _ in spans
        ),
        default=0,
    )
