"""Stores: where sessions are kept, by URL.

| URL | store |
|---|---|
| `memory://` | this process's memory; nothing outlives it |
| `sqlite:///relative.db`, `sqlite:////absolute.db` | one SQLite file on this machine |
| `postgresql://user@host:port/database?schema=name` | a PostgreSQL database, for many machines |

A new kind of store is a module here with a class that keeps to `abc.SessionStore`, and a line in
`_SCHEMES`. A driver is imported when the first store of its kind is opened: who keeps sessions in
memory, or steps states alone, waits for no other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..keys import Keyring
from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from .abc import SessionStore
from .memory import MemoryStore

if TYPE_CHECKING:
    from .postgres import PostgresStore
    from .records import UpgradeReport
    from .sqlite import SqliteStore


def __getattr__(name: str) -> Any:
    if name == "SqliteStore":
        from .sqlite import SqliteStore

        return SqliteStore
    if name == "PostgresStore":
        from .postgres import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _open_memory(rest: str, lifecycle: Lifecycle, keyring: Keyring | None) -> SessionStore:
    if rest:
        raise ValueError(f"memory:// takes nothing behind it, not {rest!r}")
    if keyring is not None:
        raise ValueError("memory:// writes nothing that a keyring could encrypt")
    return MemoryStore(lifecycle)


def _open_sqlite(rest: str, lifecycle: Lifecycle, keyring: Keyring | None) -> SessionStore:
    from .sqlite import SqliteStore

    return SqliteStore(_sqlite_path(rest), lifecycle, keyring=keyring)


def _sqlite_path(rest: str) -> Path:
    path = rest.removeprefix("/")
    is_file = not path.endswith("/") and Path(path).name not in ("", "..")
    if not rest.startswith("/") or not is_file or path.startswith(":") or set(path) & {"?", "\0"}:
        raise ValueError(
            "a SQLite store is sqlite:///relative.db or sqlite:////absolute.db,"
            f" not sqlite://{rest}"
        )
    return Path(path)


def _open_postgres(rest: str, lifecycle: Lifecycle, keyring: Keyring | None) -> SessionStore:
    if keyring is not None:
        raise ValueError("postgresql:// encrypts nothing: no keyring can be used with it")
    from .postgres import PostgresStore

    return PostgresStore(f"postgresql://{rest}", lifecycle)


_SCHEMES: dict[str, Callable[[str, Lifecycle, Keyring | None], SessionStore]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
    "postgresql": _open_postgres,
    "postgres": _open_postgres,
}


def _shown(url: str) -> str:
    """Return a URL that can't be read as it may be shown: there may be a password in it."""
    scheme, separator, rest = url.partition("://")
    if "@" in rest or "?" in rest or "password" in rest:
        return f"{scheme}{separator}***"
    return "***" if "@" in scheme else url


def open_store(
    url: str, *, lifecycle: Lifecycle = SESSION_LIFECYCLE, keyring: Keyring | None = None
) -> SessionStore:
    """Open the store that a URL names.

    Args:
        url: `memory://`, `sqlite:///relative.db`, `sqlite:////absolute.db`, or `postgresql://` with
            what libpq takes, and `schema=` in its query.
        lifecycle: The lifecycle whose sessions it holds.
        keyring: What `llm_config` and `metadata` are encrypted with at rest; None: nothing is.

    Returns:
        The open store; whoever opens it closes it.

    Raises:
        ValueError: The URL names no kind of store that is known, or lacks its path; or one that
            encrypts nothing, and a keyring is given.
        StoreError: The store can't be opened; see the store's class.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise ValueError(f"{_shown(url)!r} is no store; a store's URL begins with {known}")
    return _SCHEMES[scheme](rest, lifecycle, keyring)


def missing_store(url: str) -> str | None:
    """Tell whether a store is missing, and make none.

    Args:
        url: As for `open_store`.

    Returns:
        The place where there is none, as it may be shown; None if there is one. In memory there
        always is.

    Raises:
        ValueError: The URL names no kind of store that is known, or lacks its path.
        StoreError: The server can't be reached, or something else is there.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        from .postgres_upgrade import missing_schema

        return missing_schema(url)
    if scheme == "sqlite":
        path = _sqlite_path(rest)
        return None if path.exists() else str(path)
    return None


def upgrade_store(url: str, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> UpgradeReport:
    """Bring what an older version of this package has stored to the present format, in place.

    It can be killed at any time and run again. What has the present format is left as it is. In a
    database that has none yet, a store is made, so that who runs it needs no right to.

    Args:
        url: As for `open_store`; a file is there already.
        lifecycle: Whose rows are made known anew, if the store knows others by its name.

    Returns:
        What was found, and what is there now.

    Raises:
        ValueError: The URL names no store that outlives a process.
        SchemaVersionError: It is somebody else's, or of a newer version.
        LifecycleError: The store knows the lifecycle with other statuses or moves.
        StoreError: It can't be read or written.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("postgresql", "postgres"):
        from .postgres_upgrade import upgrade_database

        return upgrade_database(url, lifecycle)
    if scheme != "sqlite":
        problem = "name a sqlite:/// file, or a postgresql:// server"
        raise ValueError(f"{_shown(url)!r} is no store that has a format: {problem}")
    from .sqlite_upgrade import upgrade_file

    return upgrade_file(_sqlite_path(rest), lifecycle)


__all__ = [
    "MemoryStore",
    "PostgresStore",
    "SessionStore",
    "SqliteStore",
    "missing_store",
    "open_store",
    "upgrade_store",
]
