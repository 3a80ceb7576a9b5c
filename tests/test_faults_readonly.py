"""A file that can't be written any longer: by its mode, by its file system, or by a failing one.

A mode binds whoever opens the file, and no user who may do everything; a file system binds all; one
that fails binds those who have the file open already. Each is made where it binds.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import PREAMBLE, count_of, may_mount
from processes import Program

OPENED_ANEW = (
    PREAMBLE
    + """
path = Path(sys.argv[2]) / "own" / "sessions.db"
if sys.argv[1] == "mount":
    assert mount_small(path.parent.parent)
else:
    become_nobody()
path.parent.mkdir()
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
ledger.add(manager, "a")
if sys.argv[1] == "mount":
    manager.close()
    remount(path.parent.parent, read_only=True)
else:
    for each in path.parent.glob("sessions.db*"):
        each.chmod(0o500 if each.is_dir() else 0o400)
    path.parent.chmod(0o500)
try:
    SessionManager(f"sqlite:///{path}").create("b")
except StoreUnavailableError as fault:
    print(fault.operation_id, str(path.parent) in fault.problem)
if sys.argv[1] == "mount":
    remount(path.parent.parent, read_only=False)
    manager = SessionManager(f"sqlite:///{path}")
else:
    ledger.add(manager, "a")  # what is open is open: a mode is asked for once
    ledger.check(manager)
    path.parent.chmod(0o700)
    for each in path.parent.glob("sessions.db*"):
        each.chmod(0o700 if each.is_dir() else 0o600)
ledger.add(manager, "a")
with SessionManager(f"sqlite:///{path}") as other:
    ledger.add(other, "a")
    ledger.check(manager)
manager.close()
print("went on")
"""
)


@pytest.fixture
def open_to_all(tmp_path: Path) -> Iterator[Path]:
    """A directory that any user can get to and write in, for programs that give up their rights."""
    closed = [each for each in tmp_path.parents if not each.stat().st_mode & 0o001]
    modes = {each: each.stat().st_mode for each in (tmp_path, *closed)}
    for each in closed:
        each.chmod(modes[each] | 0o011)
    tmp_path.chmod(0o777)
    yield tmp_path
    for each, mode in modes.items():
        each.chmod(mode)


@pytest.mark.parametrize("way", ("mode", "mount") if may_mount() else ("mode",))
def test_faults_readonly_for_whoever_opens(open_to_all: Path, way: str) -> None:
    """A store that can't be written is refused when it is opened; with the right back it goes on.

    A manager that has it open under a mode that was changed goes on all the time.
    """
    with Program(OPENED_ANEW, way, open_to_all) as process:
        assert process.rest() == ["None True", "went on"]


FAILING = (
    PREAMBLE
    + """
path = Path(sys.argv[1])
manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
ledger.create(manager, "a")
manager.begin_task("a", "t")
with limited(resource.RLIMIT_FSIZE, 0):  # each write fails, as where a disk was taken out of use
    for verb in (
        lambda: ledger.add(manager, "a"),
        lambda: manager.end_task("a", "t"),
        lambda: manager.terminate("a"),
        lambda: manager.fail("a", "boom"),
        lambda: manager.create("b"),
        lambda: SessionManager(f"sqlite:///{path}").close(),
    ):
        try:
            verb()
            print("done")
        except StoreUnavailableError as fault:
            print(fault.operation_id, str(path) in fault.problem)
    ledger.check(manager)
ledger.add(manager, "a")
ledger.check(manager)
manager.close()
"""
)


def test_faults_readonly_under_an_open_manager(tmp_path: Path) -> None:
    """Where every write fails, each verb says that nothing was changed, and reading goes on."""
    path = tmp_path / "sessions.db"
    with Program(FAILING, path) as program:
        *verbs, opening = program.rest()
    assert verbs == ["None True"] * 5
    assert opening in {"done", "None True"}  # a manager that is opened may have nothing to write
    assert count_of(path, "a") == 1
