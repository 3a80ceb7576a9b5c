"""The fixtures of the manager's tests; a module has them by `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from asking import Asking
from managing import House, RemoteManager

from session_fsm import SessionManager
from session_fsm.clock import ManualClock


@pytest.fixture(params=["memory", "sqlite"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """A place for sessions, once of each kind."""
    place = House(request.param, tmp_path)
    yield place
    place.close()


@pytest.fixture
def manager(house: House) -> SessionManager:
    """A manager in the house."""
    return house.open()


@pytest.fixture
def clock(house: House) -> ManualClock:
    """The clock of the house."""
    return house.clock


@pytest.fixture
def file_house(tmp_path: Path) -> Iterator[House]:
    """A place for sessions in an SQLite file."""
    place = House("sqlite", tmp_path)
    yield place
    place.close()


@pytest.fixture
def remote(file_house: House) -> Iterator[Callable[[], RemoteManager]]:
    """Opens managers in processes of their own on the file of `file_house`."""
    opened: list[RemoteManager] = []

    def open_one() -> RemoteManager:
        opened.append(RemoteManager(file_house.url))
        return opened[-1]

    yield open_one
    for each in opened:
        each.kill()


@pytest.fixture
def asking(house: House) -> Asking:
    """Sessions in a house, all of them active and known."""
    return Asking(house)
