"""What the store on PostgreSQL does beside the moves: positions of events, heartbeats, upkeep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Final

import attrs
import psycopg

from session_fsm.stores.postgres_feed import NUMBERED_AT_ONCE, number
from session_fsm.stores.postgres_sql import Sql
from session_fsm.stores.postgres_tending import AT_ONCE

from .measuring import Record, Turn, counted, table, told_seconds
from .postgres_meter import Meter, RoundTrips, Spent
from .postgres_promises import Lacking
from .postgres_server import database

MOVES: Final = 50
"""In which round trips are counted, after so many for which statements are prepared."""
_SESSION: Final = "caller-000"
# As many sessions, each with one event: the bytes of one that the library wrote.
_FILL: Final = """
INSERT INTO session_fsm.session_event (session_id, revision, at, body, digest, operation_id)
SELECT 'filled-' || md5(number::text), 1, at, body, digest, operation_id || number
FROM generate_series(1, %s) AS number, (
    SELECT at, body, digest, operation_id FROM session_fsm.session_event
    WHERE session_id = %s ORDER BY revision DESC LIMIT 1
) AS made
"""


@attrs.frozen
class Cost:
    """What one of something took; see `Spent`."""

    record: Record
    spent: Spent


@attrs.frozen
class Beside:
    """What was measured beside the moves.

    Attributes:
        costs: By what was done.
        round_trips: Of a move, on average.
        unnumbered: How many events had no position before.
    """

    costs: dict[str, Cost]
    round_trips: float
    unnumbered: int


def measure(url: str, unnumbered: int, times: int) -> Beside:
    """Measure what goes on beside the moves, in a database of its own.

    Args:
        url: Of a database of the server.
        unnumbered: How many events are to be numbered, half of them in the smaller portions; more
            than two of these.
        times: How many heartbeats.
    """
    mine = database(url, "beside")
    costs: dict[str, Cost] = {}
    with (
        psycopg.connect(url, autocommit=True) as looking,
        psycopg.connect(mine, autocommit=True) as connection,
        closing(Lacking(mine)) as lacking,
    ):
        for _ in range(MOVES):
            lacking.moves[0]()
        with RoundTrips(lacking.connections) as trips:
            for _ in range(MOVES):
                lacking.moves[0]()
        store = lacking.store
        store._tending.tend()  # what there was to do
        for name, act in (
            ("a heartbeat: a lease renewed, the time asked", store._leases.renew),
            ("the upkeep that follows it, with nothing to do", store._tending.tend),
        ):
            costs[name] = _cost(Meter(looking, mine), act, times)
        connection.execute(_FILL, (unnumbered, _SESSION))
        connection.execute("ANALYZE session_fsm.session_event")
        for at_once in (AT_ONCE, NUMBERED_AT_ONCE):
            meter = Meter(looking, mine)
            turn = partial(_numbered, connection, at_once)
            turns = [meter.turn(turn) for _ in range(0, unnumbered // 2, at_once)]
            name = f"an event that is numbered, {at_once:,} at a time"
            costs[name] = Cost(Record(turns), meter.spent)
    return Beside(costs, trips.count / MOVES, unnumbered)


def _cost(meter: Meter, act: Callable[[], bool], times: int) -> Cost:
    def checked() -> None:
        if not act():
            raise RuntimeError("the store could not do it")

    turns = [meter.turn(lambda: counted(checked, 1)) for _ in range(times)]
    return Cost(Record(turns), meter.spent)


def _numbered(connection: psycopg.Connection[Any], limit: int) -> Turn:
    begin = time.perf_counter()
    with connection.transaction():
        numbered = number(connection, Sql(), limit)
    return Turn(numbered, time.perf_counter() - begin)


def lines(found: Beside) -> Iterator[str]:
    """Yield what was found, as Markdown."""
    yield (
        f"Beside the moves, with a commit for each line but the last two, where it is one for all"
        f" that are numbered at a time; {found.unnumbered:,} events had no position. Each process"
        " has a heartbeat every ten seconds. A move is"
        f" {found.round_trips:.2f} round trips to the server."
    )
    yield ""
    rows = [
        (
            name,
            told_seconds(cost.record.each_seconds),
            f"{cost.record.rate:,.0f}",
            told_seconds(cost.spent.cpu_seconds),
            f"{cost.spent.wal_bytes:,.0f}",
        )
        for name, cost in found.costs.items()
    ]
    yield from table(("", "takes", "a second", "of it the server's CPU", "bytes of WAL"), rows)
