"""What a store keeps as bytes, read and compared with what stands beside it.

All stores that keep bytes read them here, so that each of them says the same of what is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import (
    CorruptRecordError,
    DeserializationError,
    LifecycleError,
    SchemaVersionError,
)
from ..history import Unveil, decode
from ..jsontext import parse_json, parse_written
from ..jsonvalue import MAX_JSON_DEPTH, freeze_value, frozen_json
from ..lifecycle import Lifecycle
from ..serialization import FORMATS, loads, newer_format
from ..session import SessionEvent
from ..state import SessionState

ItemPlace = tuple[str, str, str]
"""Where an item stands: session, table, key."""


def read_state(
    text: bytes,
    lifecycle: Lifecycle,
    *,
    session_id: str,
    lives_by: str,
    status: str,
    uncover: Callable[[bytes], bytes] | None = None,
) -> SessionState:
    """Read the state of a session.

    Args:
        text: The state as it is kept.
        lifecycle: The lifecycle of the store.
        session_id: Whose state it should be.
        lives_by: The name of the session's lifecycle.
        status: The status that the session is listed in.
        uncover: Returns it as it was before it was encrypted; errors as here. None: it was not.

    Raises:
        LifecycleError: The session runs in another lifecycle.
        SchemaVersionError: It is of a format that is not known here.
        CorruptRecordError: It can't be read, or is not that session's, or not in that status.
        KeyMissingError: It is encrypted with a key that is not here.
    """
    if lives_by != lifecycle.name:
        problem = f"session {session_id!r} runs in the lifecycle {lives_by!r}"
        raise LifecycleError(problem=problem, lifecycle=lifecycle.name)
    record = f"session {session_id!r}"
    try:
        if uncover is not None:
            text = uncover(text)
        state = loads(text, lifecycle)
    except DeserializationError as fault:
        if (number := newer_format(text)) is not None:
            raise SchemaVersionError(
                found=f"{number} of {record}", supported=", ".join(map(str, FORMATS))
            ) from fault
        raise CorruptRecordError(record=record, problems=fault.problems) from fault
    if state.session_id != session_id:
        problem = f"holds the state of {state.session_id!r}"
        raise CorruptRecordError(record=record, problems=(problem,))
    if state.status != status:
        problem = f"is listed as {status!r}, its state as {str(state.status)!r}"
        raise CorruptRecordError(record=record, problems=(problem,))
    return state


def read_event(
    body: bytes,
    digest: str,
    lifecycle: Lifecycle,
    *,
    session_id: str,
    revision: int,
    unveil: Unveil | None = None,
) -> SessionEvent:
    """Read an event of a session.

    Args:
        body: The event as it is kept.
        digest: Its digest.
        lifecycle: The lifecycle of the store.
        session_id: Whose event it should be.
        revision: The revision that it should lead to.
        unveil: See `history.decode`.

    Raises:
        SchemaVersionError: It is of a format that is not known here.
        CorruptRecordError: It can't be read, its digest is another one, or it is not that event.
        KeyMissingError: It is encrypted with a key that is not here.
    """
    record = f"event {revision} of session {session_id!r}"
    try:
        event = decode(body, digest, lifecycle, unveil)
    except DeserializationError as fault:
        raise CorruptRecordError(record=record, problems=fault.problems) from fault
    except SchemaVersionError as fault:
        found = f"{fault.found} ({record})"
        raise SchemaVersionError(found=found, supported=fault.supported) from fault
    if (event.session_id, event.revision) != (session_id, revision):
        problem = f"holds event {event.revision} of session {event.session_id!r}"
        raise CorruptRecordError(record=record, problems=(problem,))
    return event


# --- items of tables -------------------------------------------------------------------------


def item_record(place: ItemPlace) -> str:
    """Name an item, as errors do."""
    session_id, table, key = place
    return f"item {key!r} in table {table!r} of session {session_id!r}"


@contextmanager
def reading_item(place: ItemPlace) -> Iterator[None]:
    """Have what goes wrong with reading an item be told of it.

    Raises:
        CorruptRecordError: What was done inside has raised `DeserializationError`, or `ValueError`,
            as for an instant that is none, or text that is no JSON.
    """
    try:
        yield
    except DeserializationError as fault:
        record = item_record(place)
        raise CorruptRecordError(record=record, problems=fault.problems) from fault
    except ValueError as fault:
        raise CorruptRecordError(record=item_record(place), problems=(str(fault),)) from None


def read_value(text: bytes) -> Any:
    """Return what `dump_json` wrote, deeply immutable.

    Raises:
        DeserializationError: It is no value that is kept.
        JsonError: It is no JSON.
    """
    value = parse_written(text)
    if value is not None:
        return frozen_json(value, MAX_JSON_DEPTH)
    frozen, problems = freeze_value(parse_json(text), "value")
    if problems:
        raise DeserializationError(problems=tuple(problems))
    return frozen


def place_problems(
    place: ItemPlace, *, lives_by: str | None, kept_for: str, given: int | None, version: int
) -> Iterator[str]:
    """Name what is wrong with where an item stands.

    Args:
        place: Where.
        lives_by: The lifecycle of its session; None: there is none.
        kept_for: The lifecycle that stands beside the item.
        given: The last version that was given in the session; None: none was.
        version: That of the item.
    """
    record = item_record(place)
    if lives_by is None:
        yield f"{record}: the session is not stored"
        return
    if lives_by != kept_for:
        yield f"{record}: the session runs in the lifecycle {lives_by!r}, the item in {kept_for!r}"
    if given is None or version > given:
        yield f"{record}: its version {version} was not given yet"
