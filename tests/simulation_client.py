"""What the callers of a node do: any verb, on any session, at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from session_fsm import Put, SessionManager
from session_fsm.errors import ManagerClosedError, SessionFsmError

if TYPE_CHECKING:
    from simulation_node import Node

POLICIES: Final = ("release", "restart", "restart", "end")


def _counted(metadata: Any) -> Any:
    return {**metadata, "n": metadata.get("n", 0) + 1}


class Client:
    """Calls the manager of a node.

    Args:
        node: The node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: list[tuple[str, str]] = []
        self._verbs = (
            (self._create, 6),
            (self._begin_task, 4),
            (self._end_task, 3),
            (self._update, 4),
            (self._update_expected, 2),
            (self._converse, 2),
            (self._touch, 1),
            (self._put, 2),
            (self._terminate, 1),
            (self._fail, 1),
            (self._compact, 4),
        )

    @property
    def _manager(self) -> SessionManager:
        manager = self._node.manager
        if manager is None:
            raise ManagerClosedError
        return manager

    def run(self) -> None:
        """Call, now and then."""
        town = self._node.town
        chance = town.world.chance
        verbs = [verb for verb, _ in self._verbs]
        weights = [weight for _, weight in self._verbs]
        while not town.is_over:
            town.world.sleep(chance.uniform(0.5, 10.0))
            session_id = town.a_session()
            [verb] = chance.choices(verbs, weights)
            try:
                verb(session_id)
            except ManagerClosedError:
                return
            except SessionFsmError as fault:
                town.world.tell(f"{self._who}: {session_id}: {type(fault).__name__}")

    def work(self, session_id: str) -> None:
        """Do what a worker does for its session."""
        if self._node.town.world.chance.random() < 0.5:
            self._update(session_id)
            return
        self._begin_task(session_id)
        self._node.town.world.sleep(self._node.town.world.chance.uniform(0, 5))
        self._end_task(session_id)

    @property
    def _who(self) -> str:
        return self._node.process.name

    # --- verbs ----------------------------------------------------------------------------

    def _create(self, session_id: str) -> None:
        town = self._node.town
        chance = town.world.chance
        session_id = town.another_session()
        start = self._node.start if chance.random() < 0.8 else None
        policy = chance.choice(POLICIES)
        number = town.ledger.next_mark()
        mark = f"created {number}"
        with town.ledger.call(
            self._who, f"create {session_id} to {policy}", mark, is_one=start is None
        ):
            self._manager.create(
                session_id,
                config={"timeout_minutes": chance.choice((1, None)), "recovery": policy},
                llm_config={"by": number},
                metadata={"n": 0},
                start=start,
            )

    def _begin_task(self, session_id: str) -> None:
        town = self._node.town
        task = town.ledger.next_mark()
        limit = town.world.chance.choice((None, 5.0, 25.0))
        with town.ledger.call(
            self._who, f"begin_task {session_id} for {limit}", f"begin {task}"
        ) as asked:
            self._manager.begin_task(session_id, task, timeout_seconds=limit)
        if asked.outcome != "refused":
            self._tasks.append((session_id, task))

    def _end_task(self, session_id: str) -> None:
        town = self._node.town
        mine = [each for each in self._tasks if each[0] == session_id] or self._tasks
        if not mine:
            return
        session_id, task = town.world.chance.choice(mine)
        self._tasks.remove((session_id, task))
        # Whoever wants it to end may see that somebody else has ended it: by its deadline, or with
        # the session.
        with town.ledger.call(self._who, f"end_task {session_id}", f"end {task}", is_one=False):
            self._manager.end_task(session_id, task)

    def _update(self, session_id: str) -> None:
        town = self._node.town
        mark = f"count {town.ledger.next_mark()}"
        writes = []
        if town.world.chance.random() < 0.3:
            town.ledger.pairs.add(mark)
            writes.append(Put("notes", "last", f"{mark} value"))
        with town.ledger.call(self._who, f"update {session_id}", mark):
            self._manager.update(session_id, metadata=_counted, reason=mark, writes=writes)

    def _update_expected(self, session_id: str) -> None:
        town = self._node.town
        mark = f"count {town.ledger.next_mark()}"
        revision = self._manager.get(session_id).revision
        town.world.sleep(town.world.chance.uniform(0, 0.1))
        with town.ledger.call(self._who, f"update {session_id} at {revision}", mark):
            session = self._manager.update(
                session_id, metadata=_counted, reason=mark, expected_revision=revision
            )
            if session.revision < revision + 1:
                town.world.failed(f"update of {session_id} at {revision} led to {session.revision}")

    def _converse(self, session_id: str) -> None:
        town = self._node.town
        mark = f"talk {town.ledger.next_mark()}"
        with town.ledger.call(self._who, f"start_conversation {session_id}", mark):
            self._manager.fire(session_id, "start_conversation", reason=mark)

    def _touch(self, session_id: str) -> None:
        self._manager.touch(session_id)

    def _put(self, session_id: str) -> None:
        town = self._node.town
        mark = f"note {town.ledger.next_mark()}"
        with town.ledger.call(self._who, f"put {session_id}", mark):
            self._manager.table(session_id, "notes").put("last", mark)

    def _compact(self, session_id: str) -> None:
        self._manager.compact(session_id, keep=self._node.town.world.chance.choice((1, 3)))

    def _terminate(self, session_id: str) -> None:
        town = self._node.town
        mark = f"terminate {town.ledger.next_mark()}"
        wait = town.world.chance.random() < 0.5
        with town.ledger.call(
            self._who, f"terminate {session_id}", mark, is_one=False, may_be_none=True
        ):
            self._manager.terminate(session_id, reason=mark, wait=wait)
            town.check_ended(session_id, final=wait)

    def _fail(self, session_id: str) -> None:
        town = self._node.town
        mark = f"fail {town.ledger.next_mark()}"
        with town.ledger.call(
            self._who, f"fail {session_id}", mark, is_one=False, may_be_none=True
        ):
            self._manager.fail(session_id, mark)
            town.check_ended(session_id, final=False)
