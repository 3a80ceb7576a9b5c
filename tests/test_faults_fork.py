"""A fork of a process that has a store open: the child is refused, and disturbs nothing."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import PREAMBLE, count_of
from managing import PATIENCE_SECONDS
from processes import Program

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores.records import Work

ENDINGS = {
    "exits": "os._exit(0)",
    "ends": "sys.exit(0)",
    "closes": "manager.close(); os._exit(0)",
    "forgets": "del manager; import gc; gc.collect(); sys.exit(0)",
    "reads": "told(lambda: manager.get('a')); sys.exit(0)",
    "writes": "told(lambda: ledger.add(manager, 'a')); sys.exit(0)",
    "opens": "told(anew); sys.exit(0)",
    "forks": "os.wait() if os.fork() else told(anew); os._exit(0)",
}
"""What a child may do, each in a way that runs more or less of Python's own end."""

FORKING = (
    PREAMBLE
    + """
path = Path(sys.argv[1])
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
manager.begin_task("a", "t")
ledger.check(manager)


def anew():
    SessionManager(f"sqlite:///{path}")


def told(verb):
    try:
        verb()
        print("done", flush=True)
    except StoreUnavailableError as fault:
        print("by another process" in fault.problem, fault.operation_id, flush=True)


if not (child := os.fork()):
    ENDING
os.waitpid(child, 0)
print("parent", flush=True)
input()
ledger.add(manager, "a")
ledger.check(manager)
manager.end_task("a", "t")
manager.close()
"""
)


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_faults_fork_leaves_the_parent_alone(tmp_path: Path, ending: str) -> None:
    """Whatever a child does with what it inherited, it is refused, and the parent goes on.

    The parent stays alive to others: nobody recovers its task.
    """
    path = tmp_path / "sessions.db"
    with Program(FORKING.replace("ENDING", ENDINGS[ending]), path) as program:
        said: list[str] = []
        while (line := program.hear()) != "parent":
            assert line, said
            said.append(line)
        assert said == ["True None"] * (ending in {"reads", "writes", "opens", "forks"})
        log = path.with_name("sessions.db-wal")
        assert log.stat().st_size > 0  # no child put an end to it
        with SessionManager(f"sqlite:///{path}") as other:
            assert other.recover().dropped_tasks == ()
            assert set(other.store.work_in("a")) == {Work("task", "t")}
            assert log.stat().st_size > 0
        program.say()
        assert program.rest() == []
    assert count_of(path, "a") == 1


ORPHAN = (
    PREAMBLE
    + """
path = Path(sys.argv[1])
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
ledger.add(manager, "a")
manager.begin_task("a", "t")
if os.fork():
    os.waitpid(-1, 0)
print("child", flush=True)
input()
for verb in (lambda: manager.get("a"), lambda: SessionManager(f"sqlite:///{path}")):
    try:
        verb()
        print("done", flush=True)
    except StoreUnavailableError as fault:
        print("by another process" in fault.problem, flush=True)
manager.close()
sys.exit(0)
"""
)


def test_faults_fork_that_outlives_its_parent(tmp_path: Path) -> None:
    """A child does not keep its dead parent's tasks alive, nor harms who goes on with them."""
    path = tmp_path / "sessions.db"
    with Program(ORPHAN, path) as program:
        assert program.hear() == "child"
        program.kill()
        with SessionManager(f"sqlite:///{path}") as heir:
            assert heir.recover().dropped_tasks == ("t",)
            program.say()
            assert [program.hear(), program.hear(), program.hear()] == ["True", "True", ""]
            heir.update("a", metadata={"count": 2})
    assert count_of(path, "a") == 2


def test_faults_fork_that_ends_last_touches_nothing(tmp_path: Path) -> None:
    """The file and the log of a dead parent are what it left, when its child has ended as well."""
    path = tmp_path / "sessions.db"
    log = path.with_name("sessions.db-wal")
    with Program(ORPHAN, path) as program:
        assert program.hear() == "child"
        program.kill()
        left = path.read_bytes(), log.read_bytes()
        program.say()
        assert [program.hear(), program.hear(), program.hear()] == ["True", "True", ""]
        assert (path.read_bytes(), log.read_bytes()) == left
    assert count_of(path, "a") == 1


BATCH = (
    PREAMBLE
    + """
manager, ledger = SessionManager(f"sqlite:///{sys.argv[1]}"), Ledger()
ledger.create(manager, "a")
child = None
try:
    with manager.batch():
        ledger.add(manager, "a")
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            ledger.add(manager, "a")
except StoreUnavailableError as fault:
    print(child, "by another process" in fault.problem, flush=True)
    sys.exit(0)
ledger.check(manager)
manager.close()
"""
)


def test_faults_fork_in_a_batch_leaves_the_commit_to_the_parent(tmp_path: Path) -> None:
    """A child that leaves a batch, in the middle of which it was forked off, commits no half."""
    path = tmp_path / "sessions.db"
    with Program(BATCH, path) as program:
        assert program.rest() == ["0 True"]
    assert count_of(path, "a") == 2


def in_child(verb: Callable[[], object]) -> str:
    """Return the kind of error that something raises in a child by fork; empty if none."""
    heard, said = os.pipe()
    if not (child := os.fork()):
        try:
            verb()
        except BaseException as fault:  # noqa: BLE001 - told to the parent
            os.write(said, type(fault).__name__.encode())
        os._exit(0)
    os.close(said)
    os.waitpid(child, 0)
    with os.fdopen(heard) as told:
        return told.read()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[SessionManager]:
    """An open manager with a session."""
    with SessionManager(f"sqlite:///{tmp_path}/sessions.db") as manager:
        manager.create("a")
        yield manager


def _touch(manager: SessionManager, told: "multiprocessing.Queue[str]") -> None:
    try:
        manager.touch("a")
    except StoreUnavailableError as fault:
        told.put(fault.problem)


def test_faults_fork_by_multiprocessing(manager: SessionManager) -> None:
    """A process that `multiprocessing` forks is told to be started by spawn."""
    context = multiprocessing.get_context("fork")
    told: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=_touch, args=(manager, told))
    child.start()
    assert "spawn" in told.get(timeout=PATIENCE_SECONDS)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == 0
    assert manager.touch("a").revision == 3


def test_faults_fork_may_open_what_its_parent_did_not(
    manager: SessionManager, tmp_path: Path
) -> None:
    """A child works in other files, and in one that its parent had closed."""
    path = tmp_path / "other.db"
    with SessionManager(f"sqlite:///{path}") as closed:
        closed.create("a", metadata={"count": 0})

    def work() -> None:
        with SessionManager(f"sqlite:///{path}") as mine:
            mine.update("a", metadata={"count": 1})

    assert in_child(work) == ""
    assert count_of(path, "a") == 1
    assert manager.touch("a").revision == 3


def test_faults_fork_by_a_program_that_is_started(manager: SessionManager, tmp_path: Path) -> None:
    """A program that is started beside an open manager is no such child, and opens the file."""
    script = PREAMBLE + "SessionManager(f'sqlite:///{sys.argv[1]}').touch('a')"
    with Program(script, tmp_path / "sessions.db") as program:
        assert program.rest() == []
    assert manager.touch("a").revision == 4


def test_faults_fork_stops_no_worker_of_its_parent() -> None:
    """A child that closes the manager it was born with leaves what runs for its parent alone."""
    code = """
        import os
        from session_fsm import SessionManager

        class Worker:
            def stop(self):
                print("stopped by", os.getpid() == parent and "its parent" or "a child", flush=True)

        parent = os.getpid()
        manager = SessionManager()
        manager.create("a", start=lambda _: Worker())
        child = os.fork()
        if not child:
            manager.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        manager.close()
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["stopped by its parent"]
