"""What is told of the moves on PostgreSQL, and of what each subject does for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .measuring import percentile, table, told_seconds
from .postgres_processes import Together
from .postgres_server import DURABLE
from .postgres_subjects import PostgresOurs, PostgresOursAwaited

ABOUT: Final = """
All subjects are connected to one server, each with tables of its own in one database, and take
turns of the same length; every other round goes backwards, and a ratio is the median of the ratios
of the rounds. Each subject lives in processes of its own, with the callers divided among them, and
each caller moves a session of its own. A move is one change of one session, on disk when the call
returns: `fsync`, `synchronous_commit` and `full_page_writes` are read back through each subject's
own connections. The latencies are what one caller waits.

- **session_fsm**: `manager.fire` of one manager for each process, with threads as callers. It
  decides on the machine, and commits the state, an event with a chained digest, a JSONB document
  beside each, and what its indexes and triggers ask for, on condition of the revision and of the
  owner's lease. The commits of callers that wait go to the server together.
- **session_fsm, awaited**: the same with `session_fsm.aio`, and tasks of one event loop as callers.
  What many of them ask for at the same time is decided by one thread, and goes to the server
  together.
- **floor: bare psycopg**: one transaction written by hand, on a connection of psycopg's own pool,
  which has one for each thread: BEGIN; an UPDATE of a row with the same bytes of state where its
  revision is the expected one; an INSERT of the same bytes of event and their digest; COMMIT; each
  is a round trip. There are two tables with their primary keys, no trigger, no other index and no
  JSONB. Statements are prepared by psycopg itself. It decides nothing.
- **floor: bare psycopg, one statement**: the same with an INSERT that selects from the UPDATE,
  which is a transaction of its own: one round trip, the least that can be asked of a server.
- **floor, synchronous_commit=off**: that, acknowledged before it is on disk: what would be left if
  the disk cost nothing.
- **langgraph**: `put` of a checkpoint whose channels are the fields of the same state, with new
  versions for those that change, as a graph hands it over at each step; over a pool with one
  connection for each caller, made as its manual shows it. Its savers hold a lock of their own
  around each call, so that a pool gives them no more than one connection does. The row without that
  lock shows what is behind it.
- **google-adk**: `DatabaseSessionService.append_event` with a change of the session's state, tasks
  as callers; `pool_size` is their number, all else is its default. asyncpg is the driver that it
  names, and psycopg works too.
"""


def about_lines() -> Iterator[str]:
    """Yield what is measured, with each paragraph and each item on a line of its own."""
    for paragraph in ABOUT.strip().split("\n\n"):
        yield from (
            paragraph.replace("\n  ", " ").replace("\n- ", "\0- ").replace("\n", " ").split("\0")
        )
        yield ""


def shape_lines(found: Together) -> Iterator[str]:
    """Yield what was found with so many callers and processes as a table."""
    ours = [found.records.get(kind.name) for kind in (PostgresOurs, PostgresOursAwaited)]
    rows = []
    for name, record in found.records.items():
        latencies = [each for turn in record.turns for each in turn.latencies]
        waits = [told_seconds(percentile(latencies, share)) for share in (0.5, 0.95, 0.99)]
        ratios = [
            "" if each is None or each is record else f"{each.ratio_to(record):.2f} ×"
            for each in ours
        ]
        told = (found.settings[name], f"{record.rate:,.0f}", *waits, f"{record.failures:,}")
        rows.append((name, *told, *ratios))
    head = ("moves/s", "median", "p95", "p99", "failed", "ours: rate", "awaited: rate")
    yield from table(("", ", ".join(DURABLE), *head), rows)
    if found.missing:
        yield ""
        for name, reason in found.missing.items():
            yield f"- Not measured: {name} ({reason})"
