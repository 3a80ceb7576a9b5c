"""One of many processes that move the same sessions, and record what they were told.

    python linear_process.py URL SEED PLACES SECONDS NUMBER RECORDS

It opens the store, says so, waits for a line, and writes each of its calls to the file RECORDS.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import attrs
from linearizability import Call
from operations import Chooser, Operation, perform

from session_fsm import (
    FencedError,
    RevisionConflictError,
    Session,
    SessionExistsError,
    SessionManager,
    SessionNotFoundError,
    StoreUnavailableError,
    TransitionError,
)

READS = 25
HOT = 4
"""Half of all calls are made in this many places, so that callers meet."""


@attrs.define
class _Seen:
    """What a caller knows of a place: sessions live there, one after the other."""

    life: int = 0
    status: str = "terminated"
    revision: int | None = None


def recorded(
    operation: Operation,
    make: Callable[[], Session],
    now: Callable[[], int],
    begins: Callable[[Call], None] = lambda _: None,
) -> Call:
    """Make a call, and return what its caller saw; errors that no caller expects are raised.

    Args:
        operation: What is asked for.
        make: Asks for it.
        now: The clock that all callers share.
        begins: Told of it before it is made.
    """
    begun, error, revision, status, is_open = now(), None, None, None, False
    begins(Call(operation=operation, begun=begun, ended=begun, open=True))
    try:
        session = make()
        revision, status = session.revision, str(session.status)
    except RevisionConflictError as lost:
        error, revision = type(lost).__name__, lost.found
    except (FencedError, StoreUnavailableError) as failed:
        error = type(failed).__name__
        is_open = getattr(failed, "operation_id", None) is not None
    except (TransitionError, SessionExistsError, SessionNotFoundError) as refused:
        error = type(refused).__name__
    return Call(
        operation=operation,
        begun=begun,
        ended=now(),
        revision=revision,
        status=status,
        error=error,
        open=is_open,
    )


class Driver:
    """One caller: makes calls by lot, and records them.

    Args:
        manager: Whose verbs it calls.
        seed: What decides its choices; no other caller has the same.
        places: In how many places sessions live.
        now: The clock that all callers share.
        lives: How many lives places have had so far, as far as that is known.
        begins: Told of each call before it is made.
    """

    def __init__(
        self,
        manager: SessionManager,
        seed: str,
        places: int,
        now: Callable[[], int],
        *,
        lives: Mapping[str, int] = MappingProxyType({}),
        begins: Callable[[Call], None] = lambda _: None,
    ) -> None:
        self._manager = manager
        self._now = now
        self._chance = random.Random(seed)
        names = [f"p{number:03}" for number in range(places)]
        hot = names[:HOT] * max(1, places // HOT)
        self._chooser = Chooser(seed, self._chance, [*names, *hot], reads=READS)
        self._begins = begins
        self._seen = {
            name: _Seen(life=lives[name], status="unknown") if lives.get(name) else _Seen()
            for name in names
        }

    def call(self) -> Call:
        """Make the next call."""
        operation = self.next()
        call = recorded(
            operation, lambda: perform(self._manager, operation), self._now, self._begins
        )
        self.note(call)
        return call

    def next(self) -> Operation:
        """Return what is to be asked for next."""
        operation = self._chooser.next()
        return self._addressed(operation, self._seen[operation.session_id])

    def note(self, call: Call) -> None:
        """Keep in mind what came of a call."""
        place, _, _ = call.operation.session_id.rpartition(".")
        seen = self._seen[place]
        seen.revision = call.revision
        if call.status is not None or call.error == "SessionExistsError":
            seen.status = call.status or "active"

    def _addressed(self, operation: Operation, seen: _Seen) -> Operation:
        """Let an operation be on the life that a place has now, or begin a new one."""
        place = operation.session_id
        if seen.status == "terminated":
            seen.life += 1
            seen.revision = None
            operation = attrs.evolve(operation, verb="create", argument="")
        expected = None
        if operation.verb in {"update", "fire", "transition"} and self._chance.random() < 0.3:
            expected = seen.revision
        return attrs.evolve(operation, session_id=f"{place}.{seen.life}", expected=expected)


def written(call: Call) -> str:
    """Return a call as a line."""
    return json.dumps(attrs.asdict(call))


def read(line: str) -> Call:
    """Return the call that a line tells of."""
    told = json.loads(line)
    return Call(**{**told, "operation": Operation(**told["operation"])})


def main(arguments: Sequence[str]) -> None:
    """Call until the time is over."""
    url, seed, places, seconds, number, records = arguments
    with SessionManager(url) as manager, Path(records).open("w") as file:
        driver = Driver(manager, f"{seed}.{number}", int(places), time.monotonic_ns)
        print("open", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            print(written(driver.call()), file=file)
        # While this one lives, its tasks are its own.
        print("done", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1:])
