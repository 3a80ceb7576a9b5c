"""Processes of the operating system: which one it is, and signals to that one alone.

A process id is a number that is given again. What a process is, for as long as the machine runs, is
told by the number, the tick at which it started, the boot and the namespace in which the number
counts. Nothing here sends a signal to a process whose identity was not seen to be the one that was
meant, and where the kernel has pidfds, what was seen is held until the signal is sent.

Source: proc(5), pidfd_open(2), machine-id(5); Linux only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import attrs

MARKER: Final = "SESSION_FSM_WORKER"
"""The variable of the environment by which descendants are found: tokens, the outermost first."""

LOOK_SECONDS: Final = 0.02
"""How often it is looked whether a process is gone, where the kernel has no pidfds."""

LOOKS_AT_NEW: Final = 100
"""So often, each millisecond, a process is looked at anew that is just taking up a program."""

_PROCESS_GROUP: Final = 4
"""`PIDFD_SIGNAL_PROCESS_GROUP`, from Linux 6.9 on."""
_KERNEL_THREAD: Final = 0x0020_0000
"""`PF_KTHREAD` of the flags of a process."""
_PROC: Final = "/proc"
_MACHINE: Final = "/etc/machine-id"
_ENTRY: Final = f"{MARKER}=".encode()


@attrs.frozen
class Place:
    """Where process ids mean something.

    Attributes:
        boot_id: Of the machine's run.
        pid_namespace: As the kernel names it.
        machine_id: Tells machines apart, of which each boots again and again; empty: not known.
    """

    boot_id: str
    pid_namespace: str
    machine_id: str = attrs.field(default="", eq=False)

    def is_of_another_machine(self, other: Place) -> bool:
        """Tell whether two places are known to be on two machines."""
        # Containers of one machine may have written down what they like.
        return self.boot_id != other.boot_id and "" != self.machine_id != other.machine_id != ""


def _machine_id() -> str:
    try:
        told = Path(_MACHINE).read_bytes().strip()
    except OSError:
        return ""
    # It is not to be shown to others as it is: machine-id(5).
    return hashlib.sha256(b"session_fsm\0" + told).hexdigest()[:32] if told else ""


def this_place() -> Place:
    """Return where this process is.

    Raises:
        NotImplementedError: There is no `/proc` as Linux has it, or it is another namespace's.
    """
    try:
        seen = os.readlink(f"{_PROC}/self")
        boot_id = Path(_PROC, "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        place = Place(boot_id, os.readlink(f"{_PROC}/self/ns/pid"), _machine_id())
    except OSError as fault:
        raise NotImplementedError(
            f"processes can't be told apart here: that needs /proc of Linux ({fault})"
        ) from fault
    if seen != str(os.getpid()):
        raise NotImplementedError(
            f"processes can't be told apart here: /proc shows another pid namespace ({seen} is"
            f" this process there, {os.getpid()} here); mount it anew"
        )
    return place


@attrs.frozen
class ProcessStat:
    """What the kernel tells of a process, as of one moment; see field by field in proc(5)."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    threads: int
    start_ticks: int
    flags: int = 0
    environ_end: int = 0

    @property
    def takes_up_program(self) -> bool:
        """Whether it has left a program, or is leaving its last one, and has no environment now."""
        return not (self.state in "ZX" or self.environ_end or self.flags & _KERNEL_THREAD)

    @property
    def is_over(self) -> bool:
        """Whether it runs no longer, be it that nobody has asked how it ended."""
        # One whose first thread has ended while others run on looks like a zombie, too.
        return self.state in "ZX" and self.threads <= 1


def stat_of(pid: int) -> ProcessStat | None:
    """Return what the kernel tells of a process; None if there is none of that number."""
    try:
        text = Path(f"{_PROC}/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name stands in parentheses, and may have any of them in itself.
    fields = text[text.rindex(b")") + 2 :].split()
    numbers = (int(fields[n]) for n in (1, 2, 3, 17, 19, 6, 48))
    return ProcessStat(pid, fields[0].decode(), *numbers)


def all_stats() -> Iterator[ProcessStat]:
    """Yield what the kernel tells of each process that is seen from here."""
    for name in os.listdir(_PROC):
        if name.isdecimal() and (stat := stat_of(int(name))) is not None:
            yield stat


def tokens_of(pid: int) -> frozenset[str]:
    """Return the tokens that a process has inherited; none if that is not for this user to see.

    Raises:
        OSError: It can't be looked for, as there are no descriptors left.
    """
    environ = b""
    for _ in range(LOOKS_AT_NEW):
        try:
            environ = Path(f"{_PROC}/{pid}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return frozenset()  # gone, or another user's
        if environ or not _takes_up_program(pid):
            break
        select.poll().poll(1)
    if _ENTRY not in environ:
        return frozenset()
    values = (each[len(_ENTRY) :] for each in environ.split(b"\0") if each.startswith(_ENTRY))
    return frozenset(token.decode("ascii", "replace") for v in values for token in v.split(b":"))


def _takes_up_program(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat.takes_up_program


class ProcessHandle:
    """Holds on to one process, and to no other that has its number later.

    Attributes:
        pid: Its number.
        start_ticks: When it started, in clock ticks since the boot.
        fd: A pidfd, readable once the process has ended; None where the kernel has none.
    """

    __slots__ = ("fd", "pid", "start_ticks")

    def __init__(self, pid: int, start_ticks: int, fd: int | None) -> None:
        self.pid = pid
        self.fd = fd
        self.start_ticks = start_ticks

    @classmethod
    def take(cls, pid: int, start_ticks: int) -> ProcessHandle | None:
        """Hold on to a process; None if it has ended, or another one has its number."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        except OSError:
            fd = None  # an old kernel, or a sandbox that forbids the call
        handle = cls(pid, start_ticks, fd)
        # Once it is held, its number is nobody else's as long as it has not ended: what is seen
        # under the number between these two looks is what is held.
        stat = stat_of(pid)
        if stat is not None and stat.start_ticks == start_ticks and not handle.is_gone():
            return handle
        handle.close()
        return None

    def is_gone(self) -> bool:
        """Tell whether the process has ended, be it that nobody has asked how."""
        if self.fd is not None:
            poll = select.poll()
            poll.register(self.fd, select.POLLIN)
            return bool(poll.poll(0))
        stat = stat_of(self.pid)
        return stat is None or stat.start_ticks != self.start_ticks or stat.is_over

    def send(self, number: int) -> bool:
        """Send the process a signal; returns whether it could be sent."""
        try:
            if self.fd is not None:
                signal.pidfd_send_signal(self.fd, number)
                return True
            if self.is_gone():
                return False
            os.kill(self.pid, number)
            return True
        except (ProcessLookupError, PermissionError):
            return False

    def ask_to_end(self) -> bool:
        """Ask the process to end, also if it was halted; returns whether that could be done."""
        asked = self.send(signal.SIGTERM)
        if asked:
            self.send(signal.SIGCONT)  # which does not arrive where it has ended already
        return asked

    def kill_group(self) -> None:
        """Kill all of the group that it leads, or has led, where the kernel can tell that one.

        By the handle, from Linux 6.9 on: the number of a group may be another one's by now.
        """
        if self.fd is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.fd, signal.SIGKILL, None, _PROCESS_GROUP)

    def close(self) -> None:
        """Hold on to it no longer."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def wait_until_gone(handles: Collection[ProcessHandle], seconds: float) -> None:
    """Wait until all of these processes have ended, for so many seconds at most."""
    end = time.monotonic() + seconds
    waiting = [handle for handle in handles if not handle.is_gone()]
    while waiting and (left := end - time.monotonic()) > 0:
        poll = select.poll()
        watched = [handle.fd for handle in waiting if handle.fd is not None]
        for fd in watched:
            poll.register(fd, select.POLLIN)
        step = left if len(watched) == len(waiting) else min(left, LOOK_SECONDS)
        poll.poll(step * 1000)
        waiting = [handle for handle in waiting if not handle.is_gone()]
