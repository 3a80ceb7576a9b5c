"""The state of a session: frozen data, and every rule that a state obeys on its own.

The rules here need no lifecycle: types, ranges, the order of instants. Which statuses exist, and
which of them may hold tasks, is the lifecycle's business (`explain.validate`).

A constructor names every fault, not the first. Behind it stands a second way in, `derive`, for
changes whose fields alone need checking; both end in the constructor that attrs generates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import attrs

from .clock import utc_now
from .drafts import draft_class
from .errors import StateInvalidError
from .fields import (
    MAX_FEATURES,
    MAX_TASKS,
    MAX_TIMEOUT_MINUTES,
    Check,
    Problems,
    check_deadlines,
    check_flag,
    check_id,
    check_instant,
    check_object,
    check_status,
    check_text,
    choice_of,
    integer_of,
    words_of,
)
from .jsonvalue import EMPTY_OBJECT, JsonObject, shown

_SECRET_WORDS = ("key", "token", "secret", "password")

RecoveryPolicy = Literal["release", "restart", "end"]
RECOVERY_POLICIES: tuple[RecoveryPolicy, ...] = get_args(RecoveryPolicy)


class SessionStatus(StrEnum):
    """The statuses of the session lifecycle; each equals its lower-case word."""

    INITIALIZING = "initializing"
    ACTIVE = "active"
    IDLE = "idle"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


def _config(value: Any, path: str, problems: Problems) -> Any:
    if isinstance(value, SessionConfig):
        return value
    if not isinstance(value, Mapping):
        problems.append(f"{path}: expected a configuration, got {shown(value)}")
        return value
    kept, found = _checked(value, _CONFIG_CHECKS, prefix=f"{path}.")
    if found:
        problems.extend(found)
        return None
    return SessionConfig(**kept)


_CONFIG_CHECKS: dict[str, Check] = {
    "max_conversations": integer_of(1, optional=True),
    "timeout_minutes": integer_of(1, MAX_TIMEOUT_MINUTES, optional=True),
    "persistence_enabled": check_flag,
    "features": words_of(MAX_FEATURES),
    "recovery": choice_of(RECOVERY_POLICIES),
}
_STATE_CHECKS: dict[str, Check] = {
    "session_id": check_id,
    "status": check_status,
    "created_at": check_instant,
    "updated_at": check_instant,
    "status_since": check_instant,
    "last_activity_at": check_instant,
    "config": _config,
    "llm_config": check_object,
    "metadata": check_object,
    "active_tasks": words_of(MAX_TASKS),
    "conversation_count": integer_of(0, optional=False),
    "error": check_text,
    "task_deadlines": check_deadlines,
}
REQUIRED_FIELDS = ("session_id", "status", "created_at", "updated_at")
"""The fields that have no default; every other one may be left out or None."""
DATA_FIELDS = (
    "config",
    "llm_config",
    "metadata",
    "active_tasks",
    "conversation_count",
    "error",
    "task_deadlines",
)
"""The fields that a change of data may set; the rest is set by moves alone."""
_INSTANT_FIELDS = ("created_at", "updated_at", "status_since", "last_activity_at")


def _checked(
    fields: Mapping[str, Any], checks: Mapping[str, Check], *, prefix: str = ""
) -> tuple[dict[str, Any], Problems]:
    """Check the given fields, return them as they are kept, and every fault by path."""
    problems: Problems = []
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in checks:
            plain = isinstance(name, str) and name.isidentifier()
            what = f"{prefix}{name if plain else shown(name)}"
            problems.append(f"{what}: unknown field; known are {', '.join(sorted(checks))}")
        elif not (value is None and name in _DEFAULT_FOR_NONE):
            kept[name] = checks[name](value, f"{prefix}{name}", problems)
    return kept, problems


_DEFAULT_FOR_NONE = frozenset(_STATE_CHECKS).difference(REQUIRED_FIELDS) | {"features"}


def faults(fields: Mapping[str, Any]) -> list[str]:
    """Name every fault of what is to become a state.

    Args:
        fields: Field names and values; required ones may be missing, which is a fault.

    Returns:
        Each fault as `path: what is wrong`, missing fields first; empty if there is none.
    """
    missing = [f"{name}: missing" for name in REQUIRED_FIELDS if name not in fields]
    kept, problems = _checked(fields, _STATE_CHECKS)
    return missing + problems + _disorder(kept) + _strays(kept)


def _disorder(kept: Mapping[str, Any]) -> list[str]:
    """Name each instant that lies outside of [created_at, updated_at]."""
    at = {
        name: kept[name]
        for name in _INSTANT_FIELDS
        if isinstance(kept.get(name), datetime) and kept[name].utcoffset() is not None
    }
    first, last = at.get("created_at"), at.get("updated_at")
    problems = [
        f"{name}: earlier than created_at"
        for name in ("updated_at", "status_since", "last_activity_at")
        if name in at and first is not None and at[name] < first
    ]
    problems += [
        f"{name}: later than updated_at"
        for name in ("status_since", "last_activity_at")
        if name in at and last is not None and at[name] > last
    ]
    return problems


def _strays(kept: Mapping[str, Any]) -> list[str]:
    """Name each task that is due at some time, but is not active."""
    tasks = kept.get("active_tasks") or ()
    return [
        f"task_deadlines: {shown(task)} is no active task"
        for task, _ in kept.get("task_deadlines", ())
        if task not in tasks
    ]


@attrs.frozen(kw_only=True, init=False)
class SessionConfig:
    """How a session may be used.

    Attributes:
        max_conversations: Most conversations that may be started; None: any number.
        timeout_minutes: Minutes without activity and without tasks after which it expires; None:
            never.
        persistence_enabled: Whether it is stored durably; None: as the store does.
        features: Names of what it is allowed to do; distinct, in the order given.
        recovery: What becomes of it when whoever ran its worker has died. `release`: its tasks are
            dropped, and it is put to rest; `restart`: whoever takes it over starts its worker
            anew; `end`: it ends, with the cause in `error`.

    Raises:
        StateInvalidError: A value is out of its range; every fault is named.
    """

    max_conversations: int | None = 100
    timeout_minutes: int | None = 30
    persistence_enabled: bool | None = None
    features: tuple[str, ...] = ()
    recovery: RecoveryPolicy = "release"

    def __init__(
        self,
        *,
        max_conversations: int | None = 100,
        timeout_minutes: int | None = 30,
        persistence_enabled: bool | None = None,
        features: Iterable[str] | None = (),
        recovery: RecoveryPolicy = "release",
    ) -> None:
        kept, problems = _checked(
            {
                "max_conversations": max_conversations,
                "timeout_minutes": timeout_minutes,
                "persistence_enabled": persistence_enabled,
                "features": features,
                "recovery": recovery,
            },
            _CONFIG_CHECKS,
        )
        if problems:
            raise StateInvalidError(problems=tuple(f"config.{problem}" for problem in problems))
        self.__attrs_init__(**kept)

    if TYPE_CHECKING:

        def __attrs_init__(self, **fields: Any) -> None: ...


DEFAULT_CONFIG = SessionConfig()


@attrs.frozen(kw_only=True, init=False)
class SessionState:
    """Everything that is known of a session at one instant; never changed, only replaced.

    Attributes:
        session_id: 1 to 255 printable characters, no blank at either end.
        status: A `SessionStatus`, or a word of the lifecycle that the session runs in.
        config: How the session may be used.
        llm_config: JSON object; settings of the language model.
        metadata: JSON object; whatever the application wants to keep.
        created_at: When it was created; UTC, like every instant here.
        updated_at: When it last changed; never runs backwards.
        status_since: When it entered its status.
        last_activity_at: When somebody last worked with it.
        active_tasks: Ids of the tasks in flight, oldest first.
        conversation_count: Conversations that were started.
        error: Why it failed; None if it did not.
        task_deadlines: Tasks with a time limit, each with the instant at which it is dropped; the
            earliest first. May be given as a mapping.

    Raises:
        StateInvalidError: Every fault by its path. A value of `llm_config` or `metadata` is never
            repeated there.
    """

    session_id: str
    status: str
    config: SessionConfig
    llm_config: JsonObject = attrs.field(repr=lambda value: repr(masked(value)))
    metadata: JsonObject = attrs.field(repr=lambda value: repr(masked(value)))
    created_at: datetime
    updated_at: datetime
    status_since: datetime
    last_activity_at: datetime
    active_tasks: tuple[str, ...]
    conversation_count: int
    error: str | None
    task_deadlines: tuple[tuple[str, datetime], ...] = ()

    def __init__(
        self,
        *,
        session_id: str,
        status: str,
        created_at: datetime,
        updated_at: datetime,
        status_since: datetime | None = None,
        last_activity_at: datetime | None = None,
        config: SessionConfig | Mapping[str, Any] | None = None,
        llm_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        active_tasks: Iterable[str] | None = None,
        conversation_count: int | None = None,
        error: str | None = None,
        task_deadlines: Mapping[str, datetime] | Iterable[tuple[str, datetime]] | None = None,
    ) -> None:
        given = {
            "session_id": session_id,
            "status": status,
            "created_at": created_at,
            "updated_at": updated_at,
            "status_since": status_since,
            "last_activity_at": last_activity_at,
            "config": config,
            "llm_config": llm_config,
            "metadata": metadata,
            "active_tasks": active_tasks,
            "conversation_count": conversation_count,
            "error": error,
            "task_deadlines": task_deadlines,
        }
        kept, problems = _checked(given, _STATE_CHECKS)
        problems += _disorder(kept) + _strays(kept)
        if problems:
            raise StateInvalidError(problems=tuple(problems))
        last = kept["updated_at"]
        self.__attrs_init__(**{"status_since": last, "last_activity_at": last, **_EMPTY, **kept})

    if TYPE_CHECKING:

        def __attrs_init__(self, **fields: Any) -> None: ...

    @classmethod
    def new(
        cls,
        session_id: str,
        *,
        config: SessionConfig | Mapping[str, Any] | None = None,
        llm_config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        at: datetime | None = None,
        status: str = SessionStatus.INITIALIZING,
    ) -> Self:
        """Make the first state of a session.

        Args:
            session_id: 1 to 255 printable characters, no blank at either end.
            config: How the session may be used; None: the defaults.
            llm_config: JSON object, copied; None: empty.
            metadata: JSON object, copied; None: empty.
            at: The instant of creation, aware; None: now, by the system's clock.
            status: The first status of the session's lifecycle.

        Raises:
            StateInvalidError: Every fault by its path.
        """
        instant = utc_now() if at is None else at
        return cls(
            session_id=session_id,
            status=status,
            config=config,
            llm_config=llm_config,
            metadata=metadata,
            created_at=instant,
            updated_at=instant,
        )

    def update(self, *, at: datetime | None = None, **changes: Any) -> Self:
        """Return this state with other data.

        This changes data alone and asks no table: whether a session in its status may be changed
        is told by `step(state, "update", …)`.

        Args:
            at: The instant of the change, aware; lifted to `updated_at` if it is earlier; None:
                now, by the system's clock.
            **changes: New values of `config`, `llm_config`, `metadata`, `active_tasks`,
                `conversation_count`, `error` or `task_deadlines`. A task that is no longer active
                has no deadline either.

        Raises:
            StateInvalidError: A field that is no data, is unknown, or has a bad value.
        """
        refused = [
            f"{name}: is set by moves alone" if name in _STATE_CHECKS else f"{name}: unknown field"
            for name in changes
            if name not in DATA_FIELDS
        ]
        if refused:
            data = {name: value for name, value in changes.items() if name in DATA_FIELDS}
            raise StateInvalidError(problems=(*refused, *_checked(data, _STATE_CHECKS)[1]))
        return self.derive(changes, at=lifted(self, at))

    def derive(
        self,
        changes: Mapping[str, Any],
        at: datetime,
        status: str | None = None,
        status_since: datetime | None = None,
        last_activity_at: datetime | None = None,
    ) -> Self:
        """Return this state with checked changes, at an instant that is not before its last.

        Args:
            changes: Fields of data and new values; checked, None meaning the default where there
                is one.
            at: The new `updated_at`; UTC, at or after the present one.
            status: The new status, known to be right; None: as it is.
            status_since: Its instant, known to be right; None: as it is.
            last_activity_at: The same.

        Raises:
            StateInvalidError: A change has a bad value, or is no field of a state.
        """
        frozen: type[Any] = type(self)
        kind = StateDraft if frozen is SessionState else draft_class(frozen)  # type: ignore[arg-type]
        draft = _new(kind)
        draft.session_id = self.session_id
        draft.status = self.status if status is None else status
        draft.config = self.config
        draft.llm_config = self.llm_config
        draft.metadata = self.metadata
        draft.created_at = self.created_at
        draft.updated_at = at
        draft.status_since = self.status_since if status_since is None else status_since
        if last_activity_at is None:
            last_activity_at = self.last_activity_at
        draft.last_activity_at = last_activity_at
        draft.active_tasks = self.active_tasks
        draft.conversation_count = self.conversation_count
        draft.error = self.error
        draft.task_deadlines = self.task_deadlines
        if changes:
            kept, problems = _checked(changes, _STATE_CHECKS)
            if problems:
                raise StateInvalidError(problems=tuple(problems))
            for name in changes:
                setattr(draft, name, kept.get(name, _EMPTY.get(name)))
            if draft.task_deadlines:
                _keep_to_active(draft, "task_deadlines" in changes)
        draft.__class__ = frozen
        derived: Self = draft
        return derived


def _keep_to_active(draft: Any, given: bool) -> None:
    """Let go of deadlines of tasks that are not active; they are a fault if they were given."""
    tasks, deadlines = draft.active_tasks, draft.task_deadlines
    if given:
        kept = {"active_tasks": tasks, "task_deadlines": deadlines}
        if found := _strays(kept):
            raise StateInvalidError(problems=tuple(found))
    elif len(left := tuple(pair for pair in deadlines if pair[0] in tasks)) < len(deadlines):
        draft.task_deadlines = left


_new = object.__new__
StateDraft = draft_class(SessionState)

_EMPTY: dict[str, Any] = {
    "config": DEFAULT_CONFIG,
    "llm_config": EMPTY_OBJECT,
    "metadata": EMPTY_OBJECT,
    "active_tasks": (),
    "conversation_count": 0,
    "error": None,
    "task_deadlines": (),
}


def utc_of(at: datetime) -> datetime:
    """Return an instant in UTC.

    Raises:
        StateInvalidError: It is naive or no instant.
    """
    if type(at) is datetime and at.tzinfo is UTC and not at.fold:
        return at
    problems: list[str] = []
    instant: datetime = check_instant(at, "at", problems)
    if problems:
        raise StateInvalidError(problems=tuple(problems))
    return instant


def lifted(state: SessionState, at: datetime | None) -> datetime:
    """Return the instant of a change: `at`, or now, but never before the state's last change.

    Raises:
        StateInvalidError: `at` is naive or no instant.
    """
    return max(state.updated_at, utc_now() if at is None else utc_of(at))


def fields_of(state: SessionState) -> dict[str, Any]:
    """Return the fields of a state by name, in the order in which they are declared."""
    return {name: getattr(state, name) for name in STATE_FIELDS}


STATE_FIELDS: tuple[str, ...] = tuple(field.name for field in attrs.fields(SessionState))
CONFIG_FIELDS: tuple[str, ...] = tuple(field.name for field in attrs.fields(SessionConfig))


def masked(value: Any) -> Any:
    """Return JSON with the values of keys that look like secrets replaced."""
    if isinstance(value, Mapping):
        return {
            key: "***" if any(word in key.lower() for word in _SECRET_WORDS) else masked(item)
            for key, item in value.items()
        }
    return [masked(item) for item in value] if isinstance(value, list) else value
