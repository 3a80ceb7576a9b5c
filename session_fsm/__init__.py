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
    LifecycleError,
    ManagerClosedError,
    Refusal,
    RevisionConflictError,
    SchemaVersionError,
    SessionExistsError,
    SessionFsmError,
    SessionNotFoundError,
    SessionStartError,
    StateInvalidError,
    StoreError,
    StoreUnavailableError,
    TransitionError,
)
from .explain import explain, is_valid, is_valid_transition, permitted, validate
from .guards import Attempt, Deadline, Guard
from .jsonvalue import JsonArray, JsonObject
from .lifecycle import LIVE, Lifecycle, Row
from .machine import SessionMachine, step, transition
from .manager import SessionManager
from .serialization import deserialize, dumps, json_schema, loads, serialize
from .session import (
    Page,
    RecoveryReport,
    Session,
    SessionEvent,
    SweepReport,
    VerifyReport,
)
from .state import SessionConfig, SessionState, SessionStatus
from .stores import open_store
from .table import SESSION_LIFECYCLE

__all__ = [
    "LIVE",
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
    "Lifecycle",
    "LifecycleError",
    "ManagerClosedError",
    "Page",
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
    "StateInvalidError",
    "StoreError",
    "StoreUnavailableError",
    "SweepReport",
    "SystemClock",
    "TransitionError",
    "VerifyReport",
    "deserialize",
    "dumps",
    "explain",
    "is_valid",
    "is_valid_transition",
    "json_schema",
    "loads",
    "open_store",
    "permitted",
    "serialize",
    "step",
    "transition",
    "validate",
]
