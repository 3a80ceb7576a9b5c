"""What sessions keep for their users is in no encrypted file, and in no message of any kind.

The values of `llm_config` and `metadata` are marked texts here: lives are led with them, everything
is refused that can be, files are damaged, and whatever was written or said is searched for them.
"""

from __future__ import annotations

import base64
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from commanding import call
from encrypting import KEY, OTHER_RING, RING, START, files_with, managed, raw, rows

from session_fsm import (
    Keyring,
    Put,
    SessionEvent,
    SessionFsmError,
    SessionManager,
    SessionStartError,
    StateInvalidError,
    StoreError,
    TransitionError,
)
from session_fsm.testing import ManualClock

NAME = "name-0d1f6a8e"
"""Marks the names of members, which are secret in files alone."""
VALUE = "value-7c2b94e5"
"""Marks values."""
MODES = pytest.mark.parametrize("keyring", [None, RING], ids=["plain", "encrypted"])


def secrets(number: int = 0) -> dict[str, Any]:
    """An object with marked values at all places, and marked names."""
    value = f"{VALUE}-{number}"
    return {
        f"{NAME}-{number}": value,
        "api_key": value,
        "list": [value, {"deep": [[value]], NAME: None}],
        "text": f'"{value}\\"\u00e9 {value}',
    }


class Messages:
    """Whatever was said: by errors, with all that led to them, and by the logs at any level."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        self._caplog = caplog
        self._faults: list[BaseException] = []

    def of(self, act: Callable[[], object], kind: type[BaseException] = SessionFsmError) -> None:
        """Do something that has to be refused, and keep what was said."""
        with pytest.raises(kind) as caught:
            act()
        self._faults.append(caught.value)

    def keep(self, fault: BaseException) -> None:
        """Keep an error that was met."""
        self._faults.append(fault)

    @property
    def texts(self) -> Iterator[str]:
        """Everything that was said."""
        for fault in self._faults:
            yield str(fault)
            yield repr(fault)
            yield "".join(traceback.format_exception(fault))
        formatter = logging.Formatter("%(levelname)s %(name)s %(message)s")
        for record in self._caplog.records:
            yield formatter.format(record)
            yield repr(record.args)


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Messages:
    """What is said in a test."""
    return Messages(caplog)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet, in a directory of its own."""
    (tmp_path / "files").mkdir()
    return tmp_path / "files" / "sessions.db"


class Stubborn:
    """A worker that can't be stopped."""

    def stop(self) -> None:
        """Fail."""
        raise OSError("no such process")


def fail(_: object) -> None:
    """Be a start, or a subscriber, that fails."""
    raise OSError("no such image")


def raising(_: Any) -> Any:
    """Be a change of data that fails."""
    raise ArithmeticError


BAD: tuple[Any, ...] = (
    VALUE,
    [VALUE],
    {"a": VALUE, "b": object()},
    {"a": [VALUE, float("nan")]},
    {"a": VALUE + "\0"},
    {"a": VALUE + "\ud800"},
    {"a": {"b": {VALUE}}},
    {"a": VALUE.encode()},
    {"a": VALUE * 200_000},
    {"a": VALUE, "b": 2**70},
)
"""What is refused as data."""


def live(manager: SessionManager, clock: ManualClock, messages: Messages) -> None:
    """Lead a few lives through every verb, with everything that is refused on the way."""
    manager.subscribe(fail)
    told: list[SessionEvent] = []
    manager.subscribe(told.append)
    create, update = manager.create, manager.update
    create("a", llm_config=secrets(), metadata=secrets(1), start=lambda _: Stubborn())
    messages.of(lambda: create("a", llm_config=secrets(), metadata=secrets()))
    messages.of(lambda: create("b", metadata=secrets(), start=fail), SessionStartError)
    manager.start_conversation("a")
    table = manager.table("a", "files")
    table.put("k", secrets(6))
    table.put("k", VALUE, ttl_seconds=60)
    table.put("l", [secrets(7)])
    table.delete("l")
    manager.fire("a", "touch", writes=[Put("files", "m", secrets(8))])
    messages.of(lambda: table.put("k", VALUE, expected_version=1))
    writes = [Put("files", "k", VALUE, expected_version=1)]
    messages.of(lambda: manager.fire("a", "touch", writes=writes))
    messages.of(lambda: manager.table("nowhere", "files").put("k", VALUE))
    for bad in BAD:
        if not isinstance(bad, str | list):
            messages.of(lambda bad=bad: table.put("k", bad), StateInvalidError)  # type: ignore[misc]
    update("a", metadata=lambda old: {**old, "more": VALUE})
    messages.of(lambda: update("a", metadata=raising), ArithmeticError)
    messages.of(lambda: update("a", metadata=secrets(), expected_revision=1))
    messages.of(lambda: update("nowhere", metadata=secrets()))
    messages.of(lambda: update("a", llm_config=secrets(), status="idle"), StateInvalidError)
    for bad in BAD:
        for field in ("llm_config", "metadata"):
            change: Mapping[str, Any] = {field: bad}
            messages.of(lambda change=change: update("a", **change), StateInvalidError)  # type: ignore[misc]
            messages.of(lambda change=change: create("c", **change), StateInvalidError)  # type: ignore[misc]
    messages.of(lambda: manager.end_task("a", "t"), TransitionError)
    with manager.task("a", "t"):
        messages.of(lambda: manager.begin_task("a", "t"), TransitionError)
        messages.of(lambda: manager.transition("a", "idle"), TransitionError)
    messages.of(lambda: manager.fire("a", "activate"), TransitionError)
    messages.of(lambda: manager.fire("a", "no such"), TransitionError)
    with pytest.raises(ZeroDivisionError), manager.batch():
        create("undone", metadata=secrets(2))
        update("a", llm_config=secrets(2))
        table.put("undone", secrets(2))
        raise ZeroDivisionError
    create("expired", metadata=secrets(3))
    clock.advance(31 * 60)
    messages.of(lambda: manager.touch("expired"), TransitionError)
    manager.sweep()
    create("c", llm_config=secrets(4))
    manager.terminate("c")
    messages.of(lambda: update("c", metadata=secrets()), TransitionError)
    clock.advance(1)
    assert manager.purge(ended_before=clock.now()) >= 1
    create("c", metadata=secrets(5))
    manager.fail("c", "cause")
    create("living", llm_config={"token": VALUE}, metadata={"password": [VALUE]})
    manager.table("living", "files").put("k", secrets(9))
    manager.recover()
    assert manager.verify().ok
    assert told


def forms(secret: bytes) -> set[bytes]:
    """The forms in which bytes could stand in a file."""
    inner = [base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return {secret, secret.hex().encode(), *(text for text in inner if len(text) > 8)}


def found_in(directory: Path, *secrets: bytes) -> set[str]:
    """The files that have one of some secrets in them, in any form."""
    every = (form for secret in secrets for form in forms(secret))
    return {name for form in every for name in files_with(directory, form)}


@MODES
def test_secrets_are_in_no_encrypted_file(
    path: Path, messages: Messages, keyring: Keyring | None
) -> None:
    """Database, log, shared memory and directory of owners have no marked byte, or key, in them."""
    clock = ManualClock(START)
    marked = NAME.encode(), VALUE.encode()
    with managed(path, keyring, clock=clock) as manager:
        live(manager, clock, messages)
        names = {each.name for each in path.parent.rglob("*") if each.is_file()}
        assert {"sessions.db", "sessions.db-wal", "sessions.db-shm"} < names
        used = found_in(path.parent, *marked)
    closed = found_in(path.parent, *marked)
    if keyring is None:
        # So it is found where it is.
        assert used >= {"sessions.db-wal"}
        assert closed == {"sessions.db"}
    else:
        assert used == closed == set()
    assert found_in(path.parent, KEY) == set()


@MODES
def test_secrets_are_in_no_message(path: Path, messages: Messages, keyring: Keyring | None) -> None:
    """No error, cause of one, traceback or line of a log has a marked value, or a key, in it."""
    clock = ManualClock(START)
    with managed(path, keyring, clock=clock) as manager:
        live(manager, clock, messages)
    with managed(path, OTHER_RING) as manager:
        if keyring is not None:
            messages.of(lambda: manager.get("living"))
            messages.of(lambda: manager.table("living", "files").get("k"))
            messages.of(lambda: manager.history("living"))
        manager.sweep(at=START + timedelta(days=1))
        manager.recover()
        manager.purge(ended_before=START + timedelta(days=1))
        messages_of_report(messages, manager)
    texts = list(messages.texts)
    assert len(texts) > 100
    assert any("no such process" in text for text in texts)
    assert [text for text in texts if VALUE in text] == []
    key = (repr(KEY)[2:-1], KEY.hex(), base64.b64encode(KEY).decode())
    assert [text for text in texts if any(form in text for form in key)] == []


def messages_of_report(messages: Messages, manager: SessionManager) -> None:
    """Keep what a report of all sessions says."""
    messages.keep(AssertionError(repr(manager.verify())))


@MODES
def test_secrets_of_damaged_records_are_not_told(
    path: Path, messages: Messages, keyring: Keyring | None
) -> None:
    """Whatever byte of a record is damaged, and wherever it ends, no message has a value in it."""
    with managed(path, keyring) as manager:
        manager.create("a", llm_config={"a": VALUE}, metadata={"b": [VALUE]})
        table = manager.table("a", "files")
        table.put("k", {"a": [VALUE]})
        [(item,)] = rows(path, "SELECT body FROM session_item")
        [(state,)] = rows(path, "SELECT CAST(state AS BLOB) FROM session")
        where = "WHERE revision = 1"
        [(body,)] = rows(path, f"SELECT body FROM session_event {where}")
        damage: list[tuple[str, bytes, Callable[[], object]]] = [
            ("UPDATE session SET state = CAST(? AS TEXT)", state, lambda: manager.get("a")),
            (f"UPDATE session_event SET body = ? {where}", body, lambda: manager.history("a")),
            ("UPDATE session_item SET body = ?", item, lambda: table.get("k")),
        ]
        met = 0
        with raw(path) as connection:
            for write, text, read in damage:
                for at in range(len(text)):
                    for other in (b'"', b"\xff", b"}", b""):
                        connection.execute(write, (text[:at] + other + text[at + 1 :],))
                        try:
                            read()
                        except StoreError as fault:
                            met += 1
                            messages.keep(fault)
                        if at % 50 == 0:
                            messages_of_report(messages, manager)
                connection.execute(write, (text,))
        assert met > 3 * (len(state) + len(body) + len(item)) / 2
    assert [text for text in messages.texts if VALUE in text] == []


COMMANDS = (
    ("list",),
    ("counts",),
    ("explain", "living", "touch"),
    ("show", "living"),
    ("history", "living"),
    ("diagram",),
    ("diagram", "--session", "living", "--format", "html"),
    ("sweep",),
    ("recover",),
    ("verify",),
    ("terminate", "living"),
    ("purge", "--ended-before", "1s", "--yes"),
)
"""Commands; those that show what a session keeps show one with names that look like secrets."""


@MODES
def test_secrets_are_in_no_output(
    path: Path, messages: Messages, tmp_path: Path, keyring: Keyring | None
) -> None:
    """No command shows a value unless it is asked to, nor does one that fails, nor any a key."""
    clock = ManualClock(START)
    with managed(path, keyring, clock=clock) as manager:
        live(manager, clock, messages)
    keys = tmp_path / "keys"
    keys.write_bytes(base64.b64encode(KEY) + b"\n")
    keys.chmod(0o600)
    named = [] if keyring is None else ["--key-file", str(keys)]
    for words in (("show", "living"), ("history", "living")):
        revealed = call(*words, "--reveal", "--json", *named, store=path)
        assert VALUE in revealed.out
    answers = [
        call(*words, *form, *given, store=path, at=clock.now() + timedelta(minutes=number))
        for number, words in enumerate(COMMANDS)
        for given in (named, [])
        for form in ([], ["--json"])
    ]
    assert {answer.code for answer in answers if keyring is None} <= {0}
    texts = [answer.out + answer.err for answer in answers]
    assert len(texts) == 4 * len(COMMANDS)
    assert [text for text in texts if VALUE in text] == []
    assert [text for text in texts if base64.b64encode(KEY).decode() in text] == []


def test_secrets_are_in_no_representation(path: Path) -> None:
    """What stands for a store, a manager or a keyring in a message tells no key."""
    with managed(path) as manager, closing(manager.store) as store:
        manager.create("a", metadata={"password": VALUE})
        session = manager.get("a")
        table = manager.table("a", "files")
        item = table.put("k", VALUE)
        things: tuple[object, ...] = (store, manager, RING, session, session.state, manager.list())
        things += (table, item, table.items(), Put("files", "k", VALUE))
        texts = [f"{thing!r} {thing!s}" for thing in things]
    assert [text for text in texts if VALUE in text] == []
    assert [text for text in texts if repr(KEY)[2:-1] in text] == []
