"""Feeds over processes: writers that are killed, readers that are killed, and nothing missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from encrypting import rows
from managing import House, RemoteManager
from processes import Program

pytest_plugins = ("manager_fixtures",)

READER = """
    import sys
    from session_fsm import SessionManager

    url, after, whose = sys.argv[1:]
    with SessionManager(url) as manager:
        print("ready", flush=True)
        feed = manager.events(whose or None, after=int(after), poll_seconds=0.005)
        for event in feed:
            print(event.position, event.session_id, event.revision, flush=True)
"""
BUSY = {"max_conversations": None}
Told = tuple[int, str, int]


def read(line: str) -> Told:
    """Return what a reader said of an event."""
    position, session_id, revision = line.split()
    return int(position), session_id, int(revision)


class Reader:
    """A process that follows a feed, and goes on behind the last event that it has told.

    Args:
        url: The store.
        session_id: Whose feed; empty: that of all.
    """

    def __init__(self, url: str, session_id: str = "") -> None:
        self.told: list[Told] = []
        self._url, self._session_id = url, session_id
        self._closing = ExitStack()
        self._process = self._begun()

    def _begun(self) -> Program:
        after = self.told[-1][0] if self.told else 0
        process = Program(READER, self._url, after, self._session_id)
        self._closing.callback(process.__exit__, None, None, None)
        assert process.hear() == "ready"
        return process

    def hear(self, number: int) -> None:
        """Hear of some more events."""
        self.told += [read(self._process.hear()) for _ in range(number)]

    def catch_up(self, stored: list[Told]) -> None:
        """Hear of as many events as are stored; these they must be, in their order."""
        self.hear(len(stored) - len(self.told))
        assert self.told == stored

    def killed(self) -> None:
        """Be killed wherever it stands, and begin anew."""
        self._process.kill()
        self.told += [read(line) for line in self._process.left()]
        self._process = self._begun()

    def close(self) -> None:
        """End it."""
        self._closing.close()


@pytest.fixture
def reader(file_house: House) -> Iterator[Callable[[str], Reader]]:
    """Begins readers of the house's file."""
    begun: list[Reader] = []

    def begin(session_id: str = "") -> Reader:
        begun.append(Reader(file_house.url, session_id))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def stored(path: Path, session_id: str | None = None) -> list[Told]:
    """Return all events of a file in the order of their numbers."""
    query = "SELECT seq, session_id, revision FROM session_event ORDER BY seq"
    return [each for each in rows(path, query) if session_id in (None, each[1])]


def test_feeds_processes_miss_nothing(
    file_house: House,
    remote: Callable[[], RemoteManager],
    reader: Callable[[str], Reader],
) -> None:
    """Two processes write, one is killed at it; readers are killed and go on where they were.

    Each event is told once, in the order of the commits, and none is left out.
    """
    first, second = remote(), remote()
    first.call("create", "a", config=BUSY)
    second.call("create", "b", config=BUSY)
    of_all, of_one = reader(""), reader("b")
    for number in (3, 50, 1, 90):
        # Of each there is more to come than is waited for, whoever is quicker.
        first.ask("work", "a", f"one-{number}", 40)
        second.ask("work", "b", f"two-{number}", 40)
        of_all.hear(number)
        of_all.killed()
        of_one.hear(number)
        of_one.killed()
        first.answer()
        second.answer()
        # What was told while it was being killed counts towards the rest of the round.
        of_all.catch_up(stored(file_house.path))
        of_one.catch_up(stored(file_house.path, "b"))
    first.ask("work", "a", "last", 1_000_000)
    second.ask("work", "b", "last", 40)
    of_all.hear(30)
    first.kill()
    of_all.killed()
    second.answer()
    with file_house.open() as manager:
        manager.recover()
        manager.create("c")
    whole, of_b = stored(file_house.path), stored(file_house.path, "b")
    of_all.catch_up(whole)
    of_one.catch_up(of_b)
    assert len(of_b) > 3 * 5 * 40
    assert {session_id for _, session_id, _ in whole} == {"a", "b", "c"}


def test_feeds_processes_are_woken_by_no_clock(
    file_house: House, remote: Callable[[], RemoteManager], reader: Callable[[str], Reader]
) -> None:
    """What another process commits is told while the reader waits, a purge among it."""
    writer = remote()
    follower = reader("")
    writer.call("create", "a")
    follower.hear(2)
    writer.call("terminate", "a")
    follower.hear(2)
    writer.call("advance", 60)
    with file_house.open() as manager:
        file_house.clock.advance(60)
        assert manager.purge(ended_before=file_house.clock.now()) == 1
    follower.hear(1)
    assert [each[:2] for each in follower.told] == [(number, "a") for number in range(1, 6)]
    assert follower.told[-1][2] == 5
