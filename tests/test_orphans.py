"""What a killed manager has left running is found and ended; strangers and the living are not."""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from processes import Program
from test_process_worker_ending import BEGIN, FAMILIES, NO_TERM
from worker_processes import (
    FORKS_ALL_THE_WHILE,
    PATIENCE_SECONDS,
    PAUSE,
    Marked,
    Stand,
    has_ended,
    number_of,
    paused,
    program,
    run,
    says_ready,
    started,
)
from worker_steps import BEFORE_IT_IS_NOTED, STEPS

from session_fsm import CorruptRecordError, Reaped, SessionManager, families, read_log
from session_fsm.families import Family
from session_fsm.orphans import WorkerRecord, reap_orphans
from session_fsm.processes import MARKER, Place, ProcessHandle, stat_of, this_place
from session_fsm.stores import MemoryStore, SqliteStore

pytest_plugins = ("worker_fixtures",)
pytestmark = pytest.mark.usefixtures("marked")

MANAGER = Path(__file__).with_name("worker_steps.py")


def outcomes(reaped: tuple[Reaped, ...]) -> list[str]:
    """Return what became of each."""
    return [each.outcome for each in reaped]


def killed_at(step: str, file: Path, source: str, *arguments: str) -> None:
    """Run a manager with one worker, and kill it at a step."""
    command = [sys.executable, "-W", "error", str(MANAGER), str(file), "dead", step, source]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as manager:
        assert manager.stdout is not None
        assert manager.stdout.readline() == f"{step}\n"
        manager.kill()


# --- after a kill ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_orphans_of_a_manager_killed_at_any_step_are_reaped(
    marked: Marked, tmp_path: Path, step: str
) -> None:
    """Wherever the manager is killed, nothing runs after the recovery, and no record is left."""
    file = tmp_path / "s.db"
    killed_at(step, file, says_ready(NO_TERM + BEGIN + FAMILIES["daemon"]), NO_TERM)
    if step in (*BEFORE_IT_IS_NOTED, "noted"):
        # Who waits to be let go ends by itself, so nobody has to know of it.
        marked.wait_until_gone()
    with closing(SqliteStore(file)) as store:
        recorded = len(store.marks("worker/"))
        assert recorded == (step not in (*BEFORE_IT_IS_NOTED, "dropped"))
        reaped = reap_orphans(store, term_seconds=0.0)
        assert len(reaped) == recorded
        assert {(each.owner_id, each.session_id, each.child) for each in reaped} <= {
            ("dead", "chat/1", "sandbox")
        }
        if step in ("ready", "asking", "asked", "killing"):
            assert (outcomes(reaped), reaped[0].processes) == (["killed"], 2)
        if step in ("noted", "dropping"):
            assert outcomes(reaped) == ["gone"]
        assert marked.pids() == set()
        assert store.marks("worker/") == ()
        assert reap_orphans(store) == ()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("heeds_term", [True, False], ids=["heeds", "ignores"])
def test_orphans_are_ended_with_all_that_came_from_them(
    marked: Marked, tmp_path: Path, name: str, heeds_term: bool
) -> None:
    """The family of an orphan ends with it; who heeds SIGTERM is not killed."""
    file = tmp_path / "s.db"
    beginning = "" if heeds_term else NO_TERM
    killed_at("ready", file, says_ready(beginning + BEGIN + FAMILIES[name]), beginning)
    [(_, body)] = records_in(file)
    leader = json.loads(body)["pid"]
    unmarked = {
        int(each.name)
        for each in Path("/proc").iterdir()
        if each.name.isdecimal()
        and (stat := stat_of(int(each.name))) is not None
        and leader in (stat.parent, stat.session)
    }
    handles = [
        handle
        for pid in unmarked | marked.pids()
        if (stat := stat_of(pid)) is not None
        and (handle := ProcessHandle.take(pid, stat.start_ticks)) is not None
    ]
    assert len(handles) == 1 + (name != "alone")
    with closing(SqliteStore(file)) as store:
        seconds = PATIENCE_SECONDS if heeds_term else 0.0
        [reaped] = reap_orphans(store, term_seconds=seconds)
    alive = [handle.pid for handle in handles if not handle.is_gone()]
    for handle in handles:
        handle.send(signal.SIGKILL)
        handle.close()
    assert alive == []
    assert (reaped.outcome, reaped.processes) == (
        "ended" if heeds_term else "killed",
        len(handles),
    )


def records_in(file: Path) -> tuple[tuple[str, bytes], ...]:
    """Return the records that a file has."""
    with closing(SqliteStore(file)) as store:
        return store.marks("worker/")


def test_orphans_without_leader_are_known_by_their_mark(marked: Marked, tmp_path: Path) -> None:
    """Where the process itself has ended since, what it began is found by its mark, and ended."""
    file = tmp_path / "s.db"
    killed_at("ready", file, says_ready(BEGIN + FAMILIES["daemon"]), "")
    [(name, body)] = records_in(file)
    leader = WorkerRecord.read(name, body).family
    handle = ProcessHandle.take(leader.pid, leader.start_ticks)
    assert handle is not None
    with closing(handle):
        handle.send(signal.SIGKILL)
        marked_left = Marked(leader.token)
        while leader.pid in marked_left.pids():
            pass
    assert len(marked_left.pids()) == 1
    with closing(SqliteStore(file)) as store:
        [reaped] = reap_orphans(store, term_seconds=PATIENCE_SECONDS)
    assert (reaped.outcome, reaped.processes) == ("ended", 1)
    assert marked.pids() == set()


@pytest.mark.parametrize("seconds", [0.0, PATIENCE_SECONDS])
def test_orphans_who_fork_all_the_while_are_killed(store: MemoryStore, seconds: float) -> None:
    """Of a group whose processes replace themselves without end, none gets away."""
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 9):
        pytest.skip("the kernel can't be told a group by a handle")
    reader, writer = os.pipe()
    with subprocess.Popen(
        program(FORKS_ALL_THE_WHILE),
        stdout=subprocess.PIPE,
        pass_fds=[writer],
        start_new_session=True,
    ) as process:
        os.close(writer)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        keep(store, record(process.pid))
        [reaped] = reap_orphans(store, term_seconds=seconds)
        assert has_ended(reader)
    os.close(reader)
    assert reaped.outcome in ("ended", "killed")
    assert store.marks("") == ()


def test_orphans_are_kept_track_of_while_nobody_can_look(
    store: MemoryStore, stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no file can be opened to look for them they are told as left, and records stay."""
    keep(store, record(stranger.pid))

    def no_descriptors(_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(families, "find_members", no_descriptors)
    assert outcomes(reap_orphans(store)) == ["left"]
    assert len(store.marks("")) == 1


# --- who is spared --------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    """A store in memory, in which no owner lives."""
    store = MemoryStore()
    yield store
    store.close()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no worker has begun, in a session of its own."""
    with subprocess.Popen(
        program(f"print('up', flush=True)\n{PAUSE}"), stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        assert process.poll() is None, "the stranger was ended"
        process.kill()


def record(
    pid: int, *, owner_id: str = "dead", child: str = "c", **changes: object
) -> WorkerRecord:
    """Return the record of a process that is there, or one that differs from it."""
    stat = stat_of(pid)
    assert stat is not None
    fields = {
        "place": this_place(),
        "pid": pid,
        "start_ticks": stat.start_ticks,
        "token": secrets.token_hex(16),
        **changes,
    }
    family = Family(**fields)  # type: ignore[arg-type]  # by name
    return WorkerRecord(owner_id=owner_id, session_id="s", child=child, family=family)


def keep(store: MemoryStore, record: WorkerRecord) -> None:
    """Store a record."""
    store.set_mark(record.name, record.to_json())


def test_orphans_spare_a_stranger_who_started_at_another_time(
    store: MemoryStore, stranger: subprocess.Popen[bytes]
) -> None:
    """A process that has the number by now, and started at another tick, is left alone."""
    stat = stat_of(stranger.pid)
    assert stat is not None
    keep(store, record(stranger.pid, start_ticks=stat.start_ticks - 1))
    assert outcomes(reap_orphans(store, term_seconds=0.0)) == ["gone"]
    assert store.marks("") == ()


def test_orphans_spare_a_stranger_of_another_boot(
    store: MemoryStore, stranger: subprocess.Popen[bytes]
) -> None:
    """After a boot nothing is left, whatever has the number and the tick now."""
    here = this_place()
    keep(store, record(stranger.pid, place=Place("earlier", here.pid_namespace)))
    assert outcomes(reap_orphans(store, term_seconds=0.0)) == ["gone"]
    assert store.marks("") == ()


def test_orphans_of_another_machine_are_left_to_it(
    store: MemoryStore, stranger: subprocess.Popen[bytes]
) -> None:
    """What another machine ran may run there still: its record is kept for who can look there.

    That machine itself knows after its next boot that nothing is left.
    """
    here = this_place()
    kept = record(stranger.pid, place=Place("its boot", here.pid_namespace, "another machine"))
    keep(store, kept)
    for _ in range(2):
        assert outcomes(reap_orphans(store, term_seconds=0.0)) == ["elsewhere"]
    assert store.marks("") == ((kept.name, kept.to_json()),)
    assert WorkerRecord.read(kept.name, kept.to_json()).family.place.machine_id == "another machine"
    keep(store, record(stranger.pid, place=attrs.evolve(here, boot_id="earlier")))
    assert outcomes(reap_orphans(store, term_seconds=0.0)) == ["gone"]
    assert store.marks("") == ()


def test_orphans_spare_a_stranger_of_another_namespace(
    store: MemoryStore, stranger: subprocess.Popen[bytes]
) -> None:
    """What belongs to another pid namespace is left alone, and its record is kept."""
    kept = record(stranger.pid, place=Place(this_place().boot_id, "pid:[1]"))
    keep(store, kept)
    for _ in range(2):
        assert outcomes(reap_orphans(store, term_seconds=0.0)) == ["elsewhere"]
    assert store.marks("") == ((kept.name, kept.to_json()),)


def test_orphans_are_not_sought_in_a_real_other_namespace(tmp_path: Path) -> None:
    """From inside another pid namespace, an orphan of this one is told to be elsewhere."""
    file = tmp_path / "s.db"
    killed_at("ready", file, says_ready(""))
    source = """
        import sys
        from session_fsm.orphans import reap_orphans
        from session_fsm.stores import SqliteStore
        print(*(each.outcome for each in reap_orphans(SqliteStore(sys.argv[1]), term_seconds=0.0)))
    """
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    command = [*inside, textwrap.dedent(source), str(file)]
    told = None
    if shutil.which("unshare"):
        told = subprocess.run(command, capture_output=True, check=False)
    with closing(SqliteStore(file)) as store:
        [reaped] = reap_orphans(store, term_seconds=PATIENCE_SECONDS)
    assert (reaped.outcome, reaped.processes) == ("ended", 1)
    if told is None or b"unshare" in told.stderr:
        pytest.skip("this user may not make a namespace")
    assert told.stdout == b"elsewhere\n"
    assert told.stderr == b"worker of owner 'dead', session 'chat/1', child 'sandbox': elsewhere\n"


def test_orphans_spare_those_who_can_not_be_told_from_strangers(marked: Marked) -> None:
    """A group that has lost its leader may be another's by now: who has no mark is left alone."""
    source = """
        import os, signal
        out, end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.execve(os.environ["PYTHON"], [os.environ["PYTHON"], "-I", "-S", "-c",
                f"import os; os.write({end}, b'x')\\n" + os.environ["PAUSE"]], {})
        os.read(out, 1)
        os.write(1, b"%d\\n" % pid)
        os.read(0, 1)
    """.replace("out, end = os.pipe()", "out, end = os.pipe(); os.set_inheritable(end, True)")
    env = {**os.environ, "PYTHON": sys.executable, "PAUSE": PAUSE}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        program(source), env=env, stdin=pipe, stdout=pipe, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        left = int(leader.stdout.readline())
        stat = stat_of(left)
        assert stat is not None
        assert stat.group == leader.pid
        store = MemoryStore()
        keep(store, record(leader.pid))
        assert leader.stdin is not None
        leader.stdin.write(b"x")
        leader.stdin.flush()
        leader.wait(PATIENCE_SECONDS)
    handle = ProcessHandle.take(left, stat.start_ticks)
    assert handle is not None
    with closing(handle):
        assert outcomes(reap_orphans(store, term_seconds=0.0)) == ["gone"]
        assert not handle.is_gone()
        handle.send(signal.SIGKILL)


def test_orphans_are_none_of_the_living(tmp_path: Path) -> None:
    """What a living manager runs is left alone, by its own process and by others."""
    file = tmp_path / "s.db"
    with closing(SqliteStore(file)) as store, closing(SqliteStore(file)) as beside:
        store.enlist("living")
        stand, worker = Stand(store=store, owner_id="living"), paused()

        async def work() -> None:
            task = await started(worker, stand)
            assert reap_orphans(store) == reap_orphans(beside) == ()
            source = """
                import sys
                from session_fsm.orphans import reap_orphans
                from session_fsm.stores import SqliteStore
                print(reap_orphans(SqliteStore(sys.argv[1])))
            """
            with Program(source, file) as other:
                assert other.rest() == ["()"]
            assert not task.done()
            assert stat_of(number_of(worker)) is not None
            stand.stopping.set()
            await task

        run(work())


def test_orphans_who_look_for_their_own_kin_live_on() -> None:
    """Whoever looks for orphans, and is of the same group, is not ended with them."""
    looks = """
        import os, signal
        from session_fsm.families import end_families, family_of
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        [ended] = end_families([family_of(os.getppid(), "token")], term_seconds=20.0).values()
        print(ended.asked, ended.killed, ended.left, flush=True)
    """
    source = f"""
        import subprocess, sys, signal
        subprocess.Popen([sys.executable, "-c", {textwrap.dedent(looks)!r}])
        while True: signal.pause()
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.read() == b"1 0 0\n"
    assert leader.returncode == -signal.SIGTERM


def test_orphans_are_those_of_whom_the_caller_knows_the_death(
    store: MemoryStore, stranger: subprocess.Popen[bytes]
) -> None:
    """Who is alive is what the caller says, asked once for each owner; else what the store says."""
    for owner_id in ("a", "b"):
        for child in ("x", "y"):
            keep(store, record(stranger.pid, owner_id=owner_id, child=child, start_ticks=1))
    asked: list[str] = []

    def is_alive(owner_id: str) -> bool:
        asked.append(owner_id)
        return owner_id == "a"

    reaped = reap_orphans(store, is_alive, term_seconds=0.0)
    assert [(each.owner_id, each.child) for each in reaped] == [("b", "x"), ("b", "y")]
    assert asked == ["a", "b"]
    store.enlist("a")
    assert reap_orphans(store) == ()
    store.dismiss("a")
    assert outcomes(reap_orphans(store)) == ["gone", "gone"]


def test_orphans_never_reap_who_looks_for_them(tmp_path: Path) -> None:
    """A process that was begun by an orphan may look for orphans, and outlives that."""
    file, token = tmp_path / "s.db", secrets.token_hex(16)
    source = """
        import os, sys
        from session_fsm.families import family_of
        from session_fsm.orphans import WorkerRecord, reap_orphans
        from session_fsm.stores import SqliteStore
        family = family_of(os.getpid(), sys.argv[2])
        store = SqliteStore(sys.argv[1])
        record = WorkerRecord(owner_id="dead", session_id="s", child="c", family=family)
        store.set_mark(record.name, record.to_json())
        print(*(each.outcome for each in reap_orphans(store, term_seconds=0.0)))
    """
    with Program(source, file, token, env={**os.environ, MARKER: token}) as inside:
        assert inside.rest() == ["gone"]


# --- many, and twice ------------------------------------------------------------------------


def test_orphans_are_reaped_by_many_at_once(marked: Marked, tmp_path: Path) -> None:
    """Several processes may recover at the same time: all orphans end, and no record is left."""
    files = tmp_path / "s.db"
    for number in range(3):
        killed_at("ready", files, says_ready(NO_TERM), str(number))
        with closing(SqliteStore(files)) as store:
            [(name, body)] = store.marks("worker/dead/")
            store.set_mark(f"worker/dead-{number}/s/c", body)
            store.drop_mark(name)
    assert len(marked.pids()) == 3

    def reap(_: int) -> list[str]:
        with closing(SqliteStore(files)) as store:
            return outcomes(reap_orphans(store, term_seconds=0.0))

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(reap, range(4)))
    assert {outcome for each in told for outcome in each} <= {"killed", "ended", "gone"}
    assert any(len(each) == 3 for each in told)
    assert marked.pids() == set()
    assert records_in(files) == ()


# --- records --------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [("o", "s", "c"), ("a/b", "é %2F", "../x y"), (".", "..", "%")])
def test_orphans_records_are_read_as_they_were_written(ids: tuple[str, str, str]) -> None:
    """A record is the same after it was stored, whatever its ids are."""
    owner_id, session_id, child = ids
    family = Family(place=Place("b", "n"), pid=7, start_ticks=8, token="t")
    one = WorkerRecord(owner_id=owner_id, session_id=session_id, child=child, family=family)
    assert one.name.count("/") == 3
    assert WorkerRecord.read(one.name, one.to_json()) == one


GOOD = {
    "format": 1,
    "pid": 99,
    "process_group_id": 99,
    "start_ticks": 1,
    "boot_id": "b",
    "pid_namespace": "n",
    "token": "t",
}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        *(json.dumps({**GOOD, name: None}).encode() for name in GOOD),
        json.dumps({**GOOD, "format": 2}).encode(),
        json.dumps({**GOOD, "pid": 1, "process_group_id": 1}).encode(),
        json.dumps({**GOOD, "process_group_id": 98}).encode(),
        json.dumps({**GOOD, "token": ""}).encode(),
    ],
)
def test_orphans_records_that_can_not_be_read_are_told(store: MemoryStore, body: bytes) -> None:
    """A record that can't be read is named and kept, and holds up no other."""
    assert WorkerRecord.read("worker/o/s/c", json.dumps(GOOD).encode()).family.pid == 99
    with pytest.raises(CorruptRecordError, match="worker/o/s/c"):
        WorkerRecord.read("worker/o/s/c", body)
    store.set_mark("worker/o/s/c", body)
    store.set_mark("worker/o/s/d", json.dumps(GOOD).encode())
    reaped = reap_orphans(store)
    assert [(each.child, each.outcome) for each in reaped] == [("c", "unreadable"), ("d", "gone")]
    assert store.marks("") == (("worker/o/s/c", body),)


def test_orphans_that_can_not_be_ended_are_told(
    store: MemoryStore,
    stranger: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What runs all the same, such as another user's, is told, and its record stays."""
    monkeypatch.setattr("session_fsm.families.LONGEST_KILL_SECONDS", 0.0)
    monkeypatch.setattr("session_fsm.families.ROUND_SECONDS", 0.0)
    monkeypatch.setattr(ProcessHandle, "send", lambda *_: False)
    keep(store, record(stranger.pid))
    [reaped] = reap_orphans(store, term_seconds=0.0)
    assert reaped == Reaped(owner_id="dead", session_id="s", child="c", outcome="left")
    assert "child 'c': left" in caplog.text
    assert len(store.marks("")) == 1


def test_orphans_of_supervised_sessions_are_recovered(marked: Marked, tmp_path: Path) -> None:
    """A manager that is killed leaves processes; its sessions are recovered without them."""
    url = f"sqlite:///{tmp_path}/s.db"
    with Program(SUPERVISED, url) as other:
        assert other.hear() == "up"
        assert len(marked.pids()) >= 2
    with SessionManager(url) as manager:
        report = manager.recover()
        assert [(each.session_id, each.child) for each in report.reaped] == [("s", "sandbox")]
        assert report.reaped[0].outcome in ("ended", "killed")
        assert report.released == ("s",)
        assert marked.pids() == set()
        assert manager.recover().reaped == ()
        assert manager.terminate("s").status == "terminated"
        manager.store.set_mark("log/s/sandbox", b"what was said")
        assert manager.purge(ended_before=datetime.max.replace(tzinfo=UTC)) == 1
        assert read_log(manager.store, "s", "sandbox") is None


SUPERVISED = """
    import asyncio, sys
    from session_fsm import aio

    async def main():
        line = b"ready"
        code = "import time; print('ready', flush=True); time.sleep(1000)"
        worker = aio.ProcessWorker([sys.executable, "-c", code], ready_line=line)
        async with aio.SessionManager(sys.argv[1]) as manager:
            child = aio.Child("sandbox", worker, signals_ready=True)
            await manager.create("s", config={"timeout_minutes": None}, children=[child])
            print("up", flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""
