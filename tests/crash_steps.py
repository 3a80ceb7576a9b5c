"""Kills an operation before each of its steps, each time on a fresh copy of the same file.

A step is a statement that is sent to the database, one that a trigger runs included, or a change
of the file system that the interpreter makes. The process that is killed is a fork, so that
hundreds of kills take seconds. What SQLite writes within a statement lies between two steps: for
that, a write is torn at a length of the file chosen by lot, which kills the process as well; and it
is killed at moments chosen by lot over the length of the operation.
"""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

import attrs
from crash_forks import Fuse, fork, unbroken

from session_fsm import SessionFsmError, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores.abc import all_ids

FILE: Final = "sessions.db"

Digests = Mapping[str, tuple[str, ...]]
"""The digests of the events of each id, which stand for all that the events say; and the schema."""


@attrs.frozen(kw_only=True)
class Action:
    """Something that is done to a store, and may be killed.

    Attributes:
        name: What it is called.
        clock: What time it is while it is done.
        prepare: Makes the file that it is done to, in a directory; the file may stay missing.
        act: Does it to the store at a URL, from opening to closing it; to do it twice is harmless.
        in_one: Whether it is one transaction, so that all of it is there or nothing.
        most_steps: Before how many steps, spread evenly, it is killed if it has more.
    """

    name: str
    clock: ManualClock
    prepare: Callable[[Path], object]
    act: Callable[[str], object]
    in_one: bool
    most_steps: int = 700


@attrs.define
class Killed:
    """What the kills of one action came to.

    Attributes:
        name: Of the action.
        steps: How many it has.
        at_steps: How often it was killed before one of them.
        in_writes: How often it was killed in a write, of which the first part was done.
        at_moments: How often it was killed at a moment chosen by lot.
        nothing: How often nothing of it was there afterwards.
        all: How often all of it was.
        faults: What was wrong, in words.
    """

    name: str
    steps: int = 0
    at_steps: int = 0
    in_writes: int = 0
    at_moments: int = 0
    nothing: int = 0
    all: int = 0
    faults: list[str] = attrs.field(factory=list)

    @property
    def kills(self) -> int:
        """How often it was killed."""
        return self.at_steps + self.in_writes + self.at_moments

    @property
    def part(self) -> int:
        """How often a part of it was there."""
        return self.kills - self.nothing - self.all


def kill_everywhere(
    action: Action, directory: Path, *, most_steps: int | None, moments: int, seed: int
) -> Killed:
    """Kill an action again and again, and see that the store is whole after each time.

    Args:
        action: What is done.
        directory: An empty one, for the files.
        most_steps: Before how many steps, if that is fewer than the action's own number.
        moments: At how many moments, and in how many writes.
        seed: What decides the moments and the writes.
    """
    template = directory / "before"
    template.mkdir()
    action.prepare(template)
    before = _look(_copy(template, directory), action)[0]
    whole = _copy(template, directory)
    steps, seconds = unbroken(partial(action.act, _url(whole)))
    after, problems = _look(whole, action)
    killed = Killed(action.name, steps, faults=[f"unbroken: {each}" for each in problems])
    chance = random.Random(f"{action.name}.{seed}")
    few = action.most_steps if most_steps is None else min(most_steps, action.most_steps)
    for step in _spread(steps, few):
        copy = _copy(template, directory)
        code = fork(partial(action.act, _url(copy)), Fuse(step)).end(None)
        if code != -signal.SIGKILL:
            killed.faults.append(f"it ended with {code}, not before step {step}")
        killed.at_steps += 1
        _check(action, copy, before, after, killed, f"before step {step} of {steps}")
    longest = _longest(action, template, directory) if moments else 0
    for _ in range(moments):
        copy, most = _copy(template, directory), chance.randrange(longest)
        code = fork(partial(action.act, _url(copy)), Fuse(0), most).end(None)
        if code == 0:
            continue  # it has written all that it had to
        if code != -signal.SIGXFSZ:
            killed.faults.append(f"it ended with {code}, not in the write past {most:,} bytes")
        killed.in_writes += 1
        _check(action, copy, before, after, killed, f"in the write past {most:,} bytes")
    for _ in range(moments):
        copy, fraction = _copy(template, directory), chance.random()
        fork(partial(action.act, _url(copy)), None).end(fraction * seconds)
        killed.at_moments += 1
        _check(action, copy, before, after, killed, f"after {fraction:.3f} of its length")
    return killed


def _longest(action: Action, template: Path, directory: Path) -> int:
    """Return a length that no file comes to, and at most twice as much as one does."""
    most = 1 << 15
    while True:
        copy = _copy(template, directory)
        code = fork(partial(action.act, _url(copy)), Fuse(0), most).end(None)
        if code != -signal.SIGXFSZ:
            return most
        most *= 2


def _spread(steps: int, most: int) -> list[int]:
    if steps <= most:
        return list(range(1, steps + 1))
    return sorted({1 + round(number * (steps - 1) / (most - 1)) for number in range(most)})


def _copy(template: Path, directory: Path) -> Path:
    """Return a fresh copy; the one before is thrown away."""
    copy = directory / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(template, copy)
    return copy


def _url(directory: Path) -> str:
    return f"sqlite:///{directory / FILE}"


# --- what is left ----------------------------------------------------------------------------


def _look(directory: Path, action: Action) -> tuple[Digests, list[str]]:
    """Return what a store holds, and what is wrong with it."""
    found = {_SCHEMA: _schema(directory / FILE)}
    with SessionManager(_url(directory), clock=action.clock) as manager:
        problems = list(manager.verify().problems)
        for each in all_ids(manager.store):
            found[each] = tuple(event.digest for event in manager.history(each))
    return found, problems


_SCHEMA: Final = "the schema"


def _schema(file: Path) -> tuple[str, ...]:
    """Return the names of what a database consists of, as it is before a store opens it."""
    if not file.exists():
        return ()
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT type || ' ' || name FROM sqlite_schema ORDER BY 1"
        return tuple(name for (name,) in connection.execute(query))


def _check(
    action: Action, directory: Path, before: Digests, after: Digests, killed: Killed, when: str
) -> None:
    """See that a store is whole after a kill, and that doing it again completes it."""
    try:
        problems = list(_problems(action, directory, before, after, killed))
    except (SessionFsmError, sqlite3.Error, AssertionError) as fault:
        problems = [f"the store does not go on: {type(fault).__name__}: {fault}"]
    killed.faults += [f"{action.name}, killed {when}: {each}" for each in problems]


def _problems(
    action: Action, directory: Path, before: Digests, after: Digests, killed: Killed
) -> Iterator[str]:
    found, problems = _look(directory, action)
    yield from problems
    if found == before:
        killed.nothing += 1
    elif found == after:
        killed.all += 1
    elif action.in_one:
        yield "it is one transaction, and a part of it is there"
    for session_id in found.keys() | before.keys():
        here, was = found.get(session_id, ()), before.get(session_id, ())
        will = after.get(session_id, ())
        on_its_way = here[: len(was)] == was and here == will[: len(here)]
        if here not in (was, will) and not on_its_way:
            yield f"{session_id} is neither as it was nor on its way to what it will be"
    action.act(_url(directory))
    again, then = _look(directory, action)
    yield from (f"done again: {each}" for each in then)
    if again != after:
        yield "done again, it is not as if it had never been killed"
