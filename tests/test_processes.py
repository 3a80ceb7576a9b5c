"""A process is told from every other one, also from one that gets its number later."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from worker_processes import PATIENCE_SECONDS, PAUSE, Marked, program

from session_fsm import processes
from session_fsm.families import Family, end_families, find_members
from session_fsm.processes import (
    MARKER,
    Place,
    ProcessHandle,
    ProcessStat,
    all_stats,
    stat_of,
    this_place,
    tokens_of,
    wait_until_gone,
)

pytest_plugins = ("worker_fixtures",)
pytestmark = pytest.mark.usefixtures("marked")

SYS_EXIT = {"x86_64": 60, "aarch64": 93}


@pytest.fixture(params=["pidfd", "number"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With pidfds, and without."""

    def refuse(_: int) -> int:
        raise OSError(errno.ENOSYS, "no pidfds")

    if request.param == "number":
        monkeypatch.setattr(os, "pidfd_open", refuse)
    return str(request.param)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has said that it is up, in a session of its own."""
    command = program(f"print('up', flush=True)\n{PAUSE}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.kill()


def seen(pid: int) -> ProcessStat:
    """Return what is seen of a process that is there."""
    stat = stat_of(pid)
    assert stat is not None
    return stat


def held(pid: int) -> ProcessHandle:
    """Hold on to a process that runs."""
    handle = ProcessHandle.take(pid, seen(pid).start_ticks)
    assert handle is not None
    return handle


def family(pid: int, token: str = "nobody's", **changes: object) -> Family:
    """Return the family of a process that is there, or one that differs from it."""
    ticks = seen(pid).start_ticks
    fields = {"place": this_place(), "pid": pid, "start_ticks": ticks, "token": token, **changes}
    return Family(**fields)  # type: ignore[arg-type]  # by name


# --- what is seen ---------------------------------------------------------------------------


def test_processes_see_this_one() -> None:
    """What is seen of this process is what it knows of itself."""
    stat = seen(os.getpid())
    assert stat.parent == os.getppid()
    assert (stat.group, stat.session) == (os.getpgrp(), os.getsid(0))
    assert not stat.is_over
    assert stat in list(all_stats()) or stat.pid in {each.pid for each in all_stats()}


@pytest.mark.parametrize("name", ["a) R 1 (b", ")", "((", "x y\tz", "\N{BULLET} é"])
def test_processes_see_through_any_name(name: str) -> None:
    """Whatever a process calls itself, the fields behind its name are read."""
    rename = """
        import sys
        with open("/proc/self/comm", "wb") as file: file.write(sys.stdin.buffer.readline()[:-1])
        print("renamed", flush=True)
        input()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(program(rename), stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{name}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"renamed\n"
        assert f"({name[:15]}" in Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        stat = seen(process.pid)
        assert (stat.parent, stat.group) == (os.getpid(), os.getpgrp())
        process.communicate(b"\n")


def test_processes_see_none_where_none_is(other: subprocess.Popen[bytes]) -> None:
    """A number that no process has is no process; one that was not reaped is over."""
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert seen(other.pid).is_over
    assert tokens_of(other.pid) == frozenset()
    other.wait()
    assert stat_of(other.pid) is None
    assert tokens_of(other.pid) == frozenset()


@pytest.mark.skipif(platform.machine() not in SYS_EXIT, reason="the number of a call is needed")
def test_processes_see_one_whose_first_thread_has_ended(kernel: str) -> None:
    """A process whose first thread has ended while another one works is not over."""
    source = f"""
        import ctypes, signal, threading, time
        def work():
            with open("/proc/self/stat") as file:
                while file.read().rpartition(")")[2].split()[0] != "Z":
                    file.seek(0)
            print("up", flush=True)
            threading.Event().wait()
        threading.Thread(target=work).start()
        ctypes.CDLL(None).syscall({SYS_EXIT.get(platform.machine())}, 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(source)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        stat = seen(process.pid)
        assert (stat.state, stat.is_over) == ("Z", False)
        with closing(held(process.pid)) as handle:
            assert handle.send(signal.SIGKILL)
            wait_until_gone([handle], PATIENCE_SECONDS)
            assert handle.is_gone()


def test_processes_see_inherited_tokens(marked: Marked, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens of a process are those that it was begun with; of a mark alike, none."""
    for value, tokens in (("a:b", {"a", "b"}), ("a", {"a"}), ("é", {"\ufffd\ufffd"})):
        monkeypatch.setenv(MARKER, f"{marked.token}:{value}")
        monkeypatch.setenv(f"NOT_{MARKER}", "c")
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            while tokens_of(process.pid) != {marked.token, *tokens}:
                assert process.poll() is None
            process.communicate()
    assert marked.token not in tokens_of(os.getpid())


def test_processes_see_the_tokens_of_one_that_takes_up_a_program(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a new program has no environment for a moment, it is waited for."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    environ, looks = tmp_path / "7" / "environ", []
    environ.parent.mkdir()
    environ.touch()

    def stat_of_new(pid: int) -> ProcessStat:
        looks.append(pid)
        if len(looks) == 3:
            environ.write_bytes(f"A=b\0{MARKER}=token\0".encode())
        return ProcessStat(pid, "R", 1, 7, 7, 1, 0)

    monkeypatch.setattr(processes, "stat_of", stat_of_new)
    assert tokens_of(7) == {"token"}
    assert looks == [7, 7, 7]


@pytest.mark.parametrize(
    "stat",
    [
        ProcessStat(7, "Z", 1, 7, 7, 2, 0),
        ProcessStat(7, "S", 2, 0, 0, 1, 0, flags=0x0020_8040),
        ProcessStat(7, "S", 1, 7, 7, 1, 0, environ_end=1),
        None,
    ],
    ids=["over", "of the kernel", "without environment", "gone"],
)
def test_processes_that_have_no_environment_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stat: ProcessStat | None
) -> None:
    """Whatever will have none has no tokens, which is known at the first look."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "environ").touch()
    looks = []

    def stat_of_it(pid: int) -> ProcessStat | None:
        looks.append(pid)
        return stat

    monkeypatch.setattr(processes, "stat_of", stat_of_it)
    assert tokens_of(7) == frozenset()
    assert looks == [7]


def test_processes_that_can_not_be_looked_at_are_not_taken_for_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where no file can be opened it is not told that a process has no tokens."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    (tmp_path / "7" / "environ").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        tokens_of(7)


def test_processes_tell_what_takes_up_a_program() -> None:
    """This process has an environment, and a thread of the kernel never will."""
    assert seen(os.getpid()).environ_end > 0
    assert not seen(os.getpid()).takes_up_program
    assert not any(stat.takes_up_program for stat in all_stats() if stat.parent == 2)


# --- held -----------------------------------------------------------------------------------


def test_processes_hold_one(kernel: str, other: subprocess.Popen[bytes]) -> None:
    """A process that is held gets its signals until it has ended, and is told to be gone then."""
    with closing(held(other.pid)) as handle:
        assert (handle.fd is None) == (kernel == "number")
        assert not handle.is_gone()
        wait_until_gone([handle], 0.05)
        assert not handle.is_gone()
        assert handle.ask_to_end()
        wait_until_gone([handle], PATIENCE_SECONDS)
        assert handle.is_gone()
        other.wait()
        assert handle.is_gone()
        assert not handle.send(signal.SIGKILL)


def test_processes_are_asked_to_end_that_end_at_once(
    kernel: str, other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has ended before it could be told to go on has been asked to end."""
    module, name = (os, "kill") if kernel == "number" else (signal, "pidfd_send_signal")
    send = getattr(module, name)

    def send_and_reap(to: int, number: int) -> None:
        send(to, number)
        other.wait()

    monkeypatch.setattr(module, name, send_and_reap)
    with closing(held(other.pid)) as handle:
        assert handle.ask_to_end()
    assert other.returncode == -signal.SIGTERM


def test_processes_hold_nobody_else(kernel: str, other: subprocess.Popen[bytes]) -> None:
    """A process that started at another tick is not the one that is meant."""
    ticks = seen(other.pid).start_ticks
    assert ProcessHandle.take(other.pid, ticks - 1) is None
    assert ProcessHandle.take(other.pid, ticks + 1) is None
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert ProcessHandle.take(other.pid, ticks) is None
    other.wait()
    assert ProcessHandle.take(other.pid, ticks) is None


def test_processes_signal_nobody_who_has_the_number_later(kernel: str) -> None:
    """Where another process got the number of one that was held, it gets none of its signals."""
    first = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    with closing(held(first.pid)) as handle:
        first.communicate()
        # Ticks are a hundredth of a second: the next process shall have another one.
        while (second := with_number(first.pid)) is not None:
            if seen(second.pid).start_ticks != handle.start_ticks:
                break
            second.communicate()
        if second is None:
            pytest.skip("the kernel does not let this user choose a number")
        with second:
            assert handle.is_gone()
            assert not handle.send(signal.SIGKILL)
            assert not handle.ask_to_end()
            assert ProcessHandle.take(second.pid, handle.start_ticks) is None
            stranger = family(second.pid, start_ticks=handle.start_ticks)
            [ended] = end_families([stranger], term_seconds=0).values()
            assert (ended.asked, ended.killed, ended.left) == (0, 0, 0)
            assert second.poll() is None
            out, _ = second.communicate(b"alive")
            assert out == b"alive"


def with_number(pid: int) -> subprocess.Popen[bytes] | None:
    """Begin a process that has a number; None if it can't be chosen."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(1000):
        try:
            last.write_text(str(pid - 1), encoding="ascii")
        except OSError:
            return None
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if process.pid == pid:
            return process
        process.communicate()
    return None


# --- families -------------------------------------------------------------------------------


def members(of: Family) -> set[int]:
    """Return who is found of a family."""
    pids = set()
    for handle in find_members([of])[of]:
        pids.add(handle.pid)
        handle.close()
    return pids


def test_families_are_led(other: subprocess.Popen[bytes]) -> None:
    """A family is found by its leader, unless anything of its identity is another's."""
    here = this_place()
    assert members(family(other.pid)) == {other.pid}
    assert members(family(other.pid, start_ticks=seen(other.pid).start_ticks - 1)) == set()
    assert members(family(other.pid, place=Place("another boot", here.pid_namespace))) == set()
    assert members(family(other.pid, place=Place(here.boot_id, "pid:[1]"))) == set()


def test_families_never_have_this_process() -> None:
    """This process is in no family, whatever leads it."""
    assert os.getpid() not in members(family(os.getpid()))
    assert os.getpid() not in members(family(os.getppid()))


def test_families_of_another_namespace_are_found_by_their_mark(marked: Marked) -> None:
    """Where numbers mean nothing, the mark does; in another boot, nothing does."""
    here = this_place()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        while marked.token not in tokens_of(process.pid):
            assert process.poll() is None
        for place, sees in (
            (Place(here.boot_id, "pid:[1]"), True),
            (Place("another boot", here.pid_namespace), False),
        ):
            found = members(family(os.getpid(), marked.token, place=place, start_ticks=0))
            assert (process.pid in found) == sees
        process.communicate()


def test_families_that_are_none_are_ended_at_once() -> None:
    """To end nobody takes no time and asks nobody."""
    assert end_families([], term_seconds=10**6) == {}


# --- where it can be done -------------------------------------------------------------------


def test_processes_need_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /proc, or with that of another namespace, it is said why it can't be done."""
    monkeypatch.setattr(processes, "_PROC", str(tmp_path))
    with pytest.raises(NotImplementedError, match="needs /proc of Linux"):
        this_place()
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot\n", encoding="ascii")
    (tmp_path / "1/ns").mkdir(parents=True)
    (tmp_path / "1/ns/pid").symlink_to("pid:[1]")
    (tmp_path / "self").symlink_to("1")
    with pytest.raises(NotImplementedError, match="mount it anew"):
        this_place()
    (tmp_path / "self").unlink()
    (tmp_path / "self").symlink_to(str(os.getpid()))
    (tmp_path / "1").rename(tmp_path / str(os.getpid()))
    assert this_place() == Place("boot", "pid:[1]")


def test_processes_know_their_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Machines are told apart by what each has written down, which is not shown to others."""
    file = tmp_path / "machine-id"
    monkeypatch.setattr(processes, "_MACHINE", str(file))
    assert this_place().machine_id == ""
    file.write_text("", encoding="ascii")
    assert this_place().machine_id == ""
    file.write_text("0123456789abcdef\n", encoding="ascii")
    one = this_place()
    assert len(one.machine_id) == 32
    assert "0123" not in one.machine_id
    file.write_text("another\n", encoding="ascii")
    other = attrs.evolve(this_place(), boot_id="its boot")
    assert one.is_of_another_machine(other)
    assert not one.is_of_another_machine(attrs.evolve(one, boot_id="earlier"))
    assert not one.is_of_another_machine(this_place())
    file.unlink()
    unknown = attrs.evolve(this_place(), boot_id="its boot")
    assert not one.is_of_another_machine(unknown)
    assert not unknown.is_of_another_machine(one)
