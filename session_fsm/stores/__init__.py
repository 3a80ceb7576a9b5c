"""Stores: where sessions are kept, by URL.

| URL | store |
|---|---|
| `memory://` | this process's memory; nothing outlives it |
| `sqlite:///relative.db`, `sqlite:////absolute.db` | one SQLite file on this machine |

A new kind of store is a module here with a class that keeps to `abc.SessionStore`, and a line in
`_SCHEMES`. A driver is imported when the first store of its kind is opened: who keeps sessions in
memory, or steps states alone, waits for no other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from .abc import SessionStore
from .memory import MemoryStore

if TYPE_CHECKING:
    from .sqlite import SqliteStore


def __getattr__(name: str) -> Any:
    if name == "SqliteStore":
        from .sqlite import SqliteStore

        return SqliteStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _open_memory(rest: str, lifecycle: Lifecycle) -> SessionStore:
    if rest:
        raise ValueError(f"memory:// takes nothing behind it, not {rest!r}")
    return MemoryStore(lifecycle)


def _open_sqlite(rest: str, lifecycle: Lifecycle) -> SessionStore:
    from .sqlite import SqliteStore

    path = rest.removeprefix("/")
    is_file = not path.endswith("/") and Path(path).name not in ("", "..")
    if not rest.startswith("/") or not is_file or path.startswith(":") or set(path) & {"?", "\0"}:
        raise ValueError(
            "a SQLite store is sqlite:///relative.db or sqlite:////absolute.db,"
            f" not sqlite://{rest}"
        )
    return SqliteStore(path, lifecycle)


_SCHEMES: dict[str, Callable[[str, Lifecycle], SessionStore]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
}


def open_store(url: str, *, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> SessionStore:
    """Open the store that a URL names.

    Args:
        url: `memory://`, `sqlite:///relative.db` or `sqlite:////absolute.db`.
        lifecycle: The lifecycle whose sessions it holds.

    Returns:
        The open store; whoever opens it closes it.

    Raises:
        ValueError: The URL names no kind of store that is known, or lacks its path.
        StoreError: The store can't be opened; see the store's class.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        known = ", ".join(f"{each}://" for each in _SCHEMES)
        raise ValueError(f"{url!r} is no store; a store's URL begins with {known}")
    return _SCHEMES[scheme](rest, lifecycle)


__all__ = ["MemoryStore", "SessionStore", "SqliteStore", "open_store"]
