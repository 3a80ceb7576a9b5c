"""Tasks that move the same sessions are told one story, whether or not they move together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from linear import overlapping
from linear_process import Driver, recorded
from linearizability import Call, check
from operations import perform
from supervised import in_real_time

from session_fsm import SESSION_LIFECYCLE, Session
from session_fsm.aio import SessionManager
from session_fsm.stores import MemoryStore, PostgresStore, SessionStore, SqliteStore
from session_fsm.stores.abc import all_ids

TASKS = 24
PLACES = 12
SECONDS = 2.0


async def called(driver: Driver, manager: Any) -> Call:
    """Make the next call of a driver, awaited."""
    operation, begun = driver.next(), time.monotonic_ns()
    came: Callable[[], Session]
    try:
        session = await perform(manager, operation)  # type: ignore[misc]  # of an awaited manager
    except Exception as fault:  # noqa: BLE001 - it is raised again by whoever records it
        came = raising(fault)
    else:
        came = lambda: session  # noqa: E731 - what is recorded
    instants = iter((begun, time.monotonic_ns()))
    call = recorded(operation, came, lambda: next(instants))
    driver.note(call)
    return call


def raising(fault: Exception) -> Callable[[], Session]:
    """Return what raises an error."""

    def fail() -> Session:
        raise fault

    return fail


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Two stores of one place, or one that two managers share."""
    if request.param == "memory":
        shared = MemoryStore(SESSION_LIFECYCLE)
        yield shared, shared
        shared.close()
        return
    opened: list[SessionStore] = [
        PostgresStore(request.getfixturevalue("postgres_url"))
        if request.param == "postgres"
        else SqliteStore(tmp_path / "sessions.db")
        for _ in range(2)
    ]
    yield tuple(opened)
    for store in opened:
        store.close()


@in_real_time
async def test_linear_tasks_of_two_managers(stores: tuple[SessionStore, SessionStore]) -> None:
    """Every answer and refusal of tasks of two managers agrees with the histories."""
    async with SessionManager(stores[0]) as one, SessionManager(stores[1]) as other:
        end = time.monotonic() + SECONDS

        async def call(number: int, manager: SessionManager) -> list[Call]:
            driver = Driver(manager, f"tasks.{number}", PLACES, time.monotonic_ns)  # type: ignore[arg-type]
            calls = []
            while time.monotonic() < end:
                calls.append(await called(driver, manager))
            return calls

        made = await asyncio.gather(
            *(call(number, (one, other)[number % 2]) for number in range(TASKS))
        )
        calls = [each for some in made for each in some]
        assert (await one.verify()).problems == ()
        histories = {each: await one.history(each) for each in all_ids(one.store)}
    assert check(calls, histories) == []
    # Callers who never meet would prove nothing.
    assert overlapping(calls) > 20
