"""Files that older versions wrote are brought to the present format, and lose nothing by it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commanding import call
from encrypting import managed
from format_file import items_of, told_of
from killing import killed_copies

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    KeyMissingError,
    SchemaVersionError,
    StoreUnavailableError,
    VerifyReport,
)
from session_fsm.stores import SqliteStore, upgrade_store
from session_fsm.stores.records import UpgradeReport
from session_fsm.stores.sqlite_schema import SCHEMA_VERSION
from session_fsm.stores.sqlite_upgrade import upgrade_file

FORMATS = Path(__file__).parent / "data" / "formats"
PRESENT = FORMATS / f"schema-{SCHEMA_VERSION}.db"
OLD = sorted(set(FORMATS.glob("schema-*.db")) - {PRESENT})
OTHER = SESSION_LIFECYCLE.extend(name="other")


@pytest.fixture(params=OLD, ids=[path.stem for path in OLD])
def golden(request: pytest.FixtureRequest) -> Path:
    """A file of each older format, as it was written."""
    path: Path = request.param
    return path


@pytest.fixture
def path(golden: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(golden, tmp_path / "sessions.db"))


def check(path: Path, golden: Path) -> None:
    """See that an upgraded file tells all that the older code told of it, and is in order."""
    upgrade_file(path, OTHER)
    expected = json.loads(golden.with_suffix(".json").read_text())
    if golden.stem == "schema-1":
        check_first(path, expected)
        expected = expected["sessions"]
    with managed(path) as manager:
        assert told_of(manager.store) == expected
        assert items_of(manager.store) == {}
        report = manager.verify()
        assert report.ok, report.problems
        assert report.locked == 0


def check_first(path: Path, expected: dict[str, Any]) -> None:
    """See what the code of the first version told beside its sessions."""
    with closing(SqliteStore(path)) as store, closing(SqliteStore(path, OTHER)) as other:
        assert told_of(other) == expected["other"]
        assert {key: n for key, n in store.counts().items() if n} == {
            key: n for key, n in expected["counts"].items() if n
        }
        found = {each: store.work_in(each) for each in expected["sessions"]}
        work = {each: sorted([one.kind, one.item] for one in made) for each, made in found.items()}
        assert {each: made for each, made in work.items() if made} == expected["work"]
        assert store.mark("feed") == b"\x00\x01position"
        assert store.check() == other.check() == ()


def test_upgrade_keeps_everything(path: Path, golden: Path) -> None:
    """After the upgrade every state, digest and event is what the older code told, to the byte."""
    found = int(golden.stem.removeprefix("schema-"))
    report = upgrade_store(f"sqlite:///{path}")
    assert report == UpgradeReport(found=found, version=SCHEMA_VERSION, sessions=7, renewed=True)
    check(path, golden)


def test_upgrade_twice_does_nothing(path: Path, golden: Path) -> None:
    """A file of the present version is left as it is, to the byte."""
    upgrade_file(path)
    upgrade_file(path, OTHER)
    before = path.read_bytes()
    report = upgrade_file(path)
    assert (report.found, report.version) == (SCHEMA_VERSION, SCHEMA_VERSION)
    assert path.read_bytes() == before
    check(path, golden)


def test_upgrade_is_asked_for(path: Path, golden: Path) -> None:
    """A file of an older version is refused, untouched, by an error that says what to do."""
    before = path.read_bytes()
    with pytest.raises(SchemaVersionError, match="session-fsm upgrade"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert golden.read_bytes() == before


def test_upgrade_goes_on_where_life_stopped(path: Path, golden: Path) -> None:
    """What the upgraded file holds can be recovered, moved, ended, and used for new sessions."""
    upgrade_file(path)
    session_id = "active" if golden.stem == "schema-1" else "plain"
    with managed(path) as manager:
        manager.recover()
        manager.touch(session_id)
        manager.table(session_id, "files").put("k", [1])
        assert manager.terminate(session_id).status == "terminated"
        manager.create("new")
        assert manager.history("again")[0].kind == "purged"
        assert manager.table(session_id, "files").get("k") == [1]
        assert manager.verify().ok


UPGRADING = """
    from session_fsm.stores.sqlite_upgrade import upgrade_file as act
"""


def test_upgrade_killed_anywhere_can_be_done_again(golden: Path, tmp_path: Path) -> None:
    """Killed before any statement, a file has one version or the other; then it is upgraded."""
    left = killed_copies(UPGRADING, golden, tmp_path / "killed")
    assert len(left) > 30
    for path in left:
        with closing(sqlite3.connect(path)) as connection:
            [version] = connection.execute("PRAGMA user_version").fetchone()
            assert version in {int(golden.stem.removeprefix("schema-")), SCHEMA_VERSION}
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for path in (left[0], left[len(left) // 2], left[-3], left[-1]):
        upgrade_file(path)
        check(path, golden)


def test_upgrade_is_not_needed_for_the_present_format(tmp_path: Path) -> None:
    """What the present format has, encrypted and compacted too, is read as it was written."""
    path = Path(shutil.copy(PRESENT, tmp_path / "sessions.db"))
    report = upgrade_file(path)
    assert (report.found, report.version) == (SCHEMA_VERSION, SCHEMA_VERSION)
    expected = json.loads(PRESENT.with_suffix(".json").read_text())
    with managed(path) as manager:
        assert told_of(manager.store) == expected["sessions"]
        assert items_of(manager.store) == expected["items"]
        assert manager.verify() == VerifyReport(ok=True, problems=(), sessions=8, events=26)
    with managed(path, None) as manager:
        assert manager.verify().locked == 5
        assert manager.table("plain", "files").get("k5") == "é"
        with pytest.raises(KeyMissingError):
            manager.table("secret", "files").get("k5")


def test_upgrade_waits_for_a_writer(path: Path) -> None:
    """While somebody writes, an upgrade waits as long as it may, and changes nothing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            upgrade_file(path, busy_timeout_seconds=0.01)
        other.execute("ROLLBACK")
    assert upgrade_file(path).version == SCHEMA_VERSION


def test_upgrade_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """Newer files, foreign files, rubbish and no file are told apart, and left as they are."""
    newer = tmp_path / "newer.db"
    SqliteStore(newer).close()
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (a)")
    rubbish = tmp_path / "rubbish.db"
    rubbish.write_bytes(b"rubbish" * 1000)
    before = {each: each.read_bytes() for each in (newer, foreign, rubbish)}
    with pytest.raises(SchemaVersionError, match="99 of a session store"):
        upgrade_file(newer)
    with pytest.raises(SchemaVersionError, match="another application"):
        upgrade_file(foreign)
    with pytest.raises(CorruptRecordError):
        upgrade_file(rubbish)
    with pytest.raises(StoreUnavailableError, match="there is no file"):
        upgrade_file(tmp_path / "nowhere.db")
    with pytest.raises(ValueError, match="name a sqlite:/// file"):
        upgrade_store("memory://")
    assert {each: each.read_bytes() for each in before} == before


def test_upgrade_by_command(path: Path, golden: Path) -> None:
    """The command says what it did; a second time, that nothing was to do."""
    url = f"sqlite:///{path}"
    old, new = golden.stem.removeprefix("schema-"), SCHEMA_VERSION
    refused = call("list", "--store", url)
    assert refused.code == 1
    assert "session-fsm upgrade" in refused.err
    assert call("upgrade", "--store", url).out == (
        "the rows of the lifecycle have changed, and are known anew\n"
        f"upgraded from version {old} to {new}: 7 sessions\n"
    )
    nothing = f"nothing to do: version {new} already, 7 sessions\n"
    assert call("upgrade", "--store", url).out == nothing
    told = json.loads(call("upgrade", "--store", url, "--json").out)
    assert told == {"found": new, "version": new, "sessions": 7, "renewed": False}
    assert call("counts", "--store", url).code == 0
    assert call("upgrade", "--store", f"{url}.missing").code == 1
    assert call("upgrade", "--store", "memory://").code == 2
