"""Whoever looks for processes at the same time shares one look, and gets what is its own of it."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack

import pytest
from worker_processes import (
    PATIENCE_SECONDS,
    Marked,
    Stand,
    open_descriptors,
    paused,
    run,
    started,
    within_patience,
)

from session_fsm import looks
from session_fsm.families import Family, family_of, find_members
from session_fsm.looks import Looks
from session_fsm.processes import ProcessHandle

pytest_plugins = ("worker_fixtures",)

MANY = 12


class Asked:
    """What was looked for, look by look; the first one waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: list[set[Family]] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.refuses: Callable[[Collection[Family]], bool] = lambda _: False
        monkeypatch.setattr(looks, "find_members", self._find)

    def _find(self, families: Collection[Family]) -> dict[Family, tuple[ProcessHandle, ...]]:
        self.looks.append(set(families))
        if not self.begun.is_set():
            self.begun.set()
            assert self.may_go_on.wait(PATIENCE_SECONDS)
        if self.refuses(families):
            raise OSError(errno.EMFILE, "no descriptors left")
        return find_members(families)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was looked for."""
    return Asked(monkeypatch)


@pytest.fixture
def families(marked: Marked) -> Iterator[list[Family]]:
    """Families of one process each."""
    with ExitStack() as stack:
        begun = []
        for _ in range(MANY):
            process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
            stack.callback(process.communicate)
            begun.append(family_of(process.pid, f"mark-of-{process.pid}"))
        yield begun


def found_by(looks: Looks, families: list[Family], asked: Asked) -> list[object]:
    """Look for all families while another look is made; return whose processes were found."""
    found: list[object] = [None] * len(families)
    done = threading.Semaphore(0)

    def enter(number: int, family: Family) -> None:
        look = looks.look(family)

        def call() -> None:
            try:
                handles = look.members()
                found[number] = {handle.pid for handle in handles}
                for handle in handles:
                    handle.close()
            except OSError as fault:
                found[number] = fault
            finally:
                done.release()

        look.begin(call)

    enter(0, families[0])
    assert asked.begun.wait(PATIENCE_SECONDS)
    for number, family in list(enumerate(families))[1:]:
        enter(number, family)
    asked.may_go_on.set()
    for _ in families:
        assert done.acquire(timeout=PATIENCE_SECONDS)
    return found


def test_looks_serves_all_who_wait_with_one_look(asked: Asked, families: list[Family]) -> None:
    """Who asks while a look is made is served by the next one, together with all others."""
    found = found_by(Looks(), families, asked)
    assert found == [{family.pid} for family in families]
    assert asked.looks == [{families[0]}, set(families[1:])]


def test_looks_looks_for_each_where_all_are_too_many(asked: Asked, families: list[Family]) -> None:
    """Where descriptors do not do for all at once, each is looked for alone, and one may fail."""
    asked.refuses = lambda sought: len(sought) > 1 or families[1] in sought
    found = found_by(Looks(), families, asked)
    assert isinstance(found[1], OSError)
    assert found[2:] == [{family.pid} for family in families[2:]]


def test_looks_goes_on_when_somebody_fails(
    asked: Asked, families: list[Family], caplog: pytest.LogCaptureFixture
) -> None:
    """What one of those who look raises is logged; nothing is left open, and others are served."""
    before, watch, reached = open_descriptors(), Looks(), threading.Event()
    asked.may_go_on.set()

    def fails() -> None:
        raise ValueError("boom")

    watch.look(families[0]).begin(fails)
    look = watch.look(families[1])

    def sees() -> None:
        for handle in look.members():
            handle.close()
        reached.set()

    look.begin(sees)
    assert reached.wait(PATIENCE_SECONDS)
    while watch._looks:
        pass
    assert "boom" in caplog.text
    assert open_descriptors() == before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_looks_looks_in_a_fork(asked: Asked, families: list[Family]) -> None:
    """A process that was forked during a look does not wait for it."""
    look = looks.LOOKS.look(families[0])

    def sees() -> None:
        for handle in look.members():
            handle.close()

    look.begin(sees)
    pid = 0
    try:
        assert asked.begun.wait(PATIENCE_SECONDS)
        pid = os.fork()
        if not pid:
            reached = threading.Event()
            looks.LOOKS.look(families[1]).begin(reached.set)
            os._exit(0 if reached.wait(10) else 1)
    finally:
        asked.may_go_on.set()
    assert os.waitpid(pid, 0)[1] == 0
    while looks.LOOKS._looks:
        pass


def test_looks_is_shared_by_workers_that_end_together(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worker processes that end at the same time take a few looks, not some of their own each."""
    made: list[int] = []

    def find(families: Collection[Family]) -> dict[Family, tuple[ProcessHandle, ...]]:
        made.append(len(families))
        return find_members(families)

    stands = [Stand(session_id=f"s{number}") for number in range(MANY)]

    async def work() -> None:
        worker = paused()
        tasks = [await started(worker, stand) for stand in stands]
        monkeypatch.setattr(looks, "find_members", find)
        for stand in stands:
            stand.stopping.set()
        await within_patience(asyncio.gather(*tasks))

    run(work())
    assert marked.pids() == set()
    assert sum(made) >= 2 * MANY  # one to ask, and one or two to kill
    # Where each ends at another moment, the looks that kill may be of one each; all are never so.
    assert len(made) < 2 * MANY
