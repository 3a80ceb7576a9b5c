"""Random machines of transitions, and what is done to them, as plain data.

Callbacks do what users' callbacks do: they raise, fire triggers of the model that is being moved,
attach callbacks to the running step, set the state, and change the event data.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import attrs
from hypothesis import strategies as st

STATES = ("A", "B", "C")
TRIGGERS = ("go", "run", "stay")


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
    if oddities.get("lists"):
        script += [("attach", draw(_places), draw(_states)), draw(_fire)]
    script.append(draw(_fire))
    return Plan(moves=(*some, *every), script=tuple(script), **oddities)
