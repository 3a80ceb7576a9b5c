"""Bringing the schema of a PostgreSQL store to the present version, or making it, by who may.

It is one transaction: a database has the old version or the new one, whenever it is killed. Where
the functions and triggers are not as they were made, they are made anew.

A new version gets a function here that starts from the one before it, and a line in `_STEPS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..errors import SchemaVersionError, StoreUnavailableError
from ..lifecycle import Lifecycle
from ..table import SESSION_LIFECYCLE
from .postgres_connection import Connections
from .postgres_rules import rules
from .postgres_schema import (
    MOST_LOOKS,
    OTHERS_WERE_FIRST,
    SCHEMA_VERSION,
    create,
    renew,
    version_of,
)
from .postgres_shape import functions, schema_problems, shape_of
from .postgres_sql import Sql
from .records import UpgradeReport

if TYPE_CHECKING:
    from .postgres_links import Connection

LOOK_SECONDS: Final = 10.0
"""Longest time for a look at a server that has answered once."""


def _from_1(link: Connection, sql: Sql) -> None:
    """Bring nothing but other rules, which are made anew behind every step."""


_STEPS: Final[Mapping[int, Callable[[Connection, Sql], None]]] = {1: _from_1}
"""For each older version, the step to the next one."""


def missing_schema(url: str) -> str | None:
    """Tell whether a schema is missing, and make none.

    Args:
        url: The server, as for `open_store`.

    Returns:
        The URL, as it may be shown, if it leads to no store; None if it leads to one.

    Raises:
        ValueError: The URL can't be read.
        SchemaVersionError: The schema is somebody else's.
        StoreUnavailableError: The server can't be reached, or the role may not look.
    """
    with closing(Connections(url, retry_seconds=LOOK_SECONDS)) as connections:
        version = connections.read(lambda link: version_of(link, connections.sql))
        return connections.url if version is None else None


def upgrade_database(url: str, lifecycle: Lifecycle = SESSION_LIFECYCLE) -> UpgradeReport:
    """Bring a schema to the present version; one that has it is left as it is.

    Processes of the older version should be gone: what does not fit the new one is refused them.

    Args:
        url: The server, as for `open_store`.
        lifecycle: Is made known, or its rows anew, if others are known by its name.

    Returns:
        What was found, 0 where there was no store, and what is there now.

    Raises:
        SchemaVersionError: It is somebody else's, or of a version that is not known here.
        StoreUnavailableError: The server can't be reached, or the role may not do that.
        LifecycleError: It knows the lifecycle with other statuses or moves; nothing is done.
    """
    with closing(Connections(url)) as connections:
        for _ in range(MOST_LOOKS):
            try:
                return _upgrade(connections, lifecycle)
            except StoreUnavailableError as fault:
                if not isinstance(fault.__cause__, OTHERS_WERE_FIRST):
                    raise
        return _upgrade(connections, lifecycle)


def _upgrade(connections: Connections, lifecycle: Lifecycle) -> UpgradeReport:
    sql = connections.sql

    def upgrade(link: Connection) -> UpgradeReport:
        if found == 0:
            create(link, sql, lifecycle)
            return UpgradeReport(0, SCHEMA_VERSION, 0)
        return _to_present(link, sql, lifecycle)

    found = connections.read(lambda link: version_of(link, sql)) or 0
    report = connections.write(upgrade)
    sessions = connections.read(
        lambda link: link.execute(sql("SELECT count(*) FROM {s}.session")).fetchone()
    )
    assert sessions is not None
    return UpgradeReport(report.found, report.version, sessions[0], report.renewed)


def _to_present(link: Connection, sql: Sql, lifecycle: Lifecycle) -> UpgradeReport:
    # As nobody else changes it any longer.
    link.execute(sql("SELECT version FROM {s}.meta FOR UPDATE"))
    found = version = version_of(link, sql) or 0
    if version != SCHEMA_VERSION and version not in _STEPS:
        known = ", ".join(map(str, (*_STEPS, SCHEMA_VERSION)))
        raise SchemaVersionError(
            found=f"{version} of a session store", supported=f"versions {known}"
        )
    if version != SCHEMA_VERSION:
        _drop_rules(link, sql)
        while version != SCHEMA_VERSION:
            _STEPS[version](link, sql)
            version += 1
        link.execute(sql(rules()))
        made = json.dumps(shape_of(link, sql))
        link.execute(sql("UPDATE {s}.meta SET version = %s, made = %s"), (version, made))
    elif any(each.split()[0] in ("trigger", "function") for each in schema_problems(link, sql)):
        _drop_rules(link, sql)
        link.execute(sql(rules()))
    return UpgradeReport(found, version, 0, renew(link, sql, lifecycle))


def _drop_rules(link: Connection, sql: Sql) -> None:
    """Drop the functions of triggers, and the triggers with them; columns need the other ones."""
    for name in functions(sql):
        word = name.removeprefix("function ")
        if f"{word}() RETURNS trigger" in rules():
            link.execute(sql(f"DROP FUNCTION IF EXISTS {{s}}.{word}() CASCADE"))
