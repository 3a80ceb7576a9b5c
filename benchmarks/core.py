"""What one guarded step costs, beside what people use: `make bench-core`.

Every subject has two statuses and goes from one to the other and back, each time past one guard.
Ours yields a new frozen state with its instants set; a peer only changes the status it keeps, which
is all that it does. The floor is what a careful person would write by hand for the same result: a
look-up of the row, the guard, the clock, and the constructor of a frozen attrs class.

The subjects take turns in short rounds, in one process, and a ratio is the median of the ratios of
the rounds: what slows the machine down slows all of them down. Memory is measured in a process for
each subject, as the growth of its resident set while many are made and kept.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
from automat import TypeMachineBuilder
from statemachine import State, StateMachine
from transitions import Machine
from xstate_statemachine import MachineLogic, SyncInterpreter, create_machine

from session_fsm import SessionMachine, SessionState
from session_fsm.machine import FastMachine

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
Back = Callable[[], object]
"""Goes to the other status and back: two steps."""

# --- ours ------------------------------------------------------------------------------------


def ours() -> Back:
    """`SessionMachine`: the rows `go_idle` and `resume`, with their real guards."""
    machine = session(0)
    fire = machine.fire

    def back() -> None:
        fire("go_idle")
        fire("resume")

    return back


def session(number: int) -> SessionMachine:
    """Return a session as a back end has them: with an id, settings and three instants."""
    settings = {"model": "large", "temperature": number % 10}
    state = SessionState.new(f"session-{number:09}", llm_config=settings)
    machine = SessionMachine(state)
    machine.activate()
    machine.touch()
    return machine


def drop_in() -> Back:
    """`FastMachine` in the place of `transitions.Machine`, and nothing else of ours."""
    return _transitions(FastMachine)


# --- the floor -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Plain:
    """The fields of a `SessionState`, without its checks."""

    session_id: str
    status: str
    config: object
    llm_config: Mapping[str, Any]
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    status_since: datetime
    last_activity_at: datetime
    active_tasks: tuple[str, ...]
    conversation_count: int
    error: str | None


def _free(state: Plain) -> bool:
    return not state.active_tasks


ROWS: Final = {("active", "go_idle"): (_free, "idle"), ("idle", "resume"): (_free, "active")}


def by_hand(state: Plain, trigger: str) -> Plain:
    """Make a step as one would by hand."""
    guard, target = ROWS[state.status, trigger]
    if not guard(state):
        raise ValueError(f"{trigger} is refused")
    now = datetime.now(UTC)  # noqa: TID251 - what a program without a clock of its own does
    return Plain(
        session_id=state.session_id,
        status=target,
        config=state.config,
        llm_config=state.llm_config,
        metadata=state.metadata,
        created_at=state.created_at,
        updated_at=now,
        status_since=now,
        last_activity_at=state.last_activity_at,
        active_tasks=state.active_tasks,
        conversation_count=state.conversation_count,
        error=state.error,
    )


def floor() -> Back:
    """A look-up, a guard, the clock and a constructor, by hand."""
    names = [field.name for field in attrs.fields(Plain)]
    state = Plain(**{**dict.fromkeys(names, NOW), "status": "active", "active_tasks": ()})
    kept = [state]

    def back() -> None:
        kept[0] = by_hand(kept[0], "go_idle")
        kept[0] = by_hand(kept[0], "resume")

    return back


# --- peers -----------------------------------------------------------------------------------


class Model:
    """Something with a state."""

    active_tasks = ()

    def free(self) -> bool:
        """Tell whether it has no tasks."""
        return not self.active_tasks


def _transitions(machine_class: type[Machine]) -> Back:
    model = Model()
    machine_class(model, states=["active", "idle"], initial="active", auto_transitions=False,
                  transitions=[
                      {"trigger": "go_idle", "source": "active", "dest": "idle",
                       "conditions": model.free},
                      {"trigger": "resume", "source": "idle", "dest": "active",
                       "conditions": model.free},
                  ])  # fmt: skip
    go_idle, resume = model.go_idle, model.resume  # type: ignore[attr-defined]  # put there by it

    def back() -> None:
        go_idle()
        resume()

    return back


def stock_transitions() -> Back:
    """`transitions.Machine`: its bare trigger, with one condition."""
    return _transitions(Machine)


class Stateful(StateMachine):
    """A machine of python-statemachine."""

    active = State(initial=True)
    idle = State()
    go_idle = active.to(idle, cond="free")
    resume = idle.to(active, cond="free")
    active_tasks = ()

    def free(self) -> bool:
        """Tell whether it has no tasks."""
        return not self.active_tasks


def python_statemachine() -> Back:
    """`python-statemachine`: an event with one `cond`."""
    machine: Any = Stateful()

    def back() -> None:
        machine.go_idle()
        machine.resume()

    return back


def _xstate_machine() -> Any:
    def moving(event: str, target: str) -> dict[str, Any]:
        return {"on": {event: {"target": target, "guard": "free"}}}

    return create_machine(
        {
            "id": "session",
            "initial": "active",
            "context": {"tasks": []},
            "states": {"active": moving("GO_IDLE", "idle"), "idle": moving("RESUME", "active")},
        },
        logic=MachineLogic(guards={"free": lambda context, event: not context["tasks"]}),
    )


def xstate_statemachine() -> Back:
    """`xstate-statemachine`: an event sent to its synchronous interpreter, with one guard."""
    service = SyncInterpreter(_xstate_machine()).start()

    def back() -> None:
        service.send("GO_IDLE")
        service.send("RESUME")

    return back


class Session:
    """The inputs of an Automat machine."""

    def go_idle(self) -> None:
        """Rest."""

    def resume(self) -> None:
        """Go on."""


def _automat_machine() -> Callable[[], Session]:
    builder: Any = TypeMachineBuilder(Session, Model)
    active, idle = builder.state("active"), builder.state("idle")
    active.upon(Session.go_idle).to(idle).returns(None)
    idle.upon(Session.resume).to(active).returns(None)
    machine = builder.build()
    return lambda: machine(Model())


def automat() -> Back:
    """`automat`: an input; it has no guards, so that the caller asks."""
    machine, model = _automat_machine()(), Model()

    def back() -> None:
        if model.free():
            machine.go_idle()
        if model.free():
            machine.resume()

    return back


# --- time ------------------------------------------------------------------------------------

SUBJECTS: Final[Mapping[str, Callable[[], Back]]] = {
    "session_fsm: SessionMachine.fire": ours,
    "floor, by hand": floor,
    "transitions": stock_transitions,
    "session_fsm: FastMachine": drop_in,
    "automat (no guards)": automat,
    "python-statemachine": python_statemachine,
    "xstate-statemachine": xstate_statemachine,
}
PACKAGES: Final = ("session_fsm", "transitions", "automat", "python-statemachine",
                   "xstate-statemachine", "attrs")  # fmt: skip


def nanoseconds(back: Back, times: int) -> float:
    """Return what a step takes, in nanoseconds."""
    begin = time.perf_counter_ns()
    for _ in range(times):
        back()
    return (time.perf_counter_ns() - begin) / times / 2


def compare(rounds: int) -> dict[str, list[float]]:
    """Let the subjects take turns, and return what a step took in each round."""
    backs = {name: make() for name, make in SUBJECTS.items()}
    # So many that a turn takes about as long for each, and a round a twentieth of a second.
    times = {name: max(5, round(5e6 / 2 / nanoseconds(back, 50))) for name, back in backs.items()}
    gc.collect()
    took: dict[str, list[float]] = {name: [] for name in backs}
    for _ in range(rounds):
        for name, back in backs.items():
            took[name].append(nanoseconds(back, times[name]))
    return took


def lines_of_times(took: Mapping[str, list[float]]) -> Iterator[str]:
    """Yield what a step took, and the ratios to ours, as a Markdown table."""
    mine = took["session_fsm: SessionMachine.fire"]
    yield f"One guarded step: medians of {len(mine)} rounds, ratios are medians of ratios."
    yield ""
    yield f"| {'':34} | {'step':>9} | ours takes |"
    yield f"|{'-' * 36}|{'-' * 10}:|{'-' * 11}:|"
    for name, theirs in took.items():
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        told = "" if theirs is mine else f"{ratio:.3f} ×"
        yield f"| {name:34} | {statistics.median(theirs) / 1000:6.2f} µs | {told:>10} |"


# --- memory ----------------------------------------------------------------------------------


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _shared_model(machines: list[Machine]) -> Model:
    if not machines:
        machines.append(_machine(model=None))
    model = Model()
    machines[0].add_model(model, initial="active")
    return model


def _machine(**options: Any) -> Machine:
    return Machine(states=["active", "idle"], initial="active", auto_transitions=False,
                   transitions=[["go_idle", "active", "idle"], ["resume", "idle", "active"]],
                   **options)  # fmt: skip


def _makers() -> Mapping[str, tuple[int, Callable[[int], object]]]:
    machines: list[Machine] = []
    chart, inputs = _xstate_machine(), _automat_machine()
    return {
        "session_fsm: SessionMachine with its state": (1_000_000, session),
        "transitions: models of one machine": (20_000, lambda _: _shared_model(machines)),
        "transitions: a machine each": (5_000, lambda _: _machine()),
        "automat": (100_000, lambda _: inputs()),
        "python-statemachine": (5_000, lambda _: Stateful()),
        "xstate-statemachine": (5_000, lambda _: SyncInterpreter(chart).start()),
    }


def measure_memory(name: str) -> None:
    """Print what one of a subject takes, in bytes, and how many were made."""
    many, make = _makers()[name]
    kept = [make(-1)]
    gc.collect()
    before = _resident()
    kept += map(make, range(many))
    print(many, round((_resident() - before) / many))


def lines_of_memory() -> Iterator[str]:
    """Yield what one of each subject takes, each measured in a process of its own."""
    yield "Memory for each: growth of the resident set of a process that keeps so many."
    yield ""
    yield f"| {'':44} | {'kept':>9} | {'each':>8} |"
    yield f"|{'-' * 46}|{'-' * 10}:|{'-' * 9}:|"
    for name in _makers():
        command = [sys.executable, __file__, "--memory-of", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this very script
        many, size = map(int, done.stdout.split())
        yield f"| {name:44} | {many:>9,} | {size / 1000:5.2f} kB |"


def lines(rounds: int) -> Iterator[str]:
    """Measure, and yield what came out, line by line."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    yield f"{platform.python_implementation()} {platform.python_version()}; {versions}."
    yield ""
    yield from lines_of_times(compare(rounds))
    yield ""
    yield from lines_of_memory()


def main() -> None:
    """Measure, print, and keep what was printed where that is asked for."""
    parser = argparse.ArgumentParser(description="Measure one guarded step beside peers.")
    parser.add_argument("--rounds", type=int, default=100, help="rounds that are measured")
    parser.add_argument("--output", type=Path, help="a Markdown file for the figures")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        measure_memory(given.memory_of)
        return
    printed = []
    for line in lines(given.rounds):
        print(line, flush=True)
        printed.append(line)
    if given.output:
        head = ["# One step, beside what people use", "", "Measured by `make bench-core`.", ""]
        given.output.write_text("\n".join([*head, *printed, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
