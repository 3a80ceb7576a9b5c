"""Opening the store that a URL names; what is only read is never made by the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from ..clock import Clock
from ..errors import SessionFsmError
from ..keys import Keyring
from ..lifecycle import Lifecycle
from ..manager import SessionManager
from ..stores import SessionStore, missing_store, open_store, upgrade_store
from ..table import SESSION_LIFECYCLE
from .options import KEY_FILE_VARIABLE, STORE_VARIABLE, UsageError

if TYPE_CHECKING:
    from ..stores.records import UpgradeReport
    from ..stores.sqlite_keys import RekeyReport


@attrs.define(kw_only=True, slots=False, eq=False)
class StoreMissingError(SessionFsmError):
    """There is no such store, and nobody asked for a new one."""

    place: str

    def __str__(self) -> str:
        return f"there is no store {self.place!r}"


def named(url: str | None) -> str:
    """Return the URL of a store that has to be named.

    Raises:
        UsageError: It was not.
    """
    if url:
        return url
    raise UsageError(None, f"name a store: --store URL, or {STORE_VARIABLE} in the environment")


def file_of(url: str) -> Path | None:
    """Return the file that a URL names; None where it names none, or is no good URL."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or path.startswith(":") or "?" in path:
        return None
    return Path(path)


def keyring_in(key_file: Path) -> Keyring:
    """Read the keyring that a person named.

    Raises:
        UsageError: The file holds no keys, others may read it, or encryption is not installed.
        OSError: It can't be read.
    """
    try:
        return Keyring.from_file(key_file)
    except (ValueError, ModuleNotFoundError) as fault:
        raise UsageError("--key-file", str(fault)) from None


def opened_store(
    url: str, lifecycle: Lifecycle = SESSION_LIFECYCLE, *, key_file: Path | None = None
) -> SessionStore:
    """Open a store of the sessions of a lifecycle, and make it if it is missing.

    Keys are read for a store in a file alone: their name may stand in the environment for good.

    Raises:
        UsageError: The URL or the file of keys is no good.
        StoreError: It can't be opened.
        LifecycleError: It knows a lifecycle of this name with other rows.
    """
    try:
        keyring = None if key_file is None or file_of(url) is None else keyring_in(key_file)
        return open_store(url, lifecycle=lifecycle, keyring=keyring)
    except ValueError as fault:
        raise UsageError("--store", without_password(str(fault), url)) from None


@contextmanager
def opened(
    url: str | None,
    clock: Clock,
    lifecycle: Lifecycle = SESSION_LIFECYCLE,
    *,
    key_file: Path | None = None,
) -> Iterator[SessionManager]:
    """Give a manager of the sessions of a lifecycle, in a store that is there already.

    Raises:
        UsageError: No store is named, or the URL or the file of keys is no good.
        StoreMissingError: There is no such store; none is made.
        StoreError: It can't be opened.
        LifecycleError: It knows a lifecycle of this name with other rows.
    """
    url = named(url)
    check_there(url)
    store = opened_store(url, lifecycle, key_file=key_file)
    try:
        with SessionManager(store, lifecycle=lifecycle, clock=clock) as manager:
            yield manager
    finally:
        store.close()


def upgraded(url: str | None, lifecycle: Lifecycle) -> UpgradeReport:
    """Bring a store that is there to the present format; in a database one is made, if need be.

    Raises:
        UsageError: No store is named, or the URL is no good.
        StoreMissingError: There is no such file.
        StoreError: It can't be upgraded.
    """
    url = named(url)
    if file_of(url) is not None:
        check_there(url)
    try:
        return upgrade_store(url, lifecycle)
    except ValueError as fault:
        raise UsageError("--store", without_password(str(fault), url)) from None


def rekeyed(
    url: str | None, lifecycle: Lifecycle, *, key_file: Path | None
) -> tuple[RekeyReport, str]:
    """Have the keys of all sessions wrapped by the first key of a file.

    Returns:
        What was done, and the name of that key.

    Raises:
        UsageError: No store or file of keys is named, or one is no good.
        StoreMissingError: There is no such store.
        StoreError: It can't be opened, or written.
        LifecycleError: It knows a lifecycle of this name with other rows.
    """
    from ..stores import SqliteStore

    url = named(url)
    check_there(url)
    if key_file is None:
        name = f"--key-file FILE, or {KEY_FILE_VARIABLE} in the environment"
        raise UsageError(None, f"name the keys: {name}")
    with closing(opened_store(url, lifecycle, key_file=key_file)) as store:
        if not isinstance(store, SqliteStore) or store.key_id is None:
            raise UsageError("--store", f"nothing is encrypted in {url}")
        return store.rekey(), store.key_id


def check_there(url: str) -> None:
    """Refuse to go on without a store; none is made.

    Raises:
        UsageError: The URL is no good.
        StoreMissingError: There is no such store.
        StoreError: Nobody can tell.
    """
    try:
        place = missing_store(url)
    except ValueError as fault:
        raise UsageError("--store", without_password(str(fault), url)) from None
    if place is not None:
        raise StoreMissingError(place=place)


def without_password(text: str, url: str) -> str:
    """Return a text about a URL, what may be a password in it hidden; a bad URL may have one too.

    >>> without_password("can't reach pg://me:secret@host/db", "pg://me:secret@host/db")
    "can't reach pg://***@host/db"

    A scheme that reads as the user does stays readable.

    >>> without_password("postgres://postgres@host is none", "postgres://postgres@host")
    'postgres://***@host is none'
    """
    found = re.search(r"(?<=://).+@", url)
    if found is None:
        return text
    return text.replace(repr(found[0])[1:-1], "***@").replace(found[0], "***@")
