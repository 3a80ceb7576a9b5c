"""Tables of sessions in PostgreSQL are read as they were written, whatever a role has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from postgres_server import PostgresServer

from session_fsm.clock import SYSTEM_CLOCK
from session_fsm.items import Put
from session_fsm.stores import PostgresStore
from session_fsm.testing.authors import Author

AT = datetime(2026, 3, 2, 1, 30, 15, 123456, timezone(timedelta(hours=9)))
SETTINGS = [
    {"datestyle": "'German, DMY'", "timezone": "'Asia/Kathmandu'", "bytea_output": "'escape'"},
    {"datestyle": "'Postgres, MDY'", "timezone": "'America/St_Johns'"},
    {"datestyle": "'SQL, DMY'", "timezone": "'Europe/Dublin'", "intervalstyle": "sql_standard"},
]


@pytest.fixture(params=SETTINGS, ids=lambda each: each["datestyle"])
def store(
    request: pytest.FixtureRequest, postgres: PostgresServer, postgres_url: str
) -> Iterator[PostgresStore]:
    """A store of a role that tells instants in words of its own."""
    role = f"role_{postgres.new_schema()}"
    postgres.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    for name, value in request.param.items():
        postgres.execute(f"ALTER ROLE {role} SET {name} = {value}")
    with closing(PostgresStore(postgres_url.replace("postgres@", f"{role}@"))) as store:
        yield store
    postgres.execute(f"DROP OWNED BY {role} CASCADE")
    postgres.execute(f"DROP ROLE {role}")


@pytest.mark.parametrize(
    "at", [AT, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 30, 23, tzinfo=UTC)]
)
def test_postgres_tables_keep_instants(store: PostgresStore, at: datetime) -> None:
    """An item has the instants that it was given, in UTC, and expires at the one that it names."""
    store.enlist("author")
    author = Author(store)
    author.write("a", "activate")
    later = at + timedelta(hours=1)
    author.put("a", Put("files", "k", {"n": 1}, ttl_seconds=3600.0), at=at)
    [item] = store.items("a", "files", 9, None, at)
    assert store.item("a", "files", "k", at) == item
    assert (item.updated_at, item.expires_at) == (at, later)
    assert {each.tzinfo for each in (item.updated_at, item.expires_at) if each} == {UTC}
    assert store.check() == ()
    assert store.items("a", "files", 9, None, later) == ()
    assert store.drop_expired_items(later, 9) == 1


def test_postgres_tables_stand_beside_other_instants(store: PostgresStore) -> None:
    """Deadlines, events and the clock do not depend on what a role has set, either."""
    store.enlist("author")
    author = Author(store)
    author.write("a", "activate", "touch")
    assert abs(store.clock.now() - SYSTEM_CLOCK.now()) < timedelta(minutes=1)
    assert [event.session_id for event in store.feed(0, 9).events] == ["a"] * 3
    assert len(store.history("a")) == 3
    assert store.check() == ()
