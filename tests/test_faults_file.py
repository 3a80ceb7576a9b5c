"""A file that goes away or is replaced under an open manager, and what lies beside it wrongly."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from faulty import Ledger, copied, count_of

from session_fsm import SessionManager, StoreUnavailableError
from session_fsm.stores import SqliteStore
from session_fsm.stores.sqlite_file import FileIdentity

PARTS = ("", "-wal", "-shm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "sessions.db"


@pytest.fixture
def ledger() -> Ledger:
    """What was acknowledged."""
    return Ledger()


@pytest.fixture
def manager(path: Path, ledger: Ledger) -> Iterator[SessionManager]:
    """A manager with something in its file, and in its log."""
    with SessionManager(f"sqlite:///{path}") as manager:
        ledger.create(manager, "a")
        ledger.add(manager, "a")
        yield manager


def part(path: Path, suffix: str) -> Path:
    """The file, its log or its index."""
    return path.with_name(f"{path.name}{suffix}")


def put_aside(path: Path, *suffixes: str) -> Callable[[], None]:
    """Move parts of a store away; returns what puts them back."""
    aside = path.parent / "aside"
    aside.mkdir()
    for suffix in suffixes:
        part(path, suffix).rename(aside / f"part{suffix}")

    def put_back() -> None:
        for suffix in suffixes:
            (aside / f"part{suffix}").replace(part(path, suffix))

    return put_back


VERBS: dict[str, Callable[[SessionManager], object]] = {
    "update": lambda manager: manager.update("a", metadata={"count": 9}),
    "create": lambda manager: manager.create("b"),
    "terminate": lambda manager: manager.terminate("a"),
    "get": lambda manager: manager.get("a"),
    "list": lambda manager: manager.list(),
    "history": lambda manager: manager.history("a"),
    "verify": lambda manager: manager.verify(),
    "sweep": lambda manager: manager.sweep(),
}


def refused(manager: SessionManager, *verbs: str) -> set[str]:
    """Return what verbs say, each of which must refuse and know that it changed nothing."""
    problems = set()
    for verb in verbs or VERBS:
        with pytest.raises(StoreUnavailableError) as caught:
            VERBS[verb](manager)
        assert caught.value.operation_id is None
        problems.add(caught.value.problem)
    return problems


def test_faults_file_removed(manager: SessionManager, path: Path, ledger: Ledger) -> None:
    """Nothing is acknowledged, nor read, in a file that nobody can open; put back, it goes on."""
    put_back = put_aside(path, *PARTS)
    [problem] = refused(manager)
    assert str(path) in problem
    assert "can't be found" in problem
    assert not path.exists()  # nobody made an empty one meanwhile
    put_back()
    ledger.add(manager, "a")
    ledger.check(manager)
    manager.close()
    assert count_of(path, "a") == 2


def test_faults_file_removed_for_good(manager: SessionManager, path: Path) -> None:
    """Whoever opens the name of a file that is gone begins anew, beside the old manager."""
    for suffix in PARTS:
        part(path, suffix).unlink()
    refused(manager)
    with SessionManager(f"sqlite:///{path}") as anew:
        anew.create("c", metadata={"count": 0})
        refused(manager)
        manager.close()
        anew.update("c", metadata={"count": 1})
    assert count_of(path, "c") == 1


def test_faults_file_replaced_by_another_store(
    manager: SessionManager, path: Path, ledger: Ledger
) -> None:
    """A manager touches neither the store that took the place of its own, nor the log of that."""
    put_back = put_aside(path, *PARTS)
    other = Ledger()
    with SessionManager(f"sqlite:///{path}") as owner:
        other.create(owner, "a")
        [problem] = refused(manager)
        assert "another file" in problem
        for count in range(3):
            other.add(owner, "a", ballast=count)
        killed = copied(path, path.parent / "copy")
        assert count_of(killed, "a") == 3  # all of it still in the log that is beside it
    put_back()
    ledger.add(manager, "a")
    ledger.check(manager)


def test_faults_file_replaced_and_closed(manager: SessionManager, path: Path) -> None:
    """The end of a manager whose file was replaced leaves the log of the new one alone."""
    put_aside(path, *PARTS)
    with SessionManager(f"sqlite:///{path}") as owner:
        owner.create("a", metadata={"count": 5})
        manager.close()
        assert part(path, "-wal").stat().st_size > 0
        assert count_of(copied(path, path.parent / "copy"), "a") == 5


@pytest.mark.parametrize("content", [b"", b"a shopping list\n" * 1000], ids=["empty", "text"])
def test_faults_file_replaced_by_a_foreign_one(
    manager: SessionManager, path: Path, ledger: Ledger, content: bytes
) -> None:
    """A foreign file in the place of the store is not written, nor taken for the store."""
    put_back = put_aside(path, "")
    path.write_bytes(content)
    [problem] = refused(manager)
    assert "another file" in problem
    assert path.read_bytes() == content
    put_back()
    ledger.add(manager, "a")
    ledger.check(manager)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_faults_file_without_its_log(
    manager: SessionManager, path: Path, ledger: Ledger, suffix: str
) -> None:
    """Without its log, or the index of it, others would not see what is written: it is refused."""
    put_back = put_aside(path, suffix)
    [problem] = refused(manager, "update", "create", "terminate")
    assert problem.startswith(str(part(path, suffix)))
    put_back()
    ledger.add(manager, "a")
    ledger.check(manager)
    manager.close()
    assert count_of(path, "a") == 2


def test_faults_file_replaced_during_a_transaction(
    manager: SessionManager, path: Path, ledger: Ledger
) -> None:
    """A transaction that began in the file is undone if the file is gone where it ends."""
    put_backs: list[Callable[[], None]] = []

    def gone_meanwhile() -> None:
        with manager.batch():
            manager.update("a", metadata={"count": 2})
            put_backs.append(put_aside(path, *PARTS))

    with pytest.raises(StoreUnavailableError) as caught:
        gone_meanwhile()
    assert caught.value.operation_id is None
    put_backs[0]()
    ledger.check(manager)
    ledger.add(manager, "a")
    ledger.check(manager)


def test_faults_file_removed_as_the_commit_is_made(path: Path, ledger: Ledger) -> None:
    """A change that was committed in a file that went that instant is told of as of unknown fate.

    Put back, the store knows by the id of the operation that it landed.
    """
    with SessionManager(f"sqlite:///{path}") as manager:
        ledger.create(manager, "a")
        store = manager.store
        assert isinstance(store, SqliteStore)
        identity = Vanishing(store._connections._identity, lambda: put_aside(path, *PARTS))
        store._connections._identity = cast(FileIdentity, identity)
        with pytest.raises(StoreUnavailableError) as caught:
            ledger.add(manager, "a")
        assert caught.value.operation_id is not None
        assert identity.put_back is not None
        identity.put_back()
        assert store.landed("a", caught.value.operation_id)
        ledger.counts["a"] += 1
        ledger.check(manager)
        ledger.add(manager, "a")
        ledger.check(manager)


class Vanishing:
    """The identity of a file that goes away after the last look before the commit."""

    def __init__(self, identity: FileIdentity | None, go: Callable[[], Callable[[], None]]) -> None:
        assert identity is not None
        self._identity, self._go = identity, go
        self.put_back: Callable[[], None] | None = None

    def check(self) -> None:
        """Look, and let it go thereafter, once."""
        self._identity.check()
        if self.put_back is None:
            self.put_back = self._go()

    def check_file(self) -> None:
        """Look."""
        self._identity.check_file()


def test_faults_file_is_the_same_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that changes its directory keeps the store that it opened by a relative path."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    with SessionManager("sqlite:///sessions.db") as manager:
        monkeypatch.chdir(tmp_path / "second")
        ledger = Ledger()
        ledger.create(manager, "a")
        ledger.add(manager, "a")
        ledger.check(manager)
    assert list((tmp_path / "second").iterdir()) == []
    assert count_of(tmp_path / "first" / "sessions.db", "a") == 1


def test_faults_file_behind_a_link_that_is_led_elsewhere(tmp_path: Path) -> None:
    """A link that leads to another store is a file that was replaced."""
    for name in ("one", "two"):
        with SessionManager(f"sqlite:///{tmp_path}/{name}.db") as each:
            each.create("a", metadata={"name": name})
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "one.db")
    with SessionManager(f"sqlite:///{link}") as manager:
        manager.update("a", metadata={"name": "one", "count": 1})
        link.unlink()
        link.symlink_to(tmp_path / "two.db")
        refused(manager)
        link.unlink()
        link.symlink_to(tmp_path / "one.db")
        assert manager.update("a", metadata={"name": "one"}).revision == 4
    with SessionManager(f"sqlite:///{tmp_path}/two.db") as other:
        assert other.get("a").revision == 2
