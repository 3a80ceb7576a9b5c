"""However a worker process is ended, all that came from it ends with it, and it is reaped."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import textwrap
import threading
from pathlib import Path

import pytest
from worker_processes import (
    FORKS_ALL_THE_WHILE,
    PATIENCE_SECONDS,
    Marked,
    Stand,
    has_ended,
    number_of,
    open_descriptors,
    paused,
    run,
    says_ready,
    started,
    within_patience,
    worker_of,
)
from worker_steps import BEFORE_IT_RUNS, STEPS, WHILE_IT_ENDS, TellingMemory, tell_steps

from session_fsm import ProcessDiedError, StoreUnavailableError, looks
from session_fsm.aio import ProcessWorker
from session_fsm.aio.patience import Patience
from session_fsm.orphans import read_log
from session_fsm.processes import ProcessHandle, all_stats
from session_fsm.stores import MemoryStore

pytest_plugins = ("worker_fixtures",)
pytestmark = pytest.mark.usefixtures("marked")

SAYS_BYE = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(os.write(1, b"bye\\n")))
"""
SAYS_NO = SAYS_BYE.replace("os._exit", "bool").replace("bye", "no")
NO_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"

# What a process may begin; each line of output is one that runs, in whatever group and session.
BEGIN = """
import os, signal, subprocess, sys
PAUSE = [sys.executable, "-I", "-S", "-c",
    sys.argv[1] + "print('up', flush=True); import signal\\nwhile True: signal.pause()"]
def begin(**options):
    child = subprocess.Popen(PAUSE, stdout=subprocess.PIPE, **options)
    assert child.stdout.readline() == b"up\\n"
    return child
"""
FAMILIES = {
    "alone": "",
    "child": "begin()",
    "group": "begin(process_group=0)",
    "session": "begin(start_new_session=True)",
    "without mark": "begin(env={})",
    "group without mark": "begin(process_group=0, env={})",
    "session without mark": "begin(start_new_session=True, env={})",
    "orphan": """
if os.fork() == 0:
    begin()
    print("begun", flush=True)
    os._exit(0)
os.wait()
""",
    "orphan in a group without mark": """
if os.fork() == 0:
    begin(process_group=0, env={})
    os._exit(0)
os.wait()
""",
    "daemon": """
if os.fork() == 0:
    os.setsid()
    begin(stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os._exit(0)
os.wait()
""",
    "halted": "os.kill(begin().pid, signal.SIGSTOP)",
}


def family(name: str, *, heeds_term: bool, **options: object) -> ProcessWorker:
    """Return a worker whose process has begun others, and is ready when these are up."""
    source = BEGIN + FAMILIES[name]
    beginning = "" if heeds_term else NO_TERM
    text = says_ready(beginning + source)
    return worker_of(text, beginning, ready_line=b"ready", **options)


def kill(worker: ProcessWorker) -> None:
    """Kill the process of a worker, and nothing that came from it."""
    pid = worker.process_id()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def everybody(marked: Marked, pid: int) -> list[ProcessHandle]:
    """Hold on to all that came from a process: by mark, by session and by parents."""
    stats = {stat.pid: stat for stat in all_stats()}
    found = {pid, *marked.pids(), *(each.pid for each in stats.values() if each.session == pid)}
    while more := {each.pid for each in stats.values() if each.parent in found} - found:
        found |= more
    handles = (ProcessHandle.take(each, stats[each].start_ticks) for each in found)
    return [handle for handle in handles if handle is not None]


def assert_gone(handles: list[ProcessHandle]) -> None:
    """Check that none of some processes runs, and let go of them."""
    alive = [handle.pid for handle in handles if not handle.is_gone()]
    for handle in handles:
        handle.send(signal.SIGKILL)
        handle.close()
    assert alive == []


# --- what came from it ----------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("heeds_term", [True, False], ids=["heeds", "ignores"])
def test_process_worker_ends_all_that_came_from_it(
    marked: Marked, name: str, heeds_term: bool
) -> None:
    """Asked to stop, the process and its descendants end, be it that they have to be killed."""
    stand = Stand()
    worker = family(name, heeds_term=heeds_term, term_seconds=60.0 if heeds_term else 0.01)

    async def work() -> None:
        task = await started(worker, stand)
        handles = everybody(marked, number_of(worker))
        assert len(handles) == 1 + (name != "alone")
        stand.stopping.set()
        await within_patience(task)
        assert_gone(handles)

    run(work())
    assert stand.store.marks("worker/") == ()


# Without mark, parent, group and session nothing tells where a process came from.
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "session without mark"])
def test_process_worker_leaves_nothing_of_a_process_that_died(marked: Marked, name: str) -> None:
    """When the process is killed by itself, what it has begun is killed too, with no more delay."""
    stand, worker = Stand(), family(name, heeds_term=False, term_seconds=PATIENCE_SECONDS)

    async def work() -> None:
        task = await started(worker, stand)
        handles = everybody(marked, number_of(worker))
        os.kill(number_of(worker), signal.SIGKILL)
        with pytest.raises(ProcessDiedError):
            await within_patience(task)
        assert_gone(handles)

    run(work())
    assert stand.store.marks("worker/") == ()


def test_process_worker_kills_what_an_exit_leaves(marked: Marked) -> None:
    """A process that exits well leaves nothing running, and is a run that returns."""
    stand, worker = Stand(), worker_of(BEGIN + "begin(start_new_session=True)", NO_TERM)
    run(worker(stand))
    assert marked.pids() == set()


def test_process_worker_kills_those_who_fork_all_the_while(tmp_path: Path) -> None:
    """Of a group whose processes replace themselves without end, none gets away."""
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    source = f"""
        import os, signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        held = os.open({str(fifo)!r}, os.O_WRONLY)
    """
    source = textwrap.dedent(source) + textwrap.dedent(FORKS_ALL_THE_WHILE)
    stand, worker = Stand(), worker_of(source, ready_line=b"ready", term_seconds=0.0)

    async def work() -> None:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            task = await started(worker, stand)
            stand.stopping.set()
            await within_patience(task)
            assert has_ended(reader)
        finally:
            os.close(reader)

    run(work())


def test_process_worker_ends_a_halted_process() -> None:
    """A process that was halted is woken, so that it can do what it does when asked to end."""
    stand, worker = Stand(), paused(SAYS_BYE, term_seconds=60.0)

    async def work() -> None:
        task = await started(worker, stand)
        os.kill(number_of(worker), signal.SIGSTOP)
        stand.stopping.set()
        await within_patience(task)

    run(work())
    assert worker.log() == b"ready\nbye\n"


def test_process_worker_asks_all_before_it_kills() -> None:
    """All get the time that was given: each says its last word, whatever it exits with."""
    source = """
        import os, signal
        up, is_up = os.pipe()
        child = os.fork()
        def end(*_):
            if child:
                os.waitpid(child, 0)
            os.write(1, b"parent ends\\n" if child else b"child ends\\n")
            os._exit(5)
        signal.signal(signal.SIGTERM, end)
        if child == 0:
            os.setsid()
            os.write(is_up, b"x")
        elif os.read(up, 1):
            print("ready", flush=True)
        while True: signal.pause()
    """
    stand, worker = Stand(), worker_of(source, ready_line=b"ready", term_seconds=60.0)

    async def work() -> None:
        task = await started(worker, stand)
        stand.stopping.set()
        await within_patience(task)

    run(work())
    assert worker.log() == b"ready\nchild ends\nparent ends\n"


# --- cancelled ------------------------------------------------------------------------------


def test_process_worker_is_ended_by_a_cancellation(marked: Marked) -> None:
    """Cancelled, it asks its process to end and waits for that, then it is cancelled."""
    stand, worker = Stand(), paused(SAYS_BYE, term_seconds=60.0)

    async def work() -> None:
        task = await started(worker, stand)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        assert marked.pids() == set()

    run(work())
    assert worker.log() == b"ready\nbye\n"
    assert stand.store.marks("worker/") == ()


@pytest.mark.parametrize("first", ["stop", "cancel"])
def test_process_worker_is_hurried_by_a_second_cancellation(marked: Marked, first: str) -> None:
    """Cancelled when it has been asked to end already, it waits no longer, but kills and reaps."""
    stand, worker = Stand(), paused(SAYS_NO, term_seconds=10**6)

    async def work() -> None:
        task = await started(worker, stand)
        if first == "stop":
            stand.stopping.set()
        else:
            task.cancel()
        while worker.log() != b"ready\nno\n":
            await asyncio.sleep(0)
        task.cancel()
        await within_patience(asyncio.wait((task,)))
        assert task.cancelled()
        assert marked.pids() == set()

    run(work())
    assert stand.store.marks("worker/") == ()


def test_process_worker_is_ended_with_its_loop(marked: Marked) -> None:
    """When a loop cancels all of its tasks at its end, the process is ended and reaped."""
    stand, worker = Stand(), paused()

    async def work() -> None:
        await started(worker, stand)  # and nobody waits for it

    run(work())
    assert marked.pids() == set()
    assert stand.store.marks("worker/") == ()


class Halt:
    """Stops a run at a step, in whatever thread makes it, until it is told to go on.

    Attributes:
        store: What the run is to write to.
        reached: Set when it has got there.
        go_on: What it waits for there.
    """

    def __init__(self, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._step = step
        self.store = TellingMemory(self._at)
        tell_steps(self._at, monkeypatch.setattr)

    def _at(self, step: str) -> None:
        if step == self._step:
            self.reached.set()
            assert self.go_on.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("cancels", [1, 2, 5])
@pytest.mark.parametrize("step", STEPS)
def test_process_worker_is_reaped_wherever_it_is_cancelled(
    marked: Marked, monkeypatch: pytest.MonkeyPatch, step: str, cancels: int
) -> None:
    """Cancelled at any step, once or often, it leaves no process, no record and no descriptor."""
    halt = Halt(step, monkeypatch)
    stand, worker = Stand(store=halt.store), paused()

    async def work() -> None:
        before = open_descriptors()
        task = asyncio.ensure_future(worker(stand))
        if step in ("ready", *WHILE_IT_ENDS):
            await within_patience(stand.is_ready.wait())
        if step in WHILE_IT_ENDS:
            stand.stopping.set()
        if step != "ready":
            assert await asyncio.to_thread(halt.reached.wait, PATIENCE_SECONDS)
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        halt.go_on.set()
        await within_patience(asyncio.wait((task,)))
        assert task.cancelled()
        assert open_descriptors() == before

    run(work())
    assert marked.pids() == set()
    assert stand.store.marks("worker/") == ()


@pytest.mark.parametrize("step", BEFORE_IT_RUNS)
def test_process_worker_that_is_stopped_before_it_runs_returns(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Asked to stop before its program runs, it returns, and the program has done nothing."""
    halt = Halt(step, monkeypatch)
    stand, worker = Stand(store=halt.store), paused("print('begun')")

    async def work() -> None:
        task = asyncio.ensure_future(worker(stand))
        assert await asyncio.to_thread(halt.reached.wait, PATIENCE_SECONDS)
        stand.stopping.set()
        halt.go_on.set()
        await within_patience(task)

    run(work())
    if step != "letting go":
        assert worker.log() == b""
    assert stand.store.marks("worker/") == ()


@pytest.mark.parametrize("step", ["noted", "letting go"])
def test_process_worker_tells_who_died_before_it_ran(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A process that is killed before it was let go has died, by that signal."""
    halt = Halt(step, monkeypatch)
    stand, worker = Stand(store=halt.store), paused()

    async def work() -> None:
        task = asyncio.ensure_future(worker(stand))
        assert await asyncio.to_thread(halt.reached.wait, PATIENCE_SECONDS)
        os.kill(number_of(worker), signal.SIGKILL)
        halt.go_on.set()
        with pytest.raises(ProcessDiedError) as caught:
            await within_patience(task)
        assert caught.value.signal == signal.SIGKILL

    run(work())
    assert not stand.is_ready.is_set()
    assert stand.store.marks("worker/") == ()


# --- where something is missing -------------------------------------------------------------


def without_pidfds(_: int) -> int:
    """Stand in for `os.pidfd_open` where the kernel has none."""
    raise OSError(errno.ENOSYS, "no pidfds")


@pytest.mark.parametrize("way", ["exit", "kill", "stop", "cancel", "force"])
def test_process_worker_does_without_pidfds(
    marked: Marked, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """On an old kernel all is as elsewhere, but that it is looked, and not told, who has ended."""
    monkeypatch.setattr(os, "pidfd_open", without_pidfds)
    source = BEGIN + "begin(start_new_session=True)"
    if way == "exit":
        worker = worker_of(source, "")
        run(worker(Stand()))
        assert marked.pids() == set()
        return
    beginning = NO_TERM if way == "force" else ""
    stand = Stand()
    worker = worker_of(
        says_ready(beginning + source),
        beginning,
        ready_line=b"ready",
        term_seconds=0.1 if way == "force" else PATIENCE_SECONDS,
    )

    async def work() -> None:
        task = await started(worker, stand)
        if way == "kill":
            os.kill(number_of(worker), signal.SIGKILL)
        elif way == "cancel":
            task.cancel()
        else:
            stand.stopping.set()
        await within_patience(asyncio.wait((task,)))
        assert task.cancelled() == (way == "cancel")
        assert (not task.cancelled() and task.exception() is not None) == (way == "kill")

    run(work())
    assert marked.pids() == set()
    assert stand.store.marks("worker/") == ()


def test_process_worker_ends_where_no_thread_can_be_had(
    marked: Marked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives no more threads, the loop does itself what they would do."""
    stand, worker = Stand(), paused()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def work() -> None:
        task = await started(worker, stand)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        stand.stopping.set()
        await within_patience(task)

    run(work())
    assert marked.pids() == set()
    assert stand.store.marks("worker/") == ()


def test_process_worker_ends_where_no_descriptor_can_be_had(
    marked: Marked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing can be opened, the group is killed all the same; the record stays."""
    stand, worker = Stand(), paused()

    def refuse(_: object) -> object:
        raise OSError(errno.EMFILE, "no descriptors left")

    async def work() -> None:
        task = await started(worker, stand)
        monkeypatch.setattr(looks, "find_members", refuse)
        stand.stopping.set()
        await within_patience(task)

    run(work())
    assert marked.pids() == set()
    assert len(stand.store.marks("worker/")) == 1
    assert "no descriptors left" in caplog.text


def test_process_worker_ends_though_that_can_not_be_noted(
    marked: Marked, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the store takes no note of the end, the run ends as it would; the record stays."""

    class Full(MemoryStore):
        def drop_mark(self, name: str) -> None:
            raise StoreUnavailableError(problem="the disk is full")

    stand, worker = Stand(store=Full()), worker_of("print('done')")
    run(worker(stand))
    assert marked.pids() == set()
    assert len(stand.store.marks("worker/")) == 1
    assert read_log(stand.store, stand.session_id, stand.name) == b"done\n"
    assert "the disk is full" in caplog.text


def test_process_worker_hears_of_whatever_a_call_raises() -> None:
    """A call that raises `StopIteration`, which no future can hold, fails and is not lost."""

    def stops() -> None:
        raise StopIteration

    async def make() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(Patience().made(stops), PATIENCE_SECONDS)

    asyncio.run(make())
