"""Who is alive: an owner lives exactly as long as its process, and is found dead at once after."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from processes import Program

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores import SqliteStore
from session_fsm.stores.owners import OwnerLocks
from session_fsm.stores.records import Work
from session_fsm.testing.authors import Author


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where locks may lie; not there yet."""
    return tmp_path / "owners"


@pytest.fixture
def owners(directory: Path) -> Iterator[OwnerLocks]:
    """The locks of this process."""
    owners = OwnerLocks(directory)
    yield owners
    owners.close()


HOLDING = """
    import sys
    from pathlib import Path
    from session_fsm.stores.owners import OwnerLocks
    owners = OwnerLocks(Path(sys.argv[1]))
    for owner_id in sys.argv[2:]:
        owners.take(owner_id)
    print("taken", flush=True)
    while line := input():
        owners.drop(line)
        print("dropped", flush=True)
    owners.close()
    print("closed", flush=True)
    input()
"""


# --- in one process ---------------------------------------------------------------------------


def test_owners_live_until_they_are_dropped(owners: OwnerLocks) -> None:
    """Nobody is alive who was not taken, and nobody is any more who was dropped."""
    assert not owners.is_alive("a")
    owners.take("a")
    owners.take("b")
    assert owners.is_alive("a")
    assert owners.is_alive("b")
    owners.drop("a")
    assert not owners.is_alive("a")
    assert owners.is_alive("b")
    owners.drop("a")
    owners.drop("nobody")
    owners.take("a")
    assert owners.is_alive("a")
    owners.close()
    owners.close()
    assert not owners.is_alive("a")
    assert not owners.is_alive("b")


def test_owners_leave_nothing_behind(owners: OwnerLocks, directory: Path) -> None:
    """The directory is for its user alone; who is dropped leaves no file in it."""
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    owners.take("a")
    assert len(list(directory.iterdir())) == 1
    owners.drop("a")
    assert list(directory.iterdir()) == []


def test_owners_are_taken_once(owners: OwnerLocks, directory: Path) -> None:
    """An owner that somebody holds is taken by nobody else, here or from another place."""
    owners.take("a")
    others = OwnerLocks(directory)
    for each in (owners, others):
        with pytest.raises(StoreUnavailableError, match="owner 'a'"):
            each.take("a")
    assert owners.is_alive("a")
    assert others.is_alive("a")
    others.drop("a")
    assert owners.is_alive("a")
    owners.drop("a")
    others.take("a")
    assert owners.is_alive("a")
    others.close()


@pytest.mark.parametrize("owner_id", ["", ".", "..", "../a", "a/b", "/etc/a", ".hidden", "a\x00b"])
def test_owners_have_names_that_are_file_names(
    owners: OwnerLocks, directory: Path, owner_id: str
) -> None:
    """An id that would lead out of the directory, or is no file's name, is refused."""
    with pytest.raises(StoreUnavailableError):
        owners.take(owner_id)
    assert list(directory.iterdir()) == []
    assert list(directory.parent.iterdir()) == [directory]


def test_owners_need_their_directory(tmp_path: Path) -> None:
    """A directory that can't be made is told of."""
    (tmp_path / "file").touch()
    for directory in (tmp_path / "missing" / "owners", tmp_path / "file" / "owners"):
        with pytest.raises(StoreUnavailableError, match="owners"):
            OwnerLocks(directory)


def test_owners_are_alive_for_every_thread(owners: OwnerLocks, directory: Path) -> None:
    """Whichever threads ask, and however many at once, who lives is never told dead."""
    owners.take("a")
    others = OwnerLocks(directory)
    barrier = threading.Barrier(4, timeout=60)

    def ask(each: OwnerLocks) -> bool:
        barrier.wait()
        return all(each.is_alive("a") for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, (owners, others, owners, others)))


# --- in several processes ---------------------------------------------------------------------


def test_owners_of_another_process_live_with_it(owners: OwnerLocks, directory: Path) -> None:
    """An owner elsewhere is alive from its taking to its dropping or closing."""
    with Program(HOLDING, directory, "a", "b", "c") as program:
        assert program.hear() == "taken"
        assert all(map(owners.is_alive, "abc"))
        program.say("b")
        assert program.hear() == "dropped"
        assert [owners.is_alive(each) for each in "abc"] == [True, False, True]
        owners.drop("a")
        assert owners.is_alive("a")
        program.say()
        assert program.hear() == "closed"
        assert not any(map(owners.is_alive, "abc"))
        program.say()


def test_owners_die_with_their_process(owners: OwnerLocks, directory: Path) -> None:
    """A process that is killed leaves dead owners, at once, and no file once that was noticed."""
    owners.take("mine")
    with Program(HOLDING, directory, "a", "b") as program:
        assert program.hear() == "taken"
        assert owners.is_alive("a")
        program.kill()
        assert not owners.is_alive("a")
        assert not owners.is_alive("a")
        assert not owners.is_alive("b")
    assert owners.is_alive("mine")
    assert [each.name for each in directory.iterdir()] == ["mine.lock"]
    owners.take("a")
    assert owners.is_alive("a")


def test_owners_that_were_forgotten_are_dead(owners: OwnerLocks, directory: Path) -> None:
    """A lock file that nobody holds is one of a dead owner, and is cleared away."""
    (directory / "a.lock").touch()
    assert not owners.is_alive("a")
    assert not (directory / "a.lock").exists()


FORKING = """
    import os, sys
    from pathlib import Path
    from session_fsm.stores.owners import OwnerLocks
    owners = OwnerLocks(Path(sys.argv[1]))
    owners.take("a")
    if child := os.fork():
        os.waitpid(child, 0)
    else:
        print(os.getpid(), flush=True)
        input()
        os._exit(0)
"""


def test_owners_do_not_live_on_in_their_children(owners: OwnerLocks, directory: Path) -> None:
    """A process that was forked off does not keep alive whom its dead parent owned."""
    with Program(FORKING, directory) as program:
        child = int(program.hear())
        assert owners.is_alive("a")
        program.kill()
        os.kill(child, 0)  # it is there, and waits
        assert not owners.is_alive("a")
        program.say()


# --- in a store -------------------------------------------------------------------------------

WORKING = """
    import sys
    from session_fsm.stores import SqliteStore
    from session_fsm.stores.records import Work
    from session_fsm.testing.authors import Author
    path, name = sys.argv[1:]
    store = SqliteStore(path)
    store.enlist(name)
    author = Author(store, name)
    task = Work("task", name)
    author.write(name, "activate", ("begin_task", {"task_id": name}), claims=[task])
    author.write("shared", "touch", claims=[task])
    print("working", flush=True)
    input()
    store.close()
"""


def test_owners_leave_their_work_when_they_are_killed(tmp_path: Path) -> None:
    """Of two processes with work in one file, only what the killed one left is abandoned."""
    path = tmp_path / "sessions.db"
    with closing(SqliteStore(path)) as store:
        Author(store).write("shared", "activate")
        with ExitStack() as working:
            one = working.enter_context(Program(WORKING, path, "one"))
            assert one.hear() == "working"  # both write one session: the second after the first
            two = working.enter_context(Program(WORKING, path, "two"))
            assert two.hear() == "working"
            assert store.abandoned() == ()
            one.kill()
            left = {(each.session_id, each.owner_id): each.work for each in store.abandoned()}
            task = (Work("task", "one"),)
            assert left == {("one", "one"): task, ("shared", "one"): task}
            assert store.abandoned("two") == ()
            two.say()
            assert two.rest() == []
            assert {each.owner_id for each in store.abandoned("shared")} == {"one", "two"}


def test_owners_that_left_nothing_leave_no_lock(tmp_path: Path) -> None:
    """The lock file of a process that was killed while it did nothing goes with a recovery."""
    url = f"sqlite:///{tmp_path / 'sessions.db'}"
    code = f"""
        import os, signal
        from session_fsm import SessionManager
        manager = SessionManager({url!r})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    with SessionManager(url) as manager:
        locks = tmp_path / "sessions.db.owners"
        assert len(list(locks.glob("*.lock"))) == 2
        manager.recover()
        assert len(list(locks.glob("*.lock"))) == 1
