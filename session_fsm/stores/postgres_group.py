"""Many moves in one statement: what most commits are, where many callers commit at once.

A commit that only moves its session, by one step, is a row of what such a statement is given. Each
row has the conditions that a statement of its own would have, and those that don't hold leave out
that row alone. It waits for nobody long: a session may be locked by a transaction that lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .postgres_arrays import asked_with, packed
from .postgres_commit import MOVE_COLUMNS, PreparedCommit, Row
from .postgres_links import Connection
from .postgres_sql import BRIEF, PATIENCE, PATIENT
from .postgres_tokens import TAKEN

_GIVEN: Final = ", ".join(f"%s::{kind}[]" for _, kind in MOVE_COLUMNS)
_NAMES: Final = ", ".join(name for name, _ in MOVE_COLUMNS)
FENCED: Final = (
    "(given.token IS NULL OR session.token = given.token)",
    "given.owner_id IN (SELECT owner_id FROM living)",
)
"""Whose session it is, by the token that is stated, and whether that owner lives."""
APPENDED: Final = (
    ", appended AS (INSERT INTO {s}.session_event"
    " (session_id, revision, at, body, digest, operation_id)"
    " SELECT session_id, expected + 1, at, body, digest, operation_id FROM moved)"
)
MOVE: Final = (
    f"WITH {PATIENCE}, given AS MATERIALIZED (SELECT given.* FROM"  # noqa: S608 - constants
    f" unnest({_GIVEN}) WITH ORDINALITY AS given ({_NAMES}, place)),"
    " living AS MATERIALIZED (SELECT owner_id FROM {s}.owner"
    " WHERE owner_id IN (SELECT owner_id FROM given) AND expires_at > clock_timestamp()),"
    " moved AS (UPDATE {s}.session AS session SET status = given.status,"
    " deadline_at = given.deadline_at, ended_at = given.ended_at, state = given.state,"
    " digest = given.digest, recovery = given.recovery, revision = session.revision + 1"
    " FROM given WHERE session.session_id = given.session_id"
    f" AND session.revision = given.expected AND {FENCED[0]} AND {FENCED[1]} AND {PATIENT}"
    " RETURNING place, session.session_id, expected, at, body, given.digest, operation_id,"
    " session.token AS found, session.owner_id AS holder, taken_at)"
    f"{APPENDED} SELECT place, found, holder, {TAKEN} FROM moved"
)


def move_together(link: Connection, changes: Sequence[PreparedCommit]) -> list[Row | None]:
    """Make commits that only move their sessions; returns what came back for each, if it was made.

    Args:
        link: Outside of a transaction.
        changes: At least one, all of one schema.
    """
    columns = zip(*(change.moved for change in changes), strict=True)
    arrays = [packed(kind, values) for (_, kind), values in zip(MOVE_COLUMNS, columns, strict=True)]
    rows: list[Row | None] = [None] * len(changes)
    for place, *row in asked_with(link, changes[0].sql(MOVE), [BRIEF, *arrays]):
        rows[place - 1] = tuple(row)
    return rows
