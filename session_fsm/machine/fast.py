"""`transitions.Machine` without its overhead: the same machine, which skips what is not attached.

A stock `Machine` makes an `EventData`, a `partial` and ten calls of its logger for each trigger,
looks up states and callbacks by name, and goes through every list of callbacks, the empty ones too.
`FastMachine` resolves what a trigger may do in a state once, and again when something that this
was resolved from changes. A step then takes what the stock machine does in the same order, with an
`EventData` from the first need on.

Lists of callbacks are anybody's to append to, at any time, even for a guard of the same step: they
are looked at where the stock machine would run them. One thing alone is seen later: the candidates
of a step are those that its trigger had when it was fired, whatever its guards add or remove.

The general path, stock code without a change, is taken

* by a machine with a queue, with `send_event` or with `prepare_event`;
* by a machine, event, transition, condition or state with an overridden or a replaced method, and
  by a condition that is a name to be looked up;
* by a model that keeps its state behind a property or a `__setattr__`, or is taken for several,
  which its type tells when the first model of it comes;
* by all that comes after the conditions of a step to which a callback is attached;
* by each step while the logger of transitions would write it down;
* where the state is unknown, or has no transition for the trigger.

Source: `Event` and `Transition` of transitions 0.9.3, whose own tests pass on this class.
"""

from __future__ import annotations

import inspect
import logging
from enum import Enum
from itertools import chain
from types import MemberDescriptorType
from typing import Any, Final

from transitions import core as stock

from .noticing import (
    RESOLVING,
    Noticing,
    NoticingList,
    NoticingStates,
    NoticingTransitions,
)

_log: Final = logging.getLogger("transitions.core")
_logs: Final = _log.isEnabledFor
_INFO: Final = logging.INFO  # and what is more detailed


_MACHINE: Final = (
    "__getattribute__", "_process", "after_state_change", "before_state_change", "callback",
    "callbacks", "finalize_event", "get_model_state", "get_state", "has_queue", "on_exception",
    "on_final", "prepare_event", "resolve_callable", "set_state",
)  # fmt: skip
_EVENT: Final = ("_is_valid_source", "_process", "_trigger")
_TRANSITION: Final = ("_change_state", "_eval_conditions", "execute")
_STATE: Final = ("enter", "exit")
"""The methods and properties of each that a short step does without."""

_LISTS: Final = frozenset((
    "after_state_change", "before_state_change", "finalize_event", "on_exception", "on_final",
    "prepare_event",
))  # fmt: skip
"""The lists of callbacks of a machine as a whole."""

_ASKED: Final = frozenset((
    "_after_state_change", "_before_state_change", "_finalize_event", "_on_exception", "_on_final",
    "_prepare_event", "_queued", "_transition_queue", "model_attribute", "send_event", "states",
))  # fmt: skip
"""The attributes of a machine that a short step rests on."""


def _plain(object_: Any, base: type, skipped: tuple[str, ...]) -> bool:
    """Tell whether an object has the stock methods, and those alone, where they are skipped."""
    kind = type(object_)
    return all(
        inspect.getattr_static(kind, name) is inspect.getattr_static(base, name)
        and name not in object_.__dict__
        for name in skipped
    )


class State(Noticing, stock.State):
    """A state that is left and entered without a call where nothing is attached."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_enter = self.on_enter or NoticingList()
        self.on_exit = self.on_exit or NoticingList()


class Condition(Noticing, stock.Condition):
    """A condition that is asked without an `EventData`, unless it is a name to be looked up."""


class Transition(Noticing, stock.Transition):
    """A transition that is made without an `EventData` where nobody sees one."""

    condition_cls = Condition
    conditions: NoticingList  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = inspect.signature(stock.Transition).bind(*args, **kwargs).arguments
        for name in ("before", "after", "prepare"):
            if given.get(name) is None:
                given[name] = NoticingList()
        super().__init__(**given)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, NoticingList(value) if name == "conditions" else value)


class _Models:
    """What kind of models a machine has.

    Attributes:
        attribute: The attribute in which a model keeps its state.
        type: A type of models that keep it there plainly; the last one that came.
    """

    __slots__ = ("attribute", "type")

    def __init__(self, attribute: str = "state") -> None:
        self.attribute = attribute
        self.type: type | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Models, (self.attribute,))

    def admits(self, model: object) -> bool:
        """Tell whether a model is a single one that keeps its state as a plain attribute."""
        kind = type(model)
        # Lists, tuples and enums, which are taken for several models, have methods of their own.
        if kind.__setattr__ not in _PLAIN_SETTERS:
            return False
        if kind.__getattribute__ is not object.__getattribute__:
            return False
        kept = inspect.getattr_static(kind, self.attribute, None)
        if hasattr(type(kept), "__set__") and not isinstance(kept, MemberDescriptorType):
            return False
        self.type = kind
        return True


class Resolved:
    """What a trigger may do in one state: its transitions, with all that they need at hand.

    Attributes:
        valid: Whether nothing has changed of what this was resolved from.
    """

    __slots__ = (
        "attribute", "entries", "event", "finalize_event", "prepare_event", "queue", "state",
        "valid",
    )  # fmt: skip

    def __init__(self, event: Event, machine: FastMachine, state: stock.State) -> None:
        self.valid = True
        self.event = event
        self.state = state
        self.attribute = machine.model_attribute
        self.queue = machine._transition_queue
        self.prepare_event = machine.prepare_event
        self.finalize_event = machine.finalize_event
        self.entries = tuple(
            self._entry(transition, machine) for transition in event.transitions[state.name]
        )
        for object_ in (machine, event, state):
            _watch(object_, self)

    def _entry(self, transition: stock.Transition, machine: FastMachine) -> tuple[Any, ...]:
        """Resolve a transition.

        Returns:
            It; its conditions, None where the general path must ask them; its lists of callbacks
            before them, whether a callback after them is attached, and the lists that have to be
            looked at for that; the state that it leads to.
        """
        source: Any = machine.states.get(transition.source)
        dest: Any = machine.states.get(transition.dest) if transition.dest else None
        ends: tuple[Any, ...] = (source, dest) if transition.dest else ()
        for object_ in (transition, *transition.conditions, *ends):
            _watch(object_, self)
        if not (
            isinstance(transition, Transition)
            and _plain(transition, stock.Transition, _TRANSITION)
            and all(map(_is_direct, transition.conditions))
            and all(isinstance(end, State) and _plain(end, stock.State, _STATE) for end in ends)
        ):
            return (transition, None, (), False, (), dest)
        transition.conditions.owner = transition
        conditions = tuple(
            (each.func, each.target, position + 1)
            for position, each in enumerate(transition.conditions)
        )
        attached: list[tuple[Noticing, Any]] = [
            (machine, machine.before_state_change),
            (transition, transition.before),
            (transition, transition.after),
            (machine, machine.after_state_change),
        ]
        if dest is not None:
            attached.append((source, source.on_exit))
            attached.append((dest, dest.on_enter))
            attached.append((machine, machine.on_final if dest.final else ()))
        # Of lists that came from somebody else nobody hears when they change.
        others = tuple(each for owner, each in attached if not _own(each, owner))
        found = any(each for _, each in attached)
        return (transition, conditions, transition.prepare, found, others, dest)

    def make(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Make the first of the transitions whose conditions hold.

        Args:
            model: What is moved; it is in the state, and keeps that as a plain attribute.
            args: What callbacks and conditions are given by position.
            kwargs: What they are given by name.

        Returns:
            Whether one was made.
        """
        if not self.valid or self.queue or self.prepare_event or _logs(_INFO):
            return stock.Event.trigger(self.event, model, *args, **kwargs)
        state = self.state
        transition: Any = None
        data: stock.EventData | None = None
        moved = False
        try:
            for transition, conditions, prepare, attached, others, dest in self.entries:
                if conditions is None or prepare or data is not None or not self.valid:
                    data = self._data(data, state, transition, model, args, kwargs)
                    if transition.execute(data):
                        moved = data.result = True
                        break
                    continue
                holds = True
                for condition, target, following in conditions:
                    answer = condition(*args, **kwargs) if kwargs else condition(*args)
                    if answer is not target and not answer == target:  # noqa: SIM201 - as stock
                        holds = False
                        break
                    if not self.valid:
                        # The condition changed something: the stock machine sees it at once.
                        data = self._data(data, state, transition, model, args, kwargs)
                        rest = transition.conditions[following:]
                        holds = all(each.check(data) for each in rest)
                        break
                if not holds:
                    continue
                if attached or not self.valid or (others and any(others)):
                    data = self._data(data, state, transition, model, args, kwargs)
                    _make(transition, data)
                    data.result = True
                elif dest is not None:
                    setattr(model, self.attribute, dest._name)
                    state = dest
                moved = True
                break
        except BaseException as error:
            machine = self.event.machine
            if machine.on_exception or machine.finalize_event:
                data = self._data(data, state, transition, model, args, kwargs)
                data.error = error  # type: ignore[assignment]  # as stock
            if not machine.on_exception:
                raise
            assert data is not None
            machine.callbacks(machine.on_exception, data)
        finally:
            if not self.valid or self.finalize_event:
                if data is None:
                    data = self._data(data, state, transition, model, args, kwargs)
                    data.result = moved
                _finalize(data)
        return moved if data is None else data.result  # type: ignore[return-value]  # as stock

    def _data(
        self,
        known: stock.EventData | None,
        state: stock.State,
        transition: stock.Transition,
        model: object,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> stock.EventData:
        """Return the event data of this step as the stock machine would have it by now."""
        event = self.event
        data = known or stock.EventData(state, event, event.machine, model, args, kwargs)
        data.transition = transition
        return data


def _is_direct(condition: stock.Condition) -> bool:
    plain = isinstance(condition, Condition) and _plain(condition, stock.Condition, ("check",))
    return plain and not isinstance(condition.func, str)


def _own(callbacks: object, owner: Noticing) -> bool:
    """Make the owner of a list hear of its changes; tell whether it can be made to."""
    if isinstance(callbacks, NoticingList):
        callbacks.owner = owner
    return isinstance(callbacks, NoticingList)


def _watch(object_: object, resolved: Resolved) -> None:
    if isinstance(object_, Noticing):
        object_.remember(resolved)


def _make(transition: stock.Transition, data: stock.EventData) -> None:
    """Do what the stock `execute` does once the conditions hold."""
    machine = data.machine
    machine.callbacks(chain(machine.before_state_change, transition.before), data)
    if transition.dest:
        transition._change_state(data)
    machine.callbacks(chain(transition.after, machine.after_state_change), data)


def _finalize(data: stock.EventData) -> None:
    """Do what the stock `_trigger` does at its end."""
    machine = data.machine
    try:
        machine.callbacks(machine.finalize_event, data)
    except BaseException as error:  # noqa: BLE001 - as stock
        text = "%sWhile executing finalize callbacks a %s occurred: %s."
        _log.error(text, machine.name, type(error).__name__, error)


class Event(Noticing, stock.Event):
    """A trigger that goes the short way where it is the same as the general one."""

    transitions: NoticingTransitions  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, name: str, machine: stock.Machine) -> None:
        self._moves: dict[Any, Resolved] = {}
        self._models = machine.models_ if isinstance(machine, FastMachine) else _Models()
        super().__init__(name, machine)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, NoticingTransitions(value) if name == "transitions" else value)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_moves": {}}

    def trigger(self, model: Any, *args: Any, **kwargs: Any) -> bool:
        """Make the first transition from the model's state whose conditions hold.

        Returns:
            Whether one was made; with a queue, True.

        Raises:
            MachineError: The trigger has no transition in the model's state.
        """
        models = self._models
        if type(model) is models.type or models.admits(model):
            name = getattr(model, models.attribute)
            found = self._moves.get(name)
            if found is None or not found.valid:
                found = self.resolve(name)
            if found is not None:
                return found.make(model, args, kwargs)
        return super().trigger(model, *args, **kwargs)

    def resolve(self, state: str | Enum) -> Resolved | None:
        """Return what the trigger may do in a state; None where the general path must tell."""
        with RESOLVING:
            machine = self.machine
            name = state.name if isinstance(state, Enum) else state
            if not (
                isinstance(machine, FastMachine)
                and machine.is_short
                and _plain(self, stock.Event, _EVENT)
                and name in machine.states
                and name in self.transitions
            ):
                return None
            # Owners are named here: a copy of a machine comes without any.
            machine.states.owner = machine
            self.transitions.own(self)
            found = self._moves[state] = Resolved(self, machine, machine.states[name])
            return found


class FastMachine(Noticing, stock.Machine):
    """A drop-in `transitions.Machine` whose triggers cost a fraction.

    Threads: as the stock machine; a machine that is only read serves any number of them.
    """

    state_cls = State
    transition_cls = Transition
    event_cls = Event
    states: NoticingStates  # pyright: ignore[reportIncompatibleVariableOverride]
    models_: _Models

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "states":
            value = NoticingStates(value)
        elif name in _LISTS and value is None:
            value = NoticingList()
        elif name == "model_attribute":
            self.__dict__.setdefault("models_", _Models()).attribute = value
            self.models_.type = None
        stock.Machine.__setattr__(self, name, value)
        # A machine may be its own model, which is no reason to resolve it anew.
        if name in _ASKED or name in _MACHINE:
            self.forget()

    @property
    def is_short(self) -> bool:
        """Whether nothing in the way the machine is set up asks for the general path."""
        return not self.has_queue and not self.send_event and _plain(self, stock.Machine, _MACHINE)


_PLAIN_SETTERS: Final = (object.__setattr__, FastMachine.__setattr__)
