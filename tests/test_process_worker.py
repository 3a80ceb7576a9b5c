"""A worker process runs as it was asked to, and is noted before that; how it ended is told."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import attrs
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
    worker_of,
)

from session_fsm import ProcessDiedError, StoreUnavailableError
from session_fsm import processes as processes_module
from session_fsm.aio import ProcessWorker
from session_fsm.orphans import WorkerRecord, read_log
from session_fsm.processes import MARKER, stat_of, this_place, tokens_of
from session_fsm.stores import MemoryStore

pytest_plugins = ("worker_fixtures",)
pytestmark = pytest.mark.usefixtures("marked")


class HookedMarks(MemoryStore):
    """A store that is held up before it writes a mark, and may refuse to.

    Attributes:
        writing: Set when a mark is about to be written.
        go_on: What that waits for.
        refuses: Whether no mark is written.
        written: Every mark that was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writing = threading.Event()
        self.go_on = threading.Event()
        self.refuses = False
        self.written: list[tuple[str, bytes]] = []

    def set_mark(self, name: str, body: bytes) -> None:
        self.writing.set()
        assert self.go_on.wait(60)
        if self.refuses:
            raise StoreUnavailableError(problem="the disk is full")
        super().set_mark(name, body)
        self.written.append((name, body))


# --- running --------------------------------------------------------------------------------


def test_process_worker_returns_when_its_process_exits_well() -> None:
    """A process that exits with 0 is a run that returns; it was ready, and no record is left."""
    stand, worker = Stand(), worker_of("print('done')")
    run(worker(stand))
    assert stand.is_ready.is_set()
    assert worker.log() == b"done\n"
    assert worker.process_id() is None
    assert stand.store.marks("worker/") == ()


def test_process_worker_runs_in_a_session_of_its_own(tmp_path: Path) -> None:
    """The process leads a group and a session, has the arguments, the directory and three files."""
    source = """
        import json, os, sys
        ids = os.getpid(), os.getpgrp(), os.getsid(0)
        files = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        print(json.dumps([ids, sys.argv[1:], os.getcwd(), files[:-1], sys.stdin.read()]))
    """
    worker = worker_of(source, "é ", "", "*", cwd=tmp_path)
    run(worker(Stand()))
    ids, arguments, cwd, files, read = json.loads(worker.log())
    assert len(set(ids)) == 1
    assert arguments == ["é ", "", "*"]
    assert cwd == str(tmp_path)
    assert files == [0, 1, 2]
    assert read == ""


@pytest.mark.parametrize("names", [(), ("PATH", "a.b", "é", "LANG")])
def test_process_worker_has_its_environment_exactly(names: tuple[str, ...]) -> None:
    """What the process finds in its environment is what was given, and the mark; nothing else."""
    env = {name: f" {name}=\n" for name in names}
    source = "with open('/proc/self/environ', 'rb') as file: print(ascii(file.read()))"
    worker = worker_of(source, env=env, log_bytes=10**6)
    run(worker(Stand()))
    found = dict(
        entry.split(b"=", 1)
        for entry in eval(worker.log()).split(b"\0")  # the repr of bytes
        if entry
    )
    outer, token = found.pop(MARKER.encode()).split(b":")
    assert found == {name.encode(): value.encode() for name, value in env.items()}
    assert (outer, token) == (os.environ[MARKER].encode(), b"***")


def test_process_worker_inherits_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment of its own the process has that of its manager, as it is then."""
    worker = worker_of("import os; print(os.environ['LATE'])")
    monkeypatch.setenv("LATE", "is here")
    run(worker(Stand()))
    assert worker.log() == b"is here\n"


def test_process_worker_has_the_usual_signals() -> None:
    """No signal is ignored or blocked in the process that is not in its manager."""
    worker = ProcessWorker(["sh", "-c", 'grep -E "^Sig(Blk|Ign)" /proc/self/status'])
    run(worker(Stand()))
    blocked, ignored = (int(line.split()[1], 16) for line in worker.log().splitlines())
    assert blocked == 0
    assert ignored & ~_ignored_here() == 0


def _ignored_here() -> int:
    """Return what is ignored in this process, but for what Python itself ignores.

    By what the kernel says: Python does not know of the signals that the C library keeps.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    [ignored] = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")]
    by_python = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))
    return int(ignored, 16) & ~by_python


def test_process_worker_is_noted_before_it_does_anything(tmp_path: Path) -> None:
    """Until its record is stored the process waits; the record tells who it is, and its group."""
    store, trace = HookedMarks(), tmp_path / "trace"
    stand = Stand(store=store)
    worker = worker_of("import sys; open(sys.argv[1], 'w').close()", trace)

    async def work() -> None:
        task = asyncio.ensure_future(worker(stand))
        assert await asyncio.to_thread(store.writing.wait, 60)
        pid = worker.process_id()
        assert pid is not None
        stat = stat_of(pid)
        assert stat is not None
        assert not stat.is_over
        assert (stat.group, stat.session) == (pid, pid)
        assert not stand.is_ready.is_set()
        assert not trace.exists()
        store.go_on.set()
        await task
        name, body = store.written[0]
        record = WorkerRecord.read(name, body)
        names = (record.owner_id, record.session_id, record.child)
        assert names == ("owner-1", "chat/1", "sandbox")
        assert record.name == name
        assert (record.family.pid, record.family.start_ticks) == (pid, stat.start_ticks)
        assert record.family.place == this_place()
        assert json.loads(body)["process_group_id"] == pid
        assert trace.exists()

    run(work())
    assert store.marks("worker/") == ()


def test_process_worker_that_can_not_be_noted_is_not_run(tmp_path: Path) -> None:
    """If the store refuses the record, its error is raised and the program never begins."""
    store, trace = HookedMarks(), tmp_path / "trace"
    store.go_on.set()
    store.refuses = True
    worker = worker_of("import sys; open(sys.argv[1], 'w').close()", trace)
    with pytest.raises(StoreUnavailableError):
        run(worker(Stand(store=store)))
    assert not trace.exists()


def test_process_worker_is_ready_when_it_says_so() -> None:
    """With a line to wait for the process is ready at that line, and at none that resembles it."""
    source = """
        import sys
        print("not ready", flush=True)
        print("ready?", end="", flush=True)
        sys.stdin.readline()
        sys.stdout.write("\\nrea"); sys.stdout.flush()
        sys.stdin.readline()
        sys.stdout.write("dy\\r\\n"); sys.stdout.flush()
        sys.stdin.readline()
    """
    worker = worker_of(source, stdin="pipe", ready_line=b"ready")
    stand = Stand()

    async def work() -> None:
        task = asyncio.ensure_future(worker(stand))
        for said in (b"not ready\nready?", b"not ready\nready?\nrea"):
            while worker.log() != said:
                await asyncio.sleep(0)
            assert not stand.is_ready.is_set()
            await worker.send(b"\n")
        await within_patience(stand.is_ready.wait())
        assert not task.done()
        await worker.send(b"\n")
        await task

    run(work())


def test_process_worker_runs_again() -> None:
    """After its process has ended a worker can be called again, and tells of the new one."""
    worker = worker_of("import sys; print('x' + sys.stdin.readline())", stdin="pipe")

    async def once(word: bytes) -> bytes:
        task = await started(worker, Stand())
        await worker.send(word)
        await task
        return worker.log()

    async def work() -> None:
        assert [await once(b"1\n"), await once(b"2\n")] == [b"x1\n\n", b"x2\n\n"]

    run(work())


def test_process_worker_serves_many_sessions() -> None:
    """One worker runs a process for each session that has it, and tells them apart."""
    worker = worker_of("print(input(), flush=True); input()", stdin="pipe")
    ids = [f"s{number}" for number in range(5)]
    stands = [Stand(session_id=session_id) for session_id in ids]

    async def work() -> None:
        tasks = [await started(worker, stand) for stand in stands]
        assert len({worker.process_id(session_id) for session_id in ids}) == 5
        for session_id in ids:
            await worker.send(session_id.encode() + b"\n", session_id)
        for session_id in ids:
            while worker.log(session_id) != session_id.encode() + b"\n":
                await asyncio.sleep(0)
        stands[2].stopping.set()
        await tasks[2]
        assert [worker.process_id(session_id) is None for session_id in ids] == [
            number == 2 for number in range(5)
        ]
        for stand in stands:
            stand.stopping.set()
        await asyncio.gather(*tasks)

    run(work())


def test_process_worker_runs_in_the_loop_of_any_thread() -> None:
    """No child watcher and no pool of threads is needed: a loop beside the main thread will do."""
    results: list[bytes] = []

    async def work() -> None:
        taken = threading.Event()
        loop = asyncio.get_running_loop()
        # Whatever the loop's own threads do, they are none of ours.
        busy = [loop.run_in_executor(None, taken.wait) for _ in range(64)]
        worker = worker_of("print('here')")
        await worker(Stand())
        results.append(worker.log())
        taken.set()
        await asyncio.gather(*busy)

    thread = threading.Thread(target=lambda: run(work()))
    thread.start()
    thread.join(60)
    assert results == [b"here\n"]


def test_process_worker_leaves_nothing_open() -> None:
    """Of ten runs, ended in each way, no descriptor, thread, child or task is left."""
    threads = set(threading.enumerate())

    async def work() -> None:
        before, tasks = open_descriptors(), asyncio.all_tasks()
        for number in range(10):
            stand, worker = Stand(), paused(stdin="pipe")
            task = await started(worker, stand)
            if number % 3 == 0:
                stand.stopping.set()
                await task
            elif number % 3 == 1:
                task.cancel()
                await asyncio.wait((task,))
            else:
                pid = worker.process_id()
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                with pytest.raises(ProcessDiedError):
                    await task
        assert open_descriptors() == before
        assert asyncio.all_tasks() == tasks

    run(work())
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


# --- what it ends by ------------------------------------------------------------------------


def died(source: str, **options: object) -> ProcessDiedError:
    """Return the error of a process that ends by itself."""
    worker = worker_of(source, "--password=hunter22", **options)
    with pytest.raises(ProcessDiedError) as caught:
        run(worker(Stand()))
    return caught.value


def test_process_worker_tells_the_exit_code() -> None:
    """A process that exits with another code than 0 is an error with the code and last words."""
    error = died("import sys; print('before', flush=True); sys.exit('it broke')")
    assert (error.argv0, error.exit_code, error.signal) == (sys.executable, 1, None)
    assert error.last_output == "before\nit broke"
    assert str(error).endswith("has ended (exit code 1): before | it broke")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_process_worker_tells_the_signal(number: signal.Signals) -> None:
    """A process that is killed is an error with the number of the signal."""
    error = died(f"import os; os.kill(os.getpid(), {int(number)})")
    assert (error.exit_code, error.signal) == (None, number)


def test_process_worker_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment has of secrets, and the arguments, stand in no error and in no log."""
    monkeypatch.setenv("API_KEY", "not-for-you-1")
    env = {**os.environ, "DB_PASSWORD": "not-for-you-2", "HOME": "/home/of-all"}
    source = """
        import os, sys
        print(os.environ)
        print("at " + os.environ["HOME"], os.environ["API_KEY"] + os.environ["DB_PASSWORD"])
        sys.exit(1)
    """
    stand, worker = Stand(), worker_of(source, "--password=hunter22", env=env, log_bytes=10**6)
    with pytest.raises(ProcessDiedError) as caught:
        run(worker(stand))
    told = str(caught.value) + repr(attrs.asdict(caught.value)) + repr(worker.log())
    kept = read_log(stand.store, stand.session_id, stand.name)
    assert kept == worker.log()
    assert "at /home/of-all ******" in told
    assert "not-for-you" not in told
    assert "hunter22" not in told


def test_process_worker_error_survives_pickling() -> None:
    """The error of a process that died goes to another process with its fields."""
    error = died("import sys; print('é\\nb'); sys.exit(7)")
    again = pickle.loads(pickle.dumps(error))
    assert attrs.asdict(again) == attrs.asdict(error)
    assert (again.exit_code, again.last_output) == (7, "é\nb")


def test_process_worker_says_how_little_is_known() -> None:
    """Where somebody else has asked how the process ended, the error says that nobody knows."""
    stand, worker = Stand(), paused()

    async def work() -> None:
        task = await started(worker, stand)
        pid = worker.process_id()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with pytest.raises(ProcessDiedError) as caught:
            await task
        assert (caught.value.exit_code, caught.value.signal) == (None, None)
        assert "nobody knows how" in str(caught.value)

    run(work())
    assert stand.store.marks("worker/") == ()


@pytest.mark.parametrize(
    ("argv", "options", "kind"),
    [
        (["./no such program"], {}, FileNotFoundError),
        (["no-such-program"], {"env": {"PATH": "/bin"}}, FileNotFoundError),
        (["/dev/null"], {}, PermissionError),
        (["true"], {"cwd": "/no such directory"}, FileNotFoundError),
        (["x" * 10**7], {}, OSError),
    ],
    ids=["path", "name", "no program", "directory", "too long"],
)
def test_process_worker_tells_why_a_program_can_not_run(
    argv: list[str], options: dict[str, object], kind: type[OSError]
) -> None:
    """A program that can't be run is the error of the operating system; nothing is left of it."""
    stand = Stand()
    with pytest.raises(kind):
        run(ProcessWorker(argv, **options)(stand))  # type: ignore[arg-type]  # as users write
    assert not stand.is_ready.is_set()
    assert stand.store.marks("worker/") == ()


# --- arguments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"argv": "true"}, TypeError),
        ({"argv": []}, ValueError),
        ({"argv": [""]}, ValueError),
        ({"argv": ["true", 1]}, TypeError),
        ({"argv": ["true", b"hunter22"]}, TypeError),
        ({"argv": ["true", "hunter22\0"]}, ValueError),
        ({"env": {"A": 1}}, TypeError),
        ({"env": {"": "hunter22"}}, ValueError),
        ({"env": {"A=B": "hunter22"}}, ValueError),
        ({"env": {"A": "hunter22\0"}}, ValueError),
        ({"stdin": "file"}, ValueError),
        ({"ready_line": b"a\n"}, ValueError),
        ({"ready_line": "a"}, ValueError),
        ({"term_seconds": -1}, ValueError),
        ({"term_seconds": float("nan")}, ValueError),
        ({"term_seconds": True}, ValueError),
        ({"log_bytes": -1}, ValueError),
        ({"log_bytes": 1.5}, ValueError),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_process_worker_refuses_bad_arguments(
    options: dict[str, object], kind: type[Exception]
) -> None:
    """What can't be run is refused when the worker is made, and no value of a variable is told."""
    with pytest.raises(kind) as caught:
        ProcessWorker(**{"argv": ["true"], **options})  # type: ignore[arg-type]  # what is tested
    assert "hunter22" not in str(caught.value)


def test_process_worker_needs_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where processes can't be told apart, a worker is refused when it is made, with the reason."""
    monkeypatch.setattr(processes_module, "_PROC", str(tmp_path))
    with pytest.raises(NotImplementedError, match="/proc of Linux"):
        ProcessWorker(["true"])


def test_process_worker_needs_a_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a program that has no interpreter to begin processes with, a worker is refused."""
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(NotImplementedError, match="interpreter"):
        ProcessWorker(["true"])


def test_process_worker_shows_no_arguments() -> None:
    """A worker is shown by its program alone."""
    assert repr(ProcessWorker(["true", "hunter22"])) == "<ProcessWorker 'true', 0 running>"


def test_process_worker_marks_what_it_begins(marked: Marked) -> None:
    """Process and descendants have the mark of the worker, behind those of who is around it."""
    worker = paused("import subprocess; subprocess.Popen(['sleep', '1000'])")
    stand = Stand()

    async def work() -> None:
        task = await started(worker, stand)
        [(name, body)] = stand.store.marks("worker/")
        token = WorkerRecord.read(name, body).family.token
        while len(pids := marked.pids()) < 2:  # a new program shows no environment for a moment
            await asyncio.sleep(0)
        assert all(tokens_of(pid) == {marked.token, token} for pid in pids)
        stand.stopping.set()
        await task

    run(work())
