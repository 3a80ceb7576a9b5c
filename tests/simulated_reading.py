"""How a simulated node asks the database, and what it reads there: again, if an answer is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from simulated_database import SimulatedDatabase
from simulated_leases import Machine, unreachable
from simulated_network import LostError, Network
from simulated_world import Process

from session_fsm.errors import StoreUnavailableError
from session_fsm.items import Item
from session_fsm.session import SessionEvent
from session_fsm.stores import SessionStore
from session_fsm.stores.records import Abandoned, Fed, Stored, Work

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 2.0
"""How long an answer is waited for."""
RETRY_SECONDS: Final = 10.0
"""How long it is tried again."""


class Patience:
    """How long somebody goes on trying."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._end = machine.seconds() + RETRY_SECONDS
        self._pause = 0.05

    def pause(self) -> bool:
        """Wait before the next attempt; False if there is no time for another one."""
        if self._machine.seconds() + self._pause >= self._end:
            return False
        self._machine.sleep(self._pause * self._machine.world.chance.uniform(0.5, 1.0))
        self._pause *= 2
        return True


class SimulatedReading(SessionStore):
    """The part of a node's store that reads.

    Args:
        process: The node.
        machine: Where it runs.
        network: The way to the database.
        database: The database.
    """

    def __init__(
        self, process: Process, machine: Machine, network: Network, database: SimulatedDatabase
    ) -> None:
        self._process = process
        self._machine = machine
        self._network = network
        self._database = database
        self._closed = False

    # --- asking ---------------------------------------------------------------------------

    def _ask(self, work: Callable[[], T], *, repeatable: bool = False) -> T:
        if self._closed:
            raise StoreUnavailableError(problem="the store is closed")
        return self._network.ask(self._process, work, TIMEOUT_SECONDS, repeatable=repeatable)

    def _insist(self, work: Callable[[], T], operation_id: str | None = None) -> T:
        """Have something done, again where an answer is lost, which must do no harm."""
        patience = Patience(self._machine)
        was_sent = False
        while True:
            try:
                return self._ask(work)
            except LostError as lost:
                was_sent = was_sent or lost.was_sent
                if not patience.pause():
                    raise unreachable(operation_id if was_sent else None) from lost

    # --- reading --------------------------------------------------------------------------

    def load(self, session_id: str) -> Stored | None:
        """Read a session."""
        return self._insist(partial(self._database.load, session_id))

    def tail(self, session_id: str) -> tuple[int, str]:
        """Return the revision and the digest of the last event."""
        return self._insist(partial(self._database.tail, session_id))

    def history(self, session_id: str) -> tuple[tuple[bytes, SessionEvent], ...]:
        """Return the events of a session."""
        return self._insist(partial(self._database.history, session_id))

    def feed(self, after: int, limit: int, session_id: str | None = None) -> Fed:
        """Return the first events behind a position."""
        return self._insist(partial(self._database.feed, after, limit, session_id))

    def page(self, statuses: Iterable[str], limit: int, after: str | None) -> tuple[Stored, ...]:
        """Return the first sessions in any of these statuses."""
        return self._insist(partial(self._database.page, tuple(statuses), limit, after))

    def counts(self) -> dict[str, int]:
        """Return how many sessions are in each status."""
        return self._insist(self._database.counts)

    def due(
        self, at: datetime, limit: int, after: tuple[datetime, str] | None
    ) -> tuple[tuple[datetime, str], ...]:
        """Return deadlines at or before an instant."""
        return self._insist(partial(self._database.due, at, limit, after))

    def next_deadline(self) -> datetime | None:
        """Return the earliest deadline."""
        return self._insist(self._database.next_deadline)

    def ids(self, limit: int, after: str | None) -> tuple[str, ...]:
        """Return ids in order."""
        return self._insist(partial(self._database.ids, limit, after))

    def item(self, session_id: str, table: str, key: str, at: datetime) -> Item | None:
        """Return an item."""
        return self._insist(partial(self._database.item, session_id, table, key, at))

    def items(
        self, session_id: str, table: str, limit: int, after: str | None, at: datetime
    ) -> tuple[Item, ...]:
        """Return items of a table."""
        return self._insist(partial(self._database.items, session_id, table, limit, after, at))

    def is_alive(self, owner_id: str) -> bool:
        """Tell whether an owner lives."""
        return self._insist(partial(self._database.is_alive, owner_id))

    def work_in(self, session_id: str) -> tuple[Work, ...]:
        """Return all work in progress in a session."""
        return self._insist(partial(self._database.work_in, session_id))

    def work_of(self, session_id: str, owner_id: str) -> tuple[Work, ...]:
        """Return the work of one owner in a session."""
        return self._insist(partial(self._database.work_of, session_id, owner_id))

    def abandoned(self, session_id: str | None = None) -> tuple[Abandoned, ...]:
        """Return what dead owners left."""
        return self._insist(partial(self._database.abandoned, session_id))

    def to_stop(self, owner_id: str) -> tuple[str, ...]:
        """Return the sessions whose worker an owner has to stop."""
        return self._insist(partial(self._database.to_stop, owner_id))

    def ended(self, before: datetime, limit: int) -> tuple[Stored, ...]:
        """Return sessions that ended before an instant."""
        return self._insist(partial(self._database.ended, before, limit))

    def mark(self, name: str) -> bytes | None:
        """Return what was kept under a name."""
        return self._insist(partial(self._database.mark, name))

    def marks(self, prefix: str) -> tuple[tuple[str, bytes], ...]:
        """Return the names that begin so."""
        return self._insist(partial(self._database.marks, prefix))

    def check(self) -> tuple[str, ...]:
        """Return what is wrong with the store as such."""
        return self._insist(self._database.check)
