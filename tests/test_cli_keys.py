"""The command line on encrypted stores: keys come from a file, and are never told."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest
from commanding import Answer, call, started, url_of
from encrypting import (
    BOTH,
    KEY,
    METADATA,
    OTHER_KEY,
    OTHER_RING,
    RING,
    THIRD_KEY,
    key_rows,
    managed,
)

from session_fsm.cli.options import KEY_FILE_VARIABLE


def key_file(path: Path, *keys: bytes) -> Path:
    """Write keys into a file, as a user would."""
    path.write_bytes(b"".join(base64.b64encode(key) + b"\n" for key in keys))
    path.chmod(0o600)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The file with the key of the store."""
    return key_file(tmp_path / "keys", KEY)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with an encrypted session and a plain one."""
    path = tmp_path / "sessions.db"
    with managed(path) as manager:
        manager.create("a", metadata=METADATA)
        manager.begin_task("a", "t")
    with managed(path, None) as manager:
        manager.create("plain", metadata=METADATA)
    return path


READING: Mapping[str, tuple[str, ...]] = {
    "list": (),
    "show": ("a",),
    "history": ("a",),
    "explain": ("a", "touch"),
    "terminate": ("a", "--no-wait"),
    "diagram": ("--session", "a"),
}


@pytest.mark.parametrize("name", READING)
def test_cli_keys_open_what_is_encrypted(store: Path, keys: Path, name: str) -> None:
    """A command that reads a session works with the file of keys, and without it names the key."""
    locked = call(name, *READING[name], store=store)
    assert (locked.code, locked.out) == (1, "")
    assert RING.key_id in locked.err
    wrong = call(
        name,
        *READING[name],
        "--key-file",
        str(key_file(keys.with_name("other"), OTHER_KEY)),
        store=store,
    )
    assert (wrong.code, wrong.err) == (1, locked.err)
    assert call(name, *READING[name], "--key-file", str(keys), store=store).code == 0


def test_cli_keys_show_what_was_stored(store: Path, keys: Path) -> None:
    """With the key a session is shown as a plain one; the environment may name the file."""
    shown = call("show", "a", "--json", "--key-file", str(keys), store=store)
    assert shown.document["state"]["metadata"] == METADATA
    events = call("history", "a", "--json", "--key-file", str(keys), store=store).document["events"]
    assert events[0]["changes"]["metadata"] == METADATA
    named = started(
        "show", "a", "--json", "--store", url_of(store), **{KEY_FILE_VARIABLE: str(keys)}
    )
    assert json.loads(named.out)["state"] == shown.document["state"]


def test_cli_keys_upkeep_needs_none(store: Path) -> None:
    """What tells no secret works without the key; verify says what it could not look into."""
    assert call("counts", "--json", store=store).document["active"] == 2
    assert call("recover", store=store).code in (0, 1)
    report = call("verify", "--json", store=store).document
    assert (report["ok"], report["sessions"], report["locked"]) == (True, 1, 1)
    told = call("verify", store=store).out
    assert "1 session, " in told
    assert "1 session without the key, by the chain alone" in told


def test_cli_keys_verify_everything_with_the_key(store: Path, keys: Path) -> None:
    """With the key nothing is left out."""
    report = call("verify", "--json", "--key-file", str(keys), store=store).document
    assert (report["ok"], report["sessions"], report["locked"]) == (True, 2, 0)


def test_cli_keys_rekey(store: Path, keys: Path) -> None:
    """A new key on top of the file, `rekey`, and the old one may be taken out."""
    old = ("--key-file", str(keys))
    new = ("--key-file", str(key_file(keys.with_name("new"), OTHER_KEY)))
    both = ("--key-file", str(key_file(keys.with_name("both"), OTHER_KEY, KEY)))
    answer = call("rekey", *both, store=store)
    assert (answer.code, answer.out) == (0, f"1 key wrapped anew, by key {OTHER_RING.key_id}\n")
    again = call("rekey", *both, "--json", store=store).document
    assert again == {"key_id": OTHER_RING.key_id, "rewrapped": 0, "failed": []}
    assert call("show", "a", *new, store=store).code == 0
    assert OTHER_RING.key_id in call("show", "a", *old, store=store).err
    assert BOTH.key_id == OTHER_RING.key_id


def test_cli_keys_rekey_names_what_it_left(store: Path, keys: Path) -> None:
    """A session whose key is wrapped by none of the file is named, and the exit code is 1."""
    path = key_file(keys.with_name("new"), OTHER_KEY, THIRD_KEY)
    answer = call("rekey", "--key-file", str(path), store=store)
    assert (answer.code, answer.out) == (1, f"0 keys wrapped anew, by key {OTHER_RING.key_id}\n")
    assert "session 'a' was left as it is" in answer.err
    assert RING.key_id in answer.err
    assert key_rows(store)["a"][0] == RING.key_id


def test_cli_keys_rekey_needs_a_file_of_keys(store: Path, keys: Path, tmp_path: Path) -> None:
    """Without a file of keys, or on a store that is none, rekey is used wrongly."""
    for answer, problem in (
        (call("rekey", store=store), KEY_FILE_VARIABLE),
        (call("rekey", "--key-file", str(keys)), "name a store"),
        (call("rekey", "--key-file", str(keys), "--store", "memory://"), "nothing is encrypted"),
    ):
        assert answer.code == 2
        assert problem in answer.err
    missing = tmp_path / "missing.db"
    assert call("rekey", "--key-file", str(keys), store=missing).code == 1
    assert not missing.exists()


def bad_files(keys: Path) -> dict[str, tuple[Path, int]]:
    """Files that are no good as files of keys, with the exit codes that they lead to."""
    text = keys.read_text()
    cut, public = keys.with_name("cut"), keys.with_name("public")
    cut.write_text(text[5:])
    cut.chmod(0o600)
    public.write_text(text)
    public.chmod(0o644)
    return {
        "--key-file: ": (cut, 2),
        "others may read": (public, 2),
        "No such file": (keys.with_name("missing"), 1),
        "directory": (keys.parent, 1),
    }


@pytest.mark.parametrize("command", ["list", "verify", "rekey", "terminate"])
def test_cli_keys_of_bad_files_are_not_told(store: Path, keys: Path, command: str) -> None:
    """A file that is no good is named, and nothing of it."""
    words = ("a",) if command == "terminate" else ()
    answers: list[Answer] = []
    for problem, (path, code) in bad_files(keys).items():
        answer = call(command, *words, "--key-file", str(path), store=store)
        assert (answer.code, answer.out) == (code, ""), answer.err
        assert problem in answer.err
        assert path.name in answer.err
        answers.append(answer)
    secret = base64.b64encode(KEY).decode()
    parts = [secret[at : at + 8] for at in range(len(secret) - 8)]
    assert not [part for part in parts for answer in answers if part in answer.err]


def test_cli_keys_need_the_package(store: Path, keys: Path) -> None:
    """Without the package a file of keys is refused, and the extra named; all else works."""
    with mock.patch.dict(sys.modules, {"cryptography.hazmat.primitives.ciphers.aead": None}):
        answer = call("list", "--key-file", str(keys), store=store)
        assert (answer.code, answer.out) == (2, "")
        assert "pip install 'session_fsm[encryption]'" in answer.err
        assert call("show", "plain", store=store).code == 0


def test_cli_keys_are_for_files_alone(tmp_path: Path, keys: Path) -> None:
    """A replay into memory reads no keys; one into a file encrypts what it keeps."""
    log = tmp_path / "log.jsonl"
    row = {"ts": 1767615451, "session": "s", "event": "response"}
    log.write_text(json.dumps(row) + "\n")
    answer = call("replay", str(log), "--key-file", str(tmp_path / "missing"))
    assert (answer.code, answer.err) == (0, "")
    store = tmp_path / "replayed.db"
    answer = call("replay", str(log), "--store", url_of(store), "--key-file", str(keys))
    assert (answer.code, answer.err) == (0, "")
    assert {key_id for key_id, _ in key_rows(store).values()} == {RING.key_id}
    with managed(store) as manager:
        report = manager.verify()
        assert (report.ok, report.sessions, report.locked) == (True, 1, 0)
