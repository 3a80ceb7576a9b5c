"""What the tests of the manager share: places for sessions, threads, processes, faulty stores."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

from session_fsm import SESSION_LIFECYCLE, Lifecycle, SessionEvent, SessionManager
from session_fsm.clock import ManualClock
from session_fsm.stores import MemoryStore, SessionStore, SqliteStore
from session_fsm.stores.records import Commit, Work
from session_fsm.workers import DeferredWorker

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""Where every manual clock stands at first."""
PATIENCE_SECONDS = 20.0
"""How long a test waits for a thread or a process; only a deadlock takes that long."""

Result = TypeVar("Result")


def seconds(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(seconds=number)


def minutes(number: float) -> timedelta:
    """Return a duration."""
    return timedelta(minutes=number)


# --- stores that can be looked into and made to fail -----------------------------------------


class Hooks:
    """Mixed into a store: counts what is asked of it, and lets a test in between.

    Attributes:
        calls: How often each method was called, by name.
        before: Called by the name of a method before it does its work; may raise.
        after: Called by the name of a method after it did its work; may raise.
    """

    calls: Counter[str]
    before: dict[str, Callable[..., object]]
    after: dict[str, Callable[..., object]]

    def _hooked(self, name: str, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self.calls[name] += 1
        if (hook := self.before.get(name)) is not None:
            hook(*arguments)
        result = method(*arguments)
        if (hook := self.after.get(name)) is not None:
            hook(*arguments)
        return result

    def _no_hooks(self) -> None:
        self.calls, self.before, self.after = Counter(), {}, {}


class HookedMemory(Hooks, MemoryStore):
    """The store in memory, with hooks."""

    def __init__(self, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> None:
        self._no_hooks()
        super().__init__(lifecycle)


class HookedSqlite(Hooks, SqliteStore):
    """The embedded store, with hooks."""

    def __init__(
        self, path: Path, lifecycle: Lifecycle = SESSION_LIFECYCLE, **options: Any
    ) -> None:
        self._no_hooks()
        super().__init__(path, lifecycle, **options)


def _hook_methods(kind: type[Hooks], base: type[SessionStore]) -> None:
    def hooked(name: str) -> Callable[..., Any]:
        def method(self: Hooks, *arguments: Any, **options: Any) -> Any:
            original = getattr(base, name)
            return self._hooked(name, lambda *given: original(self, *given, **options), arguments)

        return method

    more = {"commit_all", "compact", "give_back", "take_over"}
    for name in SessionStore.__abstractmethods__.union(more).difference({"batch", "close"}):
        setattr(kind, name, hooked(name))


_hook_methods(HookedMemory, MemoryStore)
_hook_methods(HookedSqlite, SqliteStore)

HookedStore = HookedMemory | HookedSqlite


def once(action: Callable[..., object]) -> Callable[..., None]:
    """Return a hook that does something the first time only."""
    left = [action]

    def hook(*arguments: Any) -> None:
        if left:
            left.pop()(*arguments)

    return hook


def commit_of(session_id: str) -> Callable[[Commit], bool]:
    """Return what tells the commits of one session from others."""
    return lambda commit: commit.session_id == session_id


# --- places where sessions are kept ----------------------------------------------------------


class House:
    """One place where sessions are kept, and any number of managers over it.

    Args:
        kind: `memory` (one store that all managers share) or `sqlite` (one file).
        directory: Where the file lies.
    """

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.clock = ManualClock(START)
        self.path = directory / "sessions.db"
        self._shared: HookedMemory | None = None
        self._closing = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """The URL of the store; of the one in memory, one that nobody shares."""
        return "memory://" if self.kind == "memory" else f"sqlite:///{self.path}"

    def store(self, lifecycle: Lifecycle = SESSION_LIFECYCLE, **options: Any) -> HookedStore:
        """Open a store with hooks; in memory, always the same one."""
        if self.kind == "memory":
            if self._shared is None:
                self._shared = HookedMemory(lifecycle)
            return self._shared
        store = HookedSqlite(self.path, lifecycle, **options)
        self._closing.callback(store.close)
        return store

    def open(self, **options: Any) -> SessionManager:
        """Open one more manager; it is closed with the house."""
        options.setdefault("clock", self.clock)
        if "store" not in options:
            lifecycle = options.get("lifecycle", SESSION_LIFECYCLE)
            options["store"] = self.store(lifecycle) if self.kind == "memory" else self.url
        manager = SessionManager(**options)
        self._closing.callback(manager.close)
        return manager

    def close(self) -> None:
        """Close everything that was opened; a lock that is never let go of fails the test."""
        end(begin(self._closing.close))


# --- what listens and works ------------------------------------------------------------------


class Recorder:
    """A subscriber that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[SessionEvent] = []

    def __call__(self, event: SessionEvent) -> None:
        self.events.append(event)

    @property
    def told(self) -> list[tuple[str, int]]:
        """Sessions and revisions, in the order in which they were told."""
        return [(event.session_id, event.revision) for event in self.events]


class Seconds:
    """What has passed, as a test says."""

    def __init__(self) -> None:
        self.passed = 1000.0

    def __call__(self) -> float:
        return self.passed


class Worker:
    """A worker that notes each stop, and does something while it stops.

    Args:
        on_stop: Called by `stop`.
    """

    def __init__(self, on_stop: Callable[[], object] | None = None) -> None:
        self.stops = 0
        self._on_stop = on_stop

    def stop(self) -> None:
        """Note the stop."""
        self.stops += 1
        if self._on_stop is not None:
            self._on_stop()


class SlowWorker(DeferredWorker):
    """A worker that takes its time to stop, and tells of it when a test has it told."""

    shown = None

    def __init__(self, node: SessionManager) -> None:
        self.owner_id = node._core.owner_id

    def ask_to_stop(self) -> None:
        """Take one's time."""

    def give_up(self, within_seconds: float) -> None:
        """Take one's time."""


def triggers(manager: SessionManager, session_id: str) -> list[str | None]:
    """Return what was fired in a session, in order."""
    return [event.trigger for event in manager.history(session_id)]


def no_gaps(manager: SessionManager, session_id: str) -> bool:
    """Tell whether the revisions of a session follow each other, up to the present one."""
    revisions = [event.revision for event in manager.history(session_id)]
    first, last = revisions[0], manager.get(session_id).revision
    return revisions == list(range(first, last + 1))


def work_left(manager: SessionManager, session_id: str) -> set[Work]:
    """Return the work in progress that the store knows of."""
    return set(manager.store.work_in(session_id))


# --- threads ---------------------------------------------------------------------------------


def begin(action: Callable[..., Result], *arguments: Any, **options: Any) -> Future[Result]:
    """Do something on a thread of its own; a thread that hangs does not hold up the test run."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(action(*arguments, **options))
        except BaseException as fault:  # noqa: BLE001 - handed on to whoever asks for the result
            future.set_exception(fault)

    threading.Thread(target=run, daemon=True).start()
    return future


def end(*futures: Future[Any]) -> list[Any]:
    """Wait for threads, and return or raise what came of them; too long a wait is a deadlock."""
    return [future.result(PATIENCE_SECONDS) for future in futures]


def wait_until(condition: Callable[[], bool]) -> None:
    """Give others their turn until something holds."""
    looks, end = threading.Event(), monotonic() + PATIENCE_SECONDS
    while not condition():
        assert monotonic() < end, "nothing came of it"
        looks.wait(0.001)


def await_event(event: threading.Event) -> None:
    """Wait for an event that must come."""
    assert event.wait(PATIENCE_SECONDS), "what was waited for never happened"


def together(*actions: Callable[[], Result]) -> list[Result]:
    """Do things at once, each on a thread of its own, all begun at one barrier."""
    barrier = threading.Barrier(len(actions))

    def run(action: Callable[[], Result]) -> Result:
        barrier.wait(PATIENCE_SECONDS)
        return action()

    return cast("list[Result]", end(*(begin(run, action) for action in actions)))


# --- processes -------------------------------------------------------------------------------


class RemoteError(Exception):
    """What a verb raised in another process."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class RemoteManager:
    """A manager in a process of its own, which can be killed at any moment.

    Args:
        url: The store that it opens.
    """

    def __init__(self, url: str) -> None:
        script = Path(__file__).with_name("manager_process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", script, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._said, self._heard = self._process.stdin, self._process.stdout
        self.owner_id: str = self.answer()

    def ask(self, verb: str, *arguments: Any, **options: Any) -> None:
        """Ask for a verb, and don't wait for the answer."""
        self._said.write(json.dumps([verb, arguments, options]) + "\n")
        self._said.flush()

    def answer(self) -> Any:
        """Return the next thing that the process says."""
        line = self._heard.readline()
        assert line, f"the process ended: {self._process.poll()}"
        said = json.loads(line)
        if isinstance(said, Mapping) and "error" in said:
            raise RemoteError(said["error"], said["message"])
        return said

    def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """Ask for a verb, and return its answer."""
        self.ask(verb, *arguments, **options)
        return self.answer()

    def kill(self) -> None:
        """End the process without any chance to tidy up."""
        self._process.send_signal(signal.SIGKILL)
        self._let_go()

    def close(self) -> None:
        """Let the process end in good order."""
        self._let_go()

    def _let_go(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._said.close()
        self._process.wait(PATIENCE_SECONDS)
        self._heard.close()
