"""How statements for PostgreSQL name their tables: every name is qualified with the schema.

Statements are written with `{s}` where the schema stands, as it is quoted. Nothing depends on a
search path, which is state of a connection, and which poolers and other engines treat each in their
own way.
"""

from __future__ import annotations

from functools import cache
from typing import Final

DEFAULT_SCHEMA: Final = "session_fsm"
MAX_NAME_BYTES: Final = 63
"""Longest name that PostgreSQL keeps whole."""

LIVES: Final = (
    "EXISTS (SELECT 1 FROM {s}.owner WHERE owner_id = %s::text AND expires_at > clock_timestamp())"
)
"""Whether an owner lives; it is told which."""
PATIENCE: Final = (
    "patience AS MATERIALIZED (SELECT set_config('lock_timeout',"
    " COALESCE(%s::text, current_setting('lock_timeout')), true))"
)
"""How long a statement waits for what others have locked, in ms; told NULL: as the role does."""
PATIENT: Final = "EXISTS (SELECT 1 FROM patience)"
"""Makes it so, before a statement locks any row; what locks whole tables is waited for before."""
BRIEF: Final = "100"
"""Of whoever has a connection, or writes for others: what lasts is waited for without."""
HOLD: Final = "SELECT 1 FROM {s}.session WHERE session_id = %s::text FOR UPDATE"
"""Keeps others from moving or taking over a session until the transaction ends."""
TAIL: Final = (
    "SELECT revision, digest FROM {s}.session_event WHERE session_id = %s::text"
    " ORDER BY revision DESC LIMIT 1"
)
"""The last event of an id."""


class Sql:
    """The statements of one schema: called with a text, it returns it as psycopg takes it.

    Args:
        schema: Name of the schema, not quoted.

    Raises:
        ValueError: It can't be the name of a schema.
    """

    __slots__ = ("_formatted", "quoted", "schema")

    def __init__(self, schema: str = DEFAULT_SCHEMA) -> None:
        problem = _problem_of(schema)
        if problem:
            raise ValueError(f"{schema!r} can't be the schema of a store: {problem}")
        self.schema = schema
        quoted = self.quoted = '"' + schema.replace('"', '""') + '"'
        # psycopg takes any bytes, where it takes only a str that is written out in the source.
        self._formatted = cache(lambda text: text.replace("{s}", quoted).encode())

    def __call__(self, text: str) -> bytes:
        """Return a statement, with the schema in the place of each `{s}`."""
        formatted: bytes = self._formatted(text)
        return formatted


def _problem_of(schema: str) -> str:
    if not schema:
        return "it is empty"
    if not schema.isprintable() or "%" in schema or "{" in schema:
        return "only printable characters, no % and no {"
    if len(schema.encode()) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    if schema.startswith("pg_") or schema == "information_schema":
        return "it is the database's own"
    return ""


def known(text: str) -> str:
    """Return an id as it is looked up; what can't be stored as text equals no id that is stored."""
    if "\0" in text:
        return ""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return ""
    return text
