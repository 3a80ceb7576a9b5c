"""Sessions that are real processes: when one dies, its session ends, and no other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta

from supervised import Watch, in_real_time

from session_fsm.aio import Child, ProcessWorker, RestartLimit, SessionManager

pytest_plugins = ("worker_fixtures",)

SLEEPS = "import time; print('ready', flush=True); time.sleep(1000)"
EXITS = "import sys; print('ready', flush=True); sys.exit(int(sys.stdin.readline()))"


@in_real_time
async def test_aio_processes_that_die_end_their_own_session_alone() -> None:
    """Of twelve sessions six lose their process, by SIGKILL or exit code: these end, at once."""
    sleeps = ProcessWorker([sys.executable, "-c", SLEEPS], ready_line=b"ready")
    exits = ProcessWorker([sys.executable, "-c", EXITS], ready_line=b"ready", stdin="pipe")
    async with SessionManager() as manager:
        watch = Watch(manager)

        async def create(number: int) -> None:
            worker = exits if number in (3, 4, 5) else sleeps
            child = Child("box", worker, restart="permanent", signals_ready=True)
            once = RestartLimit(max_restarts=0)
            await manager.create(f"s{number}", children=[child], restarts=once)

        await asyncio.gather(*(create(number) for number in range(12)))
        for number in range(3):
            process_id = sleeps.process_id(f"s{number}")
            assert process_id is not None
            os.kill(process_id, signal.SIGKILL)
        for number in range(3, 6):
            await exits.send(b"7\n", f"s{number}")
        killed_at = max(event.at for event in watch.events)
        await watch.ended(*(f"s{number}" for number in range(6)))
        for number in range(12):
            session = await manager.get(f"s{number}")
            if number >= 6:
                assert (session.status, session.worker.alive) == ("active", True)
                continue
            assert session.state.updated_at - killed_at < timedelta(seconds=1)
            assert watch.triggers(f"s{number}")[2:] == ["terminate", "finish"]
            told = "exit code 7" if number >= 3 else "signal 9"
            assert told in str(session.state.error)
        assert (await manager.verify()).ok


@in_real_time
async def test_aio_processes_are_restarted(marked: object) -> None:
    """A process that is killed is begun anew, as often as it may be."""
    sleeps = ProcessWorker([sys.executable, "-c", SLEEPS], ready_line=b"ready")
    async with SessionManager() as manager:
        limit = RestartLimit(max_restarts=1, backoff_seconds=0)
        child = Child("box", sleeps, signals_ready=True)
        session = await manager.create("s", children=[child], restarts=limit)
        watch = Watch(manager)
        first = sleeps.process_id("s")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        while (second := sleeps.process_id("s")) in (None, first):
            await asyncio.sleep(0)
        assert second is not None
        assert (await manager.get("s")).status == "active"
        os.kill(second, signal.SIGKILL)
        await watch.ended("s")
        assert session.worker.children[0].restarts == 1
