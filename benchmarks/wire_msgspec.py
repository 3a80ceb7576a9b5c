"""The state as a struct of msgspec."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.json import Decoder, Encoder

from .wire import Pair

Word = Annotated[str, Meta(min_length=1, max_length=255)]
Instant = Annotated[datetime, Meta(tz=True)]


class Status(StrEnum):
    """The statuses."""

    INITIALIZING = "initializing"
    ACTIVE = "active"
    IDLE = "idle"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """How a session may be used."""

    max_conversations: Annotated[int, Meta(ge=1)] | None = 100
    timeout_minutes: Annotated[int, Meta(ge=1, le=527_040_000)] | None = 30
    persistence_enabled: bool | None = None
    features: Annotated[tuple[Word, ...], Meta(max_length=1000)] = ()


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """The state of a session."""

    session_id: Word
    status: Status
    created_at: Instant
    updated_at: Instant
    status_since: Instant
    last_activity_at: Instant
    format: Literal[1] = 1
    config: Config = Config()
    llm_config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    active_tasks: Annotated[tuple[Word, ...], Meta(max_length=10_000)] = ()
    conversation_count: Annotated[int, Meta(ge=0)] = 0
    error: Annotated[str, Meta(max_length=65_536)] | None = None

    def __post_init__(self) -> None:
        """Check what can't be declared."""
        for word in (self.session_id, *self.active_tasks, *self.config.features):
            if not word.isprintable() or word != word.strip():
                raise ValueError("expected printable characters, no blank at either end")
        for words in (self.active_tasks, self.config.features):
            if len(set(words)) != len(words):
                raise ValueError("stands twice")
        first, last = self.created_at, self.updated_at
        if not first <= self.status_since <= last or not first <= self.last_activity_at <= last:
            raise ValueError("instants out of order")
        if self.active_tasks and self.status not in {Status.ACTIVE, Status.TERMINATING}:
            raise ValueError("tasks in a status that holds none")


def pair(text: bytes) -> Pair:
    """Return what writes and reads the state that a text tells."""
    decode, encode = Decoder(Record).decode, Encoder().encode
    record = decode(text)
    return lambda: encode(record), lambda: decode(text)
