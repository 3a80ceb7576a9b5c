"""What a manager hands out: sessions, the events of their lives, pages and reports."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Literal

import attrs

from .drafts import draft_class
from .jsonvalue import EMPTY_OBJECT, JsonObject
from .state import SessionState

EventKind = Literal["created", "moved", "changed", "purged", "checkpoint"]


@attrs.frozen
class Session:
    """A session as it was stored at one revision.

    Attributes:
        state: Its state.
        revision: How many steps it has behind it; one higher for each event.
        worker: What its start returned; None if nothing runs for it here.
    """

    state: SessionState
    revision: int
    worker: Any = attrs.field(default=None, eq=False)

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self.state.session_id

    @property
    def status(self) -> str:
        """The status of the session."""
        return self.state.status


_new = object.__new__
_SessionDraft = draft_class(Session)


def session_of(state: SessionState, revision: int, worker: Any) -> Session:
    """Put together a session, as quickly as can be: every verb returns one."""
    draft = _new(_SessionDraft)
    draft.state = state
    draft.revision = revision
    draft.worker = worker
    draft.__class__ = Session
    session: Session = draft
    return session


@attrs.frozen(kw_only=True)
class SessionEvent:
    """One step of a session's life; never changed once it is stored.

    Attributes:
        session_id: Whose life.
        revision: The revision that the step led to.
        kind: `created`, `moved` (to a status), `changed` (within one), `purged` (all that is left),
            `checkpoint` (stands for the events up to its revision).
        trigger: What was fired; None for `created`, `purged` and `checkpoint`.
        source: The status before; None for `created`.
        target: The status after; the same as the source but for `created` and `moved`.
        at: When.
        reason: Why, in the words of whoever did it; None if nothing was said.
        changes: The fields that got another value, as `serialize` writes them; neither `status`
            nor `updated_at`, which are `target` and `at`. All fields for `created` and
            `checkpoint`, which has `stands_for` beside them.
        digest: SHA-256 over the digest before it and the stored bytes of this event, in hex.
    """

    session_id: str
    revision: int
    kind: EventKind
    trigger: str | None
    source: str | None
    target: str | None
    at: datetime
    reason: str | None = None
    changes: JsonObject = EMPTY_OBJECT
    digest: str = ""


@attrs.frozen(kw_only=True)
class PositionedEvent(SessionEvent):
    """An event, and where it stands among all that its store has committed.

    Attributes:
        position: At least 1; higher for each event, in the order of the commits, whoever made
            them. Numbers may be left out, and none is ever given twice.
    """

    position: int

    @property
    def event(self) -> SessionEvent:
        """The event alone, equal to the one that `history` tells."""
        return SessionEvent(**{name: getattr(self, name) for name in _EVENT_FIELDS})


_EVENT_FIELDS: Final = tuple(field.name for field in attrs.fields(SessionEvent))


def positioned(position: int, event: SessionEvent) -> PositionedEvent:
    """Return an event with its position."""
    fields = {name: getattr(event, name) for name in _EVENT_FIELDS}
    return PositionedEvent(position=position, **fields)


@attrs.frozen
class FeedPage:
    """Some of the events that a store has committed.

    Attributes:
        events: In the order of their commits; may be empty.
        position: What to hand to `read_events(after=…)` for what comes next. It holds across
            restarts. Below zero, it stands for the position without its sign, and says that some of
            the events up to there were removed before they were read, which the reader knows of.
    """

    events: tuple[PositionedEvent, ...]
    position: int

    def __iter__(self) -> Iterator[PositionedEvent]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)


@attrs.frozen
class Page:
    """Some of the sessions, by id.

    Attributes:
        sessions: In the order of their ids; may be empty.
        next: What to hand to `list(after=…)` for the next page; None if this is the last.
    """

    sessions: tuple[Session, ...]
    next: str | None

    def __iter__(self) -> Iterator[Session]:
        return iter(self.sessions)

    def __len__(self) -> int:
        return len(self.sessions)


@attrs.frozen
class SweepReport:
    """What a sweep did.

    Attributes:
        fired: The events of the steps that were made, in the order of their deadlines.
        next_deadline: When to sweep again; None if no clock runs.
        failed: Sessions whose timed row could not be fired, each with the error in words; they
            were left as they were.
    """

    fired: tuple[SessionEvent, ...]
    next_deadline: datetime | None
    failed: tuple[tuple[str, str], ...] = ()


ReapedOutcome = Literal["gone", "ended", "killed", "left", "elsewhere", "unreadable"]


@attrs.frozen(kw_only=True)
class Reaped:
    """What became of a worker process whose manager had died.

    Attributes:
        owner_id: The manager that had begun it.
        session_id: The session that it ran for.
        child: The name of the child that it was.
        outcome: `gone`: nothing of it ran; `ended`: all of it ended when asked to; `killed`: some
            of it had to be killed; `left`: some of it runs all the same, such as what another user
            runs; `elsewhere`: it belongs to another machine, or to another pid namespace of this
            one, and is not seen from here; `unreadable`: its record can't be read. In the last
            three cases the record is kept, for who comes next.
        processes: How many of its processes ran.
    """

    owner_id: str
    session_id: str
    child: str
    outcome: ReapedOutcome
    processes: int = 0


@attrs.frozen
class RecoveryReport:
    """What was done about that which dead owners had left.

    Attributes:
        ended: Ids of the sessions that were ended: half-started or half-stopped ones.
        released: Ids of the sessions that live on without what the dead owner did in them.
        restarted: Ids of the sessions whose worker was started anew here.
        dropped_tasks: Ids of the tasks that were dropped, by session.
        failed: Sessions that could not be recovered, each with the error in words.
        reaped: What became of the worker processes that dead owners had left running.
    """

    ended: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    dropped_tasks: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    reaped: tuple[Reaped, ...] = ()
    restarted: tuple[str, ...] = ()


@attrs.frozen
class VerifyReport:
    """Whether everything stored agrees with its own history.

    Attributes:
        ok: Whether no problem was found.
        problems: Each in words, with the session and revision; empty if there is none.
        sessions: How many sessions were rebuilt and compared.
        events: How many events were read and checked.
        locked: How many sessions are encrypted with a key that is not here: their chains were
            checked, what is in them was not.
    """

    ok: bool
    problems: tuple[str, ...]
    sessions: int
    events: int
    locked: int = 0
