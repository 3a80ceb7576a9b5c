"""States as JSON: `dumps` and `loads` beside pydantic and msgspec, on the same data.

The model of pydantic has the same fields and comparable checks: an unknown field, a number that is
rounded or converted, an instant without an offset, a word that can't be printed, an entry that
stands twice and instants out of order are refused. The struct of msgspec declares what it can and
checks the rest after it. Neither freezes what it has read, as ours does.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from session_fsm import SessionState, dumps, loads, serialize, step

from .measuring import Record, Turn, counted, in_turns, table, told_seconds

NOON: Final = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
MAKERS: Final[Mapping[str, str]] = {
    "pydantic": "wire_pydantic",
    "msgspec": "wire_msgspec",
}
OURS: Final = "session_fsm"
Pair = tuple[Callable[[], bytes | str], Callable[[], Any]]
"""What writes a state, and what reads it."""


def states() -> dict[str, SessionState]:
    """Return the states that are written and read, by size."""
    messages = [
        {"role": "user", "content": f"question {number} " * 12, "tokens": number, "score": 0.5}
        for number in range(100)
    ]
    settings = {"model": "large", "temperature": 0.7, "stop": ["\n\n"], "max_tokens": 4096}
    notes = {"user": "ada", "tags": ["support", "eu"], "turn": {"number": 7, "cost": 0.0125}}
    return {
        "small": _busy(SessionState.new("chat-000000001", at=NOON)),
        "typical": _busy(
            SessionState.new(
                "chat-000000002",
                config={"timeout_minutes": 45, "features": ["search", "code"]},
                llm_config=settings,
                metadata=notes,
                at=NOON,
            )
        ),
        "large": _busy(
            SessionState.new(
                "chat-000000003",
                llm_config=settings,
                metadata={**notes, "messages": messages},
                at=NOON,
            )
        ),
    }


def _busy(state: SessionState) -> SessionState:
    """Bring a state to work, with instants that differ."""
    state = step(state, "activate", at=NOON + timedelta(seconds=1))
    state = step(state, "start_conversation", at=NOON + timedelta(seconds=2))
    return step(state, "begin_task", at=NOON + timedelta(seconds=3), task_id="build")


def pairs(state: SessionState) -> tuple[dict[str, Pair], dict[str, str]]:
    """Return what writes and reads a state, by subject, and why a subject is missing."""
    text = dumps(state)
    found: dict[str, Pair] = {OURS: (lambda: dumps(state), lambda: loads(text))}
    missing: dict[str, str] = {}
    for name, module in MAKERS.items():
        try:
            found[name] = importlib.import_module(f".{module}", __package__).pair(text)
        except ImportError as fault:
            missing[name] = f"{type(fault).__name__}: {fault}"
            continue
        check_same(found[name], state)
    return found, missing


def check_same(pair: Pair, state: SessionState) -> None:
    """Refuse a subject that loses or changes something on its way: it would do less.

    Raises:
        ValueError: What it writes is read as another state.
    """
    write, _ = pair
    text = write()
    if serialize(loads(text if isinstance(text, bytes) else text.encode())) != serialize(state):
        raise ValueError("what a peer writes is another state")


@attrs.frozen
class Wire:
    """What came of it.

    Attributes:
        records: By size, `dumps` or `loads`, and subject.
        bytes: The length of each state, by size.
        missing: Why a subject has no record.
    """

    records: Mapping[tuple[str, str], Mapping[str, Record]]
    bytes: Mapping[str, int]
    missing: Mapping[str, str]

    def time_ratio(self, size: str, verb: str, to: str) -> float | None:
        """Return how much of another's time ours takes; None if that is missing."""
        records = self.records[size, verb]
        return 1 / records[OURS].ratio_to(records[to]) if to in records else None


def measure(rounds: int, seconds: float) -> Wire:
    """Let the subjects write, and read, in turns of about so many seconds."""
    records: dict[tuple[str, str], dict[str, Record]] = {}
    missing: dict[str, str] = {}
    sizes = {}
    for size, state in states().items():
        sizes[size] = len(dumps(state))
        found, missing = pairs(state)
        for index, verb in enumerate(("dumps", "loads")):
            acts = {name: pair[index] for name, pair in found.items()}
            records[size, verb] = in_turns(
                {name: _turn(act, seconds) for name, act in acts.items()}, rounds
            )
    return Wire(records, sizes, missing)


def _turn(act: Callable[[], Any], seconds: float) -> Callable[[], Turn]:
    sample = statistics.median(counted(act, 20).seconds for _ in range(5)) / 20
    times = max(5, round(seconds / sample))
    return lambda: counted(act, times)


def lines(found: Wire) -> Iterator[str]:
    """Yield what was found as a table."""
    names: Sequence[str] = (OURS, *(name for name in MAKERS if name not in found.missing))
    rows = []
    for (size, verb), records in found.records.items():
        row = [f"{verb}, {size} ({found.bytes[size]:,} bytes)"]
        row += [told_seconds(records[name].each_seconds) for name in names]
        for name in names[1:]:
            ratio = found.time_ratio(size, verb, name)
            row.append("" if ratio is None else f"{ratio:.2f} ×")
        rows.append(row)
    head = ["", *names, *(f"ours takes, of {name}'s" for name in names[1:])]
    yield from table(head, rows)
    if found.missing:
        yield ""
        for name, reason in found.missing.items():
            yield f"- Not measured: {name} ({reason})"
