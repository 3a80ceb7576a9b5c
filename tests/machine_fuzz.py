"""Random machines of transitions, run on the stock `Machine` and on another class side by side.

A `Plan` is plain data: states, transitions, callbacks and a script of what is done to the machine.
`trace` builds the machine of a plan from a class and writes down all that can be seen of a run:
every callback and condition with what it was given, every answer, every exception, the states.
Two classes that give the same trace for every plan are the same machine.

Callbacks do what users' callbacks do: they raise, fire triggers of the model that is being moved,
attach callbacks to the running step, set the state, and change the event data.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import attrs
from hypothesis import strategies as st
from transitions import EventData, Machine

STATES = ("A", "B", "C")
TRIGGERS = ("go", "run", "stay")
DEEPEST = 3
"""How deep triggers within callbacks go; deeper ones are left out."""

# --- plans -----------------------------------------------------------------------------------


class Place(Enum):
    """Where callbacks can be attached."""

    PREPARE_EVENT = "prepare_event"
    BEFORE_STATE_CHANGE = "before_state_change"
    AFTER_STATE_CHANGE = "after_state_change"
    FINALIZE_EVENT = "finalize_event"
    ON_EXCEPTION = "on_exception"
    ON_FINAL = "on_final"
    ON_ENTER = "on_enter"
    ON_EXIT = "on_exit"
    PREPARE = "prepare"
    BEFORE = "before"
    AFTER = "after"


MACHINE_PLACES = tuple(Place)[:6]
STATE_PLACES = (Place.ON_ENTER, Place.ON_EXIT)
TRANSITION_PLACES = (Place.PREPARE, Place.BEFORE, Place.AFTER)

Act = tuple[Any, ...]
"""What a callback does, or is done to a machine: a word and what it needs."""


@attrs.frozen(kw_only=True)
class Call:
    """A callback or a condition.

    Attributes:
        name: How it shows in the trace.
        acts: What it does at its first call, at its second, and so on; then nothing.
        answers: What it answers as a condition, call by call; then True.
        by_name: Whether it is attached as the name of a method of the model.
    """

    name: str
    acts: tuple[Act, ...] = ()
    answers: tuple[Any, ...] = ()
    by_name: bool = False


@attrs.frozen(kw_only=True)
class Move:
    """A transition."""

    trigger: str
    source: str
    dest: str | None
    conditions: tuple[Call, ...] = ()
    unless: tuple[Call, ...] = ()
    attached: tuple[tuple[Place, Call], ...] = ()


KINDS = ("machine", "callback", "state", "transition", "condition", "event")
MODELS = ("slots", "itself", "property", "setter", "list")


@attrs.frozen(kw_only=True)
class Plan:
    """A machine, and what is done to it."""

    kind: str = "plain"
    model: str = "plain"
    words: bool = True  # states are strings, not members of an enum
    lists: bool = False  # lists of callbacks are handed in, empty, and belong to somebody else
    queued: bool = False
    send_event: bool = False
    ignore: bool | None = None
    attribute: str = "state"
    final: tuple[str, ...] = ()
    attached: tuple[tuple[Place, Call], ...] = ()
    on_states: tuple[tuple[str, Place, Call], ...] = ()
    moves: tuple[Move, ...] = ()
    script: tuple[Act, ...] = ()


class Odd:
    """Equal to True, and to nothing else."""

    def __eq__(self, other: object) -> bool:
        return other is True

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        return "Odd()"


_states = st.sampled_from(STATES)
_triggers = st.sampled_from(TRIGGERS)
_places = st.sampled_from(Place)

_acts: st.SearchStrategy[Act] = st.one_of(
    st.tuples(st.just("raise"), st.sampled_from(("ValueError", "KeyboardInterrupt"))),
    st.tuples(st.just("fire"), _triggers),
    st.tuples(st.sampled_from(("attach", "replace")), _places, _states),
    st.tuples(st.just("set"), _states),
    st.tuples(st.just("result"), st.booleans()),
    st.just(("argument",)),
    st.just(("send_event", True)),
)
_answers = st.sampled_from((True, False, 1, 0, None, "", "yes", Odd()))


def _calls(name: str) -> st.SearchStrategy[Call]:
    # Most callbacks do nothing but be seen: what they do can hide what is looked for.
    return st.builds(
        Call,
        name=st.just(name),
        acts=st.just(()) | st.just(()) | _acts.map(lambda act: (act,)),
        answers=st.just(()) | st.tuples(_answers) | st.tuples(_answers, _answers),
        by_name=st.sampled_from((False, False, False, True)),
    )


_meddling = st.builds(
    Call,
    name=st.just("meddling condition"),
    acts=st.tuples(
        st.tuples(st.sampled_from(("attach", "replace")), _places, _states)
        | st.just(("send_event", True))
    ),
    answers=st.sampled_from(((), (False,), (False, False))),
)
_failing = st.builds(
    Call,
    name=st.just("failing condition"),
    acts=st.just((("raise", "ValueError"), ("raise", "ValueError"))),
)
_judging = st.builds(
    Call,
    name=st.just("judging callback"),
    acts=st.booleans().map(lambda result: (("result", result),) * 3),
)
_guards = st.one_of(
    st.lists(_calls("condition"), max_size=2),
    st.tuples(_meddling),
    st.tuples(_meddling, _meddling | _failing),
)
_moves = st.builds(
    Move,
    trigger=_triggers,
    source=_states,
    dest=st.none() | _states,
    conditions=_guards.map(tuple),
    unless=st.just(()) | st.tuples(_calls("unless")),
    attached=st.just(())
    | st.tuples(st.tuples(st.sampled_from(TRANSITION_PLACES), _calls("on transition"))),
)

_fire = st.tuples(st.just("fire"), _triggers)
_change: st.SearchStrategy[Act] = st.one_of(
    st.tuples(st.just("may"), _triggers),
    st.tuples(st.sampled_from(("attach", "replace", "detach")), _places, _states),
    st.tuples(st.just("set"), _states),
    st.tuples(st.just("add_transition"), _triggers, _states, _states),
    st.tuples(st.just("remove_transition"), _triggers, _states),
    st.tuples(st.just("add_state"), _states),
    st.tuples(st.just("condition"), _triggers, _answers),
    st.tuples(st.just("drop_conditions"), _triggers),
    st.tuples(st.just("swap_condition"), _triggers, st.booleans()),
    st.tuples(st.just("redirect"), _triggers, _states),
    st.tuples(st.sampled_from(("send_event", "queued")), st.booleans()),
    st.tuples(st.just("patch"), st.sampled_from(("machine", "state", "transition", "event"))),
    st.tuples(st.just("log"), st.sampled_from(("INFO", "DEBUG", "WARNING"))),
    st.sampled_from((("busy",), ("surgery",), ("lose",))),
    st.tuples(st.just("forget"), _states),
)

_ODDITIES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(KINDS)}),
    st.fixed_dictionaries({"model": st.sampled_from(MODELS)}),
    st.just({"words": False}),
    st.just({"lists": True}),
    st.just({"queued": True}),
    st.just({"send_event": True}),
    st.fixed_dictionaries({"ignore": st.booleans()}),
    st.builds(
        lambda call: {"final": STATES, "attached": ((Place.ON_FINAL, call),)}, _calls("on final")
    ),
    st.fixed_dictionaries(
        {"attached": st.tuples(st.tuples(st.sampled_from(MACHINE_PLACES), _calls("on machine")))}
    ),
    st.builds(
        lambda place, calls: {"attached": tuple((place, call) for call in calls)},
        st.sampled_from((Place.ON_EXCEPTION, Place.FINALIZE_EVENT)),
        st.tuples(_calls("first") | _meddling, _calls("second") | _judging),
    ),
    st.fixed_dictionaries(
        {"on_states": st.tuples(st.tuples(_states, st.sampled_from(STATE_PLACES),
                                          _calls("on state")))}
    ),
)  # fmt: skip


@st.composite
def plans(draw: Callable[[Any], Any]) -> Plan:
    """Generate plans: a few oddities each, so that none of them hides the others."""
    oddities: dict[str, Any] = {"attribute": draw(st.sampled_from(("state", "mode")))}
    for oddity in draw(st.lists(_ODDITIES, max_size=3)):
        oddities.update(oddity)
    some = draw(st.lists(_moves, max_size=3))
    every = [
        Move(trigger=trigger, source=source, dest=dest)
        for trigger, dests in zip(TRIGGERS, (("B", "C", "A"), ("C", None, "C")), strict=False)
        for source, dest in zip(STATES, dests, strict=True)
    ]
    script = [draw(_fire)]
    for change in draw(st.lists(_change, max_size=3)):
        script += [change, draw(_fire)]
    script.append(draw(_fire))
    return Plan(moves=(*some, *every), script=tuple(script), **oddities)


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
