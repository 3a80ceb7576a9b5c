"""One node of a cluster: callers, workers and upkeep over one store, until it is killed.

    python cluster_process.py OPTIONS

OPTIONS is an object in JSON; see `Options`. The node opens the store as soon as it can be reached,
and writes what it does to a file, line by line, so that nothing is lost when it is killed. It hears
two lines: after the first, no new calls and sessions are begun, and after the second it ends.

Sessions named `p…` are called by all nodes; those named `w…` have a worker, which writes for as
long as it is not stopped; those named `t…` have a task with a time limit that nobody ends.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import attrs
from linear_process import Driver, recorded
from linearizability import Call
from operations import Operation, perform

from session_fsm import (
    ManagerClosedError,
    Session,
    SessionManager,
    SessionStartError,
    StoreError,
    StoreUnavailableError,
)
from session_fsm.stores import SessionStore, open_store
from session_fsm.stores.abc import all_ids

UPKEEP_SECONDS: Final = 0.25
"""How often a node sweeps, and looks for what the dead have left."""
RETRY_SECONDS: Final = 0.2
POLICIES: Final = ("restart", "restart", "release", "end")
MOST_TAKEOVERS: Final = 1000


@attrs.frozen(kw_only=True)
class Options:
    """What a node is told.

    Attributes:
        url: Of the store.
        seed: What decides its choices.
        node: Its number.
        life: How often it was started before.
        places: In how many places sessions live.
        records: The file that it writes to.
        lease_seconds: How long it counts as alive without being heard of; None: the store's own.
        callers: How many threads call.
        workers: How many workers it runs at most of those that it begins.
        pause_seconds: How long a caller waits between its calls, about.
    """

    url: str
    seed: str
    node: int
    life: int
    places: int
    records: str
    lease_seconds: float | None = None
    callers: int = 2
    workers: int = 4
    pause_seconds: float = 0.01

    @property
    def name(self) -> str:
        """The name of this life of this node."""
        return f"{self.seed}.n{self.node}l{self.life}"


def opened_store(options: Options) -> SessionStore:
    """Open the store of a node, with a short lease and short waits where it has such."""
    if options.lease_seconds is None:
        return open_store(options.url)
    from session_fsm.stores import PostgresStore

    return PostgresStore(
        options.url,
        lease_seconds=options.lease_seconds,
        statement_timeout_seconds=options.lease_seconds,
        # Some give up while they still count as alive, others are counted as dead before that.
        retry_seconds=(0.1 if options.node % 2 else 2) * options.lease_seconds,
    )


class Book:
    """Where a node writes what it does; a line that was written is there, whatever becomes of it.

    Args:
        path: The file.

    Threads: safe.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, kind: str, *what: Any) -> None:
        """Write one line."""
        os.write(self._file, (json.dumps((kind, *what)) + "\n").encode())

    def begins(self, call: Call) -> None:
        """Write that a call is about to be made."""
        self.say("begins", attrs.asdict(call))

    def made(self, call: Call) -> None:
        """Write what a caller saw of a call."""
        self.say("made", attrs.asdict(call))


class _Logged(logging.Handler):
    """Writes down what the library warns of."""

    def __init__(self, book: Book) -> None:
        super().__init__(logging.WARNING)
        self._book = book

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        kind = type(fault).__name__ if fault is not None else None
        self._book.say("log", time.monotonic_ns(), record.getMessage(), kind, str(fault))


class Worker:
    """What runs for a session: it writes to it until it is stopped, whatever it is told.

    Args:
        node: Whose worker.
        session_id: For which session.
        name: Nobody else's.
    """

    def __init__(self, node: Node, session_id: str, name: str) -> None:
        self.session_id = session_id
        self._node = node
        self._name = name
        self._chance = random.Random(name)
        self._stopping = threading.Event()
        self._made = 0
        self._task: str | None = None
        node.book.say("starts", name, session_id, time.monotonic_ns())
        self._thread = threading.Thread(target=node.guarded(self._run), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; returns when it has stopped.

        From now on it begins nothing. What it may wait for is the answer to one write, and that is
        the store's to refuse.
        """
        self._stopping.set()
        self._node.book.say("stops", self._name, self.session_id, time.monotonic_ns())
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._node.stopped(self)

    def _run(self) -> None:
        while not self._stopping.wait(self._chance.uniform(0.01, 0.1)):
            self._made += 1
            tag = f"op:{self._name}.{self._made}"
            luck = self._chance.random()
            if luck < 0.6:
                operation = Operation(tag, "update", self.session_id)
            elif luck < 0.97 and self._task is None:
                operation, self._task = Operation(tag, "begin_task", self.session_id), tag
            elif luck < 0.97:
                operation = Operation(tag, "end_task", self.session_id, str(self._task))
                self._task = None
            else:
                operation = Operation(tag, "terminate", self.session_id)
            # Its end is several commits: the session's, and that of its worker.
            self._node.call(operation, whole=operation.verb != "terminate")


class Node:
    """A node; see the module.

    Args:
        options: What it was told.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.book = Book(options.records)
        self._chance = random.Random(options.name)
        self._resting = threading.Event()
        self._ending = threading.Event()
        self._numbers = Counter[str]()
        self._lock = threading.Lock()
        self._mine: set[Worker] = set()
        self._manager: SessionManager | None = None

    @property
    def manager(self) -> SessionManager:
        """Its manager, once the store could be opened."""
        assert self._manager is not None
        return self._manager

    def run(self) -> None:
        """Live until it is told to end."""
        self.book.say("begins life", time.monotonic_ns())
        hearing = threading.Thread(target=self._hear, daemon=True)
        hearing.start()
        store = self._open()
        if store is None:
            return
        with closing(store), self.manager:
            print("open", flush=True)
            jobs = [self._keep_up, self._follow, self._limit_tasks, self._begin_workers]
            lives = self._lives()
            jobs += [self._caller(number, lives) for number in range(self.options.callers)]
            threads = [threading.Thread(target=self.guarded(job)) for job in jobs]
            for each in threads:
                each.start()
            for each in threads[2:]:
                each.join()
            print("rests", flush=True)
            for each in threads[:2]:
                each.join()

    def guarded(self, job: Callable[[], None]) -> Callable[[], None]:
        """Return a job whose failure is written down."""

        def run() -> None:
            try:
                job()
            except BaseException as fault:  # noqa: BLE001 - whatever it is, it must be heard of
                self.book.say("broken", time.monotonic_ns(), f"{type(fault).__name__}: {fault}")

        return run

    def stopped(self, worker: Worker) -> None:
        """Hear that a worker does not run any longer."""
        with self._lock:
            self._mine.discard(worker)

    def call(
        self, operation: Operation, make: Callable[[], Session] | None = None, *, whole: bool = True
    ) -> None:
        """Make a call, and write down what came of it.

        Args:
            operation: What is asked for.
            make: Asks for it; None: what the operation says.
            whole: Whether it is one commit; of others it is not known how much of them was made.
        """

        def do() -> Session:
            return perform(self.manager, operation) if make is None else make()

        try:
            call = recorded(operation, do, time.monotonic_ns, self.book.begins)
        except SessionStartError:
            return  # what it did, it did by halves
        except ManagerClosedError:
            return  # by a worker that is about to be stopped
        # What sees the end of a session with a worker goes on with it, in a commit of its own.
        sees_end = operation.session_id[0] == "w" and call.status in {"terminating", "terminated"}
        self.book.made(call if whole and not sees_end else attrs.evolve(call, open=True))

    # --- its jobs -------------------------------------------------------------------------

    def _hear(self) -> None:
        sys.stdin.readline()
        self._resting.set()
        sys.stdin.readline()
        self._ending.set()

    def _open(self) -> SessionStore | None:
        while True:
            try:
                store = opened_store(self.options)
            except StoreUnavailableError as fault:
                self.book.say("shut out", time.monotonic_ns(), str(fault))
            else:
                try:
                    self._manager = SessionManager(store)
                except StoreUnavailableError as fault:
                    self.book.say("shut out", time.monotonic_ns(), str(fault))
                    store.close()
                else:
                    self.book.say("open", time.monotonic_ns())
                    return store
            if self._ending.wait(RETRY_SECONDS):
                return None

    def _lives(self) -> dict[str, int]:
        lives: dict[str, int] = {}
        try:
            for session_id in all_ids(self.manager.store):
                place, _, life = session_id.partition(".")
                if life.isdigit():
                    lives[place] = max(int(life), lives.get(place, 0))
        except StoreError:
            pass  # it finds out one by one
        return lives

    def _caller(self, number: int, lives: dict[str, int]) -> Callable[[], None]:
        name = f"{self.options.name}c{number}"
        chance = random.Random(f"{name} waits")

        def call() -> None:
            driver = Driver(
                self.manager,
                name,
                self.options.places,
                time.monotonic_ns,
                lives=lives,
                begins=self.book.begins,
            )
            while not self._resting.wait(chance.expovariate(1 / self.options.pause_seconds)):
                self.book.made(driver.call())

        return call

    def _keep_up(self) -> None:
        """Sweep, and recover what the dead have left, for as long as it lives."""
        owner_id = ""
        while not self._ending.wait(UPKEEP_SECONDS):
            if (present := self.manager._core.owner_id) != owner_id:
                owner_id = present
                self.book.say("owner", time.monotonic_ns(), owner_id)
            try:
                swept = self.manager.sweep()
                report = self.manager.recover(restart=self._anew, max_takeovers=MOST_TAKEOVERS)
            except StoreError as fault:
                self.book.say("hindered", time.monotonic_ns(), type(fault).__name__, str(fault))
                continue
            counts = [
                *(len(swept.fired), len(report.released), len(report.ended)),
                *(len(report.restarted), len(report.dropped_tasks)),
            ]
            if any(counts):
                self.book.say("kept up", time.monotonic_ns(), *counts)
            for session_id, problem in (*swept.failed, *report.failed):
                self.book.say("failed", time.monotonic_ns(), session_id, problem)

    def _follow(self) -> None:
        """Read what happens anywhere, from now on, for as long as it lives."""
        after: int | None = None
        while not self._ending.wait(UPKEEP_SECONDS):
            try:
                page = self.manager.read_events(after, limit=500)
            except StoreError as fault:
                self.book.say("hindered", time.monotonic_ns(), type(fault).__name__, str(fault))
                continue
            told = [(each.position, each.session_id, each.revision) for each in page.events]
            if after is None or told:
                self.book.say("feed", after, page.position, told)
            after = page.position

    def _limit_tasks(self) -> None:
        """Begin tasks with a time limit, each in a session of its own, and end none."""
        while not self._resting.wait(self._chance.uniform(0.2, 0.6)):
            name = self._numbered("t")
            create = Operation(f"op:{name}", "create", name)
            self.call(create)
            limit = round(self._chance.uniform(0.3, 1.5), 3)
            begin = Operation(f"op:{name}.task", "begin_task", name, str(limit))

            def begin_task(task: Operation = begin, seconds: float = limit) -> Session:
                return self.manager.begin_task(task.session_id, task.tag, timeout_seconds=seconds)

            self.call(begin, begin_task)

    def _begin_workers(self) -> None:
        """Begin sessions with workers, up to a number at a time."""
        while not self._resting.wait(self._chance.uniform(0.2, 0.6)):
            if len(self._mine) >= self.options.workers:
                continue
            name = self._numbered("w")
            operation = Operation(f"op:{name}", "create", name, "worker")
            policy = self._chance.choice(POLICIES)

            def create(made: Operation = operation, recovery: str = policy) -> Session:
                return self.manager.create(
                    made.session_id,
                    config={"max_conversations": None, "recovery": recovery},
                    metadata={"tag": made.tag, "worker": True, "count": 0},
                    start=self._anew,
                )

            self.call(operation, create, whole=False)

    def _anew(self, session: Session) -> Worker:
        """Start a worker for a session."""
        name = self._numbered("k")
        worker = Worker(self, session.session_id, name)
        with self._lock:
            self._mine.add(worker)
        return worker

    def _numbered(self, kind: str) -> str:
        with self._lock:
            self._numbers[kind] += 1
            return f"{kind}{self.options.name}.{self._numbers[kind]}"


def main() -> None:
    """Live as the command line says."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    options = Options(**json.loads(sys.argv[1]))
    node = Node(options)
    logging.getLogger("session_fsm").addHandler(_Logged(node.book))
    node.guarded(node.run)()
    print("ended", flush=True)


if __name__ == "__main__":
    main()
