"""The encrypted store: the same answers as any other, and nothing to read without the key."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from encrypting import (
    BOTH,
    KEY,
    LLM_CONFIG,
    METADATA,
    OTHER_RING,
    RING,
    START,
    files_with,
    key_rows,
    managed,
    raw,
    rows,
    write_two,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import killed_copies
from processes import ROOT

from session_fsm import (
    KeyMissingError,
    Keyring,
    RevisionConflictError,
    Session,
    SessionEvent,
    SessionExistsError,
    SessionManager,
    open_store,
)
from session_fsm.history import chained
from session_fsm.stores import MemoryStore, SessionStore, SqliteStore, sqlite_keys, upgrade_store
from session_fsm.stores.spanning import SpanningStore
from session_fsm.testing import ManualClock, StoreContract, json_objects
from session_fsm.testing.authors import Author


class TestEncryptedStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SessionStore]:
        """A new store in a new file, with a keyring."""
        store = SqliteStore(tmp_path / "sessions.db", keyring=RING)
        yield store
        store.close()


class TestSpanningEncryptedStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SessionStore]:
        """The same, with memory beside it."""
        main = SqliteStore(tmp_path / "sessions.db", keyring=RING)
        store = SpanningStore(main)
        yield store
        store.close()
        main.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "sessions.db"


@pytest.fixture
def written(path: Path) -> Path:
    """A file with two encrypted sessions; see `write_two`."""
    return write_two(path)


# --- what comes back -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths of files that are not there yet, one after the other."""
    root = tmp_path_factory.mktemp("encrypted")
    return iter(root / f"{number}.db" for number in range(1_000_000))


@settings(max_examples=40)
@given(
    values=st.lists(
        st.tuples(json_objects(max_leaves=6), json_objects(max_leaves=6)), min_size=2, max_size=3
    )
)
def test_encrypted_store_tells_what_a_plain_one_tells(
    directory: Iterator[Path], values: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """Whatever was stored, states and events come back as from memory, and are proven."""
    path = next(directory)
    told = []
    for store in (MemoryStore(), SqliteStore(path, keyring=RING)):
        with closing(store), SessionManager(store, clock=ManualClock(START)) as manager:
            first, *others = values
            manager.create("a", llm_config=first[0], metadata=first[1])
            for llm_config, metadata in others:
                manager.update("a", llm_config=llm_config, metadata=metadata)
            changes = [json.dumps(event.changes) for event in manager.history("a")]
            state = manager.get("a").state
            assert manager.verify().ok
            told.append((json.dumps([state.llm_config, state.metadata]), changes))
    assert told[0] == told[1]


def test_encrypted_store_digests_cover_what_is_stored(path: Path) -> None:
    """Subscribers get plain changes, with the digest of the encrypted bytes in the file."""
    told: list[SessionEvent] = []
    with managed(path) as manager:
        manager.subscribe(told.append)
        manager.create("a", metadata=METADATA)
        manager.update("a", metadata={"user": "eve"})
        assert tuple(told) == manager.history("a")
    assert [dict(event.changes).get("metadata") for event in told] == [
        METADATA,
        None,
        {"user": "eve"},
    ]
    digest = ""
    stored = rows(path, "SELECT body, digest FROM session_event ORDER BY revision")
    for (body, kept), event in zip(stored, told, strict=True):
        digest = chained(digest, body)
        assert digest == kept == event.digest
        assert b"eve" not in body


def test_encrypted_store_each_value_has_its_own_nonce(path: Path) -> None:
    """The same value, stored in many places, is another ciphertext in each."""
    with managed(path) as manager:
        for session_id in ("a", "b"):
            manager.create(session_id, llm_config={"x": 1}, metadata={"x": 1})
            manager.touch(session_id)
    documents = [json.loads(state) for (state,) in rows(path, "SELECT state FROM session")]
    documents += [json.loads(body) for (body,) in rows(path, "SELECT body FROM session_event")]
    covered = [each["encrypted"] for each in documents if "encrypted" in each]
    texts = [text for each in covered for text in each["fields"].values()]
    assert len(texts) == len(set(texts)) == 8
    assert len({text[:16] for text in texts}) == 8
    assert {each["format"] for each in covered} == {1}


def test_encrypted_store_keeps_what_becomes_of_a_session(path: Path) -> None:
    """States and events of format 3 are encrypted like others, and read back as they were."""
    with managed(path) as manager:
        manager.create("a", metadata=METADATA, config={"recovery": "restart"})
        manager.begin_task("a", "t", timeout_seconds=60)
        manager.update("a", metadata=METADATA, config={"recovery": "end"})
        manager.compact("a", keep=1)
        before = manager.get("a")
    with managed(path) as manager:
        assert manager.get("a").state == before.state
        assert before.state.config.recovery == "end"
        assert manager.verify().ok
    [(state,)] = rows(path, "SELECT state FROM session")
    checkpoint = rows(path, "SELECT body FROM session_checkpoint")
    last = rows(path, "SELECT body FROM session_event")
    told = [json.loads(text) for text in (state, *(body for (body,) in checkpoint + last))]
    assert [each["format"] for each in told] == [3, 3, 3]
    assert ["encrypted" in each for each in told] == [True, True, False]


def test_encrypted_store_members_of_that_name_are_values(path: Path) -> None:
    """Values that look like what the store writes for encrypted ones are values."""
    like = {"encrypted": {"format": 1, "fields": {"metadata": "AAAA"}}}
    for keyring in (None, RING):
        with managed(path, keyring) as manager:
            name = repr(keyring)
            manager.create(name, llm_config=like, metadata=like)
            assert manager.get(name).state.metadata == like
            assert manager.history(name)[0].changes["llm_config"] == like
            assert manager.verify().ok


# --- without the key ---------------------------------------------------------------------------


READING: list[Callable[[SessionManager], object]] = [
    lambda manager: manager.get("a"),
    lambda manager: manager.find("a"),
    lambda manager: manager.list(),
    lambda manager: manager.history("a"),
    lambda manager: manager.explain("a", "touch"),
    lambda manager: manager.permitted("a"),
    lambda manager: manager.update("a", metadata={}),
    lambda manager: manager.touch("a"),
    lambda manager: manager.end_task("a", "t"),
    lambda manager: manager.terminate("a", wait=False),
    lambda manager: manager.fail("a", "cause"),
]


@pytest.mark.parametrize("number", range(len(READING)))
@pytest.mark.parametrize("keyring", [None, OTHER_RING], ids=["no key", "another key"])
def test_encrypted_store_needs_the_key(written: Path, number: int, keyring: Keyring | None) -> None:
    """Without the key each verb raises an error that names it, and changes nothing."""
    before = rows(written, "SELECT * FROM session"), rows(written, "SELECT * FROM session_event")
    with managed(written, keyring) as manager, pytest.raises(KeyMissingError) as caught:
        READING[number](manager)
    assert (caught.value.session_id, caught.value.key_id) == ("a", RING.key_id)
    after = rows(written, "SELECT * FROM session"), rows(written, "SELECT * FROM session_event")
    assert before == after


@pytest.mark.parametrize("keyring", [None, OTHER_RING], ids=["no key", "another key"])
def test_encrypted_store_counts_without_the_key(written: Path, keyring: Keyring | None) -> None:
    """What is no secret is told without the key: statuses, traffic, deadlines, ids, work."""
    with managed(written, keyring) as manager:
        assert manager.counts()["active"] == 2
        assert manager.traffic()["begin_task", "active"] == 1
        assert manager.next_deadline() == START + timedelta(minutes=30)
        assert manager.store.ids(10, None) == ("a", "b")
        assert manager.store.work_in("a")[0].item == "t"


@pytest.mark.parametrize("keyring", [None, OTHER_RING], ids=["no key", "another key"])
def test_encrypted_store_upkeep_leaves_what_it_has_no_key_for(
    written: Path, keyring: Keyring | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the key sweep and purge name the sessions, leave them, and see to the others."""
    clock = ManualClock(START)
    with managed(written) as manager:
        manager.end_task("a", "t")
        manager.terminate("a")
    caplog.set_level(logging.CRITICAL)
    with managed(written, keyring, clock=clock) as manager:
        manager.create("c")
        manager.terminate("c")
        manager.create("d")
        clock.advance(3600)
        report = manager.sweep()
        assert {session_id for session_id, _ in report.failed} == {"b"}
        assert RING.key_id in report.failed[0][1]
        assert {event.session_id for event in report.fired} == {"d"}
        assert manager.purge(ended_before=clock.now()) == 1
    assert set(key_rows(written)) == {"a", "b"} | ({"d"} if keyring else set())


@pytest.mark.parametrize("keyring", [None, OTHER_RING], ids=["no key", "another key"])
def test_encrypted_store_chain_is_verified_without_the_key(
    written: Path, keyring: Keyring | None
) -> None:
    """Without the key the chains are checked, what could not be is counted, and faults are told."""
    with managed(written, keyring) as manager:
        report = manager.verify()
        assert (report.ok, report.sessions, report.events, report.locked) == (True, 0, 7, 2)
        manager.create("plain")
        assert manager.verify().sessions == 1
    with raw(written) as connection:
        connection.execute(
            "UPDATE session_event SET digest = 'x' WHERE session_id = 'a' AND revision = 2"
        )
    with managed(written, keyring) as manager:
        report = manager.verify()
        assert not report.ok
        assert "session 'a': revision 2: its digest does not match" in report.problems
        assert report.locked == 2


def test_encrypted_store_is_verified_with_the_key(written: Path) -> None:
    """With the key everything is rebuilt and compared."""
    with managed(written) as manager:
        report = manager.verify()
        assert (report.ok, report.sessions, report.events, report.locked) == (True, 2, 7, 0)


def test_encrypted_store_memory_takes_no_keyring(path: Path) -> None:
    """A store is opened by its URL with a keyring, but for one that writes nothing."""
    with closing(open_store(f"sqlite:///{path}", keyring=RING)) as store:
        Author(store).write("a", metadata=METADATA)
    assert set(key_rows(path)) == {"a"}
    with pytest.raises(ValueError, match="memory:// writes nothing"):
        open_store("memory://", keyring=RING)


# --- what was plain before ---------------------------------------------------------------------


def test_encrypted_store_encrypts_plain_sessions_as_they_change(path: Path) -> None:
    """A plain session is read as it is, and encrypted from its next step on; old events stay."""
    with managed(path, None) as manager:
        manager.create("a", metadata=METADATA)
        manager.create("b", metadata=METADATA)
    old = rows(path, "SELECT body FROM session_event WHERE session_id = 'a' ORDER BY revision")
    with managed(path) as manager:
        assert manager.get("a").state.metadata == METADATA
        assert len(manager.list()) == 2
        assert key_rows(path) == {}
        manager.touch("a")
        manager.update("a", metadata={"user": "eve"})
        assert manager.get("a").state.metadata == {"user": "eve"}
        assert manager.history("a")[0].changes["metadata"] == METADATA
        report = manager.verify()
        assert (report.ok, report.sessions) == (True, 2)
    bodies = rows(path, "SELECT body FROM session_event WHERE session_id = 'a' ORDER BY revision")
    assert bodies[: len(old)] == old
    assert b"ada" in old[0][0]
    assert b"eve" not in bodies[-1][0]
    [(state,)] = rows(path, "SELECT state FROM session WHERE session_id = 'a'")
    assert "eve" not in state
    assert set(key_rows(path)) == {"a"}


def test_encrypted_store_plain_writer_is_overtaken(path: Path) -> None:
    """Whoever has no key, and knew the session when it was plain, can't write it any longer."""
    with managed(path, None) as plain, managed(path) as manager:
        plain.create("a", metadata=METADATA)
        manager.update("a", metadata={"user": "eve"})
        with pytest.raises(KeyMissingError):
            plain.update("a", metadata={"user": "bob"})
        assert manager.get("a").state.metadata == {"user": "eve"}


# --- keys come and go with their sessions ------------------------------------------------------


def ended(manager: SessionManager, session_id: str, **data: Any) -> Session:
    """Create a session and end it."""
    manager.create(session_id, **data)
    return manager.terminate(session_id)


def test_encrypted_store_purge_removes_the_key(path: Path) -> None:
    """Once a session is purged, its key is in no file, and an id used again gets another one."""
    clock = ManualClock(START)
    with managed(path, clock=clock) as manager:
        for session_id in ("a", "b", "c"):
            ended(manager, session_id, metadata=METADATA)
        clock.advance(60)
        manager.create("live")
    before = key_rows(path)
    found = [files_with(path.parent, before[each][1]) for each in ("a", "b", "c")]
    assert found == [{"sessions.db"}] * 3
    with managed(path, clock=clock) as manager:
        store = manager.store
        assert isinstance(store, SqliteStore)
        with store._connections.writing() as writer:  # as most builds of SQLite have it
            writer.execute("PRAGMA secure_delete = OFF")
        assert manager.purge(ended_before=clock.now()) == 3
        assert set(key_rows(path)) == {"live"}
    for each in ("a", "b", "c"):
        assert files_with(path.parent, before[each][1]) == set()
    with managed(path) as manager:
        manager.create("a", metadata=METADATA)
        assert [event.kind for event in manager.history("a")] == ["purged", "created", "moved"]
        assert manager.verify().ok
    assert key_rows(path)["a"] != before["a"]


def test_encrypted_store_removes_the_key_with_the_row(written: Path) -> None:
    """Whoever removes a session by hand removes its key."""
    with managed(written) as manager:
        manager.fail("b", "cause")
    with closing(sqlite3.connect(written, isolation_level=None)) as connection:
        connection.execute("DELETE FROM session WHERE session_id = 'b'")
    assert set(key_rows(written)) == {"a"}


def test_encrypted_store_what_loses_writes_no_key(path: Path) -> None:
    """A commit that is refused, or undone with its batch, leaves no key, nor changes one."""
    with managed(path, None) as plain, managed(path) as manager:
        plain.create("a")
        author = Author(manager.store)
        commit = author.draft("a", "touch")
        creation = author.draft("c")
        plain.touch("a")
        with pytest.raises(RevisionConflictError):
            manager.store.commit(commit)
        manager.create("c")
        kept = key_rows(path)
        with pytest.raises(SessionExistsError):
            manager.store.commit(creation)
        with pytest.raises(ZeroDivisionError), manager.batch():
            manager.create("b")
            manager.touch("a")
            raise ZeroDivisionError
        assert key_rows(path) == kept
        assert set(kept) == {"c"}
        # And what was undone is done again as if it had never been.
        revision = manager.get("a").revision
        manager.update("a", metadata=METADATA, expected_revision=revision)
        manager.create("b", metadata=METADATA)
        assert manager.get("b").state.metadata == METADATA
        assert manager.verify().ok


@pytest.mark.parametrize("again", [None, RING], ids=["plain", "encrypted"])
def test_encrypted_store_keys_of_former_lives_are_forgotten(
    path: Path, again: Keyring | None
) -> None:
    """Who knew the key of an id that was purged, and is used again, takes the new one."""
    clock = ManualClock(START)
    with managed(path, clock=clock) as mine, managed(path, again, clock=clock) as other:
        mine.create("a", metadata={"life": 1})
        mine.get("a")
        with managed(path, clock=clock) as purging:
            purging.terminate("a")
            clock.advance(1)
            purging.purge(ended_before=clock.now())
        other.create("a", metadata={"life": 2})
        mine.touch("a")
        assert mine.get("a").state.metadata == {"life": 2}
        assert mine.update("a", metadata={"life": 3}).state.metadata == {"life": 3}
        assert mine.verify().ok


def test_encrypted_store_commit_given_twice_is_sealed_once_more(path: Path) -> None:
    """A commit that is written after it failed elsewhere is encrypted for where it is written."""
    with closing(SqliteStore(path, keyring=RING)) as store:
        commit = Author(store).draft("a", "activate", metadata=METADATA)
        with closing(SqliteStore(path.with_name("other.db"), keyring=BOTH)) as other:
            other.enlist(commit.owner_id)
            other.commit(commit)
        store.commit(commit)
        stored = store.load("a")
        assert stored is not None
        assert stored.digest == commit.steps[-1].sealed.event.digest
        assert store.history("a")[-1][1] == commit.steps[-1].sealed.event
        assert store.history("a")[0][1].changes["metadata"] == METADATA


LIVING = """
    from encrypting import METADATA, START, managed
    from session_fsm.testing import ManualClock

    def act(path):
        clock = ManualClock(START)
        clock.advance(1)
        with managed(path, clock=clock) as manager:
            manager.create("new", metadata=METADATA)
            manager.update("plain", metadata={"number": 1})
            manager.purge(ended_before=clock.now())
            manager.create("old", metadata=METADATA)
"""


def test_encrypted_store_killed_anywhere_has_the_keys_of_its_sessions(tmp_path: Path) -> None:
    """Killed before any statement: every encrypted session has its key, and no key is left over."""
    used = tmp_path / "used.db"
    with managed(used, None) as manager:
        manager.create("plain", metadata=METADATA)
    with managed(used) as manager:
        manager.create("old", metadata=METADATA)
        manager.terminate("old")
    left = killed_copies(LIVING, used, tmp_path / "killed")
    assert len(left) > 60
    found = set()
    for path in left:
        states = dict(rows(path, "SELECT session_id, state FROM session"))
        covered = {each for each, state in states.items() if "encrypted" in json.loads(state)}
        assert covered == set(key_rows(path))
        found.add(tuple(sorted(covered)))
        with managed(path) as manager:
            report = manager.verify()
            assert (report.ok, report.sessions) == (True, len(states)), report.problems
            manager.update("plain", metadata=METADATA)
    assert set(found) == {("old",), ("new", "old"), ("new", "old", "plain"), ("new", "plain")}


def test_encrypted_store_keeps_few_keys_at_hand(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of sessions that are in use are unwrapped once, and kept up to a bound."""
    monkeypatch.setattr(sqlite_keys, "MAX_KEPT_KEYS", 2)
    with managed(path) as manager:
        for session_id in ("a", "b", "c"):
            manager.create(session_id, metadata=METADATA)
        store = manager.store
        assert isinstance(store, SqliteStore)
        for _ in range(10):
            assert manager.get("a").state.metadata == METADATA
        kept = store._keys._unwrapped.cache_info()
        assert (kept.misses, kept.hits) == (1, 9)
        for session_id in ("b", "c", "a"):
            assert manager.get(session_id).state.metadata == METADATA
        kept = store._keys._unwrapped.cache_info()
        assert (kept.misses, kept.currsize) == (4, 2)


def test_encrypted_store_takes_over_an_upgraded_file(path: Path) -> None:
    """The sessions of a file of an older version are encrypted as those of a new one are."""
    shutil.copy(ROOT / "tests" / "data" / "formats" / "schema-1.db", path)
    upgrade_store(f"sqlite:///{path}")
    with managed(path, clock=ManualClock(datetime(2030, 1, 1, tzinfo=UTC))) as manager:
        before = manager.get("active").state.metadata
        manager.fail("active", "cause")
        assert set(key_rows(path)) == {"active"}
        assert manager.get("active").state.metadata == before
        assert manager.verify().ok


def test_encrypted_store_is_bound_to_the_key(written: Path) -> None:
    """The key that wrote is the one that reads, in another process and after any time."""
    with managed(written, Keyring(bytes(KEY))) as manager:
        assert manager.get("b").state.metadata == METADATA
        assert manager.history("b")[0].changes["llm_config"] == LLM_CONFIG
