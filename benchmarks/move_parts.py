"""The parts of a move, each measured alone by what anybody can call.

They are the work that a move can't do without: the step of the machine, the event's bytes and
digest, the state's bytes, the statements, and the wait for the disk. What is left of the whole is
called bookkeeping.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import orjson

from session_fsm import SessionManager, dumps, serialize

from . import floor
from .measuring import Turn, counted, in_turns
from .memory import bare
from .subjects import there_and_back

WHOLE: Final = "the whole move"
STEP: Final = "step of the machine"
EVENT: Final = "event: JSON and SHA-256"
STATE: Final = "state: dumps"
SQL: Final = "statements of the floor, not synced"
SYNC: Final = "wait for the disk"


def measure(directory: Path, rounds: int) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Return what the parts and the whole take, in memory and in SQLite, in seconds a move."""
    with SessionManager() as memory, SessionManager(f"sqlite:///{directory / 'parts.db'}") as ours:
        memory.create("a")
        state, last = memory.get("a").state, memory.history("a")[-1]
        [*_, (body, _)] = memory.store.history("a")
        told = serialize(state)
        wire, previous = orjson.loads(body), last.digest.encode()

        def event() -> None:
            hashlib.sha256(previous + b"\n" + orjson.dumps(wire)).hexdigest()

        def row(level: str) -> Callable[[], None]:
            connection = floor.connect(directory / f"{level}.db", synchronous=level)
            found = floor.Row(connection, serialize(state), revision=2, digest=last.digest)
            return found.there_and_back()

        ours.create("a")
        acts: dict[str, tuple[Callable[[], object], int]] = {
            WHOLE: (there_and_back(ours, "a"), 20),
            f"{WHOLE}, memory": (there_and_back(memory, "a"), 200),
            STEP: (bare(), 2000),
            EVENT: (event, 2000),
            STATE: (lambda: dumps(state), 1000),
            "state by hand": (lambda: orjson.dumps(told), 2000),
            "by hand": (row("FULL"), 20),
            SQL: (row("OFF"), 100),
        }
        records = in_turns({name: _turn(*act) for name, act in acts.items()}, rounds)
    each = {name: record.each_seconds for name, record in records.items()}
    shared = {name: each[name] for name in (STEP, EVENT, STATE)}
    # The floor makes the bytes of the event and of the state too.
    by_hand = each[EVENT] + each["state by hand"]
    statements = max(0.0, each[SQL] - by_hand)
    synced = max(0.0, each["by hand"] - each[SQL])
    stored = {**shared, SQL: statements, SYNC: synced, WHOLE: each[WHOLE]}
    in_memory = {STEP: each[STEP], EVENT: each[EVENT], WHOLE: each[f"{WHOLE}, memory"]}
    return in_memory, stored


def _turn(act: Callable[[], object], times: int) -> Callable[[], Turn]:
    return lambda: counted(act, times)


def rows(parts: Mapping[str, float]) -> Iterator[tuple[str, str, str]]:
    """Yield the parts, their sum and what is left of the whole, each with its share."""
    whole = parts[WHOLE]
    alone = {name: each for name, each in parts.items() if name != WHOLE}
    total = sum(alone.values())
    for name, each in (*alone.items(), ("sum of the parts", total),
                       ("bookkeeping: what is left", whole - total), (WHOLE, whole)):  # fmt: skip
        yield name, f"{each * 1e6:.1f} µs", f"{each / whole:.0%}"
