"""How a PostgreSQL store is opened, what it shows of its URL, and whose its connections are."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Any

import psycopg
import pytest
from postgres_server import PostgresServer
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from session_fsm import StoreUnavailableError
from session_fsm.items import Put
from session_fsm.keys import Keyring
from session_fsm.stores import PostgresStore, open_store, upgrade_store
from session_fsm.stores.postgres_links import Connection
from session_fsm.stores.postgres_sql import DEFAULT_SCHEMA, Sql
from session_fsm.stores.postgres_url import target_of
from session_fsm.testing.authors import Author

PASSWORD = "s3cr:et/%"
QUOTED = "s3cr%3Aet%2F%25"
OPTIONS = {each.keyword for each in psycopg.pq.Conninfo.get_defaults()}
"""What the libpq of this machine takes; an older one has fewer."""


# --- URLs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgres://u@host:1/db", "postgresql://u@host:1/db"),
        (f"postgresql://u:{QUOTED}@host/db", "postgresql://u:***@host/db"),
        (f"postgresql://host/db?user=u&password={QUOTED}", "postgresql://u:***@host/db"),
        (
            f"postgresql://a:1,b:2/db?sslmode=verify-full&sslpassword={QUOTED}",
            "postgresql://a:1,b:2/db?sslmode=verify-full&sslpassword=***",
        ),
        *(
            (f"postgresql://u@h/db?{name}={QUOTED}", f"postgresql://u@h/db?{name}=***")
            for name in ("scram_client_key", "scram_server_key", "oauth_client_secret")
            if name.encode() in OPTIONS
        ),
        ("postgresql://[::1]:5/db?schema=mine", "postgresql://[::1]:5/db?schema=mine"),
        ("postgresql://h/db?prepare=true&schema=mine", "postgresql://h/db?schema=mine"),
        ("postgresql://h/db?prepare=false", "postgresql://h/db?prepare=false"),
        ("postgresql:///db?host=/run/x", "postgresql://%2Frun%2Fx/db"),
        ("postgresql://", "postgresql://"),
    ],
)
def test_postgres_connections_show_no_password(url: str, shown: str) -> None:
    """What is shown of a URL leads to the same place, without what opens it."""
    target = target_of(url)
    assert target.url == shown
    texts = [target.url, repr(target)]
    if QUOTED in url:
        texts.append(target.hide(f"x {PASSWORD} {QUOTED}"))
    for text in texts:
        assert PASSWORD not in text
        assert QUOTED not in text
    assert target_of(shown).url == shown


def test_postgres_connections_pass_settings_through() -> None:
    """TLS and whatever else libpq knows reach it; what a store sets gives way to the URL."""
    url = (
        "postgresql://host/db?sslmode=verify-full&sslrootcert=system&connect_timeout=3"
        "&options=-c%20statement_timeout%3D7%20-c%20work_mem%3D64MB&schema=a%20b&client_encoding=x"
    )
    target = target_of(url, statement_timeout_seconds=1.5)
    told = psycopg.conninfo.conninfo_to_dict(target.conninfo)
    assert (target.schema, told["sslmode"], told["sslrootcert"]) == ("a b", "verify-full", "system")
    assert (told["connect_timeout"], told["client_encoding"]) == ("3", "UTF8")
    assert told["options"] == (
        "-c statement_timeout=1500 -c idle_in_transaction_session_timeout=1500"
        " -c statement_timeout=7 -c work_mem=64MB"
    )
    assert "options" not in psycopg.conninfo.conninfo_to_dict(target_of("postgresql://h").conninfo)
    assert target_of("postgresql://h", schema="other").schema == "other"
    assert target_of("postgresql://h").schema == DEFAULT_SCHEMA


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@h:x:y/db?nothing=1",
        "postgresql://h/db?sslmod=x",
        f"postgresql://u:{QUOTED}@h/db?prepare={QUOTED}",
        "a b",
    ],
)
def test_postgres_connections_refuse_other_urls(url: str) -> None:
    """A URL that libpq can't read is refused, without a word of it."""
    with pytest.raises(ValueError, match="PostgreSQL store") as caught:
        target_of(url)
    assert PASSWORD not in str(caught.value)
    assert QUOTED not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("schema", ["", "pg_x", "a%b", "a{b", "a\0", "é" * 40, "\ud800"])
def test_postgres_connections_refuse_other_schemas(schema: str) -> None:
    """A schema that could not be named in every statement is refused."""
    with pytest.raises(ValueError, match="schema"):
        Sql(schema)


def test_postgres_connections_unknown_schemes_hide_passwords() -> None:
    """A URL of another kind is refused without what stands before its host."""
    for use in (open_store, upgrade_store):
        with pytest.raises(ValueError, match=r"postgresq://\*\*\*") as caught:
            use(f"postgresq://u:{QUOTED}@host/db")
        assert QUOTED not in str(caught.value)


def test_postgres_connections_unknown_schemes_hide_queries() -> None:
    """What stands behind a question mark may be a secret by any name, and is not quoted either."""
    for use in (open_store, upgrade_store):
        with pytest.raises(ValueError, match=r"postgresq://\*\*\*") as caught:
            use(f"postgresq://host/db?oauth_client_secret={QUOTED}")
        assert QUOTED not in str(caught.value)


def test_postgres_connections_names_stay_readable() -> None:
    """A password that is a name of the place as well is hidden where it is one, and there alone."""
    target = target_of("postgresql://postgres:postgres@db/app")
    assert target.url == "postgresql://postgres:***@db/app"
    text = f'{target.url}: password authentication failed for user "postgres"'
    assert target.hide(text) == text
    assert target_of("postgresql://u:sql@db/app").hide(target.url) == target.url


def test_postgres_connections_errors_hide_passwords(postgres: PostgresServer) -> None:
    """Where nobody can be reached that is told at once, with the place and without the password."""
    for place in ("127.0.0.1:1/db", f"127.0.0.1:{postgres.port}/nowhere"):
        with pytest.raises(StoreUnavailableError) as caught:
            open_store(f"postgresql://u:{QUOTED}@{place}")
        text = f"{caught.value} {caught.value.__cause__} {caught.value.__context__}"
        assert "u:***@127.0.0.1" in text
        assert PASSWORD not in text
        assert QUOTED not in text
        assert caught.value.operation_id is None


# --- opening ---------------------------------------------------------------------------------


def test_postgres_connections_open_by_url(postgres: PostgresServer, postgres_url: str) -> None:
    """Both names of the scheme open the same store; the schema in it is its own."""
    with closing(open_store(postgres_url)) as store:
        assert isinstance(store, PostgresStore)
        store.enlist("author")
        Author(store).write("a", "activate")
        assert store.durable
        assert store.url == postgres_url
    with closing(open_store(postgres_url.replace("postgresql:", "postgres:"))) as store:
        assert store.tail("a")[0] == 2
    other = postgres.new_schema()
    with postgres.opened_store(schema=f'{other} "x" \'é') as store:
        assert store.ids(9, None) == ()
        assert store.check() == ()
        postgres.execute(f"DROP SCHEMA {store._sql.quoted} CASCADE")


def test_postgres_connections_refuse_a_keyring(postgres_url: str) -> None:
    """A store that encrypts nothing does not take a key as if it did."""
    with pytest.raises(ValueError, match="encrypts nothing"):
        open_store(postgres_url, keyring=Keyring(os.urandom(32)))


def test_postgres_connections_need_one_place(postgres_url: str) -> None:
    """A store has either a URL or a pool."""
    with pytest.raises(ValueError, match="either"):
        PostgresStore()
    with ConnectionPool(open=False) as pool, pytest.raises(ValueError, match="either"):
        PostgresStore(postgres_url, pool=pool)


# --- poolers ---------------------------------------------------------------------------------


def prepared_after_three(link: Connection) -> int:
    """Return how many statements a connection has in the server, one run three times among them."""
    for _ in range(3):
        link.execute(b"SELECT 1").fetchall()
    [(number,)] = link.execute(
        b"SELECT count(*) FROM pg_prepared_statements WHERE name LIKE '_pg3%'"
    ).fetchall()
    return int(number)


@pytest.mark.parametrize(
    ("query", "argument", "prepared"),
    [
        ("", None, True),
        ("&prepare=true", None, True),
        ("&prepare=false", None, False),
        ("&prepare=false", True, True),
        ("", False, False),
    ],
)
def test_postgres_connections_prepare_statements_or_not(
    query: str, argument: bool | None, prepared: bool, postgres_url: str
) -> None:
    """Statements are prepared in the server, unless the URL or the caller says otherwise."""
    with closing(PostgresStore(postgres_url + query, prepare=argument)) as store:
        store.enlist("author")
        author = Author(store)
        author.write("a", "activate", "touch", "touch")
        author.put("a", Put("files", "k", 1), Put("files", "l", 1))
        assert store._leases.renew()
        for each in (store._connections, store._beats, store._hinting):
            number = each.read(prepared_after_three)
            assert (number > 0) == prepared
        assert store.check() == ()


def test_postgres_connections_begin_without_options(postgres_url: str) -> None:
    """A store that is to leave time-outs to the role says nothing that a pooler could refuse."""
    show = b"SELECT current_setting('statement_timeout')"
    for timeout, expected in ((None, {"0"}), (7.0, {"7s", "3s"})):
        with closing(PostgresStore(postgres_url, statement_timeout_seconds=timeout)) as store:
            all_of_it = (store._connections, store._beats, store._hinting)
            told = [psycopg.conninfo.conninfo_to_dict(each.target.conninfo) for each in all_of_it]
            assert ["options" in each for each in told] == [timeout is not None] * 3
            assert {
                each.read(lambda link: link.execute(show).fetchall())[0][0] for each in all_of_it
            } == expected
            # A server that says nothing must not keep a lease from being renewed elsewhere.
            kept = store._beats.source._options["kwargs"]["silence_seconds"]  # type: ignore[attr-defined]
            assert kept == 6.0


# --- a pool of somebody else's ---------------------------------------------------------------


def test_postgres_connections_of_a_pool_stay_its_owners(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """A pool is used and left open, each of its connections as it was."""
    schema = postgres_url.rpartition("=")[2]
    with ConnectionPool(
        postgres.url(), min_size=1, max_size=4, kwargs={"row_factory": dict_row}, open=True
    ) as pool:
        store = PostgresStore(pool=pool, schema=schema)
        store.enlist("author")
        author = Author(store)
        author.write("a", "activate")
        with store.batch():
            author.write("b", "activate", "touch")
        assert store.url == postgres_url
        assert [store.tail(each)[0] for each in "ab"] == [2, 3]
        with pytest.raises(StoreUnavailableError), store.batch():
            author.write("c", "activate")
            store._connections.read(lambda link: link.execute(b"SELECT nothing"))
        assert store.check() == ()
        store.close()
        assert not pool.closed
        for _ in range(4):
            with pool.connection() as connection:
                assert not connection.autocommit
                told: Any = connection.execute("SELECT 1 AS one").fetchone()
                assert told == {"one": 1}


def test_postgres_connections_of_a_pool_may_be_used_up(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """A pool that has no connection left is told as a store that can't be reached."""
    schema = postgres_url.rpartition("=")[2]
    with ConnectionPool(postgres.url(), min_size=1, max_size=1, timeout=0.1, open=True) as pool:
        pool.wait()
        with closing(PostgresStore(pool=pool, schema=schema, retry_seconds=0.1)) as store:
            with pool.connection(), pytest.raises(StoreUnavailableError, match="pool"):
                store.load("a")
            assert store.load("a") is None


def test_postgres_connections_of_a_pool_are_not_kept(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """Whoever watches keeps none of them: a pool of one serves whoever comes, and who looks."""
    schema = postgres_url.rpartition("=")[2]
    with (
        ConnectionPool(postgres.url(), min_size=1, max_size=1, timeout=5, open=True) as pool,
        closing(PostgresStore(pool=pool, schema=schema, retry_seconds=0)) as store,
    ):
        store.enlist("author")
        author = Author(store)
        end = store.watch(lambda: None)
        author.write("a", "activate")
        for _ in range(5):
            author.write("a", "touch")
        assert store.tail("a")[0] == 7
        end()


def test_postgres_connections_of_a_pool_are_not_awaited_by_heartbeats(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """Who renews leases gives up soon where a pool is used up, and tries again in time."""
    schema = postgres_url.rpartition("=")[2]
    with (
        ConnectionPool(postgres.url(), min_size=1, max_size=1, timeout=20, open=True) as pool,
        closing(PostgresStore(pool=pool, schema=schema, lease_seconds=10)) as store,
    ):
        with pool.connection():
            begun = monotonic()
            assert not store._leases.renew()
            assert monotonic() - begun < 10
        assert store._leases.renew()


# --- forks -----------------------------------------------------------------------------------


def test_postgres_connections_are_not_shared_with_a_fork(postgres_store: PostgresStore) -> None:
    """A child by fork is refused at its parent's store, and leaves its connections alone."""
    store = postgres_store
    store.enlist("author")
    author = Author(store)
    author.write("a", "activate")
    draft = author.draft("a", "touch")
    answers = []
    for _ in range(3):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            refused: list[int] = []
            asked: list[Callable[[], Any]] = [
                lambda: store.load("a"),
                lambda: store.commit(draft),
                lambda: store.set_mark("m", b""),
                lambda: store.enlist("x"),
                lambda: store.batch().__enter__(),
            ]
            for ask in asked:
                try:
                    ask()
                except StoreUnavailableError:
                    refused.append(1)
            store.close()
            os.write(write_end, bytes(refused))
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as answer:
            answers.append(answer.read())
        os.waitpid(child, 0)
    assert answers == [b"\1" * 5] * 3
    author.write("a", "touch")
    assert store.tail("a")[0] == 3
