"""How a simulated node keeps its owners alive, and learns what time it is: as the real one does.

A lease is renewed long before its end. Its owner gives up earlier than the database does, by the
clock of its own machine, which runs a little too fast or too slow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from simulated_database import SimulatedDatabase
from simulated_network import LostError, Network
from simulated_threads import Event
from simulated_world import Process, World

from session_fsm.errors import FencedError, SessionFsmError, StoreUnavailableError
from session_fsm.stores.postgres_clock import DatabaseClock

BEATS: Final = 3
"""So often is a lease renewed in the time that it lasts."""
RETRIES: Final = 5
"""So often is it tried, in the time between two renewals, where the database can't be reached."""


class Machine:
    """Where a node runs: its clock goes on whatever becomes of its processes.

    Args:
        world: The one true time.
        rate: How fast its clock runs.
        ahead: What it shows at the beginning.
    """

    def __init__(self, world: World, rate: float, ahead: float) -> None:
        self.world = world
        self.rate = rate
        self.ahead = ahead

    def seconds(self) -> float:
        """Return what has passed, from any beginning, by this machine's clock."""
        return self.ahead + self.rate * self.world.now

    def sleep(self, seconds: float) -> None:
        """Wait for some time by this machine's clock."""
        self.world.sleep(seconds / self.rate)


class MeasuredClock(DatabaseClock):
    """The clock of the database, as it is told on a machine; it waits by that of the machine.

    Args:
        machine: Whose clock tells what has passed.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.seconds)
        self._machine = machine

    def wait(self, event: Any, timeout_seconds: float) -> bool:
        """Wait until the event is set, or some time has passed."""
        if timeout_seconds <= 0:
            return bool(event.is_set())
        return bool(event.wait(timeout_seconds / self._machine.rate))


class Lease:
    """The lease of one owner of a node."""

    __slots__ = ("end", "has_teller", "is_lapsed", "is_told", "lapsed", "owner_id")

    def __init__(self, owner_id: str, end: float, lapsed: Callable[[], None] | None) -> None:
        self.owner_id = owner_id
        self.end = end
        self.lapsed = lapsed
        self.is_lapsed = False
        self.is_told = False
        self.has_teller = False


class Keeper:
    """The leases of the owners of one node.

    Args:
        process: The node.
        machine: Where it runs.
        network: The way to the database.
        database: The database.
        clock: Told what time it is there.
    """

    def __init__(
        self,
        process: Process,
        machine: Machine,
        network: Network,
        database: SimulatedDatabase,
        clock: MeasuredClock,
    ) -> None:
        self.lease_seconds = database.lease_seconds
        self._margin = self.lease_seconds / 3 if database.guarded.margin else 0.0
        self._process = process
        self._machine = machine
        self._network = network
        self._database = database
        self._clock = clock
        self._world = machine.world
        self._leases: dict[str, Lease] = {}
        self._changed = Event(self._world)
        self._has_begun = False
        self.is_closed = False

    @property
    def beat_seconds(self) -> float:
        """The time between two renewals."""
        return self.lease_seconds / BEATS

    # --- owners ---------------------------------------------------------------------------

    def note(self, owner_id: str, sent: float, lapsed: Callable[[], None] | None) -> None:
        """Keep an owner alive that was made known."""
        self._leases[owner_id] = Lease(owner_id, self._end(sent), lapsed)
        self._changed.set()
        if not self._has_begun:
            self._has_begun = True
            self._world.begin(self._process, "beat", self._beat)
            self._world.begin(self._process, "watch", self._watch)

    def dismiss(self, owner_id: str) -> None:
        """Declare an owner dead."""
        if self._leases.pop(owner_id, None) is not None:
            self._remove([owner_id])

    def _remove(self, owner_ids: list[str]) -> bool:
        try:
            for owner_id in owner_ids:
                self._ask(partial(self._database.dismiss, owner_id))
        except LostError:
            return False
        return True

    def check(self, owner_id: str, session_id: str) -> None:
        """Refuse to write for an owner that can't be sure that it lives.

        Raises:
            FencedError: It can't.
        """
        lease = self._leases.get(owner_id)
        if lease is not None and not self._is_held(lease):
            raise FencedError(session_id=session_id, owner_id=owner_id)

    @property
    def held(self) -> tuple[str, ...]:
        """The owners that are sure that they live."""
        return tuple(lease.owner_id for lease in self._leases.values() if self._is_held(lease))

    def _is_held(self, lease: Lease) -> bool:
        if not lease.is_lapsed and self._machine.seconds() < lease.end:
            return True
        if not lease.is_lapsed:
            lease.is_lapsed = True
            self._changed.set()
        return False

    def _end(self, sent: float) -> float:
        return sent + self.lease_seconds - self._margin

    # --- what goes on by itself -----------------------------------------------------------

    def _ask(self, work: Callable[[], Any]) -> Any:
        return self._network.ask(self._process, work, self.lease_seconds / 10)

    def renew(self) -> bool:
        """Renew the leases that are held, and learn what time it is; False without an answer."""
        gone = [lease for lease in self._leases.values() if lease.is_told]
        if gone and self._remove([lease.owner_id for lease in gone]):
            for lease in gone:
                lease.is_told = False
        held = [lease for lease in self._leases.values() if self._is_held(lease)]
        names = [lease.owner_id for lease in held]
        sent = self._machine.seconds()
        try:
            renewed, told = self._ask(
                lambda: (self._database.renew(names), self._database.clock.now())
            )
        except LostError:
            return False
        self._clock.measure(sent, self._machine.seconds(), told)
        for lease in held:
            if lease.owner_id not in renewed:
                lease.is_lapsed = True
                self._changed.set()
            elif not lease.is_lapsed:
                lease.end = self._end(sent)
        return True

    def _beat(self) -> None:
        pause = self.beat_seconds
        while not self.is_closed:
            self._machine.sleep(pause)
            done = self.is_closed or self.renew()
            pause = self.beat_seconds if done else self.beat_seconds / RETRIES

    def _watch(self) -> None:
        while not self.is_closed:
            self._changed.clear()
            waits = [self.beat_seconds]
            for lease in tuple(self._leases.values()):
                if self._is_held(lease):
                    waits.append(lease.end - self._machine.seconds())
                elif not lease.has_teller:
                    lease.has_teller = True
                    self._world.begin(self._process, "lapsed", partial(self._tell, lease))
            if not self._changed.is_set():
                self._changed.wait(max(0.001, min(waits)) / self._machine.rate)

    def _tell(self, lease: Lease) -> None:
        self._world.tell(f"{self._process.name}: {lease.owner_id} can't be sure that it lives")
        while lease.lapsed is not None and not self.is_closed:
            try:
                lease.lapsed()
                break
            except SessionFsmError:
                self._machine.sleep(self.beat_seconds)
        lease.is_told = True

    def close(self) -> None:
        """Let go of every owner."""
        self.is_closed = True
        gone = [
            each.owner_id for each in self._leases.values() if each.is_told or not each.is_lapsed
        ]
        self._leases.clear()
        self._changed.set()
        self._remove(gone)


def unreachable(operation_id: str | None = None) -> StoreUnavailableError:
    """Return what a caller is told whose patience has come to an end."""
    return StoreUnavailableError(problem="the database did not answer", operation_id=operation_id)
