"""Writes to tables of a session in PostgreSQL, where the answer to their COMMIT is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from postgres_proxy import Proxy
from postgres_server import PostgresServer

from session_fsm import FencedError, StoreUnavailableError
from session_fsm.items import Clear, Put
from session_fsm.stores import PostgresStore
from session_fsm.testing.authors import BEGINNING, Author

Before = Callable[[Callable[[], Any]], None]


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[Proxy]:
    """What stands between a store and its server."""
    with Proxy(("127.0.0.1", postgres.port)) as proxy:
        yield proxy


@pytest.fixture
def author(postgres: PostgresServer, postgres_url: str, proxy: Proxy) -> Iterator[Author]:
    """Somebody who writes through the proxy, with a session."""
    url = postgres.url(port=proxy.port, more=postgres_url[postgres_url.index("?") :])
    with closing(PostgresStore(url)) as store:
        store.enlist("author")
        author = Author(store)
        author.write("a", "activate")
        yield author


@pytest.fixture
def before_commit(author: Author, monkeypatch: pytest.MonkeyPatch) -> Before:
    """Does something once, when the next transaction is to be committed."""
    assert isinstance(author.store, PostgresStore)
    connections = author.store._connections
    waiting: list[Callable[[], Any]] = []
    end = connections._end

    def ended(*arguments: Any, **more: Any) -> Any:
        if waiting:
            waiting.pop()()
        return end(*arguments, **more)

    monkeypatch.setattr(connections, "_end", ended)
    return waiting.append


def test_items_whose_answer_was_lost_are_told(
    author: Author, before_commit: Before, proxy: Proxy
) -> None:
    """What was written is told as it was written, and not written again."""
    before_commit(lambda: proxy.lose_answers(1))
    [item] = author.put("a", Put("files", "k", 1))
    assert proxy.lost == 1
    assert author.store.item("a", "files", "k", BEGINNING) == item
    assert item.version == 1
    before_commit(lambda: proxy.lose_answers(1))
    assert author.put("a", Clear("files")) == (1,)
    assert proxy.lost == 2
    [item] = author.put("a", Put("files", "k", 1, expected_version=0))
    assert item.version == 2  # type: ignore[union-attr]


def test_items_written_by_who_has_lapsed_since_are_told(
    author: Author,
    before_commit: Before,
    proxy: Proxy,
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write that has landed is told as made, though its owner died before that was known."""
    store = author.store
    assert isinstance(store, PostgresStore)
    patience, lapses = store._connections.patience, list[str]()

    def lapsing() -> Any:
        found = patience()
        pause = found.pause

        def paused() -> bool:
            lapses.append("author")
            postgres.execute(f"DELETE FROM {store._sql.quoted}.owner")
            return pause()

        found.pause = paused  # type: ignore[method-assign]
        return found

    monkeypatch.setattr(store._connections, "patience", lapsing)
    before_commit(lambda: proxy.lose_answers(1))
    [item] = author.put("a", Put("files", "k", 1))
    assert lapses == ["author"]
    assert store.item("a", "files", "k", BEGINNING) == item
    with pytest.raises(FencedError):
        author.put("a", Put("files", "k", 2))


def test_items_that_were_not_written_are_written(
    author: Author, before_commit: Before, proxy: Proxy
) -> None:
    """Where the connection was lost before the server had the COMMIT, they are written once."""
    before_commit(proxy.close_all)
    [item] = author.put("a", Put("files", "k", 1, expected_version=0))
    assert proxy.closed >= 1
    assert item.version == 1  # type: ignore[union-attr]
    assert author.store.item("a", "files", "k", BEGINNING) == item


def test_items_that_others_wrote_over_are_in_doubt(
    author: Author, before_commit: Before, proxy: Proxy, postgres_url: str
) -> None:
    """If others have written since, the error names the operation whose fate is not known."""
    with closing(PostgresStore(postgres_url)) as other:
        other.enlist("other")

        def others_come() -> None:
            proxy.close_all()
            Author(other, "other").put("b", Put("files", "l", 2))

        Author(other, "other").write("b", "activate")
        before_commit(others_come)
        [item] = author.put("a", Put("files", "k", 1))
        assert item.version == 1  # type: ignore[union-attr]

        maker, pauses = author.store, list[int]()
        assert isinstance(maker, PostgresStore)
        patience = maker._connections.patience

        def overtaken() -> Any:
            found = patience()
            pause = found.pause

            def paused() -> bool:
                pauses.append(1)
                Author(other, "other-2").put("a", Put("files", "l", 2))
                return pause()

            found.pause = paused  # type: ignore[method-assign]
            return found

        maker._connections.patience = overtaken  # type: ignore[method-assign]
        before_commit(lambda: proxy.lose_answers(1))
        with pytest.raises(StoreUnavailableError, match="others have written since") as caught:
            author.put("a", Put("files", "k", 2))
        assert len(pauses) == 1  # it is told at once: no time will tell
        assert (caught.value.operation_id or "").startswith("author-")
        assert [each.key for each in other.items("a", "files", 9, None, BEGINNING)] == ["k", "l"]
