"""What a server spends on what is done at it: bytes of its log, time of its processors, answers.

Wall clocks are at the mercy of everything else that runs on a machine. These are not: the log grows
by what is written, and the kernel counts for each process what it ran.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import attrs
import psycopg
from psycopg.pq import Trace

from .measuring import Turn

# What is inserted, not what is written: who does not wait for the disk has written nothing yet.
_ASKED: Final = """
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, ARRAY(
    SELECT pid FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'
)
"""


@attrs.frozen
class Spent:
    """What the server spent on a move, turn by turn; of no turns, nothing.

    Attributes:
        wal: The bytes that its log grew by.
        cpu: The seconds that the processes ran that serve the database; 0 where nothing tells.
    """

    wal: list[float] = attrs.field(factory=list)
    cpu: list[float] = attrs.field(factory=list)

    @property
    def wal_bytes(self) -> float:
        """The median: what the server does for itself, such as a checkpoint, is in few turns."""
        return statistics.median(self.wal)

    @property
    def cpu_seconds(self) -> float:
        """The median."""
        return statistics.median(self.cpu)

    def less_than(self, other: Spent) -> Spent:
        """Return what this one spent less than another one that took turns with it."""
        return Spent(
            [theirs - mine for mine, theirs in zip(self.wal, other.wal, strict=True)],
            [theirs - mine for mine, theirs in zip(self.cpu, other.cpu, strict=True)],
        )


class Meter:
    """Notes what the server spends in turns that use one database of it, while nobody else does.

    Args:
        connection: To the server, in autocommit, and to another database.
        url: That of the database.

    Attributes:
        spent: What was noted so far.
    """

    def __init__(self, connection: psycopg.Connection[Any], url: str) -> None:
        self._connection = connection
        self._database = urlsplit(url).path.removeprefix("/")
        self.spent = Spent()

    def _look(self) -> tuple[int, float]:
        row = self._connection.execute(_ASKED, (self._database,)).fetchone()
        assert row is not None
        wal, pids = row
        return wal, sum(map(cpu_seconds, pids))

    def turn(self, turn: Callable[[], Turn]) -> Turn:
        """Take a turn; returns what came of it."""
        wal, cpu = self._look()
        taken = turn()
        wal_after, cpu_after = self._look()
        self.spent.wal.append((wal_after - wal) / max(1, taken.moves))
        self.spent.cpu.append((cpu_after - cpu) / max(1, taken.moves))
        return taken


def cpu_seconds(pid: int) -> float:
    """Return what a process has run; 0 where the kernel does not tell, or it is gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return 0.0


class RoundTrips:
    """Counts how often something is sent and an answer awaited, through connections, in a block.

    Args:
        connections: Those that are open.
    """

    def __init__(self, connections: Iterable[psycopg.Connection[Any]]) -> None:
        self._connections = [each for each in connections if not each.closed]
        self.count = 0

    def __enter__(self) -> Self:
        with ExitStack() as held:
            self._files = [held.enter_context(tempfile.TemporaryFile()) for _ in self._connections]
            for connection, file in zip(self._connections, self._files, strict=True):
                connection.pgconn.trace(file.fileno())
                connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        with self._held:
            for connection, file in zip(self._connections, self._files, strict=True):
                connection.pgconn.untrace()
                file.seek(0)
                # A line for each message: F of those that are sent, B of those that come back.
                sides = [line[:1] for line in file if line[:1] in {b"F", b"B"}]
                self.count += sum(
                    before != b"F" and side == b"F"
                    for before, side in zip([b"B", *sides], sides, strict=False)
                )
