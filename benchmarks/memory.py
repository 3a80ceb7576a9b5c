"""A move through the manager on `memory://`, beside a bare trigger of `transitions`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from transitions import Machine

from session_fsm import SessionMachine, SessionManager, SessionState

from .measuring import Record, Turn, counted, in_turns, table, told_seconds
from .subjects import there_and_back

MANAGED: Final = "session_fsm: manager, memory://"
STOCK: Final = "transitions: bare trigger, one guard"
MACHINE: Final = "session_fsm: SessionMachine"


class Model:
    """Something with a state, and nothing in flight."""

    active_tasks = ()

    def free(self) -> bool:
        """Tell whether it has no tasks."""
        return not self.active_tasks


def stock() -> Callable[[], object]:
    """Return what makes a move of a stock machine."""
    model = Model()
    moves = [
        {"trigger": "go_idle", "source": "active", "dest": "idle", "conditions": model.free},
        {"trigger": "resume", "source": "idle", "dest": "active", "conditions": model.free},
    ]
    Machine(model, ["active", "idle"], "active", transitions=moves, auto_transitions=False)
    return _alternating(model.go_idle, model.resume)  # type: ignore[attr-defined]  # put there by it


def bare() -> Callable[[], object]:
    """Return what makes a move of our machine: a new state, kept nowhere."""
    machine = SessionMachine(SessionState.new("a"))
    machine.activate()
    return _alternating(lambda: machine.fire("go_idle"), lambda: machine.fire("resume"))


def _alternating(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], object]:
    acts = [first, second]

    def act() -> None:
        acts[0]()
        acts.reverse()

    return act


def measure(rounds: int, seconds: float) -> Mapping[str, Record]:
    """Let the subjects move in turns of about so many seconds.

    Our manager keeps the history of what it moves, so each of its turns has a session of its own.
    """
    with SessionManager() as manager:

        def managed() -> Callable[[], object]:
            return there_and_back(manager, manager.create().session_id)

        acts = {MANAGED: managed, STOCK: stock, MACHINE: bare}
        return in_turns({name: _turn(make, seconds) for name, make in acts.items()}, rounds)


def _turn(make: Callable[[], Callable[[], object]], seconds: float) -> Callable[[], Turn]:
    sample = min(counted(make(), 50).seconds for _ in range(5)) / 50
    times = max(10, round(seconds / sample))
    return lambda: counted(make(), times)


def lines(found: Mapping[str, Record]) -> Iterator[str]:
    """Yield what was found as a table."""
    ours = found[MANAGED]
    rows = [
        (
            name,
            told_seconds(record.each_seconds),
            "" if record is ours else f"{1 / ours.ratio_to(record):.2f} ×",
        )
        for name, record in found.items()
    ]
    yield from table(("", "a move", "the manager takes"), rows)
