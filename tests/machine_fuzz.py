"""Machines of transitions run on the stock `Machine` and on another class, side by side.

`trace` builds the machine of a plan from a class and writes down all that can be seen of a run:
every callback and condition with what it was given, every answer, every exception, the states.
Two classes that give the same trace for every plan are the same machine.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

from machine_plans import (
    MACHINE_PLACES,
    STATE_PLACES,
    STATES,
    TRANSITION_PLACES,
    Act,
    Call,
    Place,
    Plan,
)
from transitions import EventData, Machine

DEEPEST = 3
"""How deep triggers within callbacks go; deeper ones are left out."""

# --- machines --------------------------------------------------------------------------------


class Words(Enum):
    """The states as members of an enum, whose values are other words than their names."""

    A = "first"
    B = "second"
    C = "third"


def _machine_class(base: type[Machine], kind: str, note: Callable[..., None]) -> type[Machine]:
    """Return a class with one method overridden, so that a step without it would be seen."""

    def overridden(owner: type, name: str) -> type:
        stock = getattr(owner, name)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            note("overridden", name)
            return stock(self, *args, **kwargs)

        return type(f"Own{owner.__name__}", (owner,), {name: method})

    if kind == "machine":
        return overridden(base, "set_state")
    if kind == "callback":
        return overridden(base, "callbacks")
    if kind == "state":
        return type("Own", (base,), {"state_cls": overridden(base.state_cls, "enter")})
    if kind == "transition":
        return type("Own", (base,), {"transition_cls": overridden(base.transition_cls, "execute")})
    if kind == "condition":
        moves = base.transition_cls
        asked = type("Own", (moves,), {"condition_cls": overridden(moves.condition_cls, "check")})
        return type("Own", (base,), {"transition_cls": asked})
    if kind == "event":
        return type("Own", (base,), {"event_cls": overridden(base.event_cls, "_process")})
    return base


def _model_of(plan: Plan, note: Callable[..., None]) -> Any:
    """Return a model that keeps its state in one of the ways in which models do."""
    if plan.model == "slots":
        names = tuple({plan.attribute, "state", "__dict__"})
        return type("Model", (), {"__slots__": names})()
    if plan.model == "property":

        def getter(self: Any) -> Any:
            return self.__dict__.get("kept")

        def setter(self: Any, value: Any) -> None:
            note("set by property", value)
            self.__dict__["kept"] = "nowhere" if value in ("C", Words.C) else value

        return type("Model", (), {plan.attribute: property(getter, setter)})()
    if plan.model == "setter":

        def assign(self: Any, name: str, value: Any) -> None:
            if name == plan.attribute:
                note("set by __setattr__", value)
                value = "nowhere" if value in ("C", Words.C) else value
            object.__setattr__(self, name, value)

        return type("Model", (), {"__setattr__": assign})()
    if plan.model == "list":
        return type("Model", (list,), {})()
    return type("Model", (), {})()


class _Run:
    """One run of a plan on one class of machines."""

    def __init__(self, plan: Plan, base: type[Machine]) -> None:
        self.plan = plan
        self.trace: list[Any] = []
        self._depth = 0
        machine_class = _machine_class(base, plan.kind, self.note)
        itself = plan.model == "itself" and plan.attribute == "state"
        states: Any = STATES if plan.words else list(Words)
        self.model = None if itself else _model_of(plan, self.note)
        handed_in: Any = {place.value: [] for place in MACHINE_PLACES if plan.lists}
        self.machine = machine_class(
            model=None,
            states=[
                {"name": state, "final": getattr(state, "name", state) in plan.final}
                for state in states
            ],
            initial=None,
            auto_transitions=False,
            queued=plan.queued,
            send_event=plan.send_event,
            ignore_invalid_triggers=plan.ignore,
            model_attribute=plan.attribute,
            **handed_in,
        )
        if itself:
            self.model = self.machine
        for place, call in plan.attached:
            getattr(self.machine, place.value).append(self.callable(call))
        for move in plan.moves:
            lists = {
                place.value: [self.callable(call) for at, call in move.attached if at is place]
                for place in TRANSITION_PLACES
                if plan.lists or move.attached
            }
            self.machine.add_transition(
                move.trigger,
                move.source,
                move.dest,
                conditions=[self.callable(call) for call in move.conditions],
                unless=[self.callable(call) for call in move.unless],
                **lists,
            )
        for name, place, call in plan.on_states:
            getattr(self.machine.get_state(name), place.value).append(self.callable(call))
        self.machine.set_state("A", [self.model])  # what is a list itself would be taken for many

    def note(self, *what: Any) -> None:
        """Write down what is seen."""
        self.trace.append(what)

    def state(self) -> Any:
        """The state of the model as it keeps it."""
        return getattr(self.model, self.plan.attribute, "none")

    # --- callbacks ---------------------------------------------------------------------------

    def callable(self, call: Call) -> Any:
        """Return what is attached for a call: a function, or the name of a method of the model."""
        rounds = itertools.count()

        def called(*args: Any, **kwargs: Any) -> Any:
            times = next(rounds)
            self.note("called", call.name, self.state(), *map(self._seen, args), dict(kwargs))
            data = args[0] if args and isinstance(args[0], EventData) else None
            if times < len(call.acts):
                self.act(call.acts[times], data)
            return call.answers[times] if times < len(call.answers) else True

        called.__name__ = called.__qualname__ = call.name
        if not call.by_name:
            return called
        name = f"method_{call.name}"
        self.model.__dict__.setdefault(name, called)
        return name

    def _seen(self, value: Any) -> Any:
        if not isinstance(value, EventData):
            return value
        move = value.transition
        return (
            "data",
            value.state.name,
            value.event.name,
            value.result,
            repr(value.error),
            None if move is None else (move.source, move.dest),
            value.args,
            dict(value.kwargs),
            value.model is self.model,
        )

    # --- acts --------------------------------------------------------------------------------

    def act(self, act: Act, data: EventData | None = None) -> None:
        """Do what a callback or the script does."""
        word, *rest = act
        getattr(self, f"do_{word}")(data, *rest)

    def do_nothing(self, _: Any) -> None:
        """Do nothing."""

    def do_raise(self, _: Any, name: str) -> None:
        """Raise an exception, or one that is no `Exception`."""
        raise KeyboardInterrupt(name) if name == "KeyboardInterrupt" else ValueError(name)

    def do_fire(self, _: Any, trigger: str) -> None:
        """Fire a trigger."""
        if self._depth == DEEPEST:
            return
        event = self.machine.events.get(trigger)
        if event is None:
            return
        self._depth += 1
        try:
            answer = event.trigger(self.model, 1, key="value")
            self.note("answered", trigger, answer, self.state())
        finally:
            self._depth -= 1

    def do_may(self, _: Any, trigger: str) -> None:
        """Ask whether a trigger would be accepted."""
        self.note("may", trigger, self.machine._can_trigger(self.model, trigger, 1, key="value"))

    def _lists(self, place: Place, name: str) -> Iterator[Any]:
        if place in MACHINE_PLACES:
            yield self.machine
        elif place in STATE_PLACES:
            yield self.machine.get_state(name)
        else:
            yield from self.machine.get_transitions(source=name)

    def _added(self, place: Place) -> Any:
        return self.callable(Call(name=f"added to {place.value}"))

    def do_attach(self, _: Any, place: Place, name: str) -> None:
        """Append a callback to a list."""
        for owner in self._lists(place, name):
            getattr(owner, place.value).append(self._added(place))

    def do_replace(self, _: Any, place: Place, name: str) -> None:
        """Put another list in the place of a list."""
        for owner in self._lists(place, name):
            setattr(owner, place.value, [self._added(place)])

    def do_detach(self, _: Any, place: Place, name: str) -> None:
        """Empty a list."""
        for owner in self._lists(place, name):
            getattr(owner, place.value).clear()

    def do_set(self, _: Any, name: str) -> None:
        """Set the state of the model."""
        self.machine.set_state(name, [self.model])

    def do_result(self, data: EventData | None, result: bool) -> None:
        """Change the result in the event data."""
        if data is not None:
            data.result = result

    def do_argument(self, data: EventData | None) -> None:
        """Change the arguments in the event data."""
        if data is not None:
            data.kwargs["more"] = len(self.trace)
            data.args = (*data.args, "more")

    def do_add_transition(self, _: Any, trigger: str, source: str, dest: str) -> None:
        """Add a transition."""
        self.machine.add_transition(trigger, source, dest)

    def do_remove_transition(self, _: Any, trigger: str, source: str) -> None:
        """Remove transitions."""
        if trigger in self.machine.events:
            self.machine.remove_transition(trigger, source)

    def do_add_state(self, _: Any, name: str) -> None:
        """Put a new state with a callback in the place of one."""
        state = name if self.plan.words else Words[name]
        self.machine.add_state(state, on_enter=self._added(Place.ON_ENTER))

    def _moves(self, trigger: str) -> Any:
        return self.machine.get_transitions(trigger)

    def do_condition(self, _: Any, trigger: str, answer: Any) -> None:
        """Add a condition to transitions."""
        for move in self._moves(trigger):
            asked = self.callable(Call(name="added condition", answers=(answer, answer)))
            move.conditions.append(move.condition_cls(asked))

    def do_drop_conditions(self, _: Any, trigger: str) -> None:
        """Remove the conditions of transitions."""
        for move in self._moves(trigger):
            del move.conditions[:]

    def do_swap_condition(self, _: Any, trigger: str, target: bool) -> None:
        """Change conditions where they stand."""
        for move in self._moves(trigger):
            for condition in move.conditions:
                condition.func = self.callable(Call(name="swapped condition"))
                condition.target = target

    def do_redirect(self, _: Any, trigger: str, dest: str) -> None:
        """Change where transitions lead."""
        for move in self._moves(trigger):
            move.dest = dest

    def do_send_event(self, _: Any, sent: bool) -> None:
        """Change what callbacks are given."""
        self.machine.send_event = sent

    def do_queued(self, _: Any, queued: bool) -> None:
        """Change whether triggers wait for each other."""
        self.machine._queued = queued

    def do_patch(self, _: Any, what: str) -> None:
        """Replace a method of one object."""
        machine = self.machine
        owner, name = {
            "machine": (machine, "resolve_callable"),
            "state": (machine.get_state("B"), "exit"),
            "transition": (next(iter(machine.get_transitions()), machine), "_eval_conditions"),
            "event": (next(iter(machine.events.values()), machine), "_trigger"),
        }[what]
        stock = getattr(owner, name, None)
        if stock is None or name in owner.__dict__:
            return

        def patched(*args: Any, **kwargs: Any) -> Any:
            self.note("patched", name)
            return stock(*args, **kwargs)

        setattr(owner, name, patched)

    def do_log(self, _: Any, level: str) -> None:
        """Let the logger of transitions write down more, or less."""
        logging.getLogger("transitions.core").setLevel(level)

    def do_busy(self, _: Any) -> None:
        """Leave something in the queue, as a trigger that is being processed does."""
        if not self.machine._transition_queue:
            self.machine._transition_queue.append(lambda: self.note("from the queue"))

    def do_lose(self, _: Any) -> None:
        """Bring the model into a state that the machine doesn't have."""
        setattr(self.model, self.plan.attribute, "nowhere")

    def do_forget(self, _: Any, name: str) -> None:
        """Remove a state that transitions know."""
        self.machine.states.pop(name, None)

    def do_surgery(self, _: Any) -> None:
        """Change the mappings of a machine by hand."""
        machine = self.machine
        machine.states["C"] = machine.state_cls("C", on_enter=self._added(Place.ON_ENTER))
        for event in machine.events.values():
            for moves in event.transitions.values():
                moves.reverse()


class _Kept(logging.Handler):
    """Keeps what the logger of transitions says, without what differs from object to object."""

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message: its form, and the level."""
        self._run.note("logged", record.levelname, record.msg)


def trace(plan: Plan, base: type[Machine]) -> list[Any]:
    """Run a plan on a class of machines, and return all that was seen."""
    run = _Run(plan, base)
    logger = logging.getLogger("transitions.core")
    kept = _Kept(run)
    logger.addHandler(kept)
    try:
        for act in plan.script:
            try:
                run.act(act)
            except (Exception, KeyboardInterrupt) as fault:  # noqa: BLE001 - what it is, is seen
                told = str(fault).replace(repr(fault.args), "") if fault.args else ""
                run.note("raised", type(fault).__name__, told)
            run.note("state", run.state())
    finally:
        logger.removeHandler(kept)
        logger.setLevel(logging.NOTSET)
    return run.trace
