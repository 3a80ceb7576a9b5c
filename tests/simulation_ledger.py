"""What callers were told, held against what is stored.

Each change that a caller asks for has a mark of its own, which its event has too: as the reason, as
the name of a task, or as a value. So it can be said of each how often it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
from simulated_world import World

from session_fsm.errors import (
    FencedError,
    ManagerClosedError,
    SessionFsmError,
    StoreUnavailableError,
)
from session_fsm.history import Step

DONE: Final = "done"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"


@attrs.define
class Asked:
    """A change that a caller has asked for.

    Attributes:
        mark: What its event is known by.
        what: In words.
        outcome: What the caller was told; None: nothing, or not yet.
        is_one: Whether it is a single commit: then a refusal means that nothing was changed.
        may_be_none: Whether it may be done without an event, as where a session has ended already.
    """

    mark: str
    what: str
    is_one: bool = True
    may_be_none: bool = False
    outcome: str | None = None

    def problem(self, times: int) -> str | None:
        """Say what is wrong with how often it was made."""
        if times > 1:
            return f"{self.what} was made {times} times"
        if self.outcome == DONE and not times and not self.may_be_none:
            return f"{self.what} was acknowledged, and is lost"
        if self.outcome == REFUSED and times and self.is_one:
            return f"{self.what} was refused, and made"
        return None


def marks_in(steps: Iterable[Step]) -> set[str]:
    """Return what changes of a session are known by, that some of its steps were made for."""
    marks: set[str] = set()
    for step in steps:
        if step.before is None:
            marks.add(f"created {step.after.llm_config.get('by')}")
            continue
        if step.reason is not None:
            marks.add(step.reason)
        before, after = step.before.active_tasks, step.after.active_tasks
        if before is not after:
            marks.update(f"begin {task}" for task in after if task not in before)
            marks.update(f"end {task}" for task in before if task not in after)
    return marks


class Ledger:
    """All changes that were asked for, and how often each was made.

    Args:
        world: Where faults are told.

    Attributes:
        made: How often each mark was committed.
        written: How often each value was written to a table.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: dict[str, Asked] = {}
        self.made: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.pairs: set[str] = set()
        self._number = 0

    def next_mark(self) -> str:
        """Return a new mark."""
        self._number += 1
        return f"#{self._number}"

    @contextmanager
    def call(
        self, who: str, what: str, mark: str, *, is_one: bool = True, may_be_none: bool = False
    ) -> Iterator[Asked]:
        """Keep what a caller is told of a change; what it is told by an error goes no further."""
        asked = self.asked[mark] = Asked(mark, f"{what} ({mark})", is_one, may_be_none)
        tell = self._world.tell
        tell(f"{who}: {what} {mark}")
        try:
            yield asked
        except ManagerClosedError:
            asked.outcome = UNKNOWN
            raise
        except StoreUnavailableError as fault:
            known = fault.operation_id is None and is_one
            asked.outcome = REFUSED if known else UNKNOWN
            tell(f"{who}: {mark} is not answered: {fault}")
        except FencedError as fault:
            asked.outcome = REFUSED
            tell(f"{who}: {mark} is fenced off: {fault}")
        except SessionFsmError as fault:
            asked.outcome = REFUSED
            tell(f"{who}: {mark} is refused: {type(fault).__name__}")
        else:
            asked.outcome = DONE
            tell(f"{who}: {mark} is done")
        self._check(asked)

    def _check(self, asked: Asked) -> None:
        problem = asked.problem(self.made[asked.mark] + self.written[asked.mark])
        if problem is not None:
            self._world.failed(problem)

    def committed(self, steps: Iterable[Step]) -> None:
        """Count the changes of a commit."""
        for mark in marks_in(steps):
            self.made[mark] += 1
            if mark in self.asked and self.made[mark] > 1:
                self._world.failed(f"at most once: {self.asked[mark].what} was made again")

    def check_all(self, stored: Collection[str]) -> None:
        """Hold what everybody was told against the marks that the stored histories have."""
        for mark, asked in self.asked.items():
            if (self.made[mark] > 0) != (mark in stored):
                self._world.failed(
                    f"{asked.what} was committed {self.made[mark]} times, and the histories"
                    f" {'have' if mark in stored else 'do not have'} it"
                )
            problem = asked.problem(self.made[mark] + self.written[mark])
            if problem is not None:
                self._world.failed(f"{problem}, in the end")
        for mark in sorted(self.pairs):
            if self.made[mark] != self.written[f"{mark} value"]:
                self._world.failed(
                    f"{self.asked[mark].what} was made {self.made[mark]} times, what was to be"
                    f" written with it {self.written[f'{mark} value']} times"
                )
