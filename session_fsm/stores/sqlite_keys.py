"""What the SQLite store encrypts: two fields of a state, and what events repeat of them.

A document with something encrypted says so beside its fields, in a member that no field is called:

    "encrypted": {"format": 1, "fields": {"llm_config": "<base64>", "metadata": "<base64>"}}

The fields that are named there are missing from the state, or from the `changes` of the event. No
value that somebody keeps in a session can be taken for it. Each ciphertext is bound to its place:
state or event, session, revision, field. Digests of events cover the bytes as they are stored, so
chains are checked without a key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Final, Literal

import attrs
import orjson

from ..errors import (
    CorruptRecordError,
    DeserializationError,
    KeyMissingError,
    SchemaVersionError,
    StoreError,
)
from ..history import Unveil, Veil
from ..jsontext import JsonError, dump_json, parse_json, parse_written, shown
from ..jsonvalue import MAX_INTEGER
from ..keys import DataKey, Keyring, WrappedKey
from ..lifecycle import Lifecycle
from ..serialization import wire_document
from ..state import STATE_FIELDS
from .records import Commit, StoredStep

COVERED: Final = ("llm_config", "metadata")
"""The fields that are encrypted."""
ENCRYPTION_FORMAT: Final = 1
MAX_KEPT_KEYS: Final = 1024
"""Keys of sessions that were used lately are kept unwrapped, up to this number."""
REKEY_SIZE: Final = 500
"""Most keys that are wrapped anew in one transaction."""

_MEMBER: Final = "encrypted"
_COVERED_STATE: Final = b'{"encrypted":'
_DOCUMENT: Final = ("format", *STATE_FIELDS)

Kind = Literal["state", "event"]


def is_covered(text: bytes) -> bool:
    """Tell whether the text of a state has something encrypted in it."""
    return text.startswith(_COVERED_STATE)


def _encrypted(
    key: DataKey, place: tuple[Kind, str, int], values: Mapping[str, Any]
) -> dict[str, Any]:
    fields = {name: key.encrypt(dump_json(value), *place, name) for name, value in values.items()}
    return {"format": ENCRYPTION_FORMAT, "fields": fields}


def _decrypted(
    key: DataKey, place: tuple[Kind, str, int], member: object, plain: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the JSON text of each field that a document has encrypted.

    Raises:
        DeserializationError: Something else stands there, or a ciphertext does not open.
        SchemaVersionError: It is encrypted in a format that is not known here.
    """
    number = member.get("format") if isinstance(member, dict) else None
    if type(number) is int and number != ENCRYPTION_FORMAT:
        kind, session_id, revision = place
        found = f"{number} of what {kind} {revision} of session {session_id!r} has encrypted"
        raise SchemaVersionError(found=found, supported=str(ENCRYPTION_FORMAT))
    match member:
        case {"format": 1, "fields": dict(fields), **rest} if (
            type(number) is int and fields and not rest
        ):
            pass
        case _:
            raise DeserializationError(problems=(f"{_MEMBER}: not as it is written",))
    if wrong := [name for name in fields if name not in COVERED or name in plain]:
        raise DeserializationError(problems=(f"{_MEMBER}: has {', '.join(map(shown, wrong))}",))
    opened: dict[str, bytes] = {}
    for name, text in fields.items():
        try:
            opened[name] = key.decrypt(text, *place, name)
        except DeserializationError as fault:
            problems = tuple(f"{name}: {problem}" for problem in fault.problems)
            raise DeserializationError(problems=problems) from None
    return opened


class Cover:
    """What encrypts the commits of one session.

    Args:
        session_id: The session.
        key: Its key.
        new: What is to be stored of the key; None if that is stored already.
    """

    __slots__ = ("_key", "_new", "_session_id")

    def __init__(self, session_id: str, key: DataKey, new: WrappedKey | None) -> None:
        self._session_id = session_id
        self._key = key
        self._new = new

    @property
    def key(self) -> DataKey:
        """The key of the session."""
        return self._key

    def seal(self, steps: Iterable[StoredStep]) -> None:
        """Make the events of a commit, as they are stored."""
        previous: str | None = None
        for step in steps:
            previous = step.seal_veiled(self.veil, previous).event.digest

    def veil(self, revision: int, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an event has in the place of its changes; nothing if it may show them."""
        values = {name: changes[name] for name in COVERED if name in changes}
        if not values:
            return {}
        rest = {name: value for name, value in changes.items() if name not in values}
        place: tuple[Kind, str, int] = ("event", self._session_id, revision)
        return {"changes": rest, _MEMBER: _encrypted(self._key, place, values)}

    def text(self, step: StoredStep, lifecycle: Lifecycle) -> bytes:
        """Return the state that a step leads to, as it is stored; errors as `dumps`."""
        document = wire_document(step.state, lifecycle)
        values = {name: document.pop(name) for name in COVERED}
        place: tuple[Kind, str, int] = ("state", self._session_id, step.revision)
        return dump_json({_MEMBER: _encrypted(self._key, place, values), **document})

    def keep(self, writer: sqlite3.Connection) -> None:
        """Store the key, if it is new, in the transaction that writes what it encrypts."""
        if (new := self._new) is not None:
            writer.execute(
                "INSERT INTO session_key (session_id, key_id, wrapped) VALUES (?, ?, ?)",
                (self._session_id, new.key_id, new.data),
            )


Opening = Callable[[], AbstractContextManager[sqlite3.Connection]]


class SessionKeys:
    """The keys of a store's sessions, for as long as it is open.

    Args:
        keyring: The user's keys; None: there are none, and nothing is encrypted.
        reading: Gives a connection to read with.

    Threads: safe.
    """

    def __init__(self, keyring: Keyring | None, reading: Opening) -> None:
        self._keyring = keyring
        self._reading = reading
        if keyring is not None:
            # By what is stored of it: another key of a session of the same id has another entry.
            self._unwrapped = lru_cache(MAX_KEPT_KEYS)(keyring.unwrap)

    def cover(self, commit: Commit) -> Cover | None:
        """Return what encrypts a commit; None if nothing does.

        Raises:
            KeyMissingError: The session's key is wrapped by one that is not in the keyring.
            CorruptRecordError: The session's key is damaged.
        """
        if self._keyring is None:
            return None
        session_id = commit.session_id
        # A session keeps its key for as long as it is there. Should the one that is found be of
        # another life of the id, the revision is not the one that was decided from.
        if not commit.creates and (wrapped := self._stored(session_id)) is not None:
            return Cover(session_id, self._unwrapped(session_id, wrapped), None)
        return Cover(session_id, *self._keyring.new_key(session_id))

    def veil_of(self, session_id: str) -> Veil | None:
        """Return what veils an event of a stored session; None if nothing does; errors as `cover`.

        A session that was stored without a key stays as it is until its next step.
        """
        key = self.find_key(session_id)
        return None if key is None else Cover(session_id, key, None).veil

    def find_key(self, session_id: str) -> DataKey | None:
        """Return the key of a stored session; None if there is none; errors as `cover`."""
        if self._keyring is None or (wrapped := self._stored(session_id)) is None:
            return None
        return self._unwrapped(session_id, wrapped)

    def _stored(self, session_id: str) -> WrappedKey | None:
        query = "SELECT key_id, wrapped FROM session_key WHERE session_id = ?"
        with self._reading() as reader:
            row = reader.execute(query, (session_id,)).fetchone()
        return None if row is None else WrappedKey(*row)

    def key_of(self, session_id: str, key_id: str | None, data: bytes | None) -> DataKey:
        """Return the key of a session that has something encrypted; errors as `cover`.

        Args:
            session_id: The session.
            key_id: Which key wraps the session's own, where that was read with what it opens.
            data: The session's own key, wrapped.
        """
        wrapped = None if key_id is None or data is None else WrappedKey(key_id, data)
        if self._keyring is None and wrapped is None:
            wrapped = self._stored(session_id)
        if wrapped is None:
            problem = "it is encrypted, and no key of it is stored"
            raise CorruptRecordError(record=f"session {session_id!r}", problems=(problem,))
        if self._keyring is None:
            raise KeyMissingError(session_id=session_id, key_id=wrapped.key_id)
        return self._unwrapped(session_id, wrapped)

    def unveil(self, session_id: str, key_id: str | None, data: bytes | None) -> Unveil:
        """Return what decrypts the events of a session; arguments and errors as `key_of`.

        The revision that an event is bound to is the one that it tells.
        """

        def unveil(told: dict[str, Any]) -> dict[str, Any]:
            return _unveiled(told, session_id, self.key_of(session_id, key_id, data))

        return unveil

    def rekey(self, writing: Opening) -> RekeyReport:
        """Have all keys wrapped by the current key; see `SqliteStore.rekey`."""
        if self._keyring is None:
            raise ValueError("the store was opened without a keyring")
        after, rewrapped = "", 0
        failed: list[tuple[str, str]] = []
        while True:
            with self._reading() as reader:
                found = reader.execute(_FORMER, (after, self._keyring.key_id, REKEY_SIZE))
                page = [(row[0], WrappedKey(*row[1:])) for row in found.fetchall()]
            if not page:
                return RekeyReport(rewrapped, tuple(failed))
            rows: list[tuple[str | bytes, ...]] = []
            for session_id, old in page:
                try:
                    new = self._keyring.rewrap(session_id, old)
                except StoreError as fault:
                    failed.append((session_id, str(fault)))
                else:
                    rows.append((new.key_id, new.data, session_id, old.key_id, old.data))
            with writing() as writer:
                overwrite_what_is_deleted(writer)
                rewrapped += sum(writer.execute(_REWRAP, row).rowcount for row in rows)
            after = page[-1][0]


@attrs.frozen
class RekeyReport:
    """What was done to have all keys of sessions wrapped by the current key.

    Attributes:
        rewrapped: How many keys were wrapped anew.
        failed: Sessions whose key could not be, each with the error in words; they were left as
            they were.
    """

    rewrapped: int
    failed: tuple[tuple[str, str], ...] = ()


_FORMER: Final = (
    "SELECT session_id, key_id, wrapped FROM session_key"
    " WHERE session_id > ? AND key_id <> ? ORDER BY session_id LIMIT ?"
)
_REWRAP: Final = (
    "UPDATE session_key SET key_id = ?, wrapped = ?"
    " WHERE session_id = ? AND key_id = ? AND wrapped = ?"
)


def overwrite_what_is_deleted(writer: sqlite3.Connection) -> None:
    """Have the database overwrite with zeros what this connection deletes from now on."""
    writer.execute("PRAGMA secure_delete = ON")


def uncovered_state(text: bytes, session_id: str, revision: int, key: DataKey) -> bytes:
    """Return the text of an encrypted state as `dumps` writes it.

    Raises:
        DeserializationError: It is not as it was encrypted for this session and revision.
        SchemaVersionError: It is encrypted in a format that is not known here.
    """
    try:
        told = parse_written(text) or parse_json(text)
    except JsonError as fault:
        raise DeserializationError(problems=(str(fault),)) from None
    if not isinstance(told, dict) or _MEMBER not in told:
        raise DeserializationError(problems=("it is not encrypted, though it has a key",))
    member = told.pop(_MEMBER)
    opened = _decrypted(key, ("state", session_id, revision), member, told)
    if missing := [name for name in COVERED if name not in opened]:
        # They would be read as empty.
        raise DeserializationError(problems=tuple(f"{name}: missing" for name in missing))
    told.update((name, orjson.Fragment(plain)) for name, plain in opened.items())
    in_order = {name: told.pop(name) for name in _DOCUMENT if name in told}
    try:
        return dump_json(in_order | told)
    except TypeError as fault:  # strict JSON, such as a lone surrogate, that nobody here writes
        raise DeserializationError(problems=(str(fault),)) from None


def _unveiled(told: dict[str, Any], session_id: str, key: DataKey) -> dict[str, Any]:
    """Return the members of an event as they were before it was veiled."""
    changes, revision = told.get("changes"), told.get("revision")
    if not isinstance(changes, dict):
        raise DeserializationError(problems=("changes: of the wrong type",))
    if type(revision) is not int or not 0 < revision <= MAX_INTEGER:
        raise DeserializationError(problems=("revision: none of an event",))
    opened = _decrypted(key, ("event", session_id, revision), told[_MEMBER], changes)
    try:
        values = {name: parse_json(plain) for name, plain in opened.items()}
    except JsonError as fault:
        raise DeserializationError(problems=(str(fault),)) from None
    # In the order of the fields, as the event had them before it was written.
    both = changes | values
    in_order = {name: both[name] for name in STATE_FIELDS if name in both}
    return without_what_is_encrypted(told) | {"changes": in_order | both}


def without_what_is_encrypted(told: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an event has encrypted, as `history.decode` takes it."""
    return {name: value for name, value in told.items() if name != _MEMBER}
