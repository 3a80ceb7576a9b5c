"""A node: a real manager, and what goes on around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from simulated_leases import Machine
from simulated_store import SimulatedStore
from simulated_world import Process

from session_fsm import Session, SessionManager
from session_fsm.errors import ManagerClosedError, StoreError

if TYPE_CHECKING:
    from simulation_town import Town

SWEEP_SECONDS: Final = 10.0
STOP_SECONDS: Final = 0.8
"""Longest that a worker takes to stop: all of a node have to be gone before its lease ends."""


class SimulatedWorker:
    """What runs for a session: it calls the manager itself now and then.

    Args:
        node: Where it runs.
        session_id: For which session.
    """

    def __init__(self, node: Node, session_id: str) -> None:
        self.node = node
        self.process = node.process
        self.session_id = session_id
        self.is_running = True
        self.is_asked_to_stop = False
        world = node.town.world
        self.begun_at = world.now
        world.begin(self.process, f"worker of {session_id}", self._run)
        self.works = world.chance.random() < 0.5

    def _run(self) -> None:
        world, client = self.node.town.world, self.node.client
        while not self.is_asked_to_stop:
            world.sleep(world.chance.uniform(1.0, 15.0))
            if self.works and not self.is_asked_to_stop:
                try:
                    client.work(self.session_id)
                except ManagerClosedError:
                    return

    def stop(self) -> None:
        """Stop, which takes a moment and may go wrong."""
        chance = self.node.town.world.chance
        self.is_asked_to_stop = True
        self.node.town.world.sleep(chance.uniform(0, STOP_SECONDS))
        self.is_running = False
        if chance.random() < 0.05:
            raise LookupError("it was gone already")


class Node:
    """One machine, on which one process after the other runs a manager.

    Args:
        town: Where it stands.
        name: Its name.
        machine: Its clock.

    Attributes:
        process: The process of now, dead or alive.
        manager: Its manager; None while there is none.
        starting: Sessions for which something is being started.
        is_recovering: Whether it is about to do something about what the dead have left.
        since: When it last was cut off, or could not do its work otherwise.
    """

    def __init__(self, town: Town, name: str, machine: Machine) -> None:
        from simulation_client import Client

        self.town = town
        self.name = name
        self.machine = machine
        self.process = Process(name)
        self.process.is_dead = True
        self.manager: SessionManager | None = None
        self.store: SimulatedStore | None = None
        self.starting: set[str] = set()
        self.is_recovering = False
        self.since = 0.0
        self.client = Client(self)
        self._boots = 0
        self._owners = 0

    # --- life and death -------------------------------------------------------------------

    def boot(self) -> None:
        """Begin a new process."""
        self._boots += 1
        world = self.town.world
        self.process = Process(f"{self.name}.{self._boots}")
        self.process.awake_since = world.now
        self.starting = set()
        self.is_recovering = False
        self.manager = self.store = None
        world.tell(f"{self.process.name} begins")
        world.begin(self.process, "main", self._main)

    def crash(self) -> None:
        """End the process at once."""
        self.town.world.tell(f"{self.process.name} crashes")
        self.town.world.kill(self.process)
        self.manager = None

    @property
    def is_up(self) -> bool:
        """Whether its process runs, and is not standing still."""
        return not self.process.is_dead and not self.process.is_paused

    @property
    def is_healthy(self) -> bool:
        """Whether it does its work now."""
        if not self.is_up or self.process.is_cut_off or self.manager is None:
            return False
        return self.town.database.is_alive(self.manager._core.owner_id)

    def _next_owner(self) -> str:
        self._owners += 1
        return f"{self.process.name}/{self._owners}"

    def _main(self) -> None:
        world, town = self.town.world, self.town
        self.store = SimulatedStore(self.process, self.machine, town.network, town.database)
        while self.manager is None:
            try:
                self.manager = SessionManager(
                    self.store,
                    lifecycle=town.lifecycle,
                    new_id=town.ledger.next_mark,
                    new_owner_id=self._next_owner,
                )
            except StoreError:
                self.machine.sleep(1.0)
        self.since = world.now
        recovers = town.lease_seconds / 3
        world.begin(self.process, "sweeper", lambda: self._often(SWEEP_SECONDS, self._sweep))
        world.begin(self.process, "recoverer", lambda: self._often(recovers, self._recover))
        for number in range(town.clients):
            world.begin(self.process, f"client {number}", self.client.run)

    def close(self, then: Callable[[], None]) -> None:
        """End the manager in good order, then the process; then do something else."""
        manager, store, world = self.manager, self.store, self.town.world
        if manager is None or store is None or not self.is_up:
            return

        def close() -> None:
            manager.close()
            store.close()
            world.tell(f"{self.process.name} is closed")
            process.is_dead = True
            world.after(0.0, lambda: world.kill(process))
            world.after(0.0, then)

        process = self.process
        world.tell(f"{process.name} is being closed")
        world.begin(process, "end", close)

    # --- what goes on by itself -----------------------------------------------------------

    def _often(self, seconds: float, work: Callable[[SessionManager], Any]) -> None:
        assert self.manager is not None
        manager = self.manager
        while True:
            self.machine.sleep(seconds * self.town.world.chance.uniform(0.8, 1.0))
            try:
                work(manager)
            except ManagerClosedError:
                return
            except StoreError as fault:
                self.town.world.tell(f"{self.process.name}: {fault}")

    def _sweep(self, manager: SessionManager) -> None:
        report = manager.sweep()
        for event in report.fired:
            self.town.world.tell(f"{self.process.name} fired {event.trigger} {event.session_id}")

    def _recover(self, manager: SessionManager) -> None:
        self.is_recovering = True
        try:
            report = manager.recover(restart=self.start, max_takeovers=self.town.max_takeovers)
        finally:
            self.is_recovering = False
        told = {"ended": report.ended, "released": report.released, "restarted": report.restarted}
        if any(told.values()) or report.failed:
            self.town.world.tell(f"{self.process.name} recovered {told} {report.failed}")

    def start(self, session: Session) -> SimulatedWorker | None:
        """Start what runs for a session."""
        self.starting.add(session.session_id)
        try:
            return self._start(session)
        finally:
            self.starting.discard(session.session_id)

    def _start(self, session: Session) -> SimulatedWorker | None:
        chance = self.town.world.chance
        fate = chance.random()
        longest = 20.0 if fate < 0.2 else 1.0
        self.town.world.sleep(chance.uniform(0, longest))
        if fate > 0.95:
            raise LookupError("it would not start")
        if fate > 0.9:
            return None
        return SimulatedWorker(self, session.session_id)
