"""Threads are woken one after another, unless that takes long, and nobody is forgotten."""

from __future__ import annotations

from session_fsm.stores.relay import SLOW_SECONDS, Relay, Runner


class Time:
    """Tells what has passed, as a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def waiting(number: int) -> list[Runner]:
    """Return runners that wait."""
    runners = [Runner() for _ in range(number)]
    for runner in runners:
        runner.turn.acquire()
    return runners


def awake(runners: list[Runner]) -> list[bool]:
    """Tell which may go on."""
    return [not runner.turn.locked() for runner in runners]


def test_relay_wakes_one_after_another() -> None:
    """The next one is woken when the one before says that it is awake, and not before."""
    relay, runners = Relay(), waiting(3)
    assert not relay.is_running
    relay.wake(*runners)
    for number in range(3):
        assert relay.is_running
        assert awake(runners) == [each <= number for each in range(3)]
        relay.woke(runners[number])
    assert not relay.is_running


def test_relay_takes_others_behind_those_who_wait() -> None:
    """Whoever is to be woken meanwhile comes behind them, in order."""
    relay, runners = Relay(), waiting(4)
    relay.wake(*runners[:2])
    relay.wake(*runners[2:])
    assert awake(runners) == [True, False, False, False]
    relay.woke(runners[0])
    relay.woke(runners[1])
    assert awake(runners) == [True, True, True, False]


def test_relay_is_moved_on_by_nobody_else() -> None:
    """What one says twice, or who was not woken by it, wakes nobody."""
    relay, runners = Relay(), waiting(3)
    relay.wake(*runners)
    relay.woke(runners[0])
    relay.woke(runners[0])
    relay.woke(Runner())
    assert awake(runners) == [True, True, False]


def test_relay_wakes_all_where_one_is_slow() -> None:
    """If one took long to wake, as others keep the interpreter busy, the rest wakes at once."""
    time = Time()
    relay, runners = Relay(time), waiting(5)
    relay.wake(*runners[:4])
    time.now += SLOW_SECONDS
    relay.woke(runners[0])
    assert awake(runners) == [True, True, False, False, False]
    time.now += SLOW_SECONDS * 1.01
    relay.woke(runners[1])
    assert awake(runners) == [True, True, True, True, False]
    assert not relay.is_running
    relay.wake(runners[4])
    assert awake(runners) == [True] * 5


def test_relay_passes_over_those_who_have_left() -> None:
    """Whoever leaves has everybody woken who waits, and is not waited for later."""
    relay, runners = Relay(), waiting(5)
    relay.wake(*runners[:3])
    relay.wake_all(runners[0])
    assert awake(runners) == [True, True, True, False, False]
    assert not relay.is_running
    relay.wake(runners[0], runners[3])
    assert awake(runners[3:]) == [True, False]
    relay.woke(runners[3])
    relay.wake_all(runners[0], runners[3], runners[4])
    assert awake(runners) == [True] * 5


def test_relay_is_hurried_by_those_who_wait() -> None:
    """If one does not wake, those behind it find out, and do not wait for it."""
    time = Time()
    relay, runners = Relay(time), waiting(3)
    relay.wake(*runners)
    relay.hurry()
    assert awake(runners) == [True, False, False]
    time.now += SLOW_SECONDS * 2
    relay.hurry()
    assert awake(runners) == [True] * 3
    assert not relay.is_running
    relay.hurry()
