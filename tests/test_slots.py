"""The locks and machines of recent sessions: bounded, never taken from whoever uses them."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress

from managing import START, await_event, begin, end

from session_fsm import SessionMachine, SessionState
from session_fsm.slots import Slot, Slots


def machine(session_id: str) -> SessionMachine:
    """Return a machine of a new session."""
    return SessionMachine(SessionState.new(session_id, at=START))


def test_slots_are_the_same_for_one_session() -> None:
    """Whoever asks for a session gets the slot that others have, and what it holds."""
    slots = Slots(4)
    with slots.use("a") as first, slots.use("a") as second, slots.use("b") as other:
        assert first is second
        assert first is not other
        first.machine = machine("a")
        assert first.users == 2
    with slots.use("a") as again:
        assert again is first
        assert again.machine is not None
        assert again.users == 1


def test_slots_of_the_longest_unused_are_let_go_of() -> None:
    """Beyond the bound, the session that was used longest ago is forgotten."""
    slots = Slots(3)
    kept = {}
    for session_id in "abcadef":
        with slots.use(session_id) as slot:
            kept[session_id] = slot
    assert len(slots) == 3
    for session_id, is_kept in (("d", True), ("e", True), ("f", True), ("a", False)):
        with slots.use(session_id) as slot:
            assert (slot is kept[session_id]) is is_kept


def test_slots_in_use_are_never_let_go_of() -> None:
    """However many are in use at once, each stays the one slot of its session."""
    slots = Slots(2)
    with ExitStack() as stack:
        used = {str(number): stack.enter_context(slots.use(str(number))) for number in range(10)}
        assert len(slots) == 10
        for session_id, slot in used.items():
            with slots.use(session_id) as same:
                assert same is slot
    assert len(slots) == 2


def test_slots_are_let_go_of_after_an_exception() -> None:
    """An exception does not keep a slot in use."""
    slots = Slots(1)
    used: list[Slot] = []
    for number in range(5):
        with suppress(ZeroDivisionError), slots.use(str(number)) as slot:
            used.append(slot)
            raise ZeroDivisionError
    assert [slot.users for slot in used] == [0] * 5
    assert len(slots) == 1


def test_slots_forget() -> None:
    """What is forgotten is read again; the lock stays the same, and nobody is made known by it."""
    slots = Slots(4)
    with slots.use("a") as slot:
        slot.machine = machine("a")
        slots.forget("a")
        assert slot.machine is None
        with slots.use("a") as same:
            assert same is slot
    slots.forget("nobody")
    assert len(slots) == 1


def test_slots_do_not_wait_for_each_other() -> None:
    """A slot that is locked keeps nobody from another one, nor from being looked up."""
    slots = Slots(2)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with slots.use("a") as slot, slot.lock:
            held.set()
            await_event(go_on)

    holding = begin(hold)
    await_event(held)

    def others() -> list[str]:
        done = []
        for session_id in "bcde":
            with slots.use(session_id) as slot, slot.lock:
                done.append(session_id)
        with slots.use("a") as slot:
            assert slot.lock.locked()
        return done

    try:
        assert end(begin(others)) == [list("bcde")]
    finally:
        go_on.set()
    end(holding)
