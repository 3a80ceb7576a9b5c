"""A process that may open no more files: told, nothing lost, and work goes on afterwards."""

from pathlib import Path

from faulty import PREAMBLE, count_of
from processes import Program

EXHAUSTED = (
    PREAMBLE
    + """
path = Path(sys.argv[1])


def told(verb):
    try:
        verb()
        print("done")
    except StoreUnavailableError as fault:
        print(fault.operation_id, path.name in fault.problem)


manager, ledger = SessionManager(f"sqlite:///{path}"), Ledger()
with no_descriptors():  # before anything was read: each reader needs a descriptor of its own
    told(lambda: manager.get("a"))
    told(lambda: manager.create("b"))
    told(lambda: SessionManager(f"sqlite:///{path}"))
    told(lambda: SessionManager(f"sqlite:///{path.parent}/new-{path.name}"))
print((path.parent / f"new-{path.name}").exists())
ledger.create(manager, "a")
ledger.check(manager)
manager.begin_task("a", "t")
with no_descriptors():  # what is open is enough to go on with
    ledger.add(manager, "a")
    told(lambda: SessionManager(f"sqlite:///{path}"))
    print(manager.recover().dropped_tasks)
    ledger.add(manager, "a")
manager.end_task("a", "t")
ledger.check(manager)
manager.close()
"""
)


def test_faults_descriptors_used_up(tmp_path: Path) -> None:
    """Who needs another file is told so and changes nothing; nobody is taken for dead by it."""
    path = tmp_path / "sessions.db"
    with Program(EXHAUSTED, path) as program:
        assert program.rest() == [
            *["None True"] * 4,
            "False",
            "None True",
            "()",
        ]
    assert count_of(path, "a") == 2


OTHERS = (
    PREAMBLE
    + """
path = Path(sys.argv[1])
manager = SessionManager(f"sqlite:///{path}")
manager.create("mine")
print("open", flush=True)
input()
manager.get("mine")
with no_descriptors():
    print(manager.recover().dropped_tasks)
print(manager.recover().dropped_tasks)
manager.close()
"""
)


def test_faults_descriptors_leave_other_owners_alone(tmp_path: Path) -> None:
    """An owner whose lock can't be looked at lives, for all that is known."""
    path = tmp_path / "sessions.db"
    owner = (
        PREAMBLE
        + """
manager = SessionManager(f"sqlite:///{sys.argv[1]}")
manager.create("theirs")
manager.begin_task("theirs", "t")
print("working", flush=True)
input()
"""
    )
    with Program(OTHERS, path) as program, Program(owner, path) as other:
        assert program.hear() == "open"
        assert other.hear() == "working"
        other.kill()
        program.say()
        assert program.rest() == ["()", "('t',)"]
