"""How a process is begun that nobody may lose: it is held until it has been noted.

What is begun first is a small Python program that has the number, the group and the mark of what it
is to become. It waits on a socket for the program, its arguments and its environment. If who began
it dies before that, it ends by itself; so what runs has been noted, or will be gone at once.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from .families import Family, family_of
from .processes import MARKER, ProcessHandle

HELD: Final = """\
import os, select, signal, sys

fd, parent = int(sys.argv[1]), int(sys.argv[2])

def take(size):
    data = b""
    while len(data) < size:
        # A fork of the parent may hold the other end open for longer than the parent lives.
        while not select.select([fd], [], [], 1)[0]:
            if os.getppid() != parent:
                os._exit(1)
        part = os.read(fd, size - len(data))
        if not part:
            os._exit(1)
        data += part
    return data

parts = take(int.from_bytes(take(8), "big")).split(b"\\0")
end = 1 + int(parts[0])
environ = dict(part.split(b"=", 1) for part in parts[end:])
os.set_inheritable(fd, False)
for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and so would whatever it becomes
    signal.signal(getattr(signal, name), signal.SIG_DFL)
os.write(fd, b"+")
try:
    os.execvpe(parts[1], parts[1:end], environ)
except OSError as fault:
    os.write(fd, str(fault.errno).encode())
os._exit(127)
"""
"""What is run until the process is let go; it imports nothing but what is built in."""


@attrs.frozen(kw_only=True)
class HeldProcess:
    """A process that has begun, and waits to become what it is for.

    Attributes:
        family: Who it is; it leads a session of its own.
        handle: Holds on to it; whoever has this closes it.
        barrier: What it waits at.
        process: Its pipes. How it ended is not to be asked here: its number is free after that.
    """

    family: Family
    handle: ProcessHandle
    process: subprocess.Popen[bytes]
    barrier: socket.socket

    def release(self, argv: Sequence[str], environ: Mapping[str, str]) -> bool:
        """Have it become the program that it is for; it may also be killed meanwhile.

        Args:
            argv: The program, looked for in the PATH of the environment, and its arguments.
            environ: Its whole environment; the mark is added.

        Returns:
            Whether the program runs; False if the process has ended before.

        Raises:
            OSError: The program can't be run.
        """
        marked = {**environ, MARKER: _mark(self.family.token)}
        parts = [str(len(argv)), *argv, *(f"{name}={value}" for name, value in marked.items())]
        message = b"\0".join(os.fsencode(part) for part in parts)
        told = b""
        try:
            self.barrier.sendall(len(message).to_bytes(8, "big") + message)
            while part := self.barrier.recv(64):
                told += part
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.barrier.close()
        if number := told[1:]:
            raise OSError(int(number), os.strerror(int(number)), argv[0])
        return bool(told)

    def let_end(self) -> None:
        """Have it end by itself, if it waits still."""
        self.barrier.close()


def hold(token: str, *, cwd: str | None, pipe_stdin: bool) -> HeldProcess:
    """Begin a process in a session of its own, and hold it.

    Its standard output and error are one pipe; its input is empty, or a pipe.

    Args:
        token: Its mark.
        cwd: The directory that it runs in; None: that of this process.
        pipe_stdin: Whether its input is a pipe.

    Raises:
        OSError: It can't be begun.
        NotImplementedError: Processes can't be told apart here.
    """
    ours, its = socket.socketpair()
    try:
        with its:
            process = subprocess.Popen(  # noqa: S603 - this very Python, with the program above
                [sys.executable, "-I", "-S", "-c", HELD, str(its.fileno()), str(os.getpid())],
                stdin=subprocess.PIPE if pipe_stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                cwd=cwd,
                env={**os.environ, MARKER: _mark(token)},
                pass_fds=(its.fileno(),),
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    try:
        family = family_of(process.pid, token)
        handle = ProcessHandle.take(process.pid, family.start_ticks)
        if handle is None:
            raise ChildProcessError(f"process {process.pid} ended before it was let go")
    except BaseException:
        ours.close()  # so it ends by itself
        close_pipes(process)
        process.wait()
        raise
    return HeldProcess(family=family, handle=handle, process=process, barrier=ours)


def close_pipes(process: subprocess.Popen[bytes]) -> None:
    """Close this side's ends of the pipes of a process."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _mark(token: str) -> str:
    # Of a process that is inside another one's: whoever ends that one ends this one, too.
    outer = os.environ.get(MARKER)
    return token if outer is None else f"{outer}:{token}"
