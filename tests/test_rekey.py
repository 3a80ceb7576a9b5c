"""A new key of the user's: the keys of sessions are wrapped anew, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from encrypting import (
    BOTH,
    KEY,
    METADATA,
    OTHER_KEY,
    OTHER_RING,
    RING,
    START,
    THIRD_KEY,
    files_with,
    key_rows,
    managed,
    raw,
    rows,
)
from killing import killed_copies
from processes import Program

from session_fsm import SESSION_LIFECYCLE, KeyMissingError, Keyring
from session_fsm.keys import WrappedKey
from session_fsm.stores import SqliteStore
from session_fsm.stores.sqlite_keys import RekeyReport
from session_fsm.testing import ManualClock
from session_fsm.testing.authors import Author


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file with four encrypted sessions."""
    path = tmp_path / "sessions.db"
    with managed(path) as manager:
        for session_id in ("a", "b", "c", "d"):
            manager.create(session_id, metadata=METADATA)
    return path


def rekeyed(path: Path, keyring: Keyring | None = BOTH) -> RekeyReport:
    """Have the keys of a file wrapped anew."""
    with closing(SqliteStore(path, keyring=keyring)) as store:
        return store.rekey()


def test_rekey_lets_the_new_key_alone_read(written: Path) -> None:
    """Afterwards the new key reads everything, the old one nothing, and no event has changed."""
    everything = "SELECT * FROM session", "SELECT * FROM session_event"
    before = [rows(written, query) for query in everything]
    old = key_rows(written)
    assert rekeyed(written) == RekeyReport(rewrapped=4)
    assert [rows(written, query) for query in everything] == before
    new = key_rows(written)
    assert {key_id for key_id, _ in new.values()} == {OTHER_RING.key_id}
    assert len({data for _, data in (*old.values(), *new.values())}) == 8
    with managed(written, OTHER_RING) as manager:
        assert [session.state.metadata for session in manager.list()] == [METADATA] * 4
        report = manager.verify()
        assert (report.ok, report.sessions, report.locked) == (True, 4, 0)
    with managed(written, RING) as manager, pytest.raises(KeyMissingError) as caught:
        manager.get("a")
    assert caught.value.key_id == OTHER_RING.key_id
    for _, data in old.values():
        assert files_with(written.parent, data) == set()


def test_rekey_twice_does_nothing(written: Path) -> None:
    """What the current key wraps is left as it is, to the byte."""
    rekeyed(written)
    before = key_rows(written)
    assert rekeyed(written) == RekeyReport(rewrapped=0)
    assert rekeyed(written, OTHER_RING) == RekeyReport(rewrapped=0)
    assert key_rows(written) == before


def test_rekey_leaves_what_it_has_no_key_for(written: Path) -> None:
    """Sessions whose key can't be unwrapped are named with the cause; the others are done."""
    with managed(written, Keyring(THIRD_KEY)) as manager:
        manager.create("e", metadata=METADATA)
    with raw(written) as connection:
        connection.execute("UPDATE session_key SET wrapped = x'01' WHERE session_id = 'b'")
    before = key_rows(written)
    report = rekeyed(written)
    assert report.rewrapped == 3
    assert [session_id for session_id, _ in report.failed] == ["b", "e"]
    assert "can't be read" in report.failed[0][1]
    assert Keyring(THIRD_KEY).key_id in report.failed[1][1]
    after = key_rows(written)
    assert {each: after[each] for each in ("b", "e")} == {each: before[each] for each in ("b", "e")}
    assert {after[each][0] for each in ("a", "c", "d")} == {OTHER_RING.key_id}


def test_rekey_takes_in_other_lifecycles(written: Path) -> None:
    """The keys of all sessions of a file are wrapped anew, whatever lifecycle they run in."""
    other = SESSION_LIFECYCLE.extend(name="other")
    with closing(SqliteStore(written, other, keyring=RING)) as store:
        Author(store).write("theirs", metadata=METADATA)
    assert rekeyed(written).rewrapped == 5


def test_rekey_needs_a_keyring(written: Path) -> None:
    """A store that was opened without a keyring says so."""
    with pytest.raises(ValueError, match="opened without a keyring"):
        rekeyed(written, None)


class Watched(Keyring):
    """A keyring that lets a test in between the reading of a key and its writing."""

    __slots__ = ("between",)
    between: Callable[[str], object]

    def rewrap(self, session_id: str, wrapped: WrappedKey) -> WrappedKey:
        """Return the key of a session, wrapped by the current key, once the test was let in."""
        self.between(session_id)
        return super().rewrap(session_id, wrapped)


def test_rekey_gives_back_no_key_that_is_gone(written: Path) -> None:
    """A session that is purged meanwhile stays without a key; one in its place keeps its own."""
    clock = ManualClock(START)
    keyring = Watched(OTHER_KEY, former=[KEY])

    with managed(written, clock=clock) as manager:

        def between(session_id: str) -> None:
            if session_id in ("b", "c"):
                manager.fail(session_id, "cause")
                clock.advance(1)
                manager.purge(ended_before=clock.now())
            if session_id == "c":
                manager.create("c", metadata={"life": 2})
                between_keys.update(key_rows(written))

        between_keys: dict[str, tuple[str, bytes]] = {}
        keyring.between = between
        assert rekeyed(written, keyring) == RekeyReport(rewrapped=2)
        assert set(key_rows(written)) == {"a", "c", "d"}
        assert key_rows(written)["c"] == between_keys["c"]
        # Who has the old key alone made one more session with it: it is found the next time.
        assert rekeyed(written) == RekeyReport(rewrapped=1)
    with managed(written, OTHER_RING) as manager:
        assert manager.get("c").state.metadata == {"life": 2}
        assert manager.verify().ok


WRITING = """
    import sys
    from pathlib import Path

    sys.path.insert(0, "tests")
    from encrypting import BOTH, managed
    from session_fsm.testing import ManualClock

    with managed(Path(sys.argv[1]), BOTH) as manager:
        print("begun", flush=True)
        for number in range(300):
            for session_id in ("a", "b", "c", "d"):
                manager.update(session_id, metadata={"number": number})
        print("ended", flush=True)
"""


def test_rekey_lets_others_go_on(written: Path) -> None:
    """While another process writes all sessions, keys go to and fro; no change is lost."""
    keyrings = (BOTH, Keyring(KEY, former=[OTHER_KEY]))
    turns = 0
    with Program(WRITING, written) as other:
        assert other.hear() == "begun"
        for turn in range(100):
            turns += rekeyed(written, keyrings[turn % 2]).rewrapped
        assert other.rest() == ["ended"]
    assert turns == 400
    rekeyed(written)
    with managed(written, OTHER_RING) as manager:
        assert [each.state.metadata for each in manager.list()] == [{"number": 299}] * 4
        assert {each.revision for each in manager.list()} == {302}
        assert manager.verify().ok


REKEYING = """
    from contextlib import closing
    from encrypting import BOTH
    from session_fsm.stores import SqliteStore, sqlite_keys

    sqlite_keys.REKEY_SIZE = 1  # a transaction for each

    def act(path):
        with closing(SqliteStore(path, keyring=BOTH)) as store:
            store.rekey()
"""


def test_rekey_killed_anywhere_can_be_done_again(written: Path, tmp_path: Path) -> None:
    """Killed before any statement: every session can be read with both keys, and it goes on."""
    left_over = killed_copies(REKEYING, written, tmp_path / "killed")
    assert len(left_over) > 40
    events = rows(written, "SELECT * FROM session_event")
    found = set()
    for path in left_over:
        wrapped = [key_id for key_id, _ in key_rows(path).values()]
        found.add(wrapped.count(OTHER_RING.key_id))
        with managed(path, BOTH) as manager:
            assert [each.state.metadata for each in manager.list()] == [METADATA] * 4
        left = wrapped.count(RING.key_id)
        assert rekeyed(path) == RekeyReport(rewrapped=left)
        with managed(path, OTHER_RING) as manager:
            report = manager.verify()
            assert (report.ok, report.sessions) == (True, 4)
        assert rows(path, "SELECT * FROM session_event") == events
    assert found == {0, 1, 2, 3, 4}
