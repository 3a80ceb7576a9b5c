"""The steps of a worker process from its beginning to its end, and what may be done at each.

As a program, it is a manager that stands still at one of them, to be killed there:

    worker_steps.py FILE OWNER STEP SOURCE [ARGUMENT…]

It says the name of the step when it has got there.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from worker_processes import Stand, worker_of

from session_fsm.aio import process_run
from session_fsm.launching import HeldProcess
from session_fsm.stores import MemoryStore, SqliteStore

At = Callable[[str], object]

BEFORE_IT_IS_NOTED: Final = ("begun", "held", "noting")
BEFORE_IT_RUNS: Final = (*BEFORE_IT_IS_NOTED, "noted", "letting go")
WHILE_IT_ENDS: Final = ("asking", "asked", "killing", "killed", "dropping", "dropped")
STEPS: Final = (*BEFORE_IT_RUNS, "let go", "ready", *WHILE_IT_ENDS)


def between(at: At, before: str, function: Callable[..., Any], after: str) -> Callable[..., Any]:
    """Return a function that tells a step before it begins, and one when it is done."""

    @wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        at(before)
        result = function(*arguments, **options)
        at(after)
        return result

    return call


def tell_steps(at: At, patch: Callable[[object, str, object], object] = setattr) -> None:
    """Have the steps of every run told, but for those of the store.

    Args:
        at: Called with the name of each.
        patch: Puts something in the place of an attribute.
    """
    steps: tuple[tuple[object, str, str, str], ...] = (
        (process_run, "hold", "begun", "held"),
        (HeldProcess, "release", "letting go", "let go"),
        (process_run, "_ask_to_end", "asking", "asked"),
        (process_run, "_kill", "killing", "killed"),
    )
    for owner, name, before, after in steps:
        patch(owner, name, between(at, before, getattr(owner, name), after))


class TellingMemory(MemoryStore):
    """A store in memory that tells when a record is written or dropped."""

    def __init__(self, at: At) -> None:
        super().__init__()
        self._at = at

    def set_mark(self, name: str, body: bytes) -> None:
        is_record = name.startswith("worker/")
        self._at("noting" if is_record else "")
        super().set_mark(name, body)
        self._at("noted" if is_record else "")

    def drop_mark(self, name: str) -> None:
        self._at("dropping")
        super().drop_mark(name)
        self._at("dropped")


class TellingSqlite(SqliteStore):
    """A store in a file that does so."""

    at: At

    def set_mark(self, name: str, body: bytes) -> None:
        is_record = name.startswith("worker/")
        self.at("noting" if is_record else "")
        super().set_mark(name, body)
        self.at("noted" if is_record else "")

    def drop_mark(self, name: str) -> None:
        self.at("dropping")
        super().drop_mark(name)
        self.at("dropped")


async def manage(file: str, owner: str, step: str, source: str, *arguments: str) -> None:
    """Run a worker, and stand still at a step for ever."""

    def at(reached: str) -> None:
        if reached == step:
            print(step, flush=True)
            threading.Event().wait()

    tell_steps(at)
    store = TellingSqlite(file)
    store.at = at
    store.enlist(owner)
    stand = Stand(store=store, owner_id=owner)
    worker = worker_of(source, *arguments, ready_line=b"ready", term_seconds=0.0)
    task = asyncio.ensure_future(worker(stand))
    await stand.is_ready.wait()
    at("ready")
    stand.stopping.set()
    await task


if __name__ == "__main__":
    asyncio.run(manage(*sys.argv[1:]))
