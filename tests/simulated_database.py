"""The database that simulated nodes share: one place, one clock, and every request at one instant.

It keeps sessions as the store in memory does, and owners by leases, as the PostgreSQL store does: a
session whose worker runs has an owner and a token, and what is written by an owner that does not
live, or with an old token, is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import attrs
from simulated_guards import Before, Guarded, Witness
from simulated_world import World

from session_fsm import Lifecycle
from session_fsm.compaction import Checkpoint
from session_fsm.errors import FencedError
from session_fsm.items import ItemWrites, Written
from session_fsm.stores import MemoryStore
from session_fsm.stores.memory_lives import Life
from session_fsm.stores.records import Abandoned, Commit, StoredStep, Taken, Work

START: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""Where the clock of the database stands at first."""
OWNING: Final = (Work("start"), Work("worker"))
"""Work of which a session has one at a time; whoever has it owns the session."""
Answer = tuple[tuple[Taken, ...], dict[str, int]]
"""What was taken over, and the tokens of the sessions that are owned with it."""


class _DatabaseClock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return START + timedelta(seconds=self._world.now)

    def wait(self, event: threading.Event, timeout_seconds: float) -> bool:
        raise NotImplementedError("the database waits for nobody")


class SimulatedDatabase(MemoryStore):
    """What is stored, and who lives.

    Args:
        world: Time.
        lifecycle: The lifecycle of the sessions.
        guarded: What it sees to.
        lease_seconds: How long an owner lives without a renewal.

    Attributes:
        witness: Told of what it does.
        leases: When the lease of each owner ends, or ended.
    """

    witness: Witness

    def __init__(
        self, world: World, lifecycle: Lifecycle, guarded: Guarded, *, lease_seconds: float
    ) -> None:
        super().__init__(lifecycle)
        self.clock = _DatabaseClock(world)
        self.lease_seconds: float = lease_seconds
        self.leases: dict[str, float] = {}
        self.guarded = guarded
        self._world = world
        self._tokens: dict[str, tuple[int, str | None]] = {}
        self._fences = True
        self._answers: dict[str, Answer] = {}
        self._written: dict[str, tuple[Written, ...]] = {}
        self._behind: dict[str, list[StoredStep]] = {}

    # --- owners ---------------------------------------------------------------------------

    def _is_alive(self, owner_id: str) -> bool:
        if not self._fences:
            return True
        return self.leases.get(owner_id, -1.0) > self._world.now

    def begin_lease(self, owner_id: str, *, again: bool) -> bool:
        """Make an owner known; False if one of this name lives, which is not the asker's own."""
        if self._is_alive(owner_id) and not again:
            return False
        self.leases[owner_id] = self._world.now + self.lease_seconds
        return True

    def renew(self, owner_ids: list[str]) -> list[str]:
        """Renew leases that have not ended; returns those of them that were."""
        alive = [owner_id for owner_id in owner_ids if self._is_alive(owner_id)]
        for owner_id in alive:
            self.leases[owner_id] = self._world.now + self.lease_seconds
        return alive

    def dismiss(self, owner_id: str) -> None:
        """End the lease of an owner."""
        if self._is_alive(owner_id):
            self.leases[owner_id] = self._world.now

    def fence(
        self, owner_ids: Iterable[str], session_id: str = "", stated: Iterable[int] = ()
    ) -> None:
        """Refuse to write for a node of whose owners none lives, or that has lost the session.

        Args:
            owner_ids: The owners of the node.
            session_id: What is written to; empty: nothing that belongs to one session.
            stated: The tokens that they have of it.

        Raises:
            FencedError: It is refused.
        """
        if not self.guarded.fencing:
            return
        tokens = set(stated)
        lost = bool(tokens) and self._tokens.get(session_id, (0, None))[0] not in tokens
        if lost or not any(map(self._is_alive, owner_ids)):
            raise FencedError(session_id=session_id)

    # --- writing --------------------------------------------------------------------------

    def commit_as(self, commit: Commit, token: int | None) -> int | None:
        """Make a commit in the name of an owner that states a token, if it owns the session.

        Returns:
            The token that it has then; None if it does not own the session.
        """
        session_id, owner_id = commit.session_id, commit.owner_id
        life = self._lives.get(session_id)
        before = Before(
            None if life is None or life.state is None else _copy(life),
            0 if life is None else life.revision,
            None if life is None else life.deadline_at,
        )
        stored, owner = self._tokens.get(session_id, (0, None))
        if self.guarded.fencing and token is not None and token != stored:
            raise FencedError(session_id=session_id, owner_id=owner_id)
        made = commit
        if not self.guarded.compare_and_set and not commit.creates and before.life is not None:
            made = attrs.evolve(commit, expected_revision=before.revision)
        self._fences = self.guarded.fencing
        try:
            self.commit(made)
        finally:
            self._fences = True
        if any(work in OWNING for work in commit.claims):
            if owner != owner_id:
                stored, owner = stored + 1, owner_id
        elif not any(work in OWNING for work in self._work.of(session_id)):
            owner = None
        self._tokens[session_id] = stored, owner
        self.witness.committed(commit, before)
        return stored if owner == owner_id else None

    def find_landed(self, session_id: str, operation_id: str) -> tuple[bool, int]:
        """Tell whether a commit has landed, and the revision of the session."""
        life = self._lives.get(session_id)
        if life is None:
            return False, 0
        return operation_id in life.operations, life.revision

    def is_forgotten(self, session_id: str, revision: int) -> bool:
        """Tell whether a checkpoint stands for the step that led to a revision."""
        first = next(iter(self.history(session_id)), None)
        return first is not None and first[1].kind == "checkpoint" and first[1].revision >= revision

    def compact(self, checkpoint: Checkpoint) -> int:
        """Have a checkpoint stand for events, which are kept aside."""
        session_id = checkpoint.event.session_id
        before = self.steps_of(session_id)
        count = super().compact(checkpoint)
        self._behind[session_id] = before[: len(before) - len(self._stored_steps(session_id))]
        self.witness.compacted(session_id)
        return count

    def steps_of(self, session_id: str) -> list[StoredStep]:
        """Return every step of a session, those behind a checkpoint included."""
        return [*self._behind.get(session_id, ()), *self._stored_steps(session_id)]

    def _stored_steps(self, session_id: str) -> list[StoredStep]:
        life = self._lives.get(session_id)
        kept = () if life is None else life.history
        return [each for each in kept if isinstance(each, StoredStep)]

    def has_written(self, operation_id: str) -> bool:
        """Tell whether an operation has written items."""
        return operation_id in self._written

    def write_once(
        self,
        session_id: str,
        expected: int,
        writes: ItemWrites,
        operation_id: str,
        owner_id: str,
    ) -> tuple[Written, ...]:
        """Write items; asked again by the same operation, return what was written."""
        if operation_id not in self._written:
            written = self.write_items(session_id, expected, writes, operation_id, owner_id)
            self._written[operation_id] = written
        return self._written[operation_id]

    def _write(self, session_id: str, writes: ItemWrites) -> tuple[Written, ...]:
        written = super()._write(session_id, writes)
        self.witness.wrote(session_id, writes)
        return written

    # --- taking over ----------------------------------------------------------------------

    def take(
        self,
        owner_id: str,
        limit: int,
        *,
        restarting: bool,
        passing_over: Collection[str],
        operation_id: str,
    ) -> Answer:
        """Take over, at one instant; asked again by the same operation, return what was taken."""
        if operation_id not in self._answers:
            taken = self.take_over(
                owner_id, limit, restarting=restarting, passing_over=passing_over
            )
            self._answers[operation_id] = self._took(owner_id, taken)
        return self._answers[operation_id]

    def look_for_dead(
        self, owner_id: str, limit: int, *, restarting: bool, passing_over: Collection[str]
    ) -> tuple[Abandoned, ...]:
        """Return what could be taken over, and leave it to others as well."""
        self.fence([owner_id])
        left = (each for each in self.abandoned() if each.session_id not in passing_over)
        return tuple(each for each in left if restarting or not self._restarts(each))[:limit]

    def take_found(
        self, owner_id: str, left: tuple[Abandoned, ...], *, operation_id: str
    ) -> Answer:
        """Take over what was found before, whoever has it by now."""
        self.fence([owner_id])
        if operation_id not in self._answers:
            taken = [self._seize(each, owner_id) for each in left]
            found = tuple(each for each in taken if each.work)
            counted = [each for each in found if any(work in OWNING for work in each.work)]
            for session_id in {each.session_id: None for each in counted}:
                count, _ = self._work._takings.get(session_id, (0, None))
                self._work._takings[session_id] = count + 1, self.clock.now()
            told = tuple(
                attrs.evolve(each, attempts=self._work._takings[each.session_id][0])
                if each in counted
                else each
                for each in found
            )
            self._answers[operation_id] = self._took(owner_id, told)
        return self._answers[operation_id]

    def _seize(self, left: Abandoned, owner_id: str) -> Taken:
        claims = self._work._claims.get(left.session_id, {})
        work = tuple(each for each in left.work if each in claims)
        for each in work:
            claims[each].owner_id = owner_id
        return Taken(
            session_id=left.session_id, owner_id=left.owner_id, work=work, holder_id=owner_id
        )

    def _took(self, owner_id: str, taken: tuple[Taken, ...]) -> Answer:
        """Have sessions change hands; returns what was taken, and the tokens that come with it."""
        tokens: dict[str, int] = {}
        for each in taken:
            session_id = each.session_id
            if session_id not in tokens and any(work in OWNING for work in each.work):
                tokens[session_id] = self._tokens.get(session_id, (0, None))[0] + 1
                self._tokens[session_id] = tokens[session_id], owner_id
        if taken:
            self.witness.took(owner_id, taken)
        return taken, tokens

    def answer_of(self, operation_id: str) -> Answer | None:
        """Return what an operation has taken over; None if it was not made."""
        return self._answers.get(operation_id)

    def token_of(self, owner_id: str, session_id: str) -> int | None:
        """Return the token that an owner has of a session; None if it does not own it."""
        stored, owner = self._tokens.get(session_id, (0, None))
        return stored if owner == owner_id else None

    def release(self, session_id: str, work: Iterable[Work], owner_id: str) -> None:
        """Let go of work of one owner, and of the session with it."""
        super().release(session_id, work, owner_id)
        stored, owner = self._tokens.get(session_id, (0, None))
        left = self._work.of(session_id, owner_id)
        if owner == owner_id and not any(each in OWNING for each in left):
            self._tokens[session_id] = stored, None

    def give_back(self, taken: Taken) -> None:
        """Undo a take-over, as far as nobody has gone on with it."""
        held = self.work_of(taken.session_id, taken.holder_id)
        given = tuple(work for work in taken.work if work in held)
        super().give_back(taken)
        stored, owner = self._tokens.get(taken.session_id, (0, None))
        if owner == taken.holder_id:
            self._tokens[taken.session_id] = stored, taken.owner_id
        if given:
            self.witness.gave_back(attrs.evolve(taken, work=given))


def _copy(life: Life) -> Life:
    """Return a life as it is now, without its history."""
    other = Life()
    other.state, other.revision, other.deadline_at = life.state, life.revision, life.deadline_at
    return other
