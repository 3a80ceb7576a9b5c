"""Keys for what is encrypted at rest: a key of the user's, and one for each session, wrapped by it.

A session's own key encrypts its values (AES-256 in Galois/counter mode) and is kept beside them,
encrypted by a key of the user's keyring. A new key of the user's is a matter of wrapping those
keys anew: no value is touched. A session whose own key is gone can be read by nobody.

What a ciphertext belongs to is bound to it: moved to another place, it does not open. Needs the
extra `encryption`; the package behind it is loaded with the first keyring.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from .errors import CorruptRecordError, DeserializationError, KeyMissingError
from .jsontext import dump_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
WRAPPING: Final = 1
"""The number of the format of a wrapped key: this byte, a nonce, the key's ciphertext."""

_NONCE_BYTES: Final = 12
_ID_DIGITS: Final = 16
_ID_LABEL: Final = b"session_fsm key id\n"
_WRAP_LABEL: Final = "session_fsm key"
_TOO_OPEN: Final = stat.S_IWGRP | stat.S_IRWXO


def generate_key() -> bytes:
    """Return a new key for a keyring: 32 random bytes."""
    return os.urandom(KEY_BYTES)


def key_id_of(key: bytes) -> str:
    """Return the name of a key, from which nothing can be told about the key itself."""
    return hashlib.sha256(_ID_LABEL + key).hexdigest()[:_ID_DIGITS]


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ModuleNotFoundError as fault:
        needs = "needs the package cryptography: pip install 'session_fsm[encryption]'"
        raise ModuleNotFoundError(f"encryption at rest {needs}", name=fault.name) from fault
    return AESGCM(key)


def _encrypted(cipher: AESGCM, plain: bytes, place: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plain, place)


def _decrypted(cipher: AESGCM, data: bytes, place: bytes) -> bytes | None:
    """Return what was encrypted for a place; None if this was not, or was changed since."""
    from cryptography.exceptions import InvalidTag

    try:
        return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], place)
    except (InvalidTag, ValueError):  # ValueError: too short for a nonce
        return None


class DataKey:
    """The own key of a session; it encrypts values, each for the one place where it stands.

    Args:
        key: 32 bytes.

    Threads: safe.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = _cipher(key)

    def encrypt(self, plain: bytes, *place: str | int) -> str:
        """Return bytes encrypted, under a random nonce, as base64."""
        data = _encrypted(self._cipher, plain, dump_json(place))
        return binascii.b2a_base64(data, newline=False).decode()

    def decrypt(self, text: object, *place: str | int) -> bytes:
        """Return the bytes that were encrypted for a place.

        Raises:
            DeserializationError: They were encrypted for another one, by another key, or changed.
        """
        try:
            data = binascii.a2b_base64(text) if isinstance(text, str) else b""
        except ValueError:
            data = b""
        # That has taken any letters between, and bits to spare: what was written is one text.
        if data and binascii.b2a_base64(data, newline=False).decode() == text:
            plain = _decrypted(self._cipher, data, dump_json(place))
            if plain is not None:
                return plain
        raise DeserializationError(problems=("its ciphertext was changed, or belongs elsewhere",))

    def __reduce__(self) -> Any:
        raise TypeError("a key is not pickled or copied")


@attrs.frozen
class WrappedKey:
    """The own key of a session as it is stored.

    Attributes:
        key_id: Which key of the user's wraps it.
        data: A byte with the format, a nonce, the ciphertext.
    """

    key_id: str
    data: bytes = attrs.field(repr=False)


class Keyring:
    """The keys of a user: one that new sessions are encrypted with, and older ones for reading.

    Args:
        current: 32 bytes, as `generate_key` returns them.
        former: Keys that were current once, for what was not wrapped anew since.

    Attributes:
        key_id: The name of the current key.
        key_ids: The names of all keys, the current one first.

    Raises:
        ValueError: A key has not 32 bytes.
        ModuleNotFoundError: The extra `encryption` is not installed.

    Threads: safe.
    """

    __slots__ = ("_ciphers", "key_id")

    def __init__(self, current: bytes, *, former: Iterable[bytes] = ()) -> None:
        keys = (current, *former)
        for key in keys:
            if not isinstance(key, bytes) or len(key) != KEY_BYTES:
                raise ValueError(f"a key is {KEY_BYTES} bytes")
        self.key_id = key_id_of(current)
        self._ciphers = {key_id_of(key): _cipher(key) for key in keys}

    @classmethod
    def from_file(cls, path: Path | str) -> Self:
        """Read a keyring from a file: a key in base64 on each line, the current one first.

        Raises:
            ValueError: It holds something else, or others than its owner and group may use it.
            OSError: It can't be read.
            ModuleNotFoundError: The extra `encryption` is not installed.
        """
        with Path(path).open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _TOO_OPEN:
                problem = f"others may read or change it (mode {mode:04o}); make it 0600"
                raise ValueError(f"{path}: {problem}")
            lines = file.read().split()
        try:
            keys = [base64.b64decode(line, validate=True) for line in lines]
        except (binascii.Error, ValueError):
            keys = []
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            # Which line it is, is not told: a line may be most of a key.
            problem = f"expected lines of base64, each a key of {KEY_BYTES} bytes"
            raise ValueError(f"{path}: {problem}")
        return cls(keys[0], former=keys[1:])

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The names of all keys, the current one first."""
        return tuple(self._ciphers)

    def new_key(self, session_id: str) -> tuple[DataKey, WrappedKey]:
        """Make a key for a session; returns it, and what is to be stored of it."""
        key = generate_key()
        return DataKey(key), self._wrapped(session_id, key)

    def unwrap(self, session_id: str, wrapped: WrappedKey) -> DataKey:
        """Return the key of a session.

        Raises:
            KeyMissingError: The key that wraps it is not in this keyring.
            CorruptRecordError: It was changed, or belongs to another session.
        """
        return DataKey(self._unwrapped(session_id, wrapped))

    def rewrap(self, session_id: str, wrapped: WrappedKey) -> WrappedKey:
        """Return the key of a session, wrapped by the current key; errors as `unwrap`."""
        return self._wrapped(session_id, self._unwrapped(session_id, wrapped))

    def _wrapped(self, session_id: str, key: bytes) -> WrappedKey:
        place = _wrapping_place(session_id, self.key_id)
        data = _encrypted(self._ciphers[self.key_id], key, place)
        return WrappedKey(self.key_id, bytes((WRAPPING,)) + data)

    def _unwrapped(self, session_id: str, wrapped: WrappedKey) -> bytes:
        cipher = self._ciphers.get(wrapped.key_id)
        if cipher is None:
            raise KeyMissingError(session_id=session_id, key_id=wrapped.key_id)
        key: bytes | None = None
        if wrapped.data[:1] == bytes((WRAPPING,)):
            place = _wrapping_place(session_id, wrapped.key_id)
            key = _decrypted(cipher, wrapped.data[1:], place)
        if key is None or len(key) != KEY_BYTES:
            problem = "it was changed, or belongs to another session"
            raise CorruptRecordError(
                record=f"the key of session {session_id!r}", problems=(problem,)
            )
        return key

    def __repr__(self) -> str:
        current, *former = self.key_ids
        return f"<Keyring {current}{', formerly ' if former else ''}{', '.join(former)}>"

    def __reduce__(self) -> Any:
        raise TypeError("a keyring is not pickled or copied: hand over where its keys come from")


def _wrapping_place(session_id: str, key_id: str) -> bytes:
    return dump_json([_WRAP_LABEL, WRAPPING, session_id, key_id])
