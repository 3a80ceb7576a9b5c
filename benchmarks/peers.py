"""Peers whose moves block: LangGraph's checkpoints, and xstate-statemachine with its own store.

Each does by its own interface what its users do to make one change of a session durable. A peer is
imported when it is made, so that one that is missing is skipped, with the reason.
"""

from __future__ import annotations

import importlib
import sqlite3
from pathlib import Path
from typing import Any

from session_fsm import SessionState, serialize

from .callers import Move
from .connections import settings_of
from .subjects import Blocking


class LangGraph(Blocking):
    """`SqliteSaver.put`: a new checkpoint with the whole state; one connection under a lock."""

    name = "langgraph: SqliteSaver.put"

    def __init__(self, directory: Path) -> None:
        module = importlib.import_module("langgraph.checkpoint.sqlite")
        base = importlib.import_module("langgraph.checkpoint.base")
        self._empty = base.empty_checkpoint
        self._connection = sqlite3.connect(directory / "langgraph.db", check_same_thread=False)
        self._saver: Any = module.SqliteSaver(self._connection)
        self._saver.setup()

    @property
    def settings(self) -> str:
        """As its one connection reports."""
        return settings_of(self._connection)

    def mover(self, session_id: str) -> Move:
        """Keep the wire form of a state as the values of the channels of a thread."""
        state = serialize(SessionState.new(session_id))
        place = {"configurable": {"thread_id": session_id, "checkpoint_ns": ""}}
        step = 0

        def move() -> None:
            nonlocal step, place
            step += 1
            state["status"] = "idle" if step % 2 else "active"
            checkpoint = {**self._empty(), "channel_values": state}
            metadata = {"source": "loop", "step": step, "parents": {}}
            place = self._saver.put(place, checkpoint, metadata, {})

        return move

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Xstate(Blocking):
    """An event to the synchronous interpreter, its snapshot to `SQLiteStore.save`."""

    name = "xstate: send and SQLiteStore.save"
    synchronous: str | None = None

    def __init__(self, directory: Path) -> None:
        self._xstate: Any = importlib.import_module("xstate_statemachine")
        persistence = importlib.import_module("xstate_statemachine.persistence.sqlite_store")
        level = self.synchronous

        class Store(persistence.SQLiteStore):  # type: ignore[misc,name-defined]
            def _connect(self) -> sqlite3.Connection:
                connection: sqlite3.Connection = super()._connect()
                if level is not None:
                    connection.execute(f"PRAGMA synchronous = {level}")
                opened.append(connection)
                return connection

        opened: list[sqlite3.Connection] = []
        self._opened = opened
        self._store: Any = Store(directory / f"{type(self).__name__.lower()}.db")
        self._machine: Any = self._xstate.create_machine(
            {
                "id": "session",
                "initial": "active",
                "context": {"tasks": [], "state": serialize(SessionState.new("a"))},
                "states": {
                    "active": {"on": {"GO_IDLE": {"target": "idle", "guard": "free"}}},
                    "idle": {"on": {"RESUME": {"target": "active", "guard": "free"}}},
                },
            },
            logic=self._xstate.MachineLogic(
                guards={"free": lambda context, event: not context["tasks"]}
            ),
        )

    @property
    def settings(self) -> str:
        """As its connections report, of which each thread has one."""
        return settings_of(*self._opened)

    def mover(self, session_id: str) -> Move:
        """Start an interpreter, saved on condition of its version."""
        service: Any = self._xstate.SyncInterpreter(self._machine).start()
        version = self._store.save(session_id, service.get_snapshot(), expected_version=0)
        events = ["GO_IDLE", "RESUME"]

        def move() -> None:
            nonlocal version
            service.send(events[0])
            events.reverse()
            snapshot = service.get_snapshot()
            version = self._store.save(session_id, snapshot, expected_version=version)

        return move

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._opened:
            connection.close()


class XstateFull(Xstate):
    """The same with `synchronous = FULL` on each of its connections."""

    name = "xstate, synchronous=FULL"
    synchronous = "FULL"
