"""The fast machine is the stock machine: random machines give the same trace on both."""

import inspect
import types
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings
from machine_fuzz import trace
from machine_plans import Plan, plans
from transitions import Machine

from session_fsm.machine import FastMachine, fast


@given(plan=plans())
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_machine_fuzz_sees_no_difference(plan: Plan) -> None:
    """Whatever is attached, raised, queued, patched or changed, both machines do the same."""
    assert trace(plan, FastMachine) == trace(plan, Machine)


BREAKS = {
    # when a machine is taken for one without anything that asks for the general path
    "queued": [("not self.has_queue and ", "")],
    "send_event": [("not self.send_event and ", "")],
    "prepare_event": [("or self.prepare_event ", "")],
    "busy queue": [("or self.queue ", "")],
    "logger": [(" or _logs(_INFO)", "")],
    "machine overridden": [("and _plain(self, stock.Machine, _MACHINE)", "")],
    "event overridden": [("and _plain(self, stock.Event, _EVENT)", "")],
    "no such state": [("                and name in machine.states\n", "")],
    "no transition": [("                and name in self.transitions\n", "")],
    # models
    "model with methods of its own": [
        ("if kind.__getattribute__ is not object.__getattribute__:", "if False:")
    ],
    "model with __setattr__": [("if kind.__setattr__ not in _PLAIN_SETTERS:", "if False:")],
    "model with a property": [(
        'if hasattr(type(kept), "__set__") and not isinstance(kept, MemberDescriptorType):',
        "if False:",
    )],
    # what a transition needs to be made in short
    "transition overridden": [("isinstance(transition, Transition)\n", "True\n"), (
        "and _plain(transition, stock.Transition, _TRANSITION)", "",
    )],
    "condition overridden": [(
        'isinstance(condition, Condition) and _plain(condition, stock.Condition, ("check",))',
        "True",
    )],
    "condition by name": [(" and not isinstance(condition.func, str)", "")],
    "state overridden": [(
        "all(isinstance(end, State) and _plain(end, stock.State, _STATE) for end in ends)",
        "all(ends)",
    )],
    # what is attached
    "prepare": [("conditions is None or prepare or", "conditions is None or")],
    "before_state_change": [("            (machine, machine.before_state_change),\n", "")],
    "before": [("            (transition, transition.before),\n", "")],
    "on_exit": [("attached.append((source, source.on_exit))", "pass")],
    "on_enter": [("attached.append((dest, dest.on_enter))", "pass")],
    "on_final": [("attached.append((machine, machine.on_final if dest.final else ()))", "pass")],
    "after": [("            (transition, transition.after),\n", "")],
    "after_state_change": [("            (machine, machine.after_state_change),\n", "")],
    "attached": [("if attached or not self.valid", "if not self.valid")],
    "list of somebody else": [(" or (others and any(others))", "")],
    "changed by a guard": [("                    if not self.valid:\n",
                            "                    if False:\n")],
    "changed by a candidate's guard": [(" or data is not None or not self.valid:",
                                    " or data is not None:")],
    "second candidate": [("or prepare or data is not None or", "or prepare or")],
    "attached by a guard": [("if attached or not self.valid or", "if attached or")],
    "finalize_event": [("if not self.valid or self.finalize_event:", "if False:")],
    "finalize_event by a guard": [("if not self.valid or self.finalize_event:",
                                   "if self.finalize_event:")],
    "on_exception": [("if not machine.on_exception:\n                raise", "raise")],
    "error": [("data.error = error", "pass")],
    # what a step does
    "answers": [("answer is not target and not answer == target", "not answer")],
    "keywords": [("condition(*args, **kwargs) if kwargs else condition(*args)",
                  "condition(*args)")],
    "changed result": [("return moved if data is None else data.result", "return moved")],
    "state in the event data": [("                    state = dest\n", "")],
    # what was resolved, and is stale
    "stale": [("if not self.valid or self.queue", "if self.queue"),
              ("found is None or not found.valid", "found is None")],
    "stale conditions": [("        transition.conditions.owner = transition\n", "")],
    "stale lists": [("        callbacks.owner = owner\n", "        pass\n")],
}  # fmt: skip
"""For each condition of the short path, what takes it out of the source."""


def broken(replacements: Sequence[tuple[str, str]]) -> type[Machine]:
    """Return the fast machine with pieces of its source replaced."""
    source = inspect.getsource(fast)
    for old, new in replacements:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in the source"
        source = source.replace(old, new)
    module = types.ModuleType("session_fsm.machine.broken")
    module.__package__ = "session_fsm.machine"
    exec(compile(source, "broken.py", "exec"), module.__dict__)
    machine: type[Machine] = module.FastMachine
    return machine


LOT, LOTS = 2000, 10


def test_machine_fuzz_finds_each_break() -> None:
    """Without any one condition of the short path, some machine is seen to differ."""
    machines = {name: broken(pieces) for name, pieces in BREAKS.items()}
    for lot in range(LOTS):
        for number, (plan, expected) in enumerate(some_machines(lot), start=1 + lot * LOT):
            for name, machine in tuple(machines.items()):
                if trace(plan, machine) != expected:
                    del machines[name]
                    print(f"{name}: seen by machine {number} of {LOT * LOTS}")
        if not machines:
            return
    assert not list(machines)


def some_machines(lot: int) -> Sequence[tuple[Plan, list[object]]]:
    """Return random plans, the same ones for the same lot, with the stock machine's traces."""
    made: list[tuple[Plan, list[object]]] = []

    @seed(lot)
    @given(plan=plans())
    @settings(
        max_examples=LOT,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def look(plan: Plan) -> None:
        made.append((plan, trace(plan, Machine)))

    look()
    return made
