"""The fast machine, beside what random machines show: paths, copies, memory, threads."""

import copy
import gc
import pickle
import sys
import threading
import weakref
from enum import Enum
from typing import Any
from unittest import mock

import pytest
from transitions import Event as StockEvent
from transitions import Machine, MachineError, State

from session_fsm.machine import FastMachine, fast
from session_fsm.machine.noticing import NoticingList, NoticingStates, NoticingTransitions


class Model:
    """Something with a state, and something that is seen."""

    state: Any
    seen = 0

    def see(self, *_: object) -> None:
        """Count."""
        self.seen += 1


def toggle(**options: Any) -> tuple[Any, Model]:
    """A machine with two states, and a model of it."""
    model = Model()
    machine = FastMachine(
        model,
        states=["a", "b"],
        initial="a",
        auto_transitions=False,
        transitions=[["go", "a", "b"], ["go", "b", "a"]],
        **options,
    )
    return machine, model


def general_path() -> Any:
    """Counts the triggers that take the general path."""
    return mock.patch.object(StockEvent, "trigger", autospec=True, side_effect=StockEvent.trigger)


def test_machine_fast_takes_the_short_path() -> None:
    """A plain machine never takes the general path, nor makes an `EventData`."""
    _, model = toggle()
    with general_path() as general, mock.patch("transitions.core.EventData") as data:
        for _ in range(4):
            model.go()  # type: ignore[attr-defined]  # put there by the machine
    assert (general.call_count, data.call_count, model.state) == (0, 0, "a")


@pytest.mark.parametrize(
    "options", [{"queued": True}, {"send_event": True}, {"prepare_event": "see"}], ids=str
)
def test_machine_fast_takes_the_general_path_when_asked(options: dict[str, Any]) -> None:
    """What a machine is set up with can ask for the stock code."""
    _, model = toggle(**options)
    with general_path() as general:
        model.go()  # type: ignore[attr-defined]  # put there by the machine
    assert general.call_count == 1
    assert model.state == "b"


def test_machine_fast_its_own_model_is_not_resolved_anew() -> None:
    """A machine that is its own model sets its state without making stale what was resolved."""
    machine: Any = FastMachine(
        states=["a", "b"], initial="a", transitions=[["go", "a", "b"], ["go", "b", "a"]]
    )
    machine.go()
    machine.go()
    with mock.patch.object(fast.Event, "resolve") as resolve, general_path() as general:
        machine.go()
    assert (machine.state, resolve.call_count, general.call_count) == ("b", 0, 0)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
def test_machine_fast_copies_notice_their_own_changes(copied: Any) -> None:
    """A copy of a used machine goes on alike, notices what is changed in it, and nothing else."""
    machine, model = toggle()
    model.go()  # type: ignore[attr-defined]  # put there by the machine
    other, twin = copied((machine, model))
    assert twin.state == "b"
    with general_path() as general:
        twin.go()
    assert (twin.state, general.call_count) == ("a", 0)
    other.get_state("b").on_enter = ["see"]
    other.get_transitions("go", source="b")[0].conditions.append(
        fast.Condition(lambda *_: twin.seen > 1)
    )
    other.events["go"].transitions["a"].insert(0, fast.Transition("a", "a", before="see"))
    other.events["go"].transitions["a"].pop()
    twin.go()
    assert (twin.state, twin.seen) == ("a", 1)
    model.go()  # type: ignore[attr-defined]  # put there by the machine
    assert (model.state, model.seen) == ("a", 0)


def test_machine_fast_what_is_stale_is_let_go() -> None:
    """However often a machine changes, it keeps what is resolved now, and nothing older."""
    machine, model = toggle()
    model.go()  # type: ignore[attr-defined]  # put there by the machine
    first = weakref.ref(machine.get_state("a"))
    for _ in range(50):
        machine.get_state("b").on_enter = []
        model.go()  # type: ignore[attr-defined]  # put there by the machine
        model.go()  # type: ignore[attr-defined]  # put there by the machine
    kept = machine.get_state("a").__dict__["_resolved"]
    assert len(kept) <= 3
    assert first() is machine.get_state("a")


def test_machine_fast_dies_with_its_last_reference() -> None:
    """Nothing outside of a machine keeps it alive."""
    machine, model = toggle()
    model.go()  # type: ignore[attr-defined]  # put there by the machine
    gone = weakref.ref(machine)
    del machine, model
    gc.collect()
    assert gone() is None


def test_machine_fast_models_of_many_kinds_share_a_machine() -> None:
    """Each model is moved as its own type keeps its state, whichever came before."""
    machine, plain = toggle()

    class Slotted:
        __slots__ = ("__dict__", "state")

    class Careful:
        def __setattr__(self, name: str, value: object) -> None:
            if name == "state":
                object.__setattr__(self, "times", getattr(self, "times", 0) + 1)
            object.__setattr__(self, name, value)

    slotted, careful = Slotted(), Careful()
    machine.add_model([slotted, careful], initial="a")
    for model in (plain, slotted, careful, plain, careful, slotted):
        model.go()  # type: ignore[union-attr]  # put there by the machine
    assert [plain.state, slotted.state, careful.state] == ["a", "a", "a"]  # type: ignore[attr-defined]
    assert careful.times == 3  # type: ignore[attr-defined]


def test_machine_fast_enums_keep_their_members() -> None:
    """Where states are members of an enum, a model is in a member."""

    class Light(Enum):
        RED = 1
        GREEN = 2

    model = Model()
    FastMachine(model, states=Light, initial=Light.RED, transitions=[["go", "RED", "GREEN"]])
    with general_path() as general:
        model.go()  # type: ignore[attr-defined]  # put there by the machine
    assert (model.state, general.call_count) == (Light.GREEN, 0)


def test_machine_fast_tells_of_a_missing_state_as_the_stock_machine_does() -> None:
    """A model in a state that the machine lost is told in the same words."""
    told = []
    for base in (Machine, FastMachine):
        model = Model()
        base(model, states=["a", "b"], initial="a", transitions=[["go", "a", "b"]])
        model.state = "c"
        with pytest.raises(ValueError, match="not a registered state") as lost:
            model.go()  # type: ignore[attr-defined]  # put there by the machine
        model.state = "b"
        with pytest.raises(MachineError) as refused:
            model.go()  # type: ignore[attr-defined]  # put there by the machine
        told.append((str(lost.value), str(refused.value)))
    assert told[0] == told[1]


def test_machine_fast_stock_parts_take_the_general_path() -> None:
    """States of the stock class are entered by their own methods, within the same step."""
    entered = []

    class Own(State):
        def enter(self, event_data: Any) -> None:
            entered.append(event_data.event.name)
            super().enter(event_data)

    model = Model()
    FastMachine(model, states=["a", Own("b")], initial="a", transitions=[["go", "a", "b"]])
    model.go()  # type: ignore[attr-defined]  # put there by the machine
    assert (entered, model.state) == (["go"], "b")


def test_machine_fast_serves_threads_that_resolve_at_once() -> None:
    """A new machine that many threads use at the same instant moves the models of all."""
    for _ in range(20):
        machine, _model = toggle()
        models = [Model() for _ in range(4)]
        machine.add_model(models, initial="a")
        start = threading.Barrier(len(models))

        def run(model: Any, start: threading.Barrier = start) -> None:
            start.wait(10)
            for _ in range(101):
                model.go()

        threads = [threading.Thread(target=run, args=(model,)) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [model.state for model in models] == ["b"] * len(models)


def test_machine_fast_threads_that_resolve_at_once_lose_no_change() -> None:
    """What threads resolve at the same instant is all declared stale by the next change."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        missed = sum(_missed_after_a_race(triggers=8) for _ in range(150))
    finally:
        sys.setswitchinterval(interval)
    assert missed == 0


def _missed_after_a_race(*, triggers: int) -> int:
    names = [f"go_{number}" for number in range(triggers)]
    moves = [[name, "a", "b"] for name in names]
    machine = FastMachine(
        None, states=["a", "b"], initial=None, auto_transitions=False, transitions=moves
    )
    start = threading.Barrier(triggers)

    def fire(name: str) -> None:
        model = Model()
        model.state = "a"
        start.wait(10)
        machine.events[name].trigger(model)

    threads = [threading.Thread(target=fire, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    seen: list[str] = []
    machine.get_state("b").on_enter = [lambda: seen.append("b")]
    for name in names:
        model = Model()
        model.state = "a"
        machine.events[name].trigger(model)
    return triggers - len(seen)


class Owner:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told = 0

    def forget(self) -> None:
        """Count."""
        self.told += 1


def _named(container: Any, *names: str) -> Any:
    owner = Owner()
    container.owner = owner
    return container, owner


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.append(4), lambda items: items.extend([4]), lambda items: items.clear(),
        lambda items: items.insert(0, 4), lambda items: items.pop(), lambda items: items.remove(2),
        lambda items: items.reverse(), lambda items: items.sort(),
        lambda items: items.__iadd__([4]),
        lambda items: items.__imul__(2), lambda items: items.__setitem__(0, 4),
        lambda items: items.__delitem__(slice(None)),
    ],
)  # fmt: skip
def test_machine_fast_lists_tell_of_every_change(change: Any) -> None:
    """Each way to change a list is told, and does what it does to a list."""
    items, owner = _named(NoticingList([3, 1, 2]))
    plain = [3, 1, 2]
    change(items)
    change(plain)
    assert owner.told == 1
    assert items == plain


@pytest.mark.parametrize("kind", [NoticingStates, NoticingTransitions])
@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.__setitem__("c", [3]), lambda items: items.__delitem__("a"),
        lambda items: items.pop("a"), lambda items: items.popitem(), lambda items: items.clear(),
        lambda items: items.update({"c": [3]}), lambda items: items.setdefault("c", [3]),
        lambda items: items.__ior__({"c": [3]}),
    ],
)  # fmt: skip
def test_machine_fast_mappings_tell_of_every_change(kind: Any, change: Any) -> None:
    """Each way to change a mapping is told, and does what it does to a dict."""
    items, owner = _named(kind({"a": [1], "b": [2]}))
    plain: dict[str, Any] = {"a": [1], "b": [2]}
    change(items)
    change(plain)
    assert owner.told >= 1
    assert items == plain


def test_machine_fast_transitions_tell_of_their_lists() -> None:
    """A list of transitions that is asked for, or put in, tells the owner of the mapping."""
    items, owner = _named(NoticingTransitions({"a": [1]}))
    items.own(owner)
    items["a"].append(2)
    items["new"].append(3)
    items["put"] = [4]
    told = owner.told
    items["put"].append(5)
    assert owner.told == told + 1
    assert dict(items) == {"a": [1, 2], "new": [3], "put": [4, 5]}
