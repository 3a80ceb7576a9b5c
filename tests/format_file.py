"""Writes the golden file of the present format, beside those of the older ones.

Run it once for each new version of the schema, before that is published:

    python tests/format_file.py tests/data/formats
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from encrypting import METADATA, START, managed

from session_fsm import SessionManager, serialize
from session_fsm.stores import SessionStore
from session_fsm.stores.abc import all_ids
from session_fsm.stores.sqlite_schema import SCHEMA_VERSION
from session_fsm.testing import ManualClock

TABLES = ("files", "notes")
VALUES: tuple[Any, ...] = (None, 1, 1.0, -0.5, 2**63 - 1, "\u00e9", [True, {"a": []}], {"b": None})
"""Values of each kind, which a golden file has in its tables."""


def told_of(store: SessionStore) -> dict[str, Any]:
    """Return what a store tells of its sessions, as the files beside the golden ones do."""
    told = {}
    for session_id in all_ids(store):
        stored = store.load(session_id)
        told[session_id] = {
            "revision": stored and stored.revision,
            "digest": store.tail(session_id)[1],
            "state": stored and serialize(stored.state, store.lifecycle),
            "events": [body.decode() for body, _ in store.history(session_id)],
        }
    return told


def items_of(store: SessionStore) -> dict[str, Any]:
    """Return what a store tells of the tables of its sessions."""
    told = {}
    for session_id in all_ids(store):
        if store.load(session_id) is None:
            continue
        for table in TABLES:
            for item in store.items(session_id, table, 1000, None, START):
                expires_at = item.expires_at and item.expires_at.isoformat()
                place = f"{session_id} {table} {item.key}"
                # As text: 1, 1.0 and true are equal in Python.
                value = json.dumps(item.value)
                told[place] = [value, item.version, expires_at, item.updated_at.isoformat()]
    return told


def write(path: Path) -> None:
    """Write sessions of every kind, plain and encrypted, with what the package can do to them."""
    clock = ManualClock(START)
    with managed(path, None, clock=clock) as manager:
        for session_id in ("plain", "mixed", "compacted", "purged", "again"):
            manager.create(session_id, metadata=METADATA)
        for _ in range(3):
            manager.transition("compacted", "idle")
            manager.transition("compacted", "active")
        manager.compact("compacted", keep=2)
        for session_id in ("purged", "again"):
            manager.terminate(session_id)
        clock.advance(10)
        manager.purge(ended_before=clock.now())
        manager.create("again")
        _fill(manager, "plain", "mixed", "compacted")
    with managed(path, clock=clock) as manager:
        manager.update("mixed", metadata={"since": "encrypted"})
        manager.table("mixed", "notes").put("since", "encrypted")
        for session_id in ("secret", "short", "ended"):
            manager.create(session_id, llm_config={"api_key": "k-1"}, metadata=METADATA)
        manager.begin_task("secret", "build")
        manager.create("limited")
        manager.begin_task("limited", "build", timeout_seconds=7200)
        manager.begin_task("limited", "test")
        manager.create("sturdy", config={"recovery": "restart"})
        manager.begin_task("sturdy", "build", timeout_seconds=7200)
        manager.update("sturdy", config={"recovery": "end"})
        manager.update("secret", llm_config={"api_key": "k-2"})
        manager.update("short", metadata={"n": 1})
        manager.transition("short", "idle")
        manager.compact("short", keep=1)
        _fill(manager, "secret", "short", "ended")
        manager.fail("ended", "no memory left")
        manager.store.set_mark("feed", b"\x00\x01position")


def _fill(manager: SessionManager, *session_ids: str) -> None:
    for session_id in session_ids:
        files = manager.table(session_id, "files")
        for number, value in enumerate(VALUES):
            files.put(f"k{number}", value, ttl_seconds=number * 60 or None)
        files.delete("k1")
        manager.table(session_id, "notes").put("n", {"long": "x" * 5000})


def main() -> None:
    """Write the file and what it holds into a directory; what is there already is left."""
    path = Path(sys.argv[1]) / f"schema-{SCHEMA_VERSION}.db"
    if path.exists():
        sys.exit(f"{path} is there already: a golden file is never changed")
    write(path)
    with managed(path) as manager:
        told = {"sessions": told_of(manager.store), "items": items_of(manager.store)}
    path.with_suffix(".json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    for directory in path.parent.glob(f"{path.name}.owners"):
        for lock in directory.iterdir():
            lock.unlink()
        directory.rmdir()


if __name__ == "__main__":
    main()
