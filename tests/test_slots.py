"""The locks and machines of recent sessions: bounded, never taken from whoever uses them."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from managing import START, await_event, begin, end

from session_fsm import SessionMachine, SessionState
from session_fsm.slots import Slots
from session_fsm.telling import Outbox


def machine(session_id: str) -> SessionMachine:
    """Return a machine of a new session."""
    return SessionMachine(SessionState.new(session_id, at=START))


def test_slots_are_the_same_for_one_session() -> None:
    """Whoever asks for a session gets the slot that others have, and what it holds."""
    slots = Slots(4)
    first = slots.get("a")
    first.machine = machine("a")
    assert slots.get("a") is first
    assert slots.get("b") is not first
    assert slots.get("a").machine is not None
    assert not first.gone


def test_slots_of_the_longest_unused_are_let_go_of() -> None:
    """Beyond the bound, the session that was used longest ago is forgotten."""
    slots = Slots(3)
    kept = {session_id: slots.get(session_id) for session_id in "abcadef"}
    assert len(slots) == 3
    assert [kept[each].gone for each in "abcdef"] == [True, True, True, False, False, False]
    for session_id, is_kept in (("d", True), ("e", True), ("f", True), ("a", False)):
        assert (slots.get(session_id) is kept[session_id]) is is_kept


def test_slots_in_use_are_never_let_go_of() -> None:
    """However many are locked at once, each stays the one slot of its session."""
    slots = Slots(2)
    used = {str(number): slots.get(str(number)) for number in range(2)}
    with ExitStack() as stack:
        for number in range(10):
            slot = used[str(number)] = slots.get(str(number))
            stack.enter_context(slot.lock)
        assert len(slots) == 10
        for session_id, slot in used.items():
            assert slots.get(session_id) is slot
    slots.get("another")
    assert len(slots) == 2


def test_slots_with_something_to_tell_are_never_let_go_of() -> None:
    """A session of which somebody is yet to be told keeps its slot, and so its order."""
    slots = Slots(1)
    with slots.hold_back("ab") as held:
        slots.get("c")
        slots.get("d")
        assert slots.get("a") is held["a"]
        assert slots.get("b") is held["b"]
        assert not held["a"].gone
    slots.get("e")
    assert len(slots) == 1
    assert held["a"].gone


def test_slots_in_use_are_not_looked_at_again_and_again() -> None:
    """However many are held, one more costs a few looks; they are let go of in the end."""
    slots = Slots(4)
    looks = 0

    class Looked(Outbox):
        def __bool__(self) -> bool:
            nonlocal looks
            looks += 1
            return super().__bool__()

    held = [str(number) for number in range(500)]
    for session_id in held:
        slots.get(session_id).outbox = Looked()
        slots.get(session_id).outbox.hold_back()
    assert len(slots) == 500
    assert looks <= 8 * 500
    for session_id in held:
        slots.get(session_id).outbox.let_go()
    slots.get("another")
    assert len(slots) == 4


def test_slots_forget() -> None:
    """What is forgotten is read again; the lock stays the same, and nobody is made known by it."""
    slots = Slots(4)
    slot = slots.get("a")
    slot.machine = machine("a")
    slots.forget("a")
    assert slot.machine is None
    assert slots.get("a") is slot
    slots.forget("nobody")
    assert len(slots) == 1


def test_slots_do_not_wait_for_each_other() -> None:
    """A slot that is locked keeps nobody from another one, nor from being looked up."""
    slots = Slots(2)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with slots.get("a").lock:
            held.set()
            await_event(go_on)

    holding = begin(hold)
    await_event(held)

    def others() -> list[str]:
        done = []
        for session_id in "bcde":
            with slots.get(session_id).lock:
                done.append(session_id)
        assert slots.get("a").lock.locked()
        return done

    try:
        assert end(begin(others)) == [list("bcde")]
    finally:
        go_on.set()
    end(holding)
