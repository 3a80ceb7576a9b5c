"""What a store knows of its file: which one it is, and whose."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from session_fsm import StoreUnavailableError
from session_fsm.stores import sqlite_file
from session_fsm.stores.sqlite_file import (
    FileIdentity,
    FileKey,
    check_not_inherited,
    file_key,
    mark_closed,
    mark_open,
)

PARTS = ("", "-wal", "-shm")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a log and an index beside it."""
    path = tmp_path / "file"
    for suffix in PARTS:
        path.with_name(f"file{suffix}").write_text("1")
    return path


def test_sqlite_file_stays_itself(path: Path) -> None:
    """A file that was written, or has another mode, is the same one."""
    identity = FileIdentity(path)
    path.write_text("2")
    path.chmod(0o400)
    identity.check()
    identity.check_file()
    assert identity.key == file_key(path) == (path.stat().st_dev, path.stat().st_ino)


@pytest.mark.parametrize("suffix", PARTS, ids=["file", "log", "index"])
@pytest.mark.parametrize("fault", ["gone", "replaced"])
def test_sqlite_file_notes_what_happened(path: Path, suffix: str, fault: str) -> None:
    """Each of the three is missed by its name; who reads misses the file alone."""
    identity = FileIdentity(path)
    part = path.with_name(f"file{suffix}")
    held = part.rename(path.with_name("held"))
    if fault == "replaced":
        part.write_text("another")
    with pytest.raises(StoreUnavailableError) as caught:
        identity.check()
    assert caught.value.problem.startswith(str(part))
    assert caught.value.operation_id is None
    words = "can't be found any longer" if fault == "gone" else "another file"
    assert words in caught.value.problem
    if suffix:
        identity.check_file()
    else:
        with pytest.raises(StoreUnavailableError, match=words):
            identity.check_file()
    held.replace(part)
    identity.check()


@pytest.mark.parametrize("suffix", PARTS, ids=["file", "log", "index"])
def test_sqlite_file_has_three_parts(path: Path, suffix: str) -> None:
    """What has no log yet has no identity either."""
    path.with_name(f"file{suffix}").unlink()
    with pytest.raises(StoreUnavailableError):
        FileIdentity(path)


def test_sqlite_file_behind_a_link(path: Path, tmp_path: Path) -> None:
    """The log is beside the file itself; a link that leads elsewhere is another file."""
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    identity = FileIdentity(link)
    identity.check()
    link.unlink()
    link.symlink_to(path.with_name("file-wal"))
    with pytest.raises(StoreUnavailableError, match="another file"):
        identity.check()


def test_sqlite_file_by_a_relative_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of directory changes no file."""
    monkeypatch.chdir(path.parent)
    identity = FileIdentity(Path(path.name))
    monkeypatch.chdir("/")
    identity.check()


@pytest.mark.parametrize("suffix", PARTS, ids=["file", "log", "index"])
@pytest.mark.parametrize("seconds", [0, 1], ids=["at once", "later"])
def test_sqlite_file_is_missed_whenever_it_goes(
    path: Path, suffix: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking at the directory alone, once that is enough, misses no file."""
    now = 0.0
    monkeypatch.setattr("session_fsm.stores.sqlite_file.time.monotonic", lambda: now)
    identity = FileIdentity(path)
    looked: list[str] = []
    key_of = sqlite_file._key_of

    def look(name: str) -> tuple[int, int]:
        looked.append(name)
        return key_of(name)

    monkeypatch.setattr(sqlite_file, "_key_of", look)
    identity.check()
    assert len(looked) == 3
    now += seconds
    identity.check()
    assert len(looked) == (3 if seconds else 6)
    path.with_name(f"file{suffix}").rename(path.with_name("held"))
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="can't be found any longer"):
            identity.check()
    path.with_name("held").rename(path.with_name(f"file{suffix}"))
    identity.check()


# --- forks --------------------------------------------------------------------------------------


class Held:
    """Something that has a file open, and notes in which process it was disowned."""

    def __init__(self, key: FileKey) -> None:
        self.key, self.disowned_in = key, 0

    def disown(self) -> Iterable[FileKey]:
        """Note it."""
        self.disowned_in = os.getpid()
        return [self.key]


def in_child(check: Callable[[], bool]) -> bool:
    """Return what a check finds in a child by fork."""
    if not (child := os.fork()):
        found = False
        try:
            found = check()
        finally:
            os._exit(0 if found else 1)
    return os.waitpid(child, 0)[1] == 0


def is_refused(path: Path) -> bool:
    """Tell whether a file is refused in this process."""
    try:
        check_not_inherited(path, file_key(path))
    except StoreUnavailableError as fault:
        return "fork" in fault.problem and str(path) in fault.problem
    return False


def test_sqlite_file_is_refused_in_a_child(path: Path) -> None:
    """What is open is disowned in each child, and its file refused there and in theirs alone."""
    held = Held(file_key(path))
    mark_open(held)
    assert not is_refused(path)
    assert in_child(lambda: held.disowned_in == os.getpid() and is_refused(path))
    assert in_child(lambda: in_child(lambda: is_refused(path)))
    assert not in_child(lambda: is_refused(path.with_name("file-wal")))
    assert held.disowned_in == 0
    assert not is_refused(path)
    mark_closed(held)
    assert not in_child(lambda: is_refused(path))


def test_sqlite_file_that_was_forgotten_is_not_refused(path: Path) -> None:
    """What nobody holds any longer is not inherited."""
    held = Held(file_key(path))
    mark_open(held)
    del held
    assert not in_child(lambda: is_refused(path))
