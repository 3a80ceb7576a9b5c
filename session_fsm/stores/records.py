"""What stores are handed and hand out: work, steps, commits, sessions as they are stored."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import attrs

from ..drafts import draft_class
from ..history import Sealed, Step, Veil, seal
from ..items import ItemWrites
from ..lifecycle import Lifecycle
from ..session import PositionedEvent
from ..state import SessionState

WorkKind = Literal["task", "start", "stop", "worker"]

OWNING: Final = ("start", "worker")
"""Kinds of work of which a session has one at a time; whoever has it owns the session."""
LATELY_SECONDS: Final = 3600.0
"""A session that was not taken over for as long begins to be counted anew."""


@attrs.frozen
class Work:
    """Something in progress that an owner answers for as long as it lives.

    Attributes:
        kind: `task` (in flight), `start` and `stop` (being done), `worker` (running).
        item: The id of the task; empty for the others.
    """

    kind: WorkKind
    item: str = ""


class StoredStep:
    """One step, ready to be written; it becomes an event with bytes when that is first asked for.

    A store that keeps bytes asks at once. One that keeps objects need not, until somebody wants to
    see the history.

    Args:
        step: What was decided.
        revision: The revision that it leads to.
        previous: What its event is chained to.
        deadline_at: When the first timed row of its state fires; None if none will.

    Threads: safe; whoever asks first makes the event, and two who do make equal ones.
    """

    __slots__ = ("_previous", "_sealed", "deadline_at", "position", "revision", "step")

    position: int
    """Set by a store that keeps it as it is, for its own use."""

    def __init__(
        self, step: Step, revision: int, previous: Tail, deadline_at: datetime | None
    ) -> None:
        self.step = step
        self.revision = revision
        self.deadline_at = deadline_at
        self._previous = previous
        self._sealed: Sealed | None = None

    @property
    def state(self) -> SessionState:
        """The state that the step leads to."""
        return self.step.after

    @property
    def sealed(self) -> Sealed:
        """The event and its bytes."""
        if (sealed := self._sealed) is not None:
            return sealed
        # Not by recursion: a life may have any number of steps that nobody has asked for.
        waiting: list[StoredStep] = [self]
        while isinstance(previous := waiting[-1]._previous, StoredStep) and not previous._sealed:
            waiting.append(previous)
        for each in reversed(waiting):
            digest = digest_of(each._previous)
            sealed = each._sealed = seal(each.step, revision=each.revision, previous=digest)
            each._previous = digest  # the steps before it are not kept for its sake
        assert sealed is not None
        return sealed

    def seal_veiled(self, veil: Veil, previous: str | None) -> Sealed:
        """Make the event with its changes veiled in the bytes, before anybody asks for it.

        Args:
            veil: See `history.seal`.
            previous: The digest that it is chained to; None: the one that it was made with.
        """
        digest = digest_of(self._previous) if previous is None else previous
        sealed = seal(self.step, revision=self.revision, previous=digest, veil=veil)
        self._sealed, self._previous = sealed, digest
        return sealed


Tail = StoredStep | str
"""What the next event of an id is chained to: the step before it, or that one's digest."""


def digest_of(tail: Tail) -> str:
    """Return the digest that the next event is chained to."""
    return tail if isinstance(tail, str) else tail.sealed.event.digest


@attrs.frozen
class Stored:
    """A session as it is stored.

    Attributes:
        state: Its state.
        revision: The revision of its last event.
        tail: What the next event is chained to.
    """

    state: SessionState
    revision: int
    tail: Tail = attrs.field(eq=digest_of, repr=digest_of)

    @property
    def digest(self) -> str:
        """The digest of its last event."""
        return digest_of(self.tail)


@attrs.frozen(kw_only=True)
class Commit:
    """Steps of one session that are written together.

    Attributes:
        session_id: Whose steps.
        operation_id: Random; tells later whether the commit landed.
        owner_id: In whose name work is claimed.
        expected_revision: The revision that was decided from; of the last event of the id.
        creates: Whether the first step creates the session.
        steps: At least one, in order; each is written by itself, seen only together.
        claims: Work that the owner takes upon itself.
        releases: Work that nobody answers for any longer, whoever did.
        stops_worker: Whether a worker that runs for the session is to be stopped.
        origin: Where it creates: the tombstone that the id goes on from, if another store has it.
            A store whose own events of the id end earlier has it in their place.
        writes: What is written to tables of the session, before the first step; None: nothing,
            as where it creates.
    """

    session_id: str
    operation_id: str
    owner_id: str
    expected_revision: int
    creates: bool
    steps: tuple[StoredStep, ...]
    claims: tuple[Work, ...] = ()
    releases: tuple[Work, ...] = ()
    stops_worker: bool = False
    origin: Sealed | None = None
    writes: ItemWrites | None = None


_new = object.__new__
_CommitDraft = draft_class(Commit)


def commit_of(
    session_id: str,
    operation_id: str,
    owner_id: str,
    expected_revision: int,
    creates: bool,
    steps: tuple[StoredStep, ...],
    claims: tuple[Work, ...],
    releases: tuple[Work, ...],
    stops_worker: bool,
    writes: ItemWrites | None = None,
) -> Commit:
    """Put together a commit, as quickly as can be; there is one for each change."""
    draft = _new(_CommitDraft)
    draft.session_id = session_id
    draft.operation_id = operation_id
    draft.owner_id = owner_id
    draft.expected_revision = expected_revision
    draft.creates = creates
    draft.steps = steps
    draft.claims = claims
    draft.releases = releases
    draft.stops_worker = stops_worker
    draft.origin = None
    draft.writes = writes
    draft.__class__ = Commit
    commit: Commit = draft
    return commit


@attrs.frozen
class Abandoned:
    """What a dead owner left in one session."""

    session_id: str
    owner_id: str
    work: tuple[Work, ...]


@attrs.frozen(kw_only=True)
class Taken:
    """What a dead owner left in one session, and somebody living has taken upon itself.

    Attributes:
        session_id: The session.
        owner_id: The dead owner; empty if nobody has died, and a living one does not do the work.
        work: What it left.
        holder_id: In whose name the work stands now: of whoever took it over, or still of the dead
            one, where the store leaves that to the next commit.
        attempts: How often the session was taken over lately from whoever ran its worker or its
            start, this time included; 0: not counted, as where only other work was left.
        last_taken_at: When it was counted last before this time, however long ago; None: never.
    """

    session_id: str
    owner_id: str
    work: tuple[Work, ...]
    holder_id: str
    attempts: int = 0
    last_taken_at: datetime | None = None


@attrs.frozen
class Fed:
    """What the feed of a store tells, as of one moment.

    Attributes:
        events: Those that were asked for, in the order of their commits; may be empty.
        position: Up to where they were read; that of the last of them if there may be more.
        newest: The position of the newest event of the store.
        removed: The highest position of an event that was removed, of the session that was asked
            for, or of all; 0 if none was.
    """

    events: tuple[PositionedEvent, ...]
    position: int
    newest: int
    removed: int


def carried_over(commit: Commit, tail: int) -> Sealed | None:
    """Return the tombstone of another store that a commit brings, if it is newer than a tail."""
    origin = commit.origin
    return origin if origin is not None and tail < origin.event.revision else None


def ended_at(state: SessionState, lifecycle: Lifecycle) -> datetime | None:
    """Return when a session ended; None if it has not."""
    return state.status_since if state.status in lifecycle.final else None


@attrs.frozen
class UpgradeReport:
    """What an upgrade did.

    Attributes:
        found: The version that the store had; 0: there was none, and it was made.
        version: The version that it has now.
        sessions: How many sessions it holds.
        renewed: Whether the rows of the lifecycle were others, and are known anew.
    """

    found: int
    version: int
    sessions: int
    renewed: bool = False
