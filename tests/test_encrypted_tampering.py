"""What is encrypted, changed or moved: an error, and never another value or an empty one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from encrypting import BOTH, LLM_CONFIG, METADATA, OTHER_RING, RING, managed, raw, rows, write_two
from fuzz_mutations import odd_json, spoil_bytes, spoil_value, text_of

from session_fsm import (
    SESSION_LIFECYCLE,
    CorruptRecordError,
    DeserializationError,
    SchemaVersionError,
    StoreError,
    loads,
)
from session_fsm.history import decode
from session_fsm.keys import WrappedKey
from session_fsm.stores.sqlite_keys import SessionKeys, uncovered_state


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file with two encrypted sessions; see `write_two`."""
    return write_two(tmp_path / "sessions.db")


def spoilt(text: bytes) -> Iterator[bytes]:
    """Yield a text with each of its bytes changed, and without its end."""
    for at in range(len(text)):
        for other in (text[at] ^ 1, text[at] ^ 32):
            yield text[:at] + bytes((other,)) + text[at + 1 :]
        yield text[:at]


def test_encrypted_tampering_no_byte_of_a_state_makes_other_values(written: Path) -> None:
    """Whatever byte of a stored state is changed: an error, or the values that were stored."""
    with managed(written) as manager:
        store, state = manager.store, manager.get("a").state
        [(text,)] = rows(written, "SELECT CAST(state AS BLOB) FROM session WHERE session_id = 'a'")
        refused = 0
        with raw(written) as connection:
            for each in spoilt(text):
                connection.execute(
                    "UPDATE session SET state = CAST(? AS TEXT) WHERE session_id = 'a'", (each,)
                )
                try:
                    stored = store.load("a")
                except StoreError:
                    refused += 1
                    continue
                assert stored is not None
                assert stored.state.llm_config == state.llm_config
                assert stored.state.metadata == state.metadata
        covered = len(text.partition(b',"format":1,"session_id"')[0])
        assert refused > 3 * (covered - 1)


def test_encrypted_tampering_no_byte_of_an_event_makes_other_values(written: Path) -> None:
    """Whatever byte of a stored event is changed: an error, or the values that were stored."""
    with managed(written) as manager:
        store = manager.store
        before = store.history("b")[0][1].changes
        where = "WHERE session_id = 'b' AND revision = 1"
        [(body,)] = rows(written, f"SELECT body FROM session_event {where}")
        refused = 0
        with raw(written) as connection:
            for each in spoilt(body):
                connection.execute(f"UPDATE session_event SET body = ? {where}", (each,))
                try:
                    changes = store.history("b")[0][1].changes
                except StoreError:
                    refused += 1
                    continue
                assert changes["metadata"] == before["metadata"]
                assert changes["llm_config"] == before["llm_config"]
        assert refused > 3 * (len(body) - len(body.partition(b'"encrypted"')[0]))


def members(path: Path) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return each encrypted document, with the statement that stores another one in its place."""
    found: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for session_id, state in rows(path, "SELECT session_id, state FROM session"):
        where = f"WHERE session_id = '{session_id}'"
        found[f"state of {session_id}"] = ("session SET state", where, json.loads(state))
    query = "SELECT session_id, revision, body FROM session_event"
    for session_id, revision, body in rows(path, query):
        where = f"WHERE session_id = '{session_id}' AND revision = {revision}"
        told = json.loads(body)
        if "encrypted" in told:
            found[f"event {revision} of {session_id}"] = ("session_event SET body", where, told)
    return found


def test_encrypted_tampering_ciphertexts_stay_in_their_place(written: Path) -> None:
    """A ciphertext in another session, event or field is an error, and never a value there."""
    documents = members(written)
    assert len(documents) == 6
    places = [
        (name, field)
        for name, (_, _, told) in documents.items()
        for field in told["encrypted"]["fields"]
    ]
    swaps = 0
    with managed(written) as manager, raw(written) as connection:
        for (name, field), (origin, source) in permutations(places, 2):
            column, where, told = documents[name]
            text = documents[origin][2]["encrypted"]["fields"][source]
            fields = {**told["encrypted"]["fields"], field: text}
            changed = {**told, "encrypted": {**told["encrypted"], "fields": fields}}
            kind = "TEXT" if column.startswith("session ") else "BLOB"
            write = f"UPDATE {column} = CAST(? AS {kind}) {where}"
            connection.execute(write, (json.dumps(changed, separators=(",", ":")),))
            session_id = name[-1]
            read = manager.get if kind == "TEXT" else manager.history
            with pytest.raises(CorruptRecordError, match=f"{field}: its ciphertext was changed"):
                read(session_id)
            connection.execute(write, (json.dumps(told, separators=(",", ":")),))
            swaps += 1
        assert swaps == 10 * 9
        assert manager.get("a").state.metadata == {"user": "eve"}


def test_encrypted_tampering_ciphertexts_of_the_past_stay_there(tmp_path: Path) -> None:
    """The encrypted state of an older revision is an error at a newer one."""
    path = tmp_path / "sessions.db"
    with managed(path) as manager:
        manager.create("a", metadata=METADATA)
        [(old,)] = rows(path, "SELECT state FROM session")
        manager.update("a", metadata={})
        with raw(path) as connection:
            connection.execute("UPDATE session SET state = ?", (old,))
        with pytest.raises(CorruptRecordError, match="changed, or belongs elsewhere"):
            manager.get("a")


_OTHERS = "SELECT wrapped FROM session_key WHERE session_id = 'b'"
SPOILT_KEYS = {
    "gone": ("DELETE FROM session_key WHERE session_id = 'a'", "no key of it is stored"),
    "another's": (
        f"UPDATE session_key SET wrapped = ({_OTHERS}) WHERE session_id = 'a'",
        "the key of session 'a' can't be read",
    ),
    "cut": (
        "UPDATE session_key SET wrapped = substr(wrapped, 1, 60) WHERE session_id = 'a'",
        "the key of session 'a' can't be read",
    ),
    "false name": (
        f"UPDATE session_key SET key_id = '{OTHER_RING.key_id}' WHERE session_id = 'a'",
        "the key of session 'a' can't be read",
    ),
}


@pytest.mark.parametrize("name", SPOILT_KEYS)
def test_encrypted_tampering_damaged_keys_are_told(written: Path, name: str) -> None:
    """A session whose key is gone, damaged or another's can't be read, and the others can."""
    statement, problem = SPOILT_KEYS[name]
    with raw(written) as connection:
        connection.execute(statement)
    with managed(written, BOTH) as manager:
        for read in (manager.get, manager.history):
            with pytest.raises(CorruptRecordError, match=problem):
                read("a")
        assert manager.get("b").state.metadata == METADATA
        report = manager.verify()
        assert (report.ok, report.sessions, report.locked) == (False, 1, 0)
        assert problem in report.problems[0]


def test_encrypted_tampering_newer_encryption_is_told(written: Path) -> None:
    """What is encrypted in a format that is not known here is named as such."""
    old, new = '{"format":1,"fields"', '{"format":2,"fields"'
    with raw(written) as connection:
        connection.execute("UPDATE session SET state = replace(state, ?, ?)", (old, new))
        connection.execute(
            "UPDATE session_event SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB)",
            (old, new),
        )
    with managed(written) as manager:
        with pytest.raises(SchemaVersionError, match="2 of what state 4 of session 'a'"):
            manager.get("a")
        with pytest.raises(SchemaVersionError, match="2 of what event 1 of session 'a'"):
            manager.history("a")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda told: told["encrypted"].update(more=1), "not as it is written"),
        (lambda told: told["encrypted"].update(format=True), "not as it is written"),
        (lambda told: told["encrypted"].update(fields={}), "not as it is written"),
        (lambda told: told["encrypted"].pop("fields"), "not as it is written"),
        (lambda told: told["encrypted"]["fields"].pop("metadata"), "metadata: missing"),
        (lambda told: told["encrypted"]["fields"].update(error="AAAA"), 'has "error"'),
        (lambda told: told.update(metadata={}), 'has "metadata"'),
        (lambda told: told.pop("encrypted"), "not encrypted, though it has a key"),
        (lambda told: told.update(error="\ud800"), "surrogate"),
        (lambda told: told.update(more=1), "more: unknown field"),
        (lambda told: told.pop("config"), None),
    ],
    ids=[
        *("more", "true", "nothing", "no fields", "one field", "another field", "both"),
        *("plain", "no text", "unknown", "default"),
    ],
)
def test_encrypted_tampering_documents_are_read_strictly(
    written: Path, change: Callable[[dict[str, Any]], object], problem: str | None
) -> None:
    """A document that is not as the store writes it is corrupt; no field is read as empty."""
    told = members(written)["state of b"][2]
    change(told)
    with raw(written) as connection:
        text = json.dumps(told, separators=(",", ":"))
        connection.execute("UPDATE session SET state = ? WHERE session_id = 'b'", (text,))
    with managed(written) as manager:
        if problem is None:  # as in a plain state: what has a default may be left out
            assert manager.get("b").state.metadata == METADATA
        else:
            with pytest.raises(CorruptRecordError, match=problem):
                manager.get("b")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda told: told.update(encrypted=None), "not as it is written"),
        (lambda told: told["encrypted"]["fields"].update(metadata=5), "metadata: its ciphertext"),
        (lambda told: told["changes"].update(metadata={}), 'has "metadata"'),
        (lambda told: told.update(changes=[]), "changes: of the wrong type"),
        (lambda told: told.update(revision=True), "revision: none of an event"),
        (lambda told: told.update(revision=2**70), "revision: none of an event"),
        (lambda told: told.update(revision=2), "its ciphertext was changed"),
        (lambda told: told.update(more=1), "not the fields of an event"),
        (lambda told: told.pop("changes"), "changes: of the wrong type"),
    ],
    ids=[
        *("null", "number", "both", "list", "true", "too great", "another", "unknown"),
        "no changes",
    ],
)
def test_encrypted_tampering_events_are_read_strictly(
    written: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    """An event that is not as the store writes it is corrupt."""
    told = members(written)["event 1 of b"][2]
    change(told)
    with raw(written) as connection:
        body = json.dumps(told, separators=(",", ":")).encode()
        connection.execute(
            "UPDATE session_event SET body = ? WHERE session_id = 'b' AND revision = 1", (body,)
        )
    with managed(written) as manager, pytest.raises(CorruptRecordError, match=problem):
        manager.history("b")


def drawn(seed: str, document: dict[str, Any]) -> bytes:
    """Draw a text that is almost a document."""
    random = Random(seed)
    text = json.dumps(document, separators=(",", ":")).encode()
    if random.random() < 0.5:
        spoilt = spoil_value(random, document, odd_json)
        return text_of(random, spoilt).encode("utf-8", "surrogatepass")
    return spoil_bytes(random, text, text)


def test_encrypted_tampering_has_documented_errors_only(written: Path) -> None:
    """Whatever a document is made into: its values come back, or one of two errors is raised."""
    documents = members(written)
    [wrapped] = rows(written, "SELECT key_id, wrapped FROM session_key WHERE session_id = 'b'")
    key = RING.unwrap("b", WrappedKey(*wrapped))

    def no_reader() -> Any:
        raise AssertionError("nothing is read")

    unveil = SessionKeys(RING, no_reader).unveil("b", *wrapped)
    refused = 0
    for number in range(4_000):
        state = drawn(f"state {number}", documents["state of b"][2])
        try:
            told = loads(uncovered_state(state, "b", 3, key))
            assert (told.llm_config, told.metadata) == ({"model": "m-2"}, METADATA)
        except (DeserializationError, SchemaVersionError):
            refused += 1
        body = drawn(f"event {number}", documents["event 1 of b"][2])
        try:
            event = decode(body, "", SESSION_LIFECYCLE, unveil)
            # One that was taken out is missed by the digest of the event, as in a plain one.
            assert event.changes.get("llm_config", LLM_CONFIG) == LLM_CONFIG
            assert event.changes.get("metadata", METADATA) == METADATA
        except (DeserializationError, SchemaVersionError):
            refused += 1
    assert 4_000 < refused < 7_900
