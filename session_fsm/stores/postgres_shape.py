"""What a schema is made of, as the catalogue of the database tells it, and what of it was changed.

How a server writes out an index or a trigger is its own affair. So what was made is kept in the
schema as the server told it then, and compared with what it tells now; the texts of the functions,
which it keeps to the letter, are compared with those that stand here.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from psycopg import Connection

from .postgres_ddl import TABLES
from .postgres_rules import rules
from .postgres_sql import Sql

_SHAPE: Final = """
SELECT 'column ' || relname || '.' || attname,
    format_type(atttypid, atttypmod)
    || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(' COLLATE ' || nullif(collname, 'default'), '')
    || coalesce(
        ' ' || attidentity::text || attgenerated::text || ' ' || pg_get_expr(adbin, adrelid), ''
    )
FROM pg_catalog.pg_attribute
JOIN pg_catalog.pg_class ON pg_class.oid = attrelid
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
LEFT JOIN pg_catalog.pg_collation ON pg_collation.oid = attcollation
LEFT JOIN pg_catalog.pg_attrdef ON adrelid = attrelid AND adnum = attnum
WHERE nspname = %(schema)s AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT 'index ' || of_index.relname,
    pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ', not valid' END
FROM pg_catalog.pg_index
JOIN pg_catalog.pg_class AS of_index ON of_index.oid = indexrelid
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = of_index.relnamespace
WHERE nspname = %(schema)s
UNION ALL
SELECT 'trigger ' || tgname,
    pg_get_triggerdef(pg_trigger.oid) || CASE WHEN tgenabled IN ('O', 'A') THEN '' ELSE ', off' END
FROM pg_catalog.pg_trigger
JOIN pg_catalog.pg_class ON pg_class.oid = tgrelid
JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %(schema)s AND NOT tgisinternal
UNION ALL
SELECT 'function ' || proname, prosrc
FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
WHERE nspname = %(schema)s
"""


def shape_of(connection: Connection[Any], sql: Sql) -> dict[str, str]:
    """Return what a schema is made of, each part by its kind and name."""
    found: dict[str, str] = {}
    rows = connection.execute(_SHAPE.encode(), {"schema": sql.schema}).fetchall()
    for name, text in sorted(rows):
        if not name.startswith("function"):
            # Whether it is named depends on the search path of the role.
            text = text.replace(f"{sql.quoted}.", "").replace(f"{sql.schema}.", "")
        found[name] = f"{found[name]}; {text}" if name in found else text
    return found


def schema_problems(connection: Connection[Any], sql: Sql) -> list[str]:
    """Name the columns, indexes, triggers and functions that are missing or were changed."""
    row = connection.execute(sql("SELECT made FROM {s}.meta")).fetchone()
    wanted: dict[str, str] = json.loads(row[0]) if row is not None else {}
    wanted |= functions(sql)
    found = shape_of(connection, sql)
    return [
        f"{name} is {'missing' if name not in found else 'not as it was made'}"
        for name, text in sorted(wanted.items())
        if found.get(name) != text
    ]


def functions(sql: Sql) -> dict[str, str]:
    """Return the texts of the functions of a schema, each by its kind and name."""
    script = sql(TABLES + rules()).decode()
    made = re.findall(r"CREATE FUNCTION \S+\.(\w+)\(.*?\$\$(.*?)\$\$;", script, re.DOTALL)
    return {f"function {name}": text for name, text in made}
