"""The schema of a PostgreSQL store: making it once, and making lifecycles known in it.

Whoever opens a store looks first, and makes only what is absent: that takes one transaction, and of
those who come together one makes it, while the others wait for that and then look again. Once it is
there, nothing is created any longer, so that who runs needs no right to.
"""

from __future__ import annotations

import json
from typing import Any, Final

import psycopg
from psycopg import Connection, errors

from ..errors import LifecycleError, SchemaVersionError, StoreUnavailableError
from ..lifecycle import Lifecycle
from .postgres_ddl import TABLES
from .postgres_rules import rules
from .postgres_shape import shape_of
from .postgres_sql import Sql

SCHEMA_VERSION: Final = 2
APPLICATION: Final = "session_fsm"
"""Stands in the schema, so that nobody else's is taken for ours."""

OTHERS_WERE_FIRST: Final = (
    errors.UniqueViolation,
    errors.DuplicateSchema,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.DuplicateFunction,
    errors.SerializationFailure,
    errors.DeadlockDetected,
)
"""What is met by those who make something at the same time as somebody else."""
MOST_LOOKS: Final = 20
_ABSENT: Final = (errors.UndefinedTable, errors.InvalidSchemaName)
_OTHER_NAME: Final = "use another name for the changed one"


def prepare(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle) -> None:
    """Make the schema where there is none, and make the lifecycle known.

    Args:
        connection: In autocommit, outside of a transaction.
        sql: The schema.
        lifecycle: The lifecycle of the sessions that will be written.

    Raises:
        SchemaVersionError: The schema is somebody else's, or of a version that is not known here.
        LifecycleError: It knows a lifecycle of this name with other rows.
        StoreUnavailableError: The database has another encoding than UTF8, or it lacks the schema
            or the lifecycle, and this role may not make it.
    """
    for _ in range(MOST_LOOKS):
        try:
            version = version_of(connection, sql)
            if version is None:
                create(connection, sql, lifecycle)
                break
            _check_version(version)  # before anything else is read, of which nothing is known
            if fingerprint_of(connection, sql, lifecycle) is None:
                with connection.transaction():
                    register(connection, sql, lifecycle)
            break
        except OTHERS_WERE_FIRST:
            continue
        except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as fault:
            problem = f"{_what_is_absent(connection, sql, lifecycle)}, and may not be made here"
            hint = "`session-fsm upgrade` makes it, by a role that may"
            raise StoreUnavailableError(problem=f"{problem} ({_text(fault)}); {hint}") from fault
    else:
        problem = f"others make the schema {sql.schema!r} at the same time, again and again"
        raise StoreUnavailableError(problem=problem)
    known = fingerprint_of(connection, sql, lifecycle)
    if known != lifecycle.fingerprint:
        same = not rule_problems(connection, sql, lifecycle)
        hint = "`session-fsm upgrade` makes these known" if same else _OTHER_NAME
        raise LifecycleError(
            problem=f"{_known_otherwise(known, lifecycle)}; {hint}", lifecycle=lifecycle.name
        )


def _what_is_absent(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle) -> str:
    try:
        there = version_of(connection, sql) is not None
    except psycopg.Error:
        return f"the schema {sql.schema!r} can't be read"
    return f"the lifecycle {lifecycle.name!r} is not known" if there else _no_schema(sql)


def _no_schema(sql: Sql) -> str:
    return f"there is no session store in the schema {sql.schema!r}"


def _text(fault: psycopg.Error) -> str:
    return fault.diag.message_primary or type(fault).__name__


def create(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle | None = None) -> None:
    """Make the schema, in one transaction; the lifecycle is made known in it, if one is given.

    Raises:
        SchemaVersionError: The schema holds something else.
        StoreUnavailableError: The database has another encoding than UTF8.
        psycopg.Error: Somebody else makes it, or this role may not.
    """
    with connection.transaction():
        [encoding] = _one(connection, sql, "SELECT current_setting('server_encoding')")
        if encoding != "UTF8":
            problem = f"the database has the encoding {encoding}; a session store needs UTF8"
            raise StoreUnavailableError(problem=problem)
        told = [sql.schema]
        there = "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = %s"
        if _one(connection, sql, there, told) == (0,):
            connection.execute(sql("CREATE SCHEMA {s}"))
        holds = (
            "SELECT count(*) FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace"
            " ON pg_namespace.oid = relnamespace WHERE nspname = %s AND relkind <> 'i'"
        )
        [others] = _one(connection, sql, holds, told)
        if others:
            raise SchemaVersionError(
                found=f"of another application ({others} tables in the schema {sql.schema!r})",
                supported=f"session stores of version {SCHEMA_VERSION}",
            )
        connection.execute(sql(TABLES))
        connection.execute(sql(rules()))
        made = json.dumps(shape_of(connection, sql))
        connection.execute(
            sql("INSERT INTO {s}.meta (application, version, made) VALUES (%s, %s, %s)"),
            (APPLICATION, SCHEMA_VERSION, made),
        )
        if lifecycle is not None:
            register(connection, sql, lifecycle)


def version_of(connection: Connection[Any], sql: Sql) -> int | None:
    """Return the version of a schema of ours, present or another; None if there is none.

    Raises:
        SchemaVersionError: It is somebody else's.
    """
    try:
        application, version = _one(connection, sql, "SELECT application, version FROM {s}.meta")
    except _ABSENT:
        return None
    except (errors.UndefinedColumn, TypeError):
        application = version = None
    if application != APPLICATION or not isinstance(version, int):
        raise SchemaVersionError(
            found=f"of another application (schema {sql.schema!r})",
            supported=f"session stores of version {SCHEMA_VERSION}",
        )
    return version


def _check_version(version: int) -> None:
    if version != SCHEMA_VERSION:
        older = 0 < version < SCHEMA_VERSION
        hint = "; `session-fsm upgrade` brings an older one there" if older else ""
        raise SchemaVersionError(
            found=f"{version} of a session store", supported=f"version {SCHEMA_VERSION}{hint}"
        )


def _one(connection: Connection[Any], sql: Sql, query: str, told: Any = None) -> Any:
    return connection.execute(sql(query), told).fetchone()


# --- lifecycles ------------------------------------------------------------------------------


def register(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle) -> None:
    """Make a lifecycle known that is not; in a transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            sql("INSERT INTO {s}.lifecycle (name, fingerprint) VALUES (%s, %s)"),
            (lifecycle.name, lifecycle.fingerprint),
        )
        cursor.executemany(
            sql(
                "INSERT INTO {s}.lifecycle_status (lifecycle, status, is_initial, is_final)"
                " VALUES (%s, %s, %s, %s)"
            ),
            _status_rows(lifecycle),
        )
        cursor.executemany(
            sql("INSERT INTO {s}.legal_move (lifecycle, source, target) VALUES (%s, %s, %s)"),
            _move_rows(lifecycle),
        )


def fingerprint_of(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle) -> str | None:
    """Return the fingerprint by which a schema knows a lifecycle of this name, or None."""
    query = "SELECT fingerprint FROM {s}.lifecycle WHERE name = %s"
    found = _one(connection, sql, query, [lifecycle.name])
    return None if found is None else str(found[0])


def _known_otherwise(known: str | None, lifecycle: Lifecycle) -> str:
    found, here = (known or "")[:12], lifecycle.fingerprint[:12]
    return f"the store knows it with other rows (fingerprint {found}, here {here})"


def renew(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle) -> bool:
    """Make other rows of a lifecycle known, which has the statuses and moves that it had.

    Returns:
        Whether the rows were others; a lifecycle that is not known at all is made known.

    Raises:
        LifecycleError: It has not: what is stored might be what it does not allow.
    """
    known = fingerprint_of(connection, sql, lifecycle)
    if known is None:
        register(connection, sql, lifecycle)
    if known in (None, lifecycle.fingerprint):
        return False
    if rule_problems(connection, sql, lifecycle):
        problem = f"{_known_otherwise(known, lifecycle)}, and other moves; {_OTHER_NAME}"
        raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
    connection.execute(
        sql("UPDATE {s}.lifecycle SET fingerprint = %s WHERE name = %s"),
        (lifecycle.fingerprint, lifecycle.name),
    )
    return True


def _status_rows(lifecycle: Lifecycle) -> list[tuple[str, str, bool, bool]]:
    return [
        (lifecycle.name, str(each), each == lifecycle.initial, each in lifecycle.final)
        for each in lifecycle.statuses
    ]


def _move_rows(lifecycle: Lifecycle) -> list[tuple[str, str, str]]:
    return [(lifecycle.name, str(source), str(target)) for source, target in lifecycle.edges]


def rule_problems(connection: Connection[Any], sql: Sql, lifecycle: Lifecycle) -> list[str]:
    """Name the rules of a lifecycle that the triggers would read wrongly, or not at all."""
    name = [lifecycle.name]
    columns = "lifecycle, status, is_initial, is_final"
    statuses = f"SELECT {columns} FROM {{s}}.lifecycle_status WHERE lifecycle = %s"  # noqa: S608
    moves = "SELECT lifecycle, source, target FROM {s}.legal_move WHERE lifecycle = %s"
    return [
        f"{table} is not as lifecycle {lifecycle.name!r} has it"
        for table, query, rows in (
            ("lifecycle_status", statuses, _status_rows(lifecycle)),
            ("legal_move", moves, _move_rows(lifecycle)),
        )
        if set(connection.execute(sql(query), name).fetchall()) != set(rows)
    ]
