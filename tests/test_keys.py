"""Keys: what is encrypted opens in its own place alone, and a key is never told."""

from __future__ import annotations

import base64
import copy
import pickle
import subprocess
import sys
import threading
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_fsm import (
    CorruptRecordError,
    DeserializationError,
    KeyMissingError,
    Keyring,
    generate_key,
)
from session_fsm.keys import KEY_BYTES, DataKey, WrappedKey, key_id_of
from session_fsm.testing.store_batches import in_threads

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
PLACES = st.tuples(st.sampled_from(("state", "event")), st.text(), st.integers(1, 2**53))


@given(plain=st.binary(max_size=2000), place=PLACES)
def test_keys_values_come_back(plain: bytes, place: tuple[str | int, ...]) -> None:
    """What was encrypted for a place opens there, to the byte, and looks different each time."""
    key = DataKey(KEY)
    once, again = key.encrypt(plain, *place), key.encrypt(plain, *place)
    assert key.decrypt(once, *place) == key.decrypt(again, *place) == plain
    assert once != again
    assert len(base64.b64decode(once)) == len(plain) + 12 + 16


@given(plain=st.binary(max_size=100), places=st.lists(PLACES, min_size=2, max_size=2, unique=True))
def test_keys_values_open_in_their_place_alone(
    plain: bytes, places: list[tuple[str | int, ...]]
) -> None:
    """For any other place, and with any other key, a ciphertext is refused."""
    text = DataKey(KEY).encrypt(plain, *places[0])
    with pytest.raises(DeserializationError):
        DataKey(KEY).decrypt(text, *places[1])
    with pytest.raises(DeserializationError):
        DataKey(OTHER).decrypt(text, *places[0])


def test_keys_places_are_not_run_together() -> None:
    """Parts of a place that read the same when put together are different places."""
    text = DataKey(KEY).encrypt(b"{}", "a", "bc", 1)
    for place in (("ab", "c", 1), ("a", "bc1"), ("a", "bc", "1"), ("a", "bc", 1, "")):
        with pytest.raises(DeserializationError):
            DataKey(KEY).decrypt(text, *place)


def test_keys_no_bit_of_a_value_can_be_changed() -> None:
    """A ciphertext with any bit changed, cut anywhere or written otherwise is refused."""
    text = DataKey(KEY).encrypt(b'{"a":1}', "place")
    data = base64.b64decode(text)
    spoilt: list[object] = [
        base64.b64encode(data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]).decode()
        for at in range(len(data))
        for bit in range(8)
    ]
    spoilt += [text[:length] for length in range(len(text))]
    spoilt += [
        f"{text}\n",
        f"{text}AAAA",
        f" {text}",
        text.encode(),
        None,
        {"data": text},
        "é" * 44,
    ]
    # The last digit before the padding has bits that stand for nothing.
    assert text.endswith("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = len(text.rstrip("=")) - 1
    spoilt += [text[:last] + digit + text[last + 1 :] for digit in alphabet if digit != text[last]]
    for each in spoilt:
        with pytest.raises(DeserializationError, match="changed, or belongs elsewhere"):
            DataKey(KEY).decrypt(each, "place")


def test_keys_of_sessions_are_their_own() -> None:
    """Each session gets another key, which the keyring unwraps for this session alone."""
    keyring = Keyring(KEY)
    mine, wrapped = keyring.new_key("a")
    theirs, _ = keyring.new_key("a")
    text = mine.encrypt(b"{}", "place")
    assert keyring.unwrap("a", wrapped).decrypt(text, "place") == b"{}"
    with pytest.raises(DeserializationError):
        theirs.decrypt(text, "place")
    with pytest.raises(CorruptRecordError, match="the key of session 'b' can't be read"):
        keyring.unwrap("b", wrapped)


def test_keys_no_byte_of_a_wrapped_key_can_be_changed() -> None:
    """A wrapped key with any byte changed, cut anywhere or made longer is refused."""
    keyring = Keyring(KEY)
    _, wrapped = keyring.new_key("a")
    data = wrapped.data
    spoilt = [data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] for at in range(len(data))]
    spoilt += [data[:length] for length in range(len(data))]
    spoilt.append(data + b"\0")
    for each in spoilt:
        with pytest.raises(CorruptRecordError):
            keyring.unwrap("a", WrappedKey(wrapped.key_id, each))


def test_keys_former_ones_open_and_do_not_wrap() -> None:
    """A keyring opens what former keys wrapped, and wraps by its current key alone."""
    old, new = Keyring(KEY), Keyring(OTHER, former=[KEY])
    key, wrapped = old.new_key("a")
    text = key.encrypt(b"{}", "place")
    assert new.unwrap("a", wrapped).decrypt(text, "place") == b"{}"
    again = new.rewrap("a", wrapped)
    assert (wrapped.key_id, again.key_id) == (key_id_of(KEY), key_id_of(OTHER))
    assert Keyring(OTHER).unwrap("a", again).decrypt(text, "place") == b"{}"
    assert new.new_key("a")[1].key_id == key_id_of(OTHER)


def test_keys_a_missing_one_is_named() -> None:
    """A key that is not in the keyring is told by its name; under a false name it opens nothing."""
    _, wrapped = Keyring(KEY).new_key("a")
    with pytest.raises(KeyMissingError) as caught:
        Keyring(OTHER).unwrap("a", wrapped)
    assert (caught.value.session_id, caught.value.key_id) == ("a", key_id_of(KEY))
    with pytest.raises(CorruptRecordError):
        Keyring(OTHER).unwrap("a", WrappedKey(key_id_of(OTHER), wrapped.data))


def test_keys_have_names_that_do_not_tell_them() -> None:
    """The name of a key is the same everywhere, and neither the key nor a plain hash of it."""
    assert key_id_of(KEY) == "c50d55e3369a6f61"
    assert Keyring(KEY).key_id == key_id_of(KEY)
    assert Keyring(KEY, former=[OTHER]).key_ids == (key_id_of(KEY), key_id_of(OTHER))


def test_keys_read_what_was_written_before() -> None:
    """A wrapped key and a value of format 1, as they were stored once, are read for ever."""
    data = (
        "0120fa2219f28acad9cebbac5d047185e014a46a66fd5e5a68df8ee7355a6311"
        "3875d5b44d5f2ab8dbe51ed3bac70920985f1285fb3b6834e6c50d6301"
    )
    text = "1gkmL/TbhwCiA4wEY7Tz/Rl+JMl9vW8b/gRPGL3FzYDM2JQ="
    key = Keyring(KEY).unwrap("aé", WrappedKey(key_id_of(KEY), bytes.fromhex(data)))
    assert key.decrypt(text, "state", "aé", 3, "metadata") == b'{"a":1}'


def test_keys_are_new_each_time() -> None:
    """Keys that are made are of the right length, and no two are equal."""
    made = {generate_key() for _ in range(100)}
    assert len(made) == 100
    assert {len(key) for key in made} == {KEY_BYTES}


def told_of(key: bytes) -> set[str]:
    """The forms in which a key could stand in a text."""
    return {repr(key)[2:-1], key.hex(), base64.b64encode(key).decode()}


def test_keys_are_never_told() -> None:
    """Neither a keyring nor a key of a session shows more than names, or can be pickled."""
    keyring = Keyring(KEY, former=[OTHER])
    key, wrapped = keyring.new_key("a")
    assert repr(keyring) == f"<Keyring {key_id_of(KEY)}, formerly {key_id_of(OTHER)}>"
    assert repr(Keyring(KEY)) == f"<Keyring {key_id_of(KEY)}>"
    texts = [f"{each!r} {each!s}" for each in (keyring, key, wrapped)]
    for secret in (*told_of(KEY), *told_of(OTHER), *told_of(wrapped.data)):
        assert not [text for text in texts if secret in text]
    acts: list[Any] = [pickle.dumps, copy.copy, copy.deepcopy]
    for act in acts:
        for each in (keyring, key):
            with pytest.raises(TypeError, match="not pickled or copied"):
                act(each)


@pytest.mark.parametrize("key", [b"", b"k" * 31, b"k" * 33, "k" * 32, None], ids=str)
def test_keys_of_another_length_are_refused(key: Any) -> None:
    """Whatever is not 32 bytes is no key, current or former, and is not repeated."""
    for current, former in permutations((KEY, key), 2):
        with pytest.raises(ValueError, match=r"^a key is 32 bytes$"):
            Keyring(current, former=[former])


def test_keys_serve_threads_side_by_side() -> None:
    """Threads that use one keyring, and one key of a session, never get each other's values."""
    keyring = Keyring(KEY)
    key, wrapped = keyring.new_key("a")

    def work(number: int, barrier: threading.Barrier) -> int:
        barrier.wait()
        right = 0
        for turn in range(300):
            plain = f"{number} {turn}".encode() * (turn + 1)
            text = key.encrypt(plain, "place", number)
            right += keyring.unwrap("a", wrapped).decrypt(text, "place", number) == plain
        return right

    assert in_threads(4, work) == [300] * 4


# --- files -----------------------------------------------------------------------------------


def key_file(path: Path, *keys: bytes, mode: int = 0o600) -> Path:
    """Write keys into a file, as a user would."""
    path.write_bytes(b"".join(base64.b64encode(key) + b"\n" for key in keys))
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640], ids=oct)
def test_keys_are_read_from_a_file(tmp_path: Path, mode: int) -> None:
    """The first line is the current key, the others are former ones."""
    path = key_file(tmp_path / "keys", OTHER, KEY, mode=mode)
    assert Keyring.from_file(path).key_ids == (key_id_of(OTHER), key_id_of(KEY))
    path.chmod(0o600)
    path.write_bytes(base64.b64encode(KEY))  # no end of line, as other tools write it
    assert Keyring.from_file(str(path)).key_ids == (key_id_of(KEY),)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o666], ids=oct)
def test_keys_in_a_file_for_all_are_refused(tmp_path: Path, mode: int) -> None:
    """A file that others may read, or that its group may change, is not taken."""
    path = key_file(tmp_path / "keys", KEY, mode=mode)
    with pytest.raises(ValueError, match=f"others may read or change it .mode {mode:04o}"):
        Keyring.from_file(path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: b"",
        lambda text: b"\n \n",
        lambda text: text[:-3],
        lambda text: text + text[:20],
        lambda text: text.replace(b"=", b"!"),
        lambda text: text[:10] + b" " + text[10:],
        lambda text: KEY,
        lambda text: KEY.hex().encode(),
    ],
    ids=["empty", "blank", "cut", "more", "other letters", "torn", "raw", "hex"],
)
def test_keys_of_a_bad_file_are_not_repeated(tmp_path: Path, spoil: Any) -> None:
    """What is no file of keys is refused with its name, and nothing of what it holds."""
    path = key_file(tmp_path / "keys", KEY)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match="expected lines of base64") as caught:
        Keyring.from_file(path)
    assert str(caught.value) == f"{path}: expected lines of base64, each a key of 32 bytes"


def test_keys_without_the_package_name_the_extra() -> None:
    """Without `cryptography` all else works, and a keyring says what has to be installed."""
    source = """if True:
        import sys
        sys.modules["cryptography"] = None
        from session_fsm import Keyring, SessionManager, generate_key
        SessionManager().create("a", metadata={"a": 1})
        try:
            Keyring(generate_key())
        except ModuleNotFoundError as fault:
            print(fault)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], capture_output=True, text=True, check=True
    )
    needs = "needs the package cryptography: pip install 'session_fsm[encryption]'"
    assert done.stdout == f"encryption at rest {needs}\n"
