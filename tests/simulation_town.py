"""Some nodes and their database, and what goes wrong with them."""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs
from simulated_database import SimulatedDatabase
from simulated_guards import Guarded
from simulated_leases import Machine
from simulated_network import Network, Trouble
from simulated_world import Process, World
from simulation_invariants import Invariants
from simulation_ledger import Ledger, marks_in
from simulation_node import Node

from session_fsm import SESSION_LIFECYCLE, SessionManager

LIFECYCLE: Final = SESSION_LIFECYCLE.extend(graces={"start": 12.0, "stop": 10.0})
LEASE_SECONDS: Final = 30.0
DRIFT: Final = 0.05
"""So much faster or slower a clock may run."""
SLOTS: Final = 6
"""So many sessions live at a time."""
LOOK_SECONDS: Final = 5.0
"""How often it is looked whether anything waits longer than it may."""
QUIET_SECONDS: Final = 75.0
"""How long nothing goes wrong, in the end, until everything has to be in order."""

CALM: Final = Trouble(slow=0.005, repeated=0.01)
TROUBLES: Final = (
    attrs.evolve(CALM, stalled=0.01),
    Trouble(slow=0.02, late=0.005, lost=0.01, cut=0.01, repeated=0.05, stalled=0.01),
    Trouble(slow=0.05, late=0.03, lost=0.05, cut=0.03, repeated=0.2),
)


class Town:
    """Some nodes and their database.

    Args:
        world: Time and chance.
        guarded: What is seen to.
    """

    lifecycle = LIFECYCLE
    lease_seconds = LEASE_SECONDS
    clients = 2

    def __init__(self, world: World, guarded: Guarded) -> None:
        chance = world.chance
        self.world = world
        self.ledger = Ledger(world)
        self.database = SimulatedDatabase(world, LIFECYCLE, guarded, lease_seconds=LEASE_SECONDS)
        self.trouble = chance.choice(TROUBLES)
        self.network = Network(world, self.trouble, self._stall)
        self.nodes: list[Node] = []
        self.invariants = self.database.witness = Invariants(self)
        self.is_over = False
        self.max_takeovers = chance.choice((1, 2, 3))
        self.chaos_seconds = chance.uniform(40.0, 120.0)
        self._lives = [0] * SLOTS
        for number in range(chance.choice((3, 4))):
            rate = chance.uniform(1 - DRIFT, 1 + DRIFT)
            machine = Machine(world, rate, chance.uniform(0, 1e6))
            self.nodes.append(Node(self, f"n{number}", machine))

    # --- sessions -------------------------------------------------------------------------

    def a_session(self) -> str:
        """Return the id of one that lives, or did a moment ago."""
        slot = self.world.chance.randrange(SLOTS)
        return f"s{slot}-{self._lives[slot]}"

    def another_session(self) -> str:
        """Return the id of one that is to be created, if it is not there already."""
        slot = self.world.chance.randrange(SLOTS)
        session_id = f"s{slot}-{self._lives[slot]}"
        stored = self.database.load(session_id)
        if stored is not None and stored.state.status in LIFECYCLE.final:
            self._lives[slot] += 1
        return f"s{slot}-{self._lives[slot]}"

    def check_ended(self, session_id: str, *, final: bool) -> None:
        """See that a session that was ended is ending, or has ended."""
        stored = self.database.load(session_id)
        status = None if stored is None else stored.state.status
        if status not in LIFECYCLE.final and (final or status not in LIFECYCLE.drains):
            self.world.failed(f"{session_id} was ended, and is {status}")

    # --- what goes wrong ------------------------------------------------------------------

    def begin(self) -> None:
        """Let everything begin."""
        world = self.world
        for node in self.nodes:
            node.boot()
        world.checks.append(self.invariants.look_at_workers)
        self._look()
        self._go_wrong()

    def _look(self) -> None:
        self.invariants.look_at_time()
        self.world.after(LOOK_SECONDS, self._look)

    def _go_wrong(self) -> None:
        world, chance = self.world, self.world.chance
        if world.now > self.chaos_seconds:
            return
        node = chance.choice(self.nodes)
        harm = chance.choices(
            (self._crash, self._pause, self._cut_off, self._close, self._take_down),
            (4, 4, 4, 1, 1),
        )[0]
        if world.now > 2.0:
            harm(node)
        world.after(chance.uniform(2.0, 30.0), self._go_wrong)

    def _crash(self, node: Node) -> None:
        if not node.process.is_dead:
            node.crash()
        self._boot_later(node, node.process)

    def _boot_later(self, node: Node, process: Process) -> None:
        seconds = self.world.chance.uniform(0.1, 2 * LEASE_SECONDS)
        self.world.after(0.1 if self.is_over else seconds, partial(self._boot, node, process))

    def _boot(self, node: Node, process: object) -> None:
        if node.process is process and node.process.is_dead:
            node.boot()

    def _stall(self, process: Process) -> None:
        for node in self.nodes:
            if node.process is process:
                self._pause(node)

    def _pause(self, node: Node) -> None:
        world, process = self.world, node.process
        if not node.is_up:
            return
        world.tell(f"{process.name} stands still")
        world.pause(process)
        seconds = world.chance.uniform(0.5, 2.5 * LEASE_SECONDS)
        world.after(seconds, partial(self._resume, node, process))

    def _resume(self, node: Node, process: object) -> None:
        if node.process is process and not node.process.is_dead and node.process.is_paused:
            self.world.tell(f"{node.process.name} goes on")
            node.since = self.world.now
            self.world.resume(node.process)

    def _cut_off(self, node: Node) -> None:
        world, process = self.world, node.process
        if process.is_cut_off:
            return
        world.tell(f"{process.name} is cut off")
        process.is_cut_off = True
        seconds = world.chance.uniform(0.5, 2 * LEASE_SECONDS)
        world.after(seconds, partial(self._connect, node, process))

    def _connect(self, node: Node, process: object) -> None:
        if node.process is process and node.process.is_cut_off:
            self.world.tell(f"{node.process.name} is connected again")
            node.process.is_cut_off = False
            node.since = self.world.now

    def _close(self, node: Node) -> None:
        node.close(partial(self._boot_later, node, node.process))

    def _take_down(self, _: Node) -> None:
        world = self.world
        if self.network.is_down:
            return
        world.tell("the database is down")
        self.network.is_down = True
        most = 1.5 * LEASE_SECONDS if world.chance.random() < 0.3 else 8.0
        world.after(world.chance.uniform(0.2, most), self._bring_up)

    def _bring_up(self) -> None:
        if self.network.is_down:
            self.world.tell("the database is up again")
        self.network.is_down = False
        for node in self.nodes:
            node.since = self.world.now

    # --- the end --------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Let nothing go wrong any longer."""
        self.world.tell("nothing goes wrong from here on")
        self.network.trouble = CALM
        self._bring_up()
        self.is_over = True
        for node in self.nodes:
            self._connect(node, node.process)
            self._resume(node, node.process)
            if node.process.is_dead:
                node.boot()

    def check_all(self) -> None:
        """Look at everything that is stored."""
        database, world = self.database, self.world
        self.invariants.look_at_the_end()
        marks: set[str] = set()
        for session_id, life in database._lives.items():
            steps = [stored.step for stored in database.steps_of(session_id)]
            marks |= marks_in(steps)
            counted = sum((step.reason or "").startswith("count ") for step in steps)
            assert life.state is not None
            told = life.state.metadata.get("n")
            if told != counted:
                world.failed(f"lost change: {session_id} was counted {counted} times, not {told}")
        self.ledger.check_all(marks)
        with SessionManager(
            database, lifecycle=LIFECYCLE, clock=database.clock, new_owner_id=lambda: "last"
        ) as manager:
            for problem in manager.verify().problems:
                world.failed(f"history: {problem}")
