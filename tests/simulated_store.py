"""The store of a simulated node: it asks the database over a bad network, as the real one does.

What is read is asked for again. A commit is conditional, so it may be sent again; before that, and
before a refusal is believed, the database is asked whether the first one has landed. Whatever else
writes is a transaction: it is done before its connection is lost, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import TypeVar

from simulated_database import OWNING, Answer, SimulatedDatabase
from simulated_leases import Keeper, Machine, MeasuredClock, unreachable
from simulated_network import LostError, Network
from simulated_reading import TIMEOUT_SECONDS, Patience, SimulatedReading
from simulated_world import Process

from session_fsm.compaction import Checkpoint
from session_fsm.errors import SessionFsmError, StoreUnavailableError
from session_fsm.history import Sealed
from session_fsm.items import ItemWrites, Written
from session_fsm.stores.records import Commit, Taken, Work

T = TypeVar("T")


class SimulatedStore(SimulatedReading):
    """What a node has of the database.

    Args:
        process: The node.
        machine: Where it runs.
        network: The way to the database.
        database: The database.
    """

    durable = True
    url = "simulated://"

    def __init__(
        self, process: Process, machine: Machine, network: Network, database: SimulatedDatabase
    ) -> None:
        super().__init__(process, machine, network, database)
        self.lifecycle = database.lifecycle
        self.lease_seconds = database.lease_seconds
        self.clock = clock = MeasuredClock(machine)
        self.keeper = Keeper(process, machine, network, database, clock)
        self._tokens: dict[tuple[str, str], int] = {}
        self._open: dict[str, int] = {}
        self._doubtful: list[tuple[str, str]] = []
        self._numbers = 0
        while not self.keeper.renew():
            machine.sleep(TIMEOUT_SECONDS)

    def _write(self, session_id: str, work: Callable[[], T], operation_id: str | None = None) -> T:
        """Do something in a transaction, as a node that lives and has not lost the session."""
        stated = [token for (_, of), token in self._tokens.items() if of == session_id]

        def transaction() -> T:
            if operation_id is None or not self._database.has_written(operation_id):
                self._database.fence(held, session_id, stated)
            return work()

        held = self.keeper.held
        return self._insist(transaction, operation_id)

    def _keep(self, owner_id: str, session_id: str, token: int | None) -> None:
        if token is None:
            self._tokens.pop((owner_id, session_id), None)
        else:
            self._tokens[owner_id, session_id] = token

    def _next_operation(self, owner_id: str) -> str:
        self._numbers += 1
        return f"{owner_id}/store-{self._numbers}"

    # --- commits --------------------------------------------------------------------------

    def commit(self, commit: Commit) -> None:
        """Write the steps of one session."""
        session_id, owner_id = commit.session_id, commit.owner_id
        self.keeper.check(owner_id, session_id)
        stated = None if commit.creates else self._tokens.get((owner_id, session_id))
        make = partial(self._database.commit_as, commit, stated)
        patience = Patience(self._machine)
        in_doubt = False
        while True:
            try:
                if in_doubt and self._find(commit):
                    return
                try:
                    token = self._ask(make, repeatable=True)
                except SessionFsmError as refused:
                    if in_doubt and self._find(commit):
                        return  # what was in its way was itself
                    if in_doubt and self._is_forgotten(commit):
                        raise unreachable(commit.operation_id) from refused
                    raise
            except LostError as lost:
                in_doubt = in_doubt or lost.was_sent
                if not patience.pause():
                    if not in_doubt:
                        raise unreachable() from lost
                    self._open[commit.operation_id] = commit.expected_revision
                    raise unreachable(commit.operation_id) from lost
            else:
                self._keep(owner_id, session_id, token)
                return

    def _find(self, commit: Commit) -> bool:
        """Tell whether a commit has landed, the answer of which was lost."""

        def find() -> tuple[bool, int | None]:
            token = self._database.token_of(commit.owner_id, commit.session_id)
            return self._database.landed(commit.session_id, commit.operation_id), token

        landed, token = self._ask(find)
        if landed:
            self._keep(commit.owner_id, commit.session_id, token)
        return landed

    def _is_forgotten(self, commit: Commit) -> bool:
        """Tell whether nobody can say any longer whether a commit has landed."""
        revision = commit.expected_revision + len(commit.steps)
        return self._database.guarded.traces and self._ask(
            partial(self._database.is_forgotten, commit.session_id, revision)
        )

    def landed(self, session_id: str, operation_id: str) -> bool:
        """Tell whether a commit was made; refused while it might still arrive."""
        landed, revision = self._insist(
            lambda: self._database.find_landed(session_id, operation_id)
        )
        if not landed and self._open.get(operation_id) == revision:
            raise unreachable(operation_id)
        return landed

    def write_items(
        self,
        session_id: str,
        expected_revision: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        """Write to tables of a session."""
        told = (session_id, expected_revision, writes, operation_id, owner_id)
        write = partial(self._database.write_once, *told)
        return self._write(session_id, write, operation_id)

    def drop_expired_items(self, at: datetime, limit: int) -> int:
        """Remove items that have expired."""
        return self._write("", partial(self._database.drop_expired_items, at, limit))

    # --- work and its owners --------------------------------------------------------------

    def enlist(self, owner_id: str, lapsed: Callable[[], None] | None = None) -> None:
        """Make an owner known, and keep it alive."""
        again = False
        sent = 0.0

        def begin() -> bool:
            nonlocal again
            try:
                return self._database.begin_lease(owner_id, again=again)
            finally:
                again = True  # if the answer is lost, the lease is our own

        def attempt() -> bool:
            nonlocal sent
            sent = self._machine.seconds()
            return self._ask(begin)

        patience = Patience(self._machine)
        while True:
            try:
                if not attempt():
                    raise StoreUnavailableError(problem=f"owner {owner_id!r}: it lives already")
                break
            except LostError as lost:
                if not patience.pause():
                    raise unreachable() from lost
        self.keeper.note(owner_id, sent, lapsed)

    def dismiss(self, owner_id: str) -> None:
        """Declare an owner dead."""
        self.keeper.dismiss(owner_id)
        for key in [key for key in self._tokens if key[0] == owner_id]:
            del self._tokens[key]

    def take_over(
        self, owner_id: str, limit: int, *, restarting: bool, passing_over: Collection[str] = ()
    ) -> tuple[Taken, ...]:
        """Give work of dead owners to a living one; what was in doubt is looked up first."""
        self.keeper.check(owner_id, "")
        self._doubtful = [each for each in self._doubtful if each[0] == owner_id]
        while self._doubtful:
            settled = self._insist(partial(self._database.answer_of, self._doubtful[0][1]))
            self._doubtful.pop(0)
            if settled is not None:
                return self._taken(owner_id, settled)
        operation_id = self._next_operation(owner_id)
        take: Callable[[], Answer]
        if self._database.guarded.exclusive:
            take = partial(
                self._database.take,
                owner_id,
                limit,
                restarting=restarting,
                passing_over=passing_over,
                operation_id=operation_id,
            )
        else:
            look = partial(
                self._database.look_for_dead,
                owner_id,
                limit,
                restarting=restarting,
                passing_over=passing_over,
            )
            found = self._insist(look)
            self._machine.sleep(self._machine.world.chance.uniform(0, 2.0))
            take = partial(self._database.take_found, owner_id, found, operation_id=operation_id)
        try:
            taken = self._insist(take, operation_id)
        except StoreUnavailableError as fault:
            if fault.operation_id is not None:
                self._doubtful.append((owner_id, operation_id))
            raise
        return self._taken(owner_id, taken)

    def _taken(self, owner_id: str, answer: Answer) -> tuple[Taken, ...]:
        taken, tokens = answer
        for session_id, token in tokens.items():
            self._keep(owner_id, session_id, token)
        return taken

    def give_back(self, taken: Taken) -> None:
        """Have work that was taken over be the dead owner's again."""
        self._write("", partial(self._database.give_back, taken))
        self._keep(taken.holder_id, taken.session_id, None)

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        """Let go of work of one owner."""
        gone = tuple(work)
        if not gone:
            return
        self._write("", partial(self._database.release, session_id, gone, owner_id))
        if any(each in OWNING for each in gone):
            self._keep(owner_id, session_id, None)

    def compact(self, checkpoint: Checkpoint) -> int:
        """Have a checkpoint stand for events of a session."""
        session_id = checkpoint.event.session_id
        return self._write(session_id, partial(self._database.compact, checkpoint))

    # --- what no node of the simulation does ----------------------------------------------

    def set_mark(self, name: str, body: bytes) -> None:
        """Keep something under a name."""
        raise NotImplementedError

    def drop_mark(self, name: str) -> None:
        """Keep nothing under a name any longer."""
        raise NotImplementedError

    def bury(self, session_id: str, revision: int, tombstone: Sealed) -> None:
        """Remove a session."""
        raise NotImplementedError

    def batch(self) -> AbstractContextManager[None]:
        """Make one transaction."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything."""
        if not self._closed:
            self.keeper.close()
            self._closed = True
