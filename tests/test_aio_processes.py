"""Sessions that are real processes: when one dies, its session ends, and no other."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from supervised import Watch, in_real_time

from session_fsm.aio import Child, ChildContext, ProcessWorker, RestartLimit, SessionManager

pytest_plugins = ("worker_fixtures",)

SLEEPS = "import time; print('ready', flush=True); time.sleep(1000)"


HEARS = """
echo ready
while read -r word; do
    case "$word" in
        ping) echo pong ;;
        *) exit "$word" ;;
    esac
done
"""
MEANS = ("signal 9", "exit code 7", "ValueError")
WAVE = 5


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@in_real_time
async def test_aio_processes_a_kill_ends_its_own_session_and_no_other(
    store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a hundred sessions fifty are killed: each ends within a second, and fifty work on."""
    caplog.set_level(logging.CRITICAL)
    box = ProcessWorker(["/bin/sh", "-c", HEARS], ready_line=b"ready", stdin="pipe")
    chance = random.Random(1)
    ids = [f"s{number:03}" for number in range(100)]
    killed = chance.sample(ids, 50)
    means = {session_id: MEANS[number % 3] for number, session_id in enumerate(killed)}
    raises = {session_id: asyncio.Event() for session_id in ids}

    async def side(child: ChildContext) -> None:
        await raises[child.session_id].wait()
        raise ValueError

    async def create(session_id: str) -> None:
        await manager.create(
            session_id,
            config={"timeout_minutes": None},
            children=[
                Child("side", side, restart="permanent", stop_seconds=0.0),
                Child("box", box, restart="permanent", signals_ready=True),
            ],
            restarts=RestartLimit(max_restarts=0),
        )

    async def kill(session_id: str) -> float:
        at = time.monotonic()
        match means[session_id]:
            case "signal 9":
                process_id = box.process_id(session_id)
                assert process_id is not None
                os.kill(process_id, signal.SIGKILL)
            case "exit code 7":
                await box.send(b"7\n", session_id)
            case _:
                raises[session_id].set()
        await watch.ended(session_id)
        return time.monotonic() - at

    async def works(session_id: str) -> None:
        session = await manager.get(session_id)
        assert (session.status, session.worker.alive) == ("active", True)
        await box.send(b"ping\n", session_id)
        while not box.log(session_id).endswith(b"pong\n"):
            await asyncio.sleep(0.001)

    url = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/a.db"
    async with SessionManager(url) as manager:
        watch = Watch(manager)
        await asyncio.gather(*map(create, ids))
        # Some at a time, so that it is our own second, and not the machine's with fifty deaths.
        for first in range(0, len(killed), WAVE):
            took = await asyncio.gather(*map(kill, killed[first : first + WAVE]))
            assert max(took) < 1
        for session_id in killed:
            while (session := await manager.get(session_id)).worker is not None:
                await asyncio.sleep(0.001)  # the session has ended, and what ran for it is stopped
            assert session.status == "terminated"
            assert watch.triggers(session_id)[2:] == ["terminate", "finish"]
            assert means[session_id] in str(session.state.error)
        await asyncio.gather(*(works(each) for each in ids if each not in means))
        assert await manager.counts() == {
            status: {"active": 50, "terminated": 50}.get(status, 0)
            for status in manager.lifecycle.statuses
        }
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
