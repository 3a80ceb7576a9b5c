"""The state as a model of pydantic."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from .wire import Pair

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _printable(word: str) -> str:
    if not word.isprintable() or word != word.strip():
        raise ValueError("expected printable characters, no blank at either end")
    return word


def _distinct(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(words)) != len(words):
        raise ValueError("stands twice")
    return words


Word = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_printable)]


class Status(StrEnum):
    """The statuses."""

    INITIALIZING = "initializing"
    ACTIVE = "active"
    IDLE = "idle"
    TERMINATING = "terminating"
    TERMINATED = "terminated"


class Config(BaseModel):
    """How a session may be used."""

    model_config = _STRICT

    max_conversations: Annotated[int, Field(ge=1, lt=2**63)] | None = 100
    timeout_minutes: Annotated[int, Field(ge=1, le=527_040_000)] | None = 30
    persistence_enabled: bool | None = None
    features: Annotated[tuple[Word, ...], Field(max_length=1000), AfterValidator(_distinct)] = ()


class Model(BaseModel):
    """The state of a session."""

    model_config = _STRICT

    format: Literal[1] = 1
    session_id: Word
    status: Status
    config: Config = Config()
    llm_config: dict[str, JsonValue] = {}
    metadata: dict[str, JsonValue] = {}
    created_at: AwareDatetime
    updated_at: AwareDatetime
    status_since: AwareDatetime
    last_activity_at: AwareDatetime
    active_tasks: Annotated[
        tuple[Word, ...], Field(max_length=10_000), AfterValidator(_distinct)
    ] = ()
    conversation_count: Annotated[int, Field(ge=0, lt=2**63)] = 0
    error: Annotated[str, Field(max_length=65_536)] | None = None

    @model_validator(mode="after")
    def in_order(self) -> Self:
        """Refuse instants out of order, and tasks where there can be none."""
        first, last = self.created_at, self.updated_at
        if not first <= self.status_since <= last or not first <= self.last_activity_at <= last:
            raise ValueError("instants out of order")
        if self.active_tasks and self.status not in {Status.ACTIVE, Status.TERMINATING}:
            raise ValueError("tasks in a status that holds none")
        return self


def pair(text: bytes) -> Pair:
    """Return what writes and reads the state that a text tells."""
    model = Model.model_validate_json(text)
    return model.model_dump_json, lambda: Model.model_validate_json(text)
