"""An explicit finite-state machine for the life of sessions.

`SessionState` is what a session is, `SESSION_LIFECYCLE` the one table of what it may become,
`SessionManager` what creates, moves, watches, ends and recovers sessions in a store.
"""

from .clock import Clock, IdFactory, SystemClock
from .errors import (
    CorruptRecordError,
    DeserializationError,
    FailedGuard,
    FencedError,
    GuardError,
    GuardRejectedError,
    InvalidTransitionError,
    KeyMissingError,
    LifecycleError,
    ManagerClosedError,
    ProcessDiedError,
    Refusal,
    RevisionConflictError,
    SchemaVersionError,
    SessionExistsError,
    SessionFsmError,
    SessionNotFoundError,
    SessionStartError,
    SessionSupervisedError,
    StateInvalidError,
    StoreError,
    StoreUnavailableError,
    TaskDroppedError,
    TransitionError,
)
from .explain import explain, is_valid, is_valid_transition, permitted, validate
from .guards import Attempt, Deadline, Guard, after_grace, guard, requires_feature
from .jsonvalue import JsonArray, JsonObject
from .keys import Keyring, generate_key
from .lifecycle import LIVE, Lifecycle, Row
from .machine import SessionMachine, step, transition
from .manager import SessionManager
from .orphans import drop_logs, read_log, reap_orphans
from .serialization import deserialize, dumps, json_schema, loads, serialize
from .session import (
    Page,
    Reaped,
    RecoveryReport,
    Session,
    SessionEvent,
    SweepReport,
    VerifyReport,
)
from .state import SessionConfig, SessionState, SessionStatus
from .stores import open_store
from .table import NO_ACTIVE_TASK, NOT_EXPIRED, SESSION_LIFECYCLE

__all__ = [
    "LIVE",
    "NOT_EXPIRED",
    "NO_ACTIVE_TASK",
    "SESSION_LIFECYCLE",
    "Attempt",
    "Clock",
    "CorruptRecordError",
    "Deadline",
    "DeserializationError",
    "FailedGuard",
    "FencedError",
    "Guard",
    "GuardError",
    "GuardRejectedError",
    "IdFactory",
    "InvalidTransitionError",
    "JsonArray",
    "JsonObject",
    "KeyMissingError",
    "Keyring",
    "Lifecycle",
    "LifecycleError",
    "ManagerClosedError",
    "Page",
    "ProcessDiedError",
    "Reaped",
    "RecoveryReport",
    "Refusal",
    "RevisionConflictError",
    "Row",
    "SchemaVersionError",
    "Session",
    "SessionConfig",
    "SessionEvent",
    "SessionExistsError",
    "SessionFsmError",
    "SessionMachine",
    "SessionManager",
    "SessionNotFoundError",
    "SessionStartError",
    "SessionState",
    "SessionStatus",
    "SessionSupervisedError",
    "StateInvalidError",
    "StoreError",
    "StoreUnavailableError",
    "SweepReport",
    "SystemClock",
    "TaskDroppedError",
    "TransitionError",
    "VerifyReport",
    "after_grace",
    "deserialize",
    "drop_logs",
    "dumps",
    "explain",
    "generate_key",
    "guard",
    "is_valid",
    "is_valid_transition",
    "json_schema",
    "loads",
    "open_store",
    "permitted",
    "read_log",
    "reap_orphans",
    "requires_feature",
    "serialize",
    "step",
    "transition",
    "validate",
]
