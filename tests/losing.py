"""Answers of a PostgreSQL server that are lost, at the moment that a test chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from session_fsm.stores import PostgresStore


def lose_answer(
    store: PostgresStore, *, lands: bool = True, then: Callable[[], object] = int
) -> None:
    """Have the answer to the next COMMIT be lost, and something be done behind it.

    Args:
        store: Whose COMMIT, of a transaction or a batch.
        lands: Whether it is made all the same.
        then: Called behind it, before anybody is told.
    """
    connections = store._connections
    end = connections._end

    def lose(link: Any) -> None:
        connections._end = end  # type: ignore[method-assign]
        if lands:
            end(link)
        else:
            link.rollback()
        link.close()
        then()
        raise psycopg.OperationalError("lost")

    connections._end = lose  # type: ignore[method-assign]
