"""What is being done to a store while it is killed; see `crash_steps`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from crash_forks import in_another_process
from crash_steps import FILE, Action
from replaying import log_of, row

from session_fsm import Session, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.replay import replay
from session_fsm.stores import open_store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLOCK = ManualClock(NOON)
LATER = ManualClock(NOON + timedelta(hours=9))


def _open(url: str, clock: ManualClock = LATER) -> SessionManager:
    return SessionManager(url, clock=clock)


def _in(directory: Path) -> SessionManager:
    return _open(f"sqlite:///{directory / FILE}", CLOCK)


class _Worker:
    def stop(self) -> None:
        """Stop at once."""


# --- a new file ------------------------------------------------------------------------------


def _nothing(_: Path) -> None:
    """Leave the directory empty: the file is to be made."""


def _open_new(url: str) -> None:
    _open(url).close()


# --- recover ---------------------------------------------------------------------------------


def _die_at_work(directory: Path) -> None:
    """Leave tasks, a worker, a half-done start, and an end that waits for a task."""

    def die() -> None:
        manager = _in(directory)

        def begin_all(_: Session) -> None:
            for number in range(4):
                session_id = f"busy-{number}"
                manager.create(session_id)
                for task in range(number):
                    manager.begin_task(session_id, f"task-{task}")
            manager.create("worked-for", start=lambda _: _Worker())
            manager.create("draining")
            manager.begin_task("draining", "task")
            manager.terminate("draining", wait=False)
            os.kill(os.getpid(), signal.SIGKILL)

        manager.create("starting", start=begin_all)

    in_another_process(die)


def _recover(url: str) -> None:
    with _open(url) as manager:
        manager.recover()
        assert manager.store.abandoned() == ()


# --- purge -----------------------------------------------------------------------------------


def _end_some(directory: Path, ended: Iterable[int], alive: int) -> None:
    with _in(directory) as manager, manager.batch():
        for number in ended:
            manager.create(f"ended-{number:03}")
            manager.terminate(f"ended-{number:03}")
        for number in range(alive):
            manager.create(f"alive-{number}")


def _purge(url: str) -> None:
    with _open(url) as manager:
        manager.purge(ended_before=NOON + timedelta(hours=1))


# --- compact ---------------------------------------------------------------------------------


def _live_long(directory: Path) -> None:
    """Leave histories of some length, one of them compacted before, and one that has ended."""
    with _in(directory) as manager, manager.batch():
        for session_id in ("a", "b", "ended"):
            manager.create(session_id)
            for _ in range(8):
                manager.touch(session_id)
        manager.compact("b", keep=6)
        manager.terminate("ended")
        manager.create("short")


def _compact(url: str) -> None:
    with _open(url) as manager:
        for session_id in ("a", "b", "ended", "short"):
            manager.compact(session_id, keep=2)


# --- sweep -----------------------------------------------------------------------------------


def _leave_alone(directory: Path) -> None:
    with _in(directory) as manager:
        for number in range(6):
            manager.create(f"s{number}", config={"timeout_minutes": 30})
        manager.begin_task("s0", "task")


def _sweep(url: str) -> None:
    with _open(url) as manager:
        assert manager.sweep().failed == ()


# --- batch -----------------------------------------------------------------------------------


def _begin_some(directory: Path) -> None:
    with _in(directory) as manager:
        for session_id in ("a", "b", "c"):
            manager.create(session_id)


def _change_together(url: str) -> None:
    with _open(url, CLOCK) as manager:
        if manager.find("d") is not None:
            return  # it has landed
        with manager.batch():
            manager.update("a", metadata={"moved_to": "d"})
            manager.terminate("a")
            manager.create("d", metadata={"moved_from": "a"})
            manager.transition("b", "idle")
            manager.start_conversation("c")
            manager.fail("c", "lost")


# --- replay ----------------------------------------------------------------------------------

_LOG = log_of(
    *(row(10.0 * n, "request", session) for n in range(3) for session in ("a", "b", "c")),
    row(40, "interrupt"),
    row(50, "exit", "b"),
    row(60, "meta", "c"),
    row(9000, "request"),
    row(9010, "exit"),
)


def _replay(url: str) -> None:
    store = open_store(url)
    try:
        replay(_LOG, store, rows_per_batch=4)
    finally:
        store.close()


# --- the table -------------------------------------------------------------------------------

ACTIONS: Final = (
    Action(name="open", clock=LATER, prepare=_nothing, act=_open_new, in_one=True),
    # The upgrade of a file of an older format belongs here, once there is one.
    Action(name="recover", clock=LATER, prepare=_die_at_work, act=_recover, in_one=False),
    Action(
        name="purge",
        clock=LATER,
        prepare=lambda directory: _end_some(directory, range(12), alive=2),
        act=_purge,
        in_one=True,
    ),
    Action(
        name="purge of two batches",
        clock=LATER,
        prepare=lambda directory: _end_some(directory, range(520), alive=2),
        act=_purge,
        in_one=False,
        most_steps=100,
    ),
    Action(name="compact", clock=LATER, prepare=_live_long, act=_compact, in_one=False),
    Action(name="sweep", clock=LATER, prepare=_leave_alone, act=_sweep, in_one=False),
    Action(name="batch", clock=CLOCK, prepare=_begin_some, act=_change_together, in_one=True),
    Action(name="replay", clock=LATER, prepare=_nothing, act=_replay, in_one=False),
)
"""Each is killed before all of its steps, or many of them; a row more is one more thing that is."""
