"""An interrupt at any moment: a change is made once or not at all, and the manager goes on."""

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from faulty import PREAMBLE, Ledger, count_of, plain
from managing import House, once
from processes import Program

from session_fsm import SessionManager
from session_fsm.stores.records import Commit

pytest_plugins = ["manager_fixtures"]


def interrupt(_: object = None) -> None:
    """Interrupt this thread as Ctrl-C does."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("when", ["before", "after"])
def test_faults_interrupt_around_a_commit(file_house: House, when: str) -> None:
    """The id of the operation tells whether what was interrupted landed; it is not done again."""
    store = file_house.store()
    manager, ledger = file_house.open(store=store), Ledger()
    ledger.create(manager, "a")
    operations: list[str] = []

    def note(commit: Commit) -> None:
        operations.append(commit.operation_id)
        interrupt()

    (store.before if when == "before" else store.after)["commit"] = once(note)
    with pytest.raises(KeyboardInterrupt):
        ledger.add(manager, "a")
    assert store.landed("a", operations[0]) == (when == "after")
    ledger.counts["a"] += when == "after"
    ledger.check(manager)
    ledger.add(manager, "a")
    ledger.check(manager)


@pytest.mark.parametrize(
    "verb",
    [
        lambda manager: manager.create("b"),
        lambda manager: manager.begin_task("a", "t"),
        lambda manager: manager.update("a", llm_config={"model": "m"}),
        lambda manager: manager.fail("a", "boom"),
        lambda manager: manager.terminate("a"),
    ],
    ids=["create", "begin_task", "update", "fail", "terminate"],
)
def test_faults_interrupt_between_commit_and_answer(
    tmp_path: Path, verb: Callable[[SessionManager], object]
) -> None:
    """What was committed and not answered is there, once, and told with the next change."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}") as manager:
        Ledger().create(manager, "a")
        told: list[tuple[str, int]] = []
        stop = manager.subscribe(interrupt)
        manager.subscribe(lambda event: told.append((event.session_id, event.revision)))
        with pytest.raises(KeyboardInterrupt):
            verb(manager)
        stop()
        changed = "a" if manager.find("b") is None else "b"
        landed = manager.get(changed).revision
        assert landed > (2 if changed == "a" else 0)
        if manager.get(changed).status == "active":
            # Who was not told because of the interrupt is told with the next change.
            manager.touch(changed)
            first = 3 if changed == "a" else 1
            assert told == [(changed, number) for number in range(first, landed + 2)]
        history = [event.revision for event in manager.history(changed)]
        assert history == list(range(1, len(history) + 1))
        assert manager.verify().ok


STORM = (
    PREAMBLE
    + """
import signal

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
manager, ledger = SessionManager(f"sqlite:///{sys.argv[1]}"), Ledger()
ledger.create(manager, "a")
landed = 0
for number in range(100):
    before, answered = landed, False
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.000045 * (number + 1))
        try:
            ledger.add(manager, "a", ballast=number)
            answered = True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        pass
    landed = manager.get("a").revision - 2
    assert landed - before in ((1,) if answered else (0, 1)), (landed, before)
    ledger.counts["a"] = landed
    ledger.check(manager) if number % 10 == 0 else None
ledger.check(manager)
ledger.add(manager, "a")
manager.close()
print(0 < landed < 100, ledger.counts["a"])
"""
)


def test_faults_interrupt_at_many_moments(tmp_path: Path) -> None:
    """Interrupted by a real signal, each time later: nothing is lost, doubled, locked."""
    path = tmp_path / "sessions.db"
    with Program(STORM, path) as program:
        [said] = program.rest()
    some, count = said.split()
    assert some == "True"  # some landed and some did not
    assert count_of(path, "a") == int(count)


KILLED = (
    PREAMBLE
    + """
manager, ledger = SessionManager(f"sqlite:///{sys.argv[1]}"), Ledger()
ledger.create(manager, "a")
try:
    while True:
        ledger.add(manager, "a")
        print(ledger.counts["a"], flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
ledger.counts["a"] = manager.get("a").state.metadata["count"]
ledger.check(manager)
ledger.add(manager, "a")
print(ledger.counts["a"], flush=True)
manager.close()
"""
)


def test_faults_interrupt_from_another_process(tmp_path: Path) -> None:
    """A program that is interrupted at its work has made all that it said, and at most one more."""
    path = tmp_path / "sessions.db"
    with Program(KILLED, path) as program:
        while program.hear() != "10":
            pass
        program.signal(signal.SIGINT)
        *said, interrupted, after = program.rest()
    assert interrupted == "interrupted"
    last = int(said[-1]) if said else 10
    assert int(after) - 1 - last in (0, 1)
    assert count_of(path, "a") == int(after)


def test_faults_interrupt_of_a_batch(tmp_path: Path) -> None:
    """A batch that is interrupted leaves nothing, wherever in it that happens."""
    path = tmp_path / "sessions.db"
    with SessionManager(f"sqlite:///{path}") as manager:
        ledger = Ledger()
        ledger.create(manager, "a")
        for place in range(3):
            trial = Ledger()
            trial.counts["a"] = 0
            with suppress(KeyboardInterrupt), manager.batch():
                for number in range(3):
                    if number == place:
                        interrupt()
                    trial.add(manager, "a")
            with plain(path) as other:  # and nobody waits for it
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            ledger.check(manager)
        ledger.add(manager, "a")
        ledger.check(manager)
