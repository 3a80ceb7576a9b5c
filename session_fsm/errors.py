"""What can go wrong, as data: the error tree, and the refusal that explains why a move is not made.

Every error has keyword-only fields; its message is built from them, so nobody parses prose. Errors
pickle and copy with their fields. Whose fault it is decides the branch: the caller's move
(`TransitionError`), the caller's data (`StateInvalidError`, `DeserializationError`), the author of
a lifecycle (`LifecycleError`, `GuardError`), or what holds the data (`StoreError`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs

RefusalKind = Literal["unknown_trigger", "unknown_status", "no_edge", "wrong_status", "guard"]


@attrs.frozen
class FailedGuard:
    """A guard that said no, with its reason in words."""

    name: str
    reason: str


@attrs.frozen(kw_only=True)
class Refusal:
    """Why a move is not made, and what could be done instead.

    Attributes:
        kind: `unknown_trigger` and `unknown_status` (no such word), `no_edge` (no hand-fired row
            leads from this status to that one), `wrong_status` (the trigger has no row from this
            status), `guard` (there is a row, and guards said no).
        trigger: The trigger that was asked for; None where a target status was.
        target: The target of the move; None where the status would stay, or is not known.
        status: The status that the session is in.
        failed_guards: Every guard that said no, in the row's order; empty but for `guard`.
        permitted: The triggers that would be accepted now, in the table's order; may be empty.
        next_timed: The trigger that fires by itself next, and when; None if none will.
        broken: Rows that the two above leave out because a guard or deadline of theirs is at
            fault, each as its `GuardError` tells it; empty in a sound lifecycle.
    """

    kind: RefusalKind
    trigger: str | None
    target: str | None
    status: str
    failed_guards: tuple[FailedGuard, ...] = ()
    permitted: tuple[str, ...] = ()
    next_timed: tuple[str, datetime] | None = None
    broken: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.headline}; {self.outlook}"

    @property
    def headline(self) -> str:
        """What was asked, and why not, in one line."""
        match self.kind:
            case "unknown_trigger":
                return f"there is no trigger {self.trigger!r}"
            case "unknown_status":
                return f"there is no status {str(self.target)!r}"
            case "no_edge":
                return f"no row leads from {str(self.status)!r} to {str(self.target)!r}"
            case "wrong_status":
                return f"{self.trigger!r} can't be fired in status {str(self.status)!r}"
            case "guard":
                reasons = "; ".join(failed.reason for failed in self.failed_guards)
                return f"{self.trigger!r} is refused in status {str(self.status)!r}: {reasons}"

    @property
    def outlook(self) -> str:
        """What is permitted now, and what will happen by itself, in one line."""
        told = [f"permitted now: {', '.join(self.permitted) or 'nothing'}"]
        if self.next_timed is not None:
            trigger, at = self.next_timed
            told.append(f"{trigger!r} fires at {at.isoformat()}")
        return "; ".join((*told, *self.broken))


def _rebuild(cls: type[SessionFsmError], fields: Mapping[str, Any]) -> SessionFsmError:
    return cls(**fields)


@attrs.define(kw_only=True, slots=False, eq=False)
class SessionFsmError(Exception):
    """Base of every error that this library raises on purpose."""

    def __str__(self) -> str:
        return type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with positional arguments, which it does not take.
        names = [field.name for field in attrs.fields(type(self))]
        return _rebuild, (type(self), {name: getattr(self, name) for name in names})


@attrs.define(kw_only=True, slots=False, eq=False)
class TransitionError(SessionFsmError):
    """A move was refused; nothing changed.

    Attributes:
        refusal: Why, what is permitted, and what fires by itself.
        session_id: The session that stayed as it was; None where no session was asked.
    """

    refusal: Refusal
    session_id: str | None = None

    def __str__(self) -> str:
        return str(self.refusal)


@attrs.define(kw_only=True, slots=False, eq=False)
class InvalidTransitionError(TransitionError):
    """The table has no such move: unknown word, no edge, or the wrong status."""


@attrs.define(kw_only=True, slots=False, eq=False)
class GuardRejectedError(TransitionError):
    """The table has the move, and at least one of its guards said no."""


def refused(refusal: Refusal, session_id: str) -> InvalidTransitionError | GuardRejectedError:
    """Return the error that tells of a refusal."""
    error = GuardRejectedError if refusal.kind == "guard" else InvalidTransitionError
    return error(refusal=refusal, session_id=session_id)


@attrs.define(kw_only=True, slots=False, eq=False)
class GuardError(SessionFsmError):
    """A guard raised, or returned something that is no bool: a fault in the lifecycle."""

    guard: str
    trigger: str
    problem: str

    def __str__(self) -> str:
        return f"guard {self.guard!r} of {self.trigger!r} {self.problem}"


@attrs.define(kw_only=True, slots=False, eq=False)
class LifecycleError(SessionFsmError):
    """A lifecycle contradicts itself, or lacks what was asked of it.

    Attributes:
        problem: What is wrong, in words, with the row where one is at fault.
        lifecycle: The name of the lifecycle.
    """

    problem: str
    lifecycle: str = "session"

    def __str__(self) -> str:
        return f"lifecycle {self.lifecycle!r}: {self.problem}"


@attrs.define(kw_only=True, slots=False, eq=False)
class SessionNotFoundError(SessionFsmError):
    """No session has this id; it was never created, or was purged."""

    session_id: str

    def __str__(self) -> str:
        return f"there is no session {self.session_id!r}"


@attrs.define(kw_only=True, slots=False, eq=False)
class SessionExistsError(SessionFsmError):
    """A session with this id exists already; ids are free again once purged."""

    session_id: str

    def __str__(self) -> str:
        return f"there is a session {self.session_id!r} already"


@attrs.define(kw_only=True, slots=False, eq=False)
class SessionSupervisedError(SessionFsmError):
    """Something runs for the session already, here or in another process; nothing changed."""

    session_id: str

    def __str__(self) -> str:
        return (
            f"something runs for session {self.session_id!r} already; if whoever ran it is dead,"
            " `recover` lets go of it"
        )


@attrs.define(kw_only=True, slots=False, eq=False)
class TaskDroppedError(SessionFsmError):
    """A task was ended from outside while it was being worked on; the work was cancelled.

    Attributes:
        session_id: Whose task.
        task_id: The task.
        cause: What ended it, in words.
    """

    session_id: str
    task_id: str
    cause: str

    def __str__(self) -> str:
        return f"task {self.task_id!r} of session {self.session_id!r} was dropped: {self.cause}"


@attrs.define(kw_only=True, slots=False, eq=False)
class SessionStartError(SessionFsmError):
    """The start of a session failed; it has ended with the cause in its `error`."""

    session_id: str
    cause: str
    lives: bool = False
    """Whether it has not ended: the store could not be told. Nothing runs for it."""

    def __str__(self) -> str:
        told = f"session {self.session_id!r} did not start: {self.cause}"
        return f"{told}; it could not be ended, and lives on" if self.lives else told


@attrs.define(kw_only=True, slots=False, eq=False)
class ProcessDiedError(SessionFsmError):
    """A worker process ended by itself, and not well.

    Attributes:
        argv0: The program; its arguments may hold secrets, and are left out.
        exit_code: What it exited with; None if it was ended by a signal.
        signal: The number of the signal that ended it; None if it exited. Where both are None,
            somebody else has asked how it ended, and was told.
        last_output: The end of what it said, which may have many lines; secrets that it was given
            in its environment are starred out.
    """

    argv0: str
    exit_code: int | None
    signal: int | None
    last_output: str = ""

    def __str__(self) -> str:
        ends = {"exit code": self.exit_code, "signal": self.signal}
        told = (f"{what} {number}" for what, number in ends.items() if number is not None)
        how = " and ".join(told) or "nobody knows how"
        said = " | ".join(self.last_output.split("\n")[-3:])
        return f"process {self.argv0!r} has ended ({how})" + (f": {said}" if said else "")


@attrs.define(kw_only=True, slots=False, eq=False)
class InboxFullError(SessionFsmError):
    """The worker of a session does not read its messages; the one that was sent is not kept.

    Attributes:
        session_id: The session.
        waiting: How many messages wait to be read.
    """

    session_id: str
    waiting: int

    def __str__(self) -> str:
        return f"the worker of session {self.session_id!r} has {self.waiting} messages to read"


@attrs.define(kw_only=True, slots=False, eq=False)
class ContextTooLargeError(SessionFsmError):
    """What a model has to see at least does not fit into what it may be given.

    Attributes:
        unit: `messages` or `tokens`.
        needed: How many the instructions and the newest message with what belongs to it take.
        allowed: How many there may be.
    """

    unit: str
    needed: int
    allowed: int

    def __str__(self) -> str:
        return (
            f"the instructions and the newest message take {self.needed} {self.unit};"
            f" {self.allowed} are allowed"
        )


@attrs.define(kw_only=True, slots=False, eq=False)
class ItemNotFoundError(SessionFsmError):
    """A table of a session has no item of this key, or none that has not expired."""

    session_id: str
    table: str
    key: str

    def __str__(self) -> str:
        return f"there is no {self.key!r} in table {self.table!r} of session {self.session_id!r}"


@attrs.define(kw_only=True, slots=False, eq=False)
class StateInvalidError(SessionFsmError):
    """Data that no state may hold.

    Attributes:
        problems: Every fault as `path: what is wrong`; at least one.
    """

    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.problems)


@attrs.define(kw_only=True, slots=False, eq=False)
class DeserializationError(SessionFsmError):
    """Stored or sent data that is no session state.

    Attributes:
        problems: Every fault as `path: what is wrong`; at least one.
    """

    problems: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.problems)


@attrs.define(kw_only=True, slots=False, eq=False)
class ManagerClosedError(SessionFsmError):
    """The manager was closed; open another one."""

    def __str__(self) -> str:
        return "the session manager is closed"


@attrs.define(kw_only=True, slots=False, eq=False)
class StoreError(SessionFsmError):
    """What holds the sessions did not do what was asked."""


@attrs.define(kw_only=True, slots=False, eq=False)
class RevisionConflictError(StoreError):
    """Another writer was first; reload and decide again.

    Attributes:
        session_id: The session that was not changed.
        expected: The revision that the change was decided from.
        found: The revision that is stored.
    """

    session_id: str
    expected: int
    found: int

    def __str__(self) -> str:
        return (
            f"session {self.session_id!r} is at revision {self.found}, not at {self.expected}:"
            " reload it and decide again"
        )


@attrs.define(kw_only=True, slots=False, eq=False)
class ItemConflictError(StoreError):
    """An item is not at the version that a write expects; nothing was written.

    Attributes:
        session_id: The session.
        table: The table.
        key: The key of the item.
        expected: The version that was expected; 0: none at all.
        found: The version that is stored; 0: there is none, or it has expired.
    """

    session_id: str
    table: str
    key: str
    expected: int
    found: int

    def __str__(self) -> str:
        place = f"{self.key!r} in table {self.table!r} of session {self.session_id!r}"
        found = f"is at version {self.found}" if self.found else "is not there"
        wanted = f"at {self.expected}" if self.expected else "absent"
        return f"{place} {found}, not {wanted}: read it and decide again"


@attrs.define(kw_only=True, slots=False, eq=False)
class FencedError(StoreError):
    """Whoever writes is counted as dead, or has lost the session to another owner; nothing changed.

    Attributes:
        session_id: The session that was not written; empty where it was about several.
        owner_id: In whose name was written; None where that is not known.
    """

    session_id: str
    owner_id: str | None = None

    def __str__(self) -> str:
        what = f"session {self.session_id!r}" if self.session_id else "what the store holds"
        who = "this owner" if self.owner_id is None else f"owner {self.owner_id!r}"
        return (
            f"{who} may not write {what}: it was not heard of in time, or another owner has taken"
            " over; read afresh and decide again"
        )


@attrs.define(kw_only=True, slots=False, eq=False)
class StoreUnavailableError(StoreError):
    """The store can't be reached or written; whether a change landed is told by its operation id.

    Attributes:
        problem: What the store said, in words.
        operation_id: The change whose fate is not known; None where nothing was being changed,
            or where it is known that nothing changed.
    """

    problem: str
    operation_id: str | None = None

    def __str__(self) -> str:
        if self.operation_id is None:
            return f"{self.problem}; nothing was changed"
        return f"{self.problem}; whether operation {self.operation_id} landed is not known"


@attrs.define(kw_only=True, slots=False, eq=False)
class SchemaVersionError(StoreError):
    """The store, or a record in it, has a format that this version does not know."""

    found: str
    supported: str

    def __str__(self) -> str:
        return f"format {self.found} is not known here; this version reads {self.supported}"


@attrs.define(kw_only=True, slots=False, eq=False)
class CorruptRecordError(StoreError):
    """A stored record can't be read; it is named, never taken for absent.

    Attributes:
        record: Which record, such as `session 'a'` or `event 3 of session 'a'`.
        problems: What is wrong with it; at least one.
    """

    record: str
    problems: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.record} can't be read: {'; '.join(self.problems)}"


@attrs.define(kw_only=True, slots=False, eq=False)
class KeyMissingError(StoreError):
    """A session is encrypted, and the key that opens it is not in the store's keyring.

    Attributes:
        session_id: The session; nothing is wrong with it.
        key_id: The name of the key that is needed, as a keyring tells it.
    """

    session_id: str
    key_id: str

    def __str__(self) -> str:
        return (
            f"session {self.session_id!r} is encrypted with the key {self.key_id}, which is not"
            " here: open the store with a keyring that has it"
        )


@attrs.define(kw_only=True, slots=False, eq=False)
class FeedGapError(StoreError):
    """Events behind a position are not there to be read; nothing was read.

    They were removed by `purge` or `compact`. Or the store has never been as far as the position:
    it is of another store, or this one was put back to what it was before.

    Attributes:
        after: The position that was asked for.
        kept_from: The first position behind which everything is there.
        session_id: Whose events were asked for; None: those of all.
    """

    after: int
    kept_from: int
    session_id: str | None = None

    def __str__(self) -> str:
        whose = "" if self.session_id is None else f" of session {self.session_id!r}"
        problem = (
            f"events{whose} behind position {self.after} were removed before they were read"
            if self.after < self.kept_from
            else f"the store has never been at position {self.after}"
        )
        told = "and read the sessions themselves afresh"
        return f"{problem}: go on from position {self.kept_from}, {told}"
